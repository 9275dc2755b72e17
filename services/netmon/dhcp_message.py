"""DHCPv4 on the wire: what we ask as bytes, and a server's bytes as what it says (RFC 2131, 2132, 3396, 3442).

A small codec of our own although pyroute2 0.9.7 has one (`dhcp4msg`), because that one was tried and found wanting: it
reads times as signed (a lease without end lasts -1 s), drops every option that follows one it cannot read, keeps only
the last part of an option that comes in parts (RFC 3396), does not look into `sname` and `file` (option 52), does
not know option 121, and sends less than the 300 bytes that old relays insist on.

Strict about the header, lenient about options: an option that cannot be read is one that was not sent, for the
plant's DHCP server is seldom ours to repair.
"""

import enum
import re
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import msgspec

_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE = b"\x63\x82\x53\x63"
_REQUEST, _REPLY, _ETHERNET, _MAC_LENGTH = 1, 2, 1, 6
_BROADCAST_FLAG = 0x8000
_SHORTEST = 300  # bytes; BOOTP's fixed size, under which some relays and servers drop a message
_FOR_EVER = 0xFFFFFFFF
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")

_PAD, _END = 0, 255
_MASK, _ROUTERS, _DNS, _HOSTNAME, _DOMAIN = 1, 3, 6, 12, 15
_REQUESTED, _LEASE_TIME, _OVERLOAD, _KIND, _SERVER, _WANTED, _TEXT = 50, 51, 52, 53, 54, 55, 56
_RENEW_TIME, _REBIND_TIME, _CLIENT_ID, _ROUTES = 58, 59, 61, 121

# RFC 3442 wants the routes named before the routers.
_WISHES = bytes((_ROUTES, _MASK, _ROUTERS, _DNS, _DOMAIN, _LEASE_TIME, _SERVER, _RENEW_TIME, _REBIND_TIME))


class Kind(enum.IntEnum):
    """Option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


class MalformedError(Exception):
    """The bytes are no DHCP reply for an Ethernet device."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says. `secs`: since it began to ask; `own`: the address it has and uses (ciaddr);
    `requested` and `server`: the options of that name; `broadcast`: please answer to everybody."""

    kind: Kind
    xid: int
    mac_address: str
    hostname: str = ""
    secs: int = 0
    own: str | None = None
    requested: str | None = None
    server: str | None = None
    broadcast: bool = True


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says. Fields of options that are missing or cannot be read are None or empty. Times are in
    seconds; `endless`: the lease has no end, and then `lease_time` is None."""

    kind: Kind
    xid: int
    mac_address: str
    address: str
    server: str | None = None
    prefixlen: int | None = None
    routers: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    domain: str = ""
    lease_time: int | None = None
    endless: bool = False
    renew_time: int | None = None
    rebind_time: int | None = None
    text: str = ""


def encode(query: Query) -> bytes:
    """The UDP payload.

    The client id is 01 and the MAC address, what a client inside the vPLC would send by itself: unique as the MAC is,
    known to plant IT from its reservations, and stable because the vNIC's MAC is persistent. One made of the vPLC's
    name would be the same for a `plc1` on each of two edge hosts, and the server would give both one address.
    """
    mac = bytes.fromhex(query.mac_address.replace(":", ""))
    header = _HEADER.pack(
        _REQUEST,
        _ETHERNET,
        _MAC_LENGTH,
        0,
        query.xid,
        min(query.secs, 0xFFFF),
        _BROADCAST_FLAG if query.broadcast else 0,
        _packed(query.own or "0.0.0.0"),  # noqa: S104 - "no address yet", not a place to listen
        *(bytes(4), bytes(4), bytes(4), mac, b"", b"", _COOKIE),
    )
    options = [(_KIND, bytes([query.kind])), (_CLIENT_ID, bytes([_ETHERNET]) + mac)]
    if query.hostname and query.kind in (Kind.DISCOVER, Kind.REQUEST):
        options.append((_HOSTNAME, query.hostname.encode("ascii")))
    if query.requested:
        options.append((_REQUESTED, _packed(query.requested)))
    if query.server:
        options.append((_SERVER, _packed(query.server)))
    if query.kind in (Kind.DISCOVER, Kind.REQUEST):
        options.append((_WANTED, _WISHES))
    body = b"".join(bytes([code, len(value)]) + value for code, value in options)
    return (header + body + bytes([_END])).ljust(_SHORTEST, b"\0")


def decode(payload: bytes) -> Reply:
    """Read a UDP payload; raises `MalformedError` when it is no reply to an Ethernet client or has no kind."""
    if len(payload) < _HEADER.size:
        raise MalformedError(f"{len(payload)} bytes are too short")
    op, hardware, length, _, xid, _, _, _, address, _, _, mac, sname, file, cookie = _HEADER.unpack_from(payload)
    if (op, hardware, length, cookie) != (_REPLY, _ETHERNET, _MAC_LENGTH, _COOKIE):
        raise MalformedError("no DHCP reply for Ethernet")
    options = _options(payload[_HEADER.size :], sname, file)
    kind = options.get(_KIND, b"")
    if len(kind) != 1 or kind[0] not in (Kind.OFFER, Kind.ACK, Kind.NAK):
        raise MalformedError("neither offer nor acknowledgement nor refusal")
    lease_time = _number(options, _LEASE_TIME)
    return Reply(
        kind=Kind(kind[0]),
        xid=xid,
        mac_address=mac[:_MAC_LENGTH].hex(":"),
        address=str(IPv4Address(address)),
        server=next(iter(_addresses(options, _SERVER)), None),
        prefixlen=_prefixlen(options.get(_MASK, b"")),
        routers=_addresses(options, _ROUTERS),
        routes=_classless_routes(options.get(_ROUTES, b"")),
        dns=_addresses(options, _DNS),
        domain=_name(options.get(_DOMAIN, b"")),
        lease_time=None if lease_time == _FOR_EVER else lease_time,
        endless=lease_time == _FOR_EVER,
        renew_time=_number(options, _RENEW_TIME),
        rebind_time=_number(options, _REBIND_TIME),
        text=_text(options.get(_TEXT, b"")),
    )


def _options(area: bytes, sname: bytes, file: bytes) -> dict[int, bytes]:
    """All options, those in parts joined; `file` and `sname` hold more of them when option 52 says so."""
    found: dict[int, bytes] = {}
    _collect(area, found)
    overload = int.from_bytes(found.get(_OVERLOAD, b""), "big")
    if overload in (1, 3):
        _collect(file, found)
    if overload in (2, 3):
        _collect(sname, found)
    return found


def _collect(area: bytes, found: dict[int, bytes]) -> None:
    for code, value in _split(area):
        found[code] = found.get(code, b"") + value


def _split(area: bytes) -> Iterator[tuple[int, bytes]]:
    """Code and value of each option, up to the end mark or the first that is cut short."""
    position = 0
    while position < len(area) and area[position] != _END:
        if area[position] == _PAD:
            position += 1
            continue
        start = position + 2
        if start > len(area) or start + area[position + 1] > len(area):
            return
        yield area[position], area[start : start + area[position + 1]]
        position = start + area[position + 1]


def _number(options: dict[int, bytes], code: int) -> int | None:
    value = options.get(code, b"")
    return int.from_bytes(value, "big") if len(value) == 4 else None


def _addresses(options: dict[int, bytes], code: int) -> tuple[str, ...]:
    value = options.get(code, b"")
    if len(value) % 4:
        return ()
    return tuple(str(IPv4Address(value[place : place + 4])) for place in range(0, len(value), 4))


def _prefixlen(mask: bytes) -> int | None:
    hosts = int.from_bytes(mask, "big") ^ 0xFFFFFFFF
    if len(mask) != 4 or hosts & (hosts + 1):
        return None
    return 32 - hosts.bit_length()


def _classless_routes(value: bytes) -> tuple[tuple[str, str], ...]:
    """RFC 3442: prefix length, as many bytes of the destination as that needs, the router; all or nothing."""
    found = []
    while value:
        prefixlen = value[0]
        significant = (prefixlen + 7) // 8
        end = 1 + significant + 4
        if prefixlen > 32 or len(value) < end:
            return ()
        network = IPv4Network((value[1 : 1 + significant].ljust(4, b"\0"), prefixlen), strict=False)
        found.append((str(network), str(IPv4Address(value[1 + significant : end]))))
        value = value[end:]
    return tuple(found)


def _name(value: bytes) -> str:
    text = _text(value)
    return text if _NAME.fullmatch(text) else ""


def _text(value: bytes) -> str:
    """For people and logs: whatever a stranger sent, it stays on one line."""
    text = value.rstrip(b"\0").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _packed(address: str) -> bytes:
    return IPv4Address(address).packed
