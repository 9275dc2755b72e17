"""The vNIC as clouds spell it, brought to the one spelling of the house.

`ip_address` = `ip`, `mac_address` = `mac`, `manual` = `static`; `subnet` is a CIDR network or a netmask beside an
address; `parent_subnet` and `parent_gateway` stand in where `subnet` and `gateway` are not given.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from common.contracts.decode import ContractError, matching, require_plain
from common.contracts.vnic import Vnic, contradictions

MAX_VNICS = 16

_DOTTED = re.compile(r"\d{1,3}(\.\d{1,3}){3}")


class VnicConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One vNIC of `create_new_runtime`, as received."""

    name: str
    parent_interface: str
    network_mode: Annotated[str, matching("dhcp|manual|static", "dhcp, manual or static")]
    ip_address: str | None = None
    ip: str | None = None
    mac_address: str | None = None
    mac: str | None = None
    subnet: str | None = None
    gateway: str | None = None
    dns: tuple[str, ...] | None = None
    parent_subnet: str | None = None
    parent_gateway: str | None = None


def to_vnics(configs: Sequence[VnicConfig]) -> tuple[Vnic, ...]:
    """The vNICs that are meant.

    Raises `ContractError` for spellings at odds with each other and for every contradiction among the vNICs;
    the sentence names the field as the cloud spelled it.
    """
    if len(configs) > MAX_VNICS:
        raise ContractError(f"$.vnic_configs: expected at most {MAX_VNICS} vNICs, got {len(configs)}")
    for position, config in enumerate(configs):
        require_plain(msgspec.structs.asdict(config), f"$.vnic_configs[{position}]")
    vnics = tuple(_to_vnic(f"$.vnic_configs[{position}]", config) for position, config in enumerate(configs))
    if found := contradictions(vnics):
        respell = dict(_respellings(configs))
        raise ContractError("; ".join(_respelled(sentence, respell) for sentence in found[:5]))
    return vnics


def _to_vnic(path: str, config: VnicConfig) -> Vnic:
    mode: Literal["dhcp", "manual"] = "dhcp" if config.network_mode == "dhcp" else "manual"
    address = _either(path, "ip_address", config.ip_address, "ip", config.ip)
    mac = _either(path, "mac_address", config.mac_address, "mac", config.mac)
    subnet = _network(f"{path}.subnet", config.subnet, address)
    parent = _network(f"{path}.parent_subnet", config.parent_subnet, address)
    if subnet is not None and parent is not None and subnet != parent:
        raise ContractError(f"{path}.parent_subnet: expected the same network as subnet, got {parent} beside {subnet}")
    return Vnic(
        name=config.name,
        parent_interface=config.parent_interface,
        mode=mode,
        ip_address=address,
        subnet=subnet or parent,
        # In dhcp mode the lease brings the gateway; the parent's is only its description then.
        gateway=config.gateway if mode == "dhcp" or config.gateway is not None else config.parent_gateway,
        dns=config.dns or (),
        mac_address=mac.lower().replace("-", ":") if mac is not None else None,
    )


def _either(path: str, first: str, value: str | None, second: str, other: str | None) -> str | None:
    if value is not None and other is not None and value != other:
        raise ContractError(f"{path}.{second}: expected the same as {first}, got {other!r} beside {value!r}")
    return value if value is not None else other


def _network(path: str, given: str | None, address: str | None) -> str | None:
    if given is None:
        return None
    written = given
    if _DOTTED.fullmatch(given):
        if not _is_netmask(given):
            raise ContractError(f"{path}: expected a network like 192.168.1.0/24 or a netmask, got {given!r}")
        if address is None:
            raise ContractError(f"{path}: expected an ip_address beside the netmask {given}, or a network in CIDR form")
        written = f"{address}/{given}"
    try:
        return str(ipaddress.IPv4Network(written, strict=written is given))
    except ValueError:
        if written is not given:
            raise ContractError(f"{path.rpartition('.')[0]}.ip_address: expected an IPv4 address") from None
        raise ContractError(f"{path}: expected an IPv4 network like 192.168.1.0/24, got {given!r}") from None


def _is_netmask(dotted: str) -> bool:
    try:
        bits = int(ipaddress.IPv4Address(dotted))
    except ValueError:
        return False
    inverted = bits ^ 0xFFFFFFFF
    return inverted & (inverted + 1) == 0


def _respellings(configs: Sequence[VnicConfig]) -> Iterator[tuple[str, str]]:
    for position, config in enumerate(configs):
        path = f"$.vnic_configs[{position}]"
        if config.ip_address is None and config.ip is not None:
            yield f"{path}.ip_address", f"{path}.ip"
        if config.mac_address is None and config.mac is not None:
            yield f"{path}.mac_address", f"{path}.mac"
        if config.subnet is None and config.parent_subnet is not None:
            yield f"{path}.subnet", f"{path}.parent_subnet"
        if config.gateway is None and config.parent_gateway is not None:
            yield f"{path}.gateway", f"{path}.parent_gateway"


def _respelled(sentence: str, respell: dict[str, str]) -> str:
    path, colon, rest = sentence.partition(":")
    return f"{respell.get(path, path)}{colon}{rest}"
