"""The networks of the devices: one internal bridge each, and MACVLAN networks that devices share.

`<name>_internal` gets a /29 of our own pool: the engine's default pools end after 28 networks and may shadow a LAN.
`macvlan_<parent>_<subnet>` is made once and reused, also when somebody else made it or gave it another name.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec

from common.contracts.vnic import Vnic
from services.docker_worker import spec
from services.docker_worker.engine import Engine
from services.docker_worker.errors import EngineError, StepFailed, failed
from services.docker_worker.owner import Owner

INTERNAL_PREFIX = 29  # the vPLC, the bridge, and room for an agent that does not use the host's network
ROUTES = Path("/proc/net/route")

Announce = Callable[[str], None]


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network as the engine lists it; `parent` only of a MACVLAN one."""

    id: str
    name: str
    driver: str
    parent: str
    subnets: tuple[str, ...]
    gateway: str | None
    labels: dict[str, str]


def parse(listed: Mapping[str, Any]) -> Network:
    """From an entry of the engine's list."""
    pools: Sequence[Mapping[str, Any]] = (listed.get("IPAM") or {}).get("Config") or ()
    return Network(
        id=listed["Id"],
        name=listed["Name"],
        driver=listed["Driver"],
        parent=(listed.get("Options") or {}).get("parent", ""),
        subnets=tuple(pool["Subnet"] for pool in pools if pool.get("Subnet")),
        # An internal network makes no default route, whatever address its pool calls the gateway.
        gateway=None if listed.get("Internal") else next((pool.get("Gateway") for pool in pools), None) or None,
        labels=dict(listed.get("Labels") or {}),
    )


class Networks:
    """Finds and makes networks; safe to use from several threads. Methods raise `StepFailed`."""

    def __init__(
        self, engine: Engine, owner: Owner, pool: IPv4Network, routes: Callable[[], list[IPv4Network]]
    ) -> None:
        self._engine, self._owner, self._pool, self._routes = engine, owner, pool, routes
        self._lock = threading.Lock()
        self._parents: dict[str, threading.Lock] = {}
        self._chosen: dict[str, IPv4Network] = {}

    def list(self) -> list[Network]:
        return [parse(entry) for entry in self._engine.networks()]

    def is_ours(self, network: Network) -> bool:
        return network.labels.get(spec.OWNER) in self._owner.known

    def parent_lock(self, parent: str) -> AbstractContextManager[bool]:
        """Held while networks of this parent interface are made or removed."""
        with self._lock:
            return self._parents.setdefault(parent, threading.Lock())

    def internal(self, device: str, existing: Sequence[Network], announce: Announce) -> Network:
        """The device's internal network out of `existing`, or a new one."""
        name = spec.internal_network(device)
        for network in existing:
            if network.name == name:
                if not self.is_ours(network) or network.labels.get(spec.DEVICE) != device:
                    raise StepFailed("conflict", f"the network {name} exists and is not ours; remove or rename it")
                return network
        announce("creating the internal network")
        refused: list[IPv4Network] = []
        for _ in range(16):
            subnet = self._choose(device, existing, refused)
            body = {
                "Driver": "bridge",
                "Internal": True,
                "IPAM": {"Config": [{"Subnet": str(subnet)}]},
                "Labels": spec.labels(self._owner.id, device),
            }
            try:
                return self._create(name, body)
            except EngineError as problem:
                if problem.kind != "pool_overlaps":
                    raise failed(problem, f"creating the network {name}") from problem
                refused.append(subnet)
        raise StepFailed("unavailable", f"no free network for {name} in {self._pool} after 16 tries")

    def macvlan(self, vnic: Vnic, existing: Sequence[Network], announce: Announce) -> Network:
        """The network of the vNIC's parent and subnet out of `existing`, or a new one."""
        found = find_macvlan(vnic, existing)
        if found is not None:
            return found
        with self.parent_lock(vnic.parent_interface):
            current = self.list()  # another thread may have made it while we waited
            found = find_macvlan(vnic, current)
            if found is not None:
                return found
            announce(f"creating the network for {vnic.name} on {vnic.parent_interface}")
            return self._make_macvlan(vnic, current)

    def _make_macvlan(self, vnic: Vnic, existing: Sequence[Network]) -> Network:
        name = spec.macvlan_network(vnic.parent_interface, vnic.subnet or "")
        if any(network.name == name for network in existing):
            raise StepFailed("conflict", f"a network {name} exists, but for another parent or subnet; remove it")
        body = {
            "Driver": "macvlan",
            "Internal": vnic.gateway is None,
            "IPAM": {"Config": [{"Subnet": vnic.subnet, "Gateway": vnic.gateway or _placeholder(vnic)}]},
            "Options": {"parent": vnic.parent_interface},
            "Labels": {spec.OWNER: self._owner.id, spec.VERSION: spec.LABELS_VERSION},
        }
        try:
            return self._create(name, body)
        except EngineError as problem:
            doing = f"creating the network {name}"
            if problem.kind == "pool_overlaps":
                # Found again when somebody else made it in this moment, under whatever name.
                again = self.list()
                found = find_macvlan(vnic, again)
                if found is not None:
                    return found
                raise StepFailed("conflict", f"{doing}: {_overlapping(vnic, again)}") from problem
            if problem.kind == "parent_in_use":
                raise StepFailed("conflict", f"{doing}: {_in_the_way(vnic, existing)}") from problem
            if problem.kind == "parent_missing":
                raise StepFailed(
                    "unavailable", f"{doing}: the interface {vnic.parent_interface} is not there"
                ) from problem
            raise failed(problem, doing) from problem

    def _create(self, name: str, body: dict[str, Any]) -> Network:
        try:
            identity = self._engine.create_network({"Name": name, "CheckDuplicate": True, **body})
        except EngineError as problem:
            if problem.kind != "name_taken":
                raise
            # Our own earlier life may have asked for it just before it was killed.
            found = [network for network in self.list() if network.name == name and self.is_ours(network)]
            if not found:
                raise
            return found[0]
        return parse({"Id": identity, "Name": name, **body})

    def _choose(self, device: str, existing: Sequence[Network], refused: Sequence[IPv4Network]) -> IPv4Network:
        with self._lock:
            taken = [IPv4Network(subnet) for network in existing for subnet in network.subnets if ":" not in subnet]
            taken += [*self._routes(), *refused, *(subnet for who, subnet in self._chosen.items() if who != device)]
            for subnet in self._pool.subnets(new_prefix=INTERNAL_PREFIX):
                if not any(subnet.overlaps(other) for other in taken):
                    self._chosen[device] = subnet
                    return subnet
        raise StepFailed(
            "unavailable",
            f"the pool for internal networks, {self._pool}, is used up; enlarge the setting internal_pool",
        )

    def release(self, device: str) -> None:
        """The device is gone, or its network can be seen by everybody: its choice needs no remembering."""
        with self._lock:
            self._chosen.pop(device, None)


def find_macvlan(vnic: Vnic, networks: Iterable[Network]) -> Network | None:
    """The MACVLAN network with the vNIC's parent and subnet, whatever its name."""
    for network in networks:
        if (
            network.driver == "macvlan"
            and network.parent == vnic.parent_interface
            and (vnic.subnet in network.subnets or (vnic.subnet is None and _holds(network, vnic)))
        ):
            return network
    return None


def host_routes(table: Path = ROUTES) -> list[IPv4Network]:
    """Networks that the host has routes to, without the default routes (proc(5): addresses in host byte order)."""
    found = []
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        columns = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(columns[index]), "little") for index in (1, 7))
        if mask:
            found.append(IPv4Network((address, mask.bit_count())))
    return found


def _holds(network: Network, vnic: Vnic) -> bool:
    pools = [IPv4Network(subnet) for subnet in network.subnets if ":" not in subnet]
    return any(IPv4Network(vnic.ip_address or "0.0.0.0").subnet_of(pool) for pool in pools)  # noqa: S104


def _placeholder(vnic: Vnic) -> str:
    """Engines insist on a gateway even where no route is made: an address that the vPLC itself does not want."""
    subnet = IPv4Network(vnic.subnet or "")
    last = subnet.broadcast_address - 1
    return str(last if str(last) != vnic.ip_address else last - 1)


def _overlapping(vnic: Vnic, networks: Iterable[Network]) -> str:
    wanted = IPv4Network(vnic.subnet or "")
    for network in networks:
        if any(":" not in subnet and wanted.overlaps(IPv4Network(subnet)) for subnet in network.subnets):
            on = f" on {network.parent}" if network.parent else ""
            return f"{wanted} overlaps with {', '.join(network.subnets)} of the network {network.name}{on}"
    return f"{wanted} overlaps with a network of the engine"


def _in_the_way(vnic: Vnic, networks: Iterable[Network]) -> str:
    for network in networks:
        if network.driver == "macvlan" and network.parent == vnic.parent_interface:
            return (
                f"the network {network.name} ({', '.join(network.subnets)}) uses {vnic.parent_interface} already, and"
                " this Docker engine allows one MACVLAN network per interface"
            )
    return f"another network uses {vnic.parent_interface} already"
