"""From a netlink dump to the house's `Interface` records, and what has changed between two of them."""

import ipaddress
from collections.abc import Iterable
from fnmatch import fnmatchcase

import msgspec

from bus.messages.netmon import Interface, Ipv4Address
from services.netmon.records import Address, DefaultRoute, Dump, Link


def interfaces(dump: Dump, patterns: tuple[str, ...]) -> tuple[Interface, ...]:
    """Every link but the loopback, sorted by name. `patterns`: names (`vlan*`) that count as physical anyway."""
    found = (
        Interface(
            name=link.name,
            index=link.index,
            mac_address=link.mac_address,
            operstate=link.operstate,
            carrier=link.carrier,
            physical=is_physical(link, patterns),
            kind=link.kind,
            ipv4_addresses=tuple(_ipv4(address) for address in dump.addresses if address.index == link.index),
            gateway=_gateway(link.index, dump.routes),
        )
        for link in dump.links
        if link.name != "lo"
    )
    return tuple(sorted(found, key=lambda interface: interface.name))


def is_physical(link: Link, patterns: tuple[str, ...]) -> bool:
    """Whether the link is a NIC with a cable or an antenna, or one that the operator named.

    Kinds, not names: docker0, br-*, veth*, VLANs, bonds and tunnels all have a kind, whatever they are called.
    """
    named = any(fnmatchcase(link.name, pattern) for pattern in patterns)
    return named or (link.ethernet and not link.kind and link.has_device)


def is_active(interface: Interface) -> bool:
    """Up and with an IPv4 address. UNKNOWN is what drivers say that know no states; with a carrier they are up
    (kernel documentation, networking/operstates)."""
    up = interface.operstate == "UP" or (interface.operstate == "UNKNOWN" and interface.carrier)
    return up and bool(interface.ipv4_addresses)


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the physical interfaces: `changed` holds pairs of before and after."""

    removed: tuple[Interface, ...] = ()
    changed: tuple[tuple[Interface, Interface], ...] = ()
    added: tuple[Interface, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.changed or self.added)


def diff(before: Iterable[Interface], after: Iterable[Interface]) -> Changes:
    """Compare two states, physical interfaces only.

    An interface is the same one when its index stayed and with it the MAC address (so it was renamed) or the name
    (so it was given another MAC). A NIC that was unplugged and plugged in again is removed and added.
    """
    old = {interface.index: interface for interface in before if interface.physical}
    new = {interface.index: interface for interface in after if interface.physical}
    pairs = {index: (old[index], new[index]) for index in old.keys() & new.keys() if _same(old[index], new[index])}
    return Changes(
        removed=tuple(interface for index, interface in old.items() if index not in pairs),
        changed=tuple(pair for index in old if (pair := pairs.get(index)) and pair[0] != pair[1]),
        added=tuple(interface for index, interface in new.items() if index not in pairs),
    )


def _same(before: Interface, after: Interface) -> bool:
    return before.mac_address == after.mac_address or before.name == after.name


def _ipv4(address: Address) -> Ipv4Address:
    network = ipaddress.IPv4Interface((address.address, address.prefixlen)).network
    return Ipv4Address(
        address=address.address,
        prefixlen=address.prefixlen,
        subnet=str(network),
        network_address=str(network.network_address),
    )


def _gateway(index: int, routes: tuple[DefaultRoute, ...]) -> str | None:
    ours = [route for route in routes if route.index == index]
    return min(ours, key=lambda route: route.metric).gateway if ours else None
