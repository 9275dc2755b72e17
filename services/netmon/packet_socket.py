"""A socket on a parent interface that speaks for any MAC address: whole Ethernet frames, in and out (packet(7)).

Needs CAP_NET_RAW and nothing else. It must be bound to ETH_P_ALL: a server's unicast answer to a vPLC is taken by the
vPLC's MACVLAN before a socket bound to ETH_P_IP would see it. So that a busy NIC does not wake us, the kernel filters:
only DHCP answers pass, and ARP while somebody is probing; no frames of other VLANs, whose tag the NIC has taken off,
and none that leave through this interface (those of our own containers).
"""

import socket
import struct
from array import array
from ipaddress import IPv4Address

import msgspec

_ETH_P_ALL, _ETH_P_IP, _UDP = 0x0003, 0x0800, 17
_SERVER_PORT, _CLIENT_PORT = 67, 68
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_LARGEST = 2048
_AT_ONCE = 64
_EVERYBODY_MAC, _EVERYBODY = "ff:ff:ff:ff:ff:ff", "255.255.255.255"
NOBODY = "0.0.0.0"  # noqa: S104 - an address that is none, not a place to listen

Instruction = tuple[int, int, int, int]

# Classic BPF as in linux/filter.h: (code, jump if true, jump if false, constant), jumps count from the next line.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_X = 0x20, 0x28, 0x30, 0x48
_IF_EQUAL, _IF_BITS, _HEADER_LENGTH, _RETURN = 0x15, 0x45, 0xB1, 0x06
_DIRECTION, _TAGGED = 0xFFFFF004, 0xFFFFF030  # SKF_AD_OFF + SKF_AD_PKTTYPE, SKF_AD_VLAN_TAG_PRESENT
_OUTGOING = 4


def _filter(*, arp: bool) -> list[Instruction]:
    return [
        (_LOAD_WORD, 0, 0, _DIRECTION),
        (_IF_EQUAL, 12, 0, _OUTGOING),
        (_LOAD_BYTE, 0, 0, _TAGGED),
        (_IF_EQUAL, 0, 10, 0),
        (_LOAD_HALF, 0, 0, 12),  # ethertype
        (_IF_EQUAL, 9 if arp else 8, 0, 0x0806),
        (_IF_EQUAL, 0, 7, _ETH_P_IP),
        (_LOAD_BYTE, 0, 0, 23),  # protocol
        (_IF_EQUAL, 0, 5, _UDP),
        (_LOAD_HALF, 0, 0, 20),
        (_IF_BITS, 3, 0, 0x1FFF),  # a later fragment has no ports
        (_HEADER_LENGTH, 0, 0, 14),
        (_LOAD_HALF_X, 0, 0, 16),  # destination port
        (_IF_EQUAL, 1, 0, _CLIENT_PORT),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, _LARGEST),
    ]


class Datagram(msgspec.Struct, frozen=True, kw_only=True):
    """What a DHCP server sent: the UDP payload and the MAC address it came from (a router's, if it is far away)."""

    source_mac: str
    payload: bytes


class PacketSocket:
    """Open on the interface `name`; raises `OSError` if there is none or NET_RAW is missing."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self.hear_arp(False)  # before it is bound: until then nothing comes in, afterwards only what we want
            self._socket.bind((name, _ETH_P_ALL))
            self.index = socket.if_nametoindex(name)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def hear_arp(self, wanted: bool) -> None:
        """Let ARP in, or keep it out as on a LAN of hundreds of devices one should."""
        program = array("B", b"".join(struct.pack("HBBI", *line) for line in _filter(arp=wanted)))
        address, length = program.buffer_info()
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", length // 8, address))

    def send(self, frame: bytes) -> None:
        """Send a whole Ethernet frame; raises `OSError` when the interface is down or gone."""
        self._socket.send(frame)

    def receive(self) -> list[bytes]:
        """The frames that wait, a bounded number of them; raises `OSError` when the interface went down or away."""
        frames: list[bytes] = []
        try:
            while len(frames) < _AT_ONCE:
                frames.append(self._socket.recv(_LARGEST))
        except BlockingIOError:
            pass  # that was all
        except OSError:
            if not frames:
                raise
        return frames

    def close(self) -> None:
        """Leave the interface."""
        self._socket.close()


def to_server(
    payload: bytes,
    *,
    source_mac: str,
    source: str = NOBODY,
    destination: str = _EVERYBODY,
    destination_mac: str = _EVERYBODY_MAC,
) -> bytes:
    """The frame that brings a DHCP payload to everybody, or to one server that is known."""
    udp = struct.pack("!HHHH", _CLIENT_PORT, _SERVER_PORT, 8 + len(payload), 0)
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    pseudo_header = ends + struct.pack("!BBH", 0, _UDP, 8 + len(payload))
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo_header + udp + payload) or 0xFFFF)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 64, _UDP, 0) + ends
    ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    return _mac(destination_mac) + _mac(source_mac) + struct.pack("!H", _ETH_P_IP) + ip + udp + payload


def from_server(frame: bytes) -> Datagram | None:
    """The DHCP payload in an Ethernet frame, None if there is none.

    Checksums are not looked at: a server on the same machine leaves them to a NIC that the frame never passes.
    """
    if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[14] >> 4 != 4 or frame[23] != _UDP:
        return None
    udp = 14 + (frame[14] & 0x0F) * 4
    if udp < 34 or int.from_bytes(frame[20:22], "big") & 0x1FFF:
        return None
    if int.from_bytes(frame[udp + 2 : udp + 4], "big") != _CLIENT_PORT:
        return None
    length = int.from_bytes(frame[udp + 4 : udp + 6], "big")
    if length < 8 or udp + length > len(frame):
        return None
    return Datagram(source_mac=frame[6:12].hex(":"), payload=frame[udp + 8 : udp + length])


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
