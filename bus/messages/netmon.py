"""netmon: the host's network interfaces, as the kernel tells them."""

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
