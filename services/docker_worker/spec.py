"""From a device to the engine's words: names, labels and the body of container create. Nothing here acts."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from common.contracts.vnic import Vnic
from services.docker_worker.container import Container
from services.docker_worker.desired import Device, DeviceSpec

OWNER = "io.autonomy.owner"
DEVICE = "io.autonomy.device"
VERSION = "io.autonomy.version"
SPEC_HASH = "io.autonomy.spec-hash"
RECORD = "io.autonomy.record"  # the device as JSON, so that a lost state file is no loss
WITHOUT = "io.autonomy.without"
HELPER = "io.autonomy.helper-of"  # on a helper container, with the device's name

LABELS_VERSION = "1"

RUNTIME_DIRECTORY = "/var/run/runtime"  # users and secrets of the runtime (its own documentation)
OPTIONAL_CAPABILITIES = ("SYS_NICE", "IPC_LOCK")  # real-time scheduling and locked memory; the PLC runs without
# PID 1 of the image is a shell that ignores SIGTERM and SIGINT: with an init that passes SIGINT on to the whole
# group it ends in 1.5-3.8 s with exit code 0, otherwise it is killed after the grace period.
OWN_ENVIRONMENT = {"TINI_KILL_PROCESS_GROUP": "1"}
STOP_SIGNAL = "SIGINT"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

REFUSED = {
    "capabilities": "the host refuses the capabilities " + ", ".join(OPTIONAL_CAPABILITIES)
    + ": the PLC runs without real-time scheduling and locked memory",
    "init": "the engine has no docker-init: the PLC cannot end gracefully and is killed at a stop",
}  # fmt: skip


def internal_network(name: str) -> str:
    return f"{name}_internal"


def macvlan_network(parent: str, subnet: str) -> str:
    """`macvlan_eth0_192.168.1.0_24`, the name technicians know."""
    return f"macvlan_{parent}_{subnet.replace('/', '_')}"


def volume(name: str) -> str:
    return f"{name}_runtime"


def environment_problems(environment: Mapping[str, str]) -> list[str]:
    """Sentences, each with the field path, for what cannot be passed on."""
    found = []
    for key, value in environment.items():
        if not _VARIABLE.fullmatch(key):
            found.append(f"$.environment.{key}: expected a name of letters, digits and _")
        elif key in OWN_ENVIRONMENT:
            found.append(f"$.environment.{key}: expected another name, this one is set by the agent")
        elif "\0" in value:
            found.append(f"$.environment.{key}: expected text without zero bytes")
    return found


def labels(owner: str, name: str) -> dict[str, str]:
    """On everything that belongs to one device."""
    return {OWNER: owner, DEVICE: name, VERSION: LABELS_VERSION}


def spec_hash(spec: DeviceSpec) -> str:
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()


def primary(vnics: tuple[Vnic, ...]) -> Vnic | None:
    """The vNIC whose network is made the container's first: an engine below 25 gives a MAC to that one only."""
    return next((vnic for vnic in vnics if vnic.mac_address), vnics[0] if vnics else None)


def dns_servers(vnics: Iterable[Vnic]) -> tuple[str, ...]:
    """Those of all vNICs, each once; a resolver asks no more than three."""
    return tuple(dict.fromkeys(server for vnic in vnics for server in vnic.dns))[:3]


def without_label(device: Device) -> str:
    return ",".join(device.without)


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A network the container shall be on, with its real name on this engine."""

    network: str
    network_id: str
    ip_address: str | None = None
    mac_address: str | None = None


def container_config(
    device: Device,
    owner: str,
    attachments: tuple[Attachment, ...],
    *,
    dns: Sequence[str] = (),
    per_network_mac: bool,
) -> dict[str, Any]:
    """The body of container create.

    `attachments`: the internal network first, then one per vNIC, the primary one first. With `per_network_mac` (API
    1.44) all of them are made at create; before, only the first MACVLAN one, which alone can have a MAC, and the
    others have to be connected before the start. `dns`: servers, which the engine does not change later.
    """
    first = attachments[1] if len(attachments) > 1 else attachments[0]
    at_create = attachments if per_network_mac else (first,)
    config: dict[str, Any] = {
        "Image": device.image_id,
        "Hostname": device.name,
        "Env": [f"{key}={value}" for key, value in {**device.spec.environment, **OWN_ENVIRONMENT}.items()],
        "Labels": labels(owner, device.name)
        | {SPEC_HASH: spec_hash(device.spec), RECORD: record(device), WITHOUT: without_label(device)},
        "StopSignal": STOP_SIGNAL,
        "HostConfig": _host_config(device, first.network, dns),
        "NetworkingConfig": {
            "EndpointsConfig": {one.network: _endpoint(one, per_network_mac=per_network_mac) for one in at_create}
        },
    }
    if not per_network_mac and first.mac_address:
        config["MacAddress"] = first.mac_address
    return config


def _host_config(device: Device, network: str, dns: Sequence[str]) -> dict[str, Any]:
    host: dict[str, Any] = {
        # By name, not by id: a network that had to be made again under its name then fits at the next start.
        "NetworkMode": network,
        "RestartPolicy": {"Name": restart_policy(device)},
        "Mounts": [{"Type": "volume", "Source": volume(device.name), "Target": RUNTIME_DIRECTORY}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        "SecurityOpt": ["no-new-privileges"],
        "Dns": list(dns),
    }
    if "capabilities" not in device.without:
        host["CapAdd"] = list(OPTIONAL_CAPABILITIES)
    if "init" not in device.without:
        host["Init"] = True
    return host


def _endpoint(attachment: Attachment, *, per_network_mac: bool) -> dict[str, Any]:
    endpoint: dict[str, Any] = {}
    if attachment.ip_address:
        endpoint["IPAMConfig"] = {"IPv4Address": attachment.ip_address}
    if per_network_mac and attachment.mac_address:
        endpoint["MacAddress"] = attachment.mac_address
    return endpoint


def restart_policy(device: Device) -> str:
    """The engine shall bring back what shall run, and nothing else."""
    return "always" if device.power == "running" else "no"


def record(device: Device) -> str:
    """The device for its label. Values of variables stay out: the container has them anyway."""
    spec = msgspec.structs.replace(device.spec, environment=dict.fromkeys(device.spec.environment, ""))
    return msgspec.json.encode(msgspec.structs.replace(device, spec=spec)).decode()


def from_labels(container: Container) -> Device:
    """The device that a container of ours was made for. Raises ValueError when its labels are not legible."""
    kept = msgspec.json.decode(container.labels.get(RECORD, ""), type=Device)
    environment = {key: container.environment.get(key, "") for key in kept.spec.environment}
    return msgspec.structs.replace(
        kept,
        spec=msgspec.structs.replace(kept.spec, environment=environment),
        image_id=container.image_id,
        power="running" if container.restart_policy == "always" else "stopped",
        restart_from=None,
    )
