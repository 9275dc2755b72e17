"""A lease as others see it: the record on the bus, the sentence in the log, the frame on the wire."""

from ipaddress import IPv4Interface

import msgspec

from bus.messages.netmon import Lease, LeaseChanged, LeaseState, Route
from services.netmon import dhcp_message, packet_socket
from services.netmon.holding import Holding, Send


def view(holding: Holding) -> Lease:
    """The bus record."""
    wish, grant = holding.wish, holding.grant
    bare = Lease(
        key=wish.key,
        parent_interface=wish.parent_interface,
        mac_address=wish.mac_address,
        hostname=wish.hostname,
        state=_state(holding),
        reason=holding.reason,
        conflict_mac=holding.conflict_mac,
    )
    if grant is None:
        return bare

    def moment(after: float | None) -> float | None:
        return None if after is None else round(grant.obtained_at + after, 3)

    return msgspec.structs.replace(
        bare,
        ip_address=grant.ip_address,
        prefixlen=grant.prefixlen,
        subnet=str(IPv4Interface((grant.ip_address, grant.prefixlen)).network),
        gateway=grant.gateway,
        dns=grant.dns,
        domain=grant.domain,
        routes=tuple(Route(destination=destination, gateway=gateway) for destination, gateway in grant.routes),
        server=grant.server,
        obtained_at=moment(0.0),
        renew_at=moment(grant.renew_after),
        rebind_at=moment(grant.rebind_after),
        expires_at=moment(grant.lasts),
    )


def changed(lease: Lease) -> LeaseChanged:
    """The event that tells it."""
    return LeaseChanged(**msgspec.structs.asdict(lease))


def sentence(lease: Lease) -> str:
    """For the log."""
    address = f" {lease.ip_address}/{lease.prefixlen} from {lease.server}" if lease.ip_address else ""
    return f"{lease.state}{address}{': ' if lease.reason else ''}{lease.reason}"


def frame(action: Send, mac_address: str) -> bytes:
    """What leaves the parent interface."""
    payload = dhcp_message.encode(action.query)
    source = action.query.own or packet_socket.NOBODY
    if action.to is None:
        return packet_socket.to_server(payload, source_mac=mac_address, source=source)
    return packet_socket.to_server(
        payload,
        source_mac=mac_address,
        source=source,
        destination=action.to.server,
        destination_mac=action.to.server_mac,
    )


def _state(holding: Holding) -> LeaseState:
    if holding.link == "gone":
        return "no_parent"
    if holding.grant:
        return "bound"
    if holding.conflict_mac:
        return "conflict"
    return "probing" if holding.phase == "probing" else "waiting_for_lease"
