"""ARP as RFC 5227 uses it: ask whether anybody has an address, without claiming it.

The timing is shorter than the RFC's (three probes one to two seconds apart, then two seconds of waiting): that was
made for hubs and sleeping links. On a switched LAN the owner answers within a few milliseconds; three probes are for a
lost frame or a busy device. So a vPLC has its address after 0.6 s instead of up to seven.
"""

import struct
from ipaddress import IPv4Address

import msgspec

PROBES = 3
INTERVAL = 0.2  # seconds from each probe to the next, and from the last one to the verdict

_ETHERTYPE = 0x0806
_FRAME = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_ETHERNET, _IPV4, _ASK = 1, 0x0800, 1
_EVERYBODY = b"\xff" * 6
_NOBODY = "0.0.0.0"  # noqa: S104 - an address that is none, not a place to listen


class Arp(msgspec.Struct, frozen=True, kw_only=True):
    """One ARP packet: who speaks, from which address, about which one. `asks`: a request, else an answer."""

    asks: bool
    sender_mac: str
    sender_ip: str
    target_ip: str


def probe(mac_address: str, ip_address: str) -> bytes:
    """The whole Ethernet frame that asks for `ip_address`; the sender's address is left empty (RFC 5227, 2.1.1)."""
    mac = bytes.fromhex(mac_address.replace(":", ""))
    asked = IPv4Address(ip_address).packed
    return _FRAME.pack(*(_EVERYBODY, mac, _ETHERTYPE, _ETHERNET, _IPV4, 6, 4, _ASK), *(mac, bytes(4), bytes(6), asked))


def decode(frame: bytes) -> Arp | None:
    """Read an Ethernet frame; None when it is no ARP for IPv4 over Ethernet."""
    if len(frame) < _FRAME.size:
        return None
    _, _, ethertype, hardware, protocol, mac_length, ip_length, operation, *addresses = _FRAME.unpack_from(frame)
    if (ethertype, hardware, protocol, mac_length, ip_length) != (_ETHERTYPE, _ETHERNET, _IPV4, 6, 4):
        return None
    sender_mac, sender_ip, _, target_ip = addresses
    return Arp(
        asks=operation == _ASK,
        sender_mac=sender_mac.hex(":"),
        sender_ip=str(IPv4Address(sender_ip)),
        target_ip=str(IPv4Address(target_ip)),
    )


def rival(heard: Arp, ip_address: str, mac_address: str) -> str | None:
    """The MAC address of another device that has `ip_address`, or is about to take it, by what it said just now."""
    has_it = heard.sender_ip == ip_address
    wants_it = heard.asks and heard.sender_ip == _NOBODY and heard.target_ip == ip_address
    return heard.sender_mac if (has_it or wants_it) and heard.sender_mac != mac_address else None
