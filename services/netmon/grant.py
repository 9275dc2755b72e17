"""What a DHCP server has given: whether its message can be taken, and the terms that are in it."""

from ipaddress import IPv4Address, IPv4Interface

import msgspec

from services.netmon.dhcp_message import Reply

_EVERYWHERE = "0.0.0.0/0"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a server has given. `obtained`: by the clock of `now`; `obtained_at`: unix seconds; T1, T2 and the length
    in seconds from then, None when it has no end."""

    ip_address: str
    prefixlen: int
    gateway: str | None
    routes: tuple[tuple[str, str], ...]
    dns: tuple[str, ...]
    domain: str
    server: str
    server_mac: str
    obtained: float
    obtained_at: float
    renew_after: float | None
    rebind_after: float | None
    lasts: float | None

    def ends(self) -> float | None:
        """When it is over."""
        return None if self.lasts is None else self.obtained + self.lasts


def unusable(reply: Reply) -> str | None:
    """Why an offer or a grant cannot be taken, as a sentence; None if it can."""
    address, server = IPv4Address(reply.address), reply.server
    who = f"the DHCP server {server or '(without a name)'}"
    if server is None:
        return f"{who} does not say which one it is"
    if reply.prefixlen is None or reply.prefixlen == 0:
        return f"{who} offers {address} without a netmask"
    network = IPv4Interface((address, reply.prefixlen)).network
    edges = (network.network_address, network.broadcast_address) if reply.prefixlen < 31 else ()
    if address.is_link_local or address.is_loopback or address.is_multicast or address.is_unspecified:
        return f"{who} offers {address}, which is no address for a device on a LAN"
    if address.is_reserved or address in edges:
        return f"{who} offers {address}/{reply.prefixlen}, which is no device's address"
    if not reply.endless and not reply.lease_time:
        return f"{who} offers {address} without saying for how long"
    return None


def granted(reply: Reply, source_mac: str, obtained: float, obtained_at: float) -> Grant:
    """The terms of a usable acknowledgement that came from `source_mac` for a request of the time `obtained`."""
    default = next((router for destination, router in reply.routes if destination == _EVERYWHERE), None)
    lasts = None if reply.lease_time is None else float(reply.lease_time)
    renew, rebind = _times(lasts, reply.renew_time, reply.rebind_time)
    return Grant(
        ip_address=reply.address,
        prefixlen=reply.prefixlen or 0,
        # RFC 3442: who sends classless routes wants its routers ignored.
        gateway=default if reply.routes else next(iter(reply.routers), None),
        routes=tuple(route for route in reply.routes if route[0] != _EVERYWHERE),
        dns=reply.dns,
        domain=reply.domain,
        server=reply.server or "",
        server_mac=source_mac,
        obtained=obtained,
        obtained_at=obtained_at,
        renew_after=renew,
        rebind_after=rebind,
        lasts=lasts,
    )


def _times(lasts: float | None, renew: int | None, rebind: int | None) -> tuple[float | None, float | None]:
    """T1 and T2, those of RFC 2131 where the server's are missing or out of order."""
    if lasts is None:
        return None, None
    second = rebind if rebind and rebind < lasts else lasts * 0.875
    first = renew if renew and renew < second else min(lasts * 0.5, second)
    return float(first), float(second)
