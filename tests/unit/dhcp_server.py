"""What a DHCP server sends, byte by byte, for tests of those who read it."""

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address

from services.netmon.dhcp_message import Kind

Value = bytes | str | int


def reply_bytes(
    kind: Kind,
    *,
    xid: int = 1,
    mac: str = "02:42:ac:11:00:07",
    address: str = "10.0.0.7",
    told: Mapping[int, Value] | None = None,
    sname: bytes = b"",
    file: bytes = b"",
    cookie: bytes = b"\x63\x82\x53\x63",
) -> bytes:
    """A reply with the options `told`: bytes as they are, a str for an address, an int for four bytes."""
    header = struct.pack("!BBBBIHH4x4s8x", 2, 1, 6, 0, xid, 0, 0, IPv4Address(address).packed)
    names = bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0") + sname.ljust(64, b"\0") + file.ljust(128, b"\0")
    parts = [bytes([code, len(value)]) + value for code, value in _packed({53: bytes([kind]), **(told or {})}).items()]
    return header + names + cookie + b"".join(parts) + b"\xff"


def options(message: bytes) -> dict[int, bytes]:
    """The options in a client's message."""
    found, position = {}, 240
    while message[position] != 255:
        length = message[position + 1]
        found[message[position]] = message[position + 2 : position + 2 + length]
        position += 2 + length
    return found


def _packed(told: Mapping[int, Value]) -> dict[int, bytes]:
    return {code: _bytes(value) for code, value in told.items()}


def _bytes(value: Value) -> bytes:
    if isinstance(value, str):
        return IPv4Address(value).packed
    return value if isinstance(value, bytes) else value.to_bytes(4, "big")
