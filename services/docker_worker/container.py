"""A container as the engine shows it, cut down to what we decide on."""

from collections.abc import Mapping
from typing import Any

import msgspec

NEVER = "0001-01-01T00:00:00Z"  # the engine's word for "not yet"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place on a network; empty strings for what it has only while it runs. `id`: another one with
    every connect and every start."""

    network_id: str
    ip_address: str
    mac_address: str
    gateway: str
    id: str = ""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """`status` as the engine names it: created, running, paused, restarting, removing, exited, dead.
    `endpoints` by network name. `started_at`: the engine's own text, equal for equal lives of the container."""

    id: str
    name: str
    labels: dict[str, str]
    image_id: str
    status: str
    started_at: str
    exit_code: int
    error: str
    restart_count: int
    restart_policy: str
    health: str | None
    environment: dict[str, str]
    endpoints: dict[str, Endpoint]

    @property
    def is_running(self) -> bool:
        """Does its process live? A paused one does."""
        return self.status in ("running", "paused")

    @property
    def never_started(self) -> bool:
        """Nothing in it can be lost yet."""
        return self.status == "created" and self.started_at == NEVER


def parse(inspected: Mapping[str, Any]) -> Container:
    """From the answer of the engine's inspect."""
    state, config, host = inspected["State"], inspected["Config"], inspected["HostConfig"]
    networks: Mapping[str, Any] = inspected["NetworkSettings"].get("Networks") or {}
    return Container(
        id=inspected["Id"],
        name=inspected["Name"].removeprefix("/"),
        labels=dict(config.get("Labels") or {}),
        image_id=inspected["Image"],
        status=state["Status"],
        started_at=state["StartedAt"],
        exit_code=state["ExitCode"],
        error=state.get("Error") or "",
        restart_count=inspected.get("RestartCount", 0),
        restart_policy=(host.get("RestartPolicy") or {}).get("Name") or "no",
        health=(state.get("Health") or {}).get("Status"),
        environment=dict(entry.partition("=")[::2] for entry in config.get("Env") or ()),
        endpoints={
            name: Endpoint(
                network_id=endpoint.get("NetworkID") or "",
                # The address it will have is in IPAMConfig while it does not run.
                ip_address=endpoint.get("IPAddress") or (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or "",
                mac_address=(endpoint.get("MacAddress") or "").lower(),
                gateway=endpoint.get("Gateway") or "",
                id=endpoint.get("EndpointID") or "",
            )
            for name, endpoint in networks.items()
        },
    )
