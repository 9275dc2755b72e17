"""The packet socket on a real interface: a busy NIC does not wake us, and nobody else's network is heard."""

import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from services.netmon import arp, packet_socket
from services.netmon.packet_socket import PacketSocket
from tests.lab import netns
from tests.lab.host import EdgeHost, edge_host
from tests.lab.lan import Outsider
from tests.lab.process import wait_until

pytestmark = pytest.mark.engine

MAC = "02:4e:00:00:00:01"
PROBE = arp.probe(MAC, "192.168.10.9")
LAST = b"the last frame"


@pytest.fixture(scope="module")
def edge() -> Iterator[EdgeHost]:
    with edge_host() as edge:
        yield edge


@pytest.fixture(scope="module")
def pc(edge: EdgeHost) -> Outsider:
    plant = edge.lan("plant", "192.168.10.0/24", dhcp=False)
    edge.nic("ens37", plant)
    return plant.pc("pc", "192.168.10.50")


@pytest.fixture
def parent(edge: EdgeHost, pc: Outsider) -> Iterator[PacketSocket]:
    with closing(netns.call_in(edge.ns, lambda: PacketSocket("ens37"))) as parent:
        yield parent


def udp(payload: bytes, *, port: int, ip_options: bytes = b"", offset: int = 0, tag: bytes = b"") -> bytes:
    """A frame to everybody, as a DHCP server or anybody else sends it."""
    datagram = struct.pack("!HHHH", 67, port, 8 + len(payload), 0) + payload
    words, length = 5 + len(ip_options) // 4, 20 + len(ip_options) + len(datagram)
    ends = bytes([192, 168, 10, 50]) + b"\xff" * 4
    header = struct.pack("!BBHHHBBH", 0x40 | words, 0, length, 7, offset, 64, 17, 0) + ends + ip_options
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:]
    return b"\xff" * 6 + bytes.fromhex("024e00000099") + tag + b"\x08\x00" + header + datagram


def heard(pc: Outsider, parent: PacketSocket, *frames: bytes) -> list[bytes]:
    """Which of the frames that the PC sends come in; one more that surely does ends the wait."""

    def send() -> None:
        with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as wire:
            wire.bind(("eth0", 0))
            for frame in (*frames, udp(LAST, port=68)):
                wire.send(frame)

    netns.call_in(pc.ns, send)
    came: list[bytes] = []

    def last_came() -> bool:
        came.extend(parent.receive())
        return bool(came) and came[-1].endswith(LAST)

    wait_until(last_came, 5, "the last frame")
    return came[:-1]


def test_only_dhcp_answers_come_in(pc: Outsider, parent: PacketSocket) -> None:
    answer, with_options = udp(b"an answer", port=68), udp(b"an answer", port=68, ip_options=bytes([1] * 8))
    others = (udp(b"modbus", port=502), udp(b"a question", port=67), udp(b"a later part", port=68, offset=3), PROBE)
    assert heard(pc, parent, *others, answer, with_options) == [answer, with_options]


def test_arp_comes_in_while_it_is_wanted(pc: Outsider, parent: PacketSocket) -> None:
    def arps() -> list[bytes]:
        # the kernel of the PC may ask for somebody, too
        return [frame for frame in heard(pc, parent, PROBE) if frame[: len(PROBE)] == PROBE]

    assert arps() == []
    parent.hear_arp(True)
    assert len(arps()) == 1
    parent.hear_arp(False)
    assert arps() == []


def test_another_vlan_on_the_same_cable_is_another_network(pc: Outsider, parent: PacketSocket) -> None:
    parent.hear_arp(True)
    tag = struct.pack("!HH", 0x8100, 20)
    tagged_probe = PROBE[:12] + tag + PROBE[12:]
    assert heard(pc, parent, udp(b"an answer", port=68, tag=tag), tagged_probe) == []


def test_what_leaves_through_the_interface_does_not_come_back(
    edge: EdgeHost, pc: Outsider, parent: PacketSocket
) -> None:
    """Frames of the host's own containers pass the interface, too."""
    parent.hear_arp(True)
    with closing(netns.call_in(edge.ns, lambda: PacketSocket("ens37"))) as neighbour:
        neighbour.send(PROBE)
        neighbour.send(packet_socket.to_server(b"a question", source_mac=MAC))
    assert heard(pc, parent) == []


def test_an_interface_that_is_not_there_is_an_error(edge: EdgeHost) -> None:
    with pytest.raises(OSError, match="No such device"):
        netns.call_in(edge.ns, lambda: PacketSocket("nic9"))
