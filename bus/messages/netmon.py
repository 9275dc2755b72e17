"""netmon: the host's network interfaces, as the kernel tells them, and the addresses that vNICs hold on its LANs."""

from typing import Literal

from bus.messages.base import Body, Event, Request, event, request


class Ipv4Address(Body, frozen=True, kw_only=True):
    """An address of an interface: `192.168.1.50`, 24, `192.168.1.0/24`, `192.168.1.0`."""

    address: str
    prefixlen: int
    subnet: str
    network_address: str


class Interface(Body, frozen=True, kw_only=True):
    """One network interface. `operstate` as the kernel names it (UP, DOWN, LOWERLAYERDOWN, ...), `carrier`: cable in,
    `physical`: a real NIC, or one that the allow-list names, `kind`: the link kind ("" for a real NIC),
    `gateway`: of the default route through this interface with the lowest metric."""

    name: str
    index: int
    mac_address: str
    operstate: str
    carrier: bool
    physical: bool
    kind: str = ""
    ipv4_addresses: tuple[Ipv4Address, ...] = ()
    gateway: str | None = None


@event("netmon.network.discovered", state_key="")
class NetworkDiscovered(Event, frozen=True, kw_only=True):
    """All physical interfaces as they are now; published at start and after every change."""

    interfaces: tuple[Interface, ...]
    timestamp: str


@event("netmon.interface.added")
class InterfaceAdded(Event, frozen=True, kw_only=True):
    """A physical interface has appeared."""

    interface: Interface
    timestamp: str


@event("netmon.interface.changed")
class InterfaceChanged(Event, frozen=True, kw_only=True):
    """Address, gateway, carrier, name or MAC of a physical interface have changed."""

    interface: Interface
    before: Interface
    timestamp: str


@event("netmon.interface.removed")
class InterfaceRemoved(Event, frozen=True, kw_only=True):
    """A physical interface is gone."""

    interface: Interface
    timestamp: str


class HostInterface(Body, frozen=True, kw_only=True):
    """An interface in the words of the cloud protocol; without `detailed` only name, address, gateway and operstate
    are filled. `subnet`: CIDR of the first address; `ipv4_addresses`: `address/prefix` strings."""

    name: str
    ip_address: str | None
    operstate: str
    gateway: str | None
    mac_address: str | None = None
    subnet: str | None = None
    ipv4_addresses: tuple[str, ...] = ()


class HostInterfaces(Body, frozen=True, kw_only=True):
    """The host's interfaces, sorted by name."""

    interfaces: tuple[HostInterface, ...]


@request("netmon.get_host_interfaces", deadline=4.0, changes=False, inline=True)
class GetHostInterfaces(Request[HostInterfaces], frozen=True, kw_only=True):
    """The host's physical interfaces, with `include_virtual` all of them but the loopback."""

    include_virtual: bool = False
    detailed: bool = True


# ---- addresses on the plant's LANs


class Route(Body, frozen=True, kw_only=True):
    """A route that the DHCP server gives beside the default one: `10.0.0.0/8` through `192.168.1.254`."""

    destination: str
    gateway: str


LeaseState = Literal["waiting_for_lease", "probing", "bound", "conflict", "no_parent"]


class Lease(Event, frozen=True, kw_only=True):
    """The DHCP lease of one vNIC. `key`: whose, as in `plc1/eth0`. `state`: "bound" when the address may be used;
    "conflict" when another device, `conflict_mac`, was found on the address offered last (another one is asked for);
    "no_parent" when the parent interface is gone. `reason` is a sentence, empty when all is well; a bound lease has
    one when it could not be renewed. The address and what belongs to it are filled while the server's grant is good;
    `gateway` None: the server names none. Times are unix seconds, None: never (the lease has no end); the service
    itself does not count by the wall clock."""

    key: str
    parent_interface: str
    mac_address: str
    hostname: str
    state: LeaseState
    ip_address: str | None = None
    prefixlen: int | None = None
    subnet: str | None = None
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    domain: str = ""
    routes: tuple[Route, ...] = ()
    server: str | None = None
    obtained_at: float | None = None
    renew_at: float | None = None
    rebind_at: float | None = None
    expires_at: float | None = None
    reason: str = ""
    conflict_mac: str | None = None


@event("netmon.lease.changed", state_key="key")
class LeaseChanged(Lease, frozen=True, kw_only=True):
    """The lease of a vNIC is another than before; a renewal that changed nothing tells only its new times. After
    `netmon.release_lease` the state of its key is replayed no more."""


@request("netmon.hold_lease", deadline=4.0, changes=True)
class HoldLease(Request[Lease], frozen=True, kw_only=True):
    """Take a lease for a vNIC and keep it, through restarts too, until `netmon.release_lease`. Answers at once with
    the present state; news come as `netmon.lease.changed`. Repeating it changes nothing; another parent interface or
    MAC address under the same key gives the old lease back first. `hostname`: shown in the DHCP server's list."""

    key: str
    parent_interface: str
    mac_address: str
    hostname: str


class Released(Body, frozen=True, kw_only=True):
    """Nothing is held under `key` now. `ip_address`: the one that was given back to its server, if any."""

    key: str
    ip_address: str | None = None


@request("netmon.release_lease", deadline=4.0, changes=True)
class ReleaseLease(Request[Released], frozen=True, kw_only=True):
    """Give the lease back and forget it. The server is told if it can be reached; an unknown key succeeds."""

    key: str


class Leases(Body, frozen=True, kw_only=True):
    """Every lease that is held or asked for, by key."""

    leases: tuple[Lease, ...]


@request("netmon.list_leases", deadline=4.0, changes=False)
class ListLeases(Request[Leases], frozen=True, kw_only=True):
    """All leases of this host's vNICs."""


class ProbeResult(Body, frozen=True, kw_only=True):
    """`taken_by`: the MAC address of the device that has the address now, None if nobody answered for it."""

    parent_interface: str
    ip_address: str
    taken_by: str | None


@request("netmon.probe_address", deadline=4.0, changes=False)
class ProbeAddress(Request[ProbeResult], frozen=True, kw_only=True):
    """Ask the LAN behind a parent interface by ARP (RFC 5227) whether a device has the address; takes about 1 s when
    none has. `mac_address`: who wants it, and so does not count as another. The host's own addresses and the leases
    held here count; containers on the same parent are not seen."""

    parent_interface: str
    ip_address: str
    mac_address: str
