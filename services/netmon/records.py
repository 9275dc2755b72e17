"""What one full netlink dump says, as plain records: the border between the netlink library and everything else."""

import msgspec


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link as rtnetlink(7) tells it. `operstate` in the kernel's words (UP, DOWN, LOWERLAYERDOWN, UNKNOWN ...),
    `kind`: veth, bridge, vlan ... or "" , `has_device`: the kernel names a device (PCI, USB, virtio) behind it."""

    index: int
    name: str
    mac_address: str
    operstate: str
    carrier: bool
    ethernet: bool
    kind: str
    has_device: bool


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An IPv4 address of the link `index`."""

    index: int
    address: str
    prefixlen: int


class DefaultRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A next hop of an IPv4 default route in the main table, over the link `index`."""

    index: int
    gateway: str
    metric: int


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment, in the kernel's order (primary addresses first)."""

    links: tuple[Link, ...]
    addresses: tuple[Address, ...]
    routes: tuple[DefaultRoute, ...]
