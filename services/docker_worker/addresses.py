"""From requested vNICs to resolved ones: parent, subnet, gateway and MAC, checked against the host and the others.

Everything that can be known to be wrong is refused here, before anything is made.
"""

import secrets
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

import msgspec

from bus.errors import CommandError
from bus.messages.netmon import Interface
from common.contracts.vnic import Vnic


def resolve(
    vnics: Sequence[Vnic], interfaces: Sequence[Interface], others: Iterable[tuple[str, Vnic]], *, per_network_mac: bool
) -> tuple[Vnic, ...]:
    """The vNICs with subnet, gateway and MAC filled in.

    `interfaces`: the host's, as netmon tells them. `others`: vNICs of the other devices, with the device's name.
    `per_network_mac`: whether the engine can give each network of a container its MAC. Raises `CommandError`.
    """
    known = [interface for interface in interfaces if interface.physical]
    taken = list(others)
    resolved: list[Vnic] = []
    for position, vnic in enumerate(vnics):
        path = f"$.vnic_configs[{position}]"
        parent = _parent(path, vnic, known)
        _refuse_second_place(path, vnic, resolved)
        # In dhcp mode the lease says where the vNIC belongs, whatever the request tells of its parent.
        placed = msgspec.structs.replace(vnic, subnet=None) if vnic.mode == "dhcp" else _place(path, vnic, parent)
        _refuse_clashes(path, placed, resolved, taken, interfaces)
        resolved.append(placed)
    return _with_macs(resolved, {vnic.mac_address for _, vnic in taken}, per_network_mac=per_network_mac)


def _parent(path: str, vnic: Vnic, known: Sequence[Interface]) -> Interface:
    for interface in known:
        if interface.name == vnic.parent_interface:
            return interface
    names = ", ".join(sorted(interface.name for interface in known)) or "none"
    raise CommandError(
        "invalid",
        f"{path}.parent_interface: expected a physical interface of this host ({names}), got {vnic.parent_interface!r}",
    )


def _place(path: str, vnic: Vnic, parent: Interface) -> Vnic:
    address = IPv4Address(vnic.ip_address or "0.0.0.0")  # noqa: S104 - manual vNICs have one, contradictions() saw to it
    own = [IPv4Network(one.subnet) for one in parent.ipv4_addresses]
    if vnic.subnet is None:
        if not own:
            raise CommandError(
                "invalid", f"{path}.subnet: expected a subnet, because {parent.name} has no address to tell it from"
            )
        fitting = [subnet for subnet in own if address in subnet]
        if not fitting:
            raise CommandError(
                "invalid",
                f"{path}.ip_address: expected an address in the network of {parent.name}"
                f" ({', '.join(map(str, own))}), got {address}; name another network in subnet if it is meant",
            )
        subnet = fitting[0]
        if address in (subnet.network_address, subnet.broadcast_address):
            raise CommandError("invalid", f"{path}.ip_address: expected a host's address, got the network's {address}")
    else:
        subnet = IPv4Network(vnic.subnet)
    gateway = vnic.gateway
    if gateway is None and subnet in own and parent.gateway and IPv4Address(parent.gateway) in subnet:
        gateway = parent.gateway
    if gateway is not None and IPv4Address(gateway) not in subnet:
        raise CommandError("invalid", f"{path}.gateway: expected an address inside {subnet}, got {gateway}")
    if gateway == str(address):
        raise CommandError("conflict", f"{path}.ip_address: {address} is the gateway's")
    return msgspec.structs.replace(vnic, subnet=str(subnet), gateway=gateway)


def _refuse_second_place(path: str, vnic: Vnic, own: Sequence[Vnic]) -> None:
    """Two places of one container on one LAN would be one Docker network, which takes a container once."""
    for earlier in own:
        if earlier.parent_interface == vnic.parent_interface and "dhcp" in (earlier.mode, vnic.mode):
            raise CommandError(
                "invalid",
                f"{path}.parent_interface: expected another interface than that of vNIC {earlier.name};"
                f" beside a vNIC in dhcp mode a device can have no other on {vnic.parent_interface}",
            )


def _refuse_clashes(
    path: str,
    vnic: Vnic,
    own: Sequence[Vnic],
    others: Sequence[tuple[str, Vnic]],
    interfaces: Sequence[Interface],
) -> None:
    for earlier in own:
        if vnic.subnet and (earlier.parent_interface, earlier.subnet) == (vnic.parent_interface, vnic.subnet):
            raise CommandError(
                "invalid",
                f"{path}.parent_interface: expected another network than that of vNIC {earlier.name};"
                f" a device has one place on {vnic.subnet} at {vnic.parent_interface}",
            )
    for interface in interfaces:
        if vnic.ip_address and any(vnic.ip_address == one.address for one in interface.ipv4_addresses):
            raise CommandError(
                "conflict", f"{path}.ip_address: {vnic.ip_address} is this host's own, on {interface.name}"
            )
    for name, other in others:
        if vnic.ip_address and other.ip_address == vnic.ip_address and other.subnet == vnic.subnet:
            raise CommandError("conflict", f"{path}.ip_address: {vnic.ip_address} belongs to the device {name}")
        if vnic.mac_address is not None and other.mac_address == vnic.mac_address:
            raise CommandError("conflict", f"{path}.mac_address: {vnic.mac_address} belongs to the device {name}")


def _with_macs(vnics: list[Vnic], taken: set[str | None], *, per_network_mac: bool) -> tuple[Vnic, ...]:
    # Otherwise Docker makes the MAC up, from the address or at random with every start, and licences and leases that
    # are bound to it break.
    first = not any(vnic.mac_address or vnic.mode == "dhcp" for vnic in vnics)
    ours = [
        position
        for position, vnic in enumerate(vnics)
        if per_network_mac or vnic.mode == "dhcp" or (first and position == 0)
    ]
    used = taken | {vnic.mac_address for vnic in vnics}
    for position in ours:
        if vnics[position].mac_address is None:
            mac = random_mac(used)
            used.add(mac)
            vnics[position] = msgspec.structs.replace(vnics[position], mac_address=mac)
    return tuple(vnics)


def random_mac(taken: Iterable[str | None] = ()) -> str:
    """A locally administered address of one device that is not among `taken`."""
    used = set(taken)
    while True:
        first, *rest = secrets.token_bytes(6)
        mac = ":".join(f"{byte:02x}" for byte in ((first & 0xFC) | 0x02, *rest))
        # 02:42 is what Docker makes of addresses: stay out of its way.
        if mac not in used and not mac.startswith("02:42:"):
            return mac
