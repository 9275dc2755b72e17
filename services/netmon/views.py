"""`get_host_interfaces`, answered from what is known already."""

from typing import Protocol

from bus.errors import CommandError
from bus.messages.netmon import GetHostInterfaces, HostInterface, HostInterfaces, Interface


class Known(Protocol):
    """Where the present state is kept: every interface but the loopback, None before the first dump."""

    @property
    def interfaces(self) -> tuple[Interface, ...] | None: ...


def get_host_interfaces(known: Known, request: GetHostInterfaces) -> HostInterfaces:
    """The physical interfaces, or all; raises `CommandError` unavailable while nothing is known yet."""
    if known.interfaces is None:
        raise CommandError("unavailable", "netmon has not read the interfaces from the kernel yet; ask again")
    wanted = (each for each in known.interfaces if each.physical or request.include_virtual)
    return HostInterfaces(interfaces=tuple(_view(each, request.detailed) for each in wanted))


def _view(interface: Interface, detailed: bool) -> HostInterface:
    first = interface.ipv4_addresses[0] if interface.ipv4_addresses else None
    brief = HostInterface(
        name=interface.name,
        ip_address=first.address if first else None,
        operstate=interface.operstate,
        gateway=interface.gateway,
    )
    if not detailed:
        return brief
    return HostInterface(
        name=brief.name,
        ip_address=brief.ip_address,
        operstate=brief.operstate,
        gateway=brief.gateway,
        mac_address=interface.mac_address,
        subnet=first.subnet if first else None,
        ipv4_addresses=tuple(f"{each.address}/{each.prefixlen}" for each in interface.ipv4_addresses),
    )
