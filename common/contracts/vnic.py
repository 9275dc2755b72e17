"""A vNIC as everybody in the house means it, and the contradictions that are refused before anything is made."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
MAC_ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Vnic(msgspec.Struct, frozen=True, kw_only=True):
    """One network device of a vPLC on a parent interface of the host.

    `ip_address` plain ("192.168.1.100"), `subnet` CIDR without host bits ("192.168.1.0/24") or None for the
    parent's own, `gateway` None for the parent's own or none, `mac_address` lower case with colons or None.
    """

    name: str
    parent_interface: str
    mode: Literal["dhcp", "manual"]
    ip_address: str | None = None
    subnet: str | None = None
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    mac_address: str | None = None


def contradictions(vnics: Sequence[Vnic]) -> list[str]:
    """Sentences, each beginning with the field path, for everything that cannot be meant; empty when all is well."""
    found = [problem for position, vnic in enumerate(vnics) for problem in _of_one(f"$.vnic_configs[{position}]", vnic)]
    found += _repeated(vnics, "name", "vNIC name")
    found += _repeated(vnics, "mac_address", "MAC address")
    found += _repeated(vnics, "ip_address", "address")
    return found


def _of_one(path: str, vnic: Vnic) -> list[str]:
    found: list[str] = []
    if not INTERFACE_NAME.fullmatch(vnic.name):
        found.append(f"{path}.name: expected 1-15 characters of letters, digits, _ . -, got {vnic.name!r}")
    if not INTERFACE_NAME.fullmatch(vnic.parent_interface) or vnic.parent_interface in (".", ".."):
        found.append(
            f"{path}.parent_interface: expected an interface name of 1-15 characters of letters, digits, _ . -,"
            f" got {vnic.parent_interface!r}"
        )
    found += _mac_problems(path, vnic)
    found += _dns_problems(path, vnic)
    found += _address_problems(path, vnic)
    return found


def _mac_problems(path: str, vnic: Vnic) -> list[str]:
    mac = vnic.mac_address
    if mac is None:
        return []
    if not MAC_ADDRESS.fullmatch(mac):
        return [f"{path}.mac_address: expected six pairs of hex digits like 02:42:ac:11:00:02, got {mac!r}"]
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        return [f"{path}.mac_address: expected the address of one device, got the group or zero address {mac}"]
    return []


def _dns_problems(path: str, vnic: Vnic) -> list[str]:
    if len(vnic.dns) > 3:
        return [f"{path}.dns: expected at most 3 servers, got {len(vnic.dns)}"]
    return [
        f"{path}.dns[{place}]: expected an IPv4 address, got {server!r}"
        for place, server in enumerate(vnic.dns)
        if _ipv4(server) is None
    ]


def _address_problems(path: str, vnic: Vnic) -> list[str]:
    if vnic.mode == "dhcp":
        return [
            f"{path}.{field}: expected nothing in dhcp mode, got {value!r}"
            for field, value in (("ip_address", vnic.ip_address), ("gateway", vnic.gateway))
            if value is not None
        ]
    found: list[str] = []
    address = _ipv4(vnic.ip_address) if vnic.ip_address is not None else None
    if vnic.ip_address is None:
        found.append(f"{path}.ip_address: expected an IPv4 address in manual mode, got none")
    elif address is None:
        found.append(f"{path}.ip_address: expected an IPv4 address, got {vnic.ip_address!r}")
    elif address.is_multicast or address.is_loopback or address.is_unspecified or address.is_reserved:
        found.append(f"{path}.ip_address: expected the address of one device, got {address}")
        address = None
    gateway = _ipv4(vnic.gateway) if vnic.gateway is not None else None
    if vnic.gateway is not None and gateway is None:
        found.append(f"{path}.gateway: expected an IPv4 address, got {vnic.gateway!r}")
    if vnic.subnet is None:
        return found
    try:
        subnet = ipaddress.IPv4Network(vnic.subnet)
    except ValueError:
        return [*found, f"{path}.subnet: expected an IPv4 network like 192.168.1.0/24, got {vnic.subnet!r}"]
    if not 8 <= subnet.prefixlen <= 30:
        found.append(f"{path}.subnet: expected a prefix of 8 to 30 bits, got {vnic.subnet}")
    for field, value in (("ip_address", address), ("gateway", gateway)):
        if value is None:
            continue
        if value not in subnet:
            found.append(f"{path}.{field}: expected an address inside {subnet}, got {value}")
        elif value in (subnet.network_address, subnet.broadcast_address):
            found.append(f"{path}.{field}: expected a host's address, got the network's own {value}")
    if address is not None and address == gateway:
        found.append(f"{path}.gateway: expected another address than the vNIC's own {address}")
    return found


def _repeated(vnics: Sequence[Vnic], field: str, what: str) -> list[str]:
    seen: dict[str, int] = {}
    found: list[str] = []
    for position, vnic in enumerate(vnics):
        value = getattr(vnic, field)
        if value is None:
            continue
        if value in seen:
            found.append(
                f"$.vnic_configs[{position}].{field}: expected another {what} than that of vnic_configs[{seen[value]}],"
                f" got {value} twice"
            )
        seen.setdefault(value, position)
    return found


def _ipv4(text: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None
