"""DHCP messages: what we send is what servers expect, and what anybody sends us does no harm."""

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.netmon import packet_socket
from services.netmon.dhcp_message import Kind, MalformedError, Query, Reply, decode, encode
from tests.unit.dhcp_server import options, reply_bytes

MAC = "02:42:ac:11:00:07"


def test_a_discover_is_what_rfc_2131_draws() -> None:
    query = Query(kind=Kind.DISCOVER, xid=0xDEADBEEF, mac_address=MAC, hostname="plc1-eth0", secs=7)
    sent = encode(query)
    assert sent[:4] == bytes([1, 1, 6, 0])
    assert struct.unpack("!IHH", sent[4:12]) == (0xDEADBEEF, 7, 0x8000)
    assert sent[12:28] == bytes(16)
    assert sent[28:34].hex(":") == MAC
    assert sent[236:240] == b"\x63\x82\x53\x63"
    told = options(sent)
    assert told[53] == bytes([1])
    assert told[61] == bytes.fromhex("01" + MAC.replace(":", "")), "the client id is the one plant IT knows"
    assert told[12] == b"plc1-eth0"
    assert set(told[55]) == {1, 3, 6, 15, 51, 54, 58, 59, 121}
    assert told[55].index(121) < told[55].index(3), "RFC 3442: the routes before the routers"
    assert len(sent) >= 300, "old relays drop less"


def test_a_request_names_address_and_server_and_a_renewal_neither() -> None:
    chosen = Query(kind=Kind.REQUEST, xid=1, mac_address=MAC, requested="10.0.0.7", server="10.0.0.1")
    told = options(encode(chosen))
    assert (told[50], told[54]) == (IPv4Address("10.0.0.7").packed, IPv4Address("10.0.0.1").packed)
    renewal = encode(Query(kind=Kind.REQUEST, xid=1, mac_address=MAC, own="10.0.0.7", broadcast=False))
    assert not {50, 54} & options(renewal).keys()
    assert (renewal[12:16], renewal[10:12]) == (IPv4Address("10.0.0.7").packed, b"\0\0")


def test_an_acknowledgement_is_read_whole() -> None:
    reply = decode(
        reply_bytes(
            Kind.ACK,
            xid=5,
            mac=MAC,
            address="192.168.10.101",
            told={
                54: "192.168.10.1",
                1: "255.255.255.0",
                3: "192.168.10.1",
                6: b"".join(IPv4Address(each).packed for each in ("192.168.10.1", "9.9.9.9")),
                15: b"plant.example",
                51: 120,
                58: 60,
                59: 105,
            },
        )
    )
    assert reply == Reply(
        kind=Kind.ACK,
        xid=5,
        mac_address=MAC,
        address="192.168.10.101",
        server="192.168.10.1",
        prefixlen=24,
        routers=("192.168.10.1",),
        dns=("192.168.10.1", "9.9.9.9"),
        domain="plant.example",
        lease_time=120,
        renew_time=60,
        rebind_time=105,
    )


def test_a_lease_without_end_has_none() -> None:
    reply = decode(reply_bytes(Kind.ACK, told={51: 0xFFFFFFFF}))
    assert (reply.lease_time, reply.endless) == (None, True)


def test_a_long_lease_is_not_negative() -> None:
    assert decode(reply_bytes(Kind.ACK, told={51: 0x80000000})).lease_time == 0x80000000


def test_classless_routes_are_read() -> None:
    told = bytes([0, 10, 0, 0, 1, 12, 172, 16, 10, 0, 0, 2, 32, 1, 2, 3, 4, 10, 0, 0, 3])
    routes = (("0.0.0.0/0", "10.0.0.1"), ("172.16.0.0/12", "10.0.0.2"), ("1.2.3.4/32", "10.0.0.3"))
    assert decode(reply_bytes(Kind.ACK, told={121: told})).routes == routes
    assert decode(reply_bytes(Kind.ACK, told={121: told[:-1]})).routes == ()


def test_options_come_in_parts_and_in_the_places_for_file_names() -> None:
    dns = [IPv4Address(f"10.0.0.{each}").packed for each in (1, 2, 3)]
    sname = bytes([6, 4]) + dns[2] + b"\xff"
    file = bytes([6, 4]) + dns[1] + b"\xff"
    sent = reply_bytes(Kind.ACK, told={52: bytes([3]), 6: dns[0]}, sname=sname, file=file)
    assert decode(sent).dns == ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def test_an_option_that_cannot_be_read_is_one_that_was_not_sent() -> None:
    told = {51: b"\1", 1: "255.0.255.0", 3: b"abc", 54: "10.0.0.1", 15: b"bad name\n", 56: b"no\nway\0"}
    reply = decode(reply_bytes(Kind.NAK, told=told))
    assert (reply.lease_time, reply.prefixlen, reply.routers, reply.domain) == (None, None, (), "")
    assert (reply.server, reply.text) == ("10.0.0.1", "no?way")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        bytes(239),
        bytes(600),
        encode(Query(kind=Kind.DISCOVER, xid=1, mac_address=MAC)),  # another client's
        reply_bytes(Kind.DISCOVER),
        reply_bytes(Kind.ACK, cookie=b"BOOT"),
    ],
)
def test_what_is_no_reply_is_malformed(sent: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(sent)


@given(st.binary(max_size=400), st.binary(max_size=80))
def test_garbage_is_malformed_or_a_reply_and_nothing_else(header: bytes, tail: bytes) -> None:
    for sent in (header, reply_bytes(Kind.ACK)[:240] + tail, reply_bytes(Kind.ACK)[:243] + tail):
        try:
            reply = decode(sent)
        except MalformedError:
            continue
        assert isinstance(reply, Reply)


def test_a_frame_carries_the_payload_and_has_valid_checksums() -> None:
    payload = encode(Query(kind=Kind.DISCOVER, xid=1, mac_address=MAC)) + b"\1"
    frame = packet_socket.to_server(payload, source_mac=MAC)
    assert (frame[:6], frame[6:12].hex(":"), frame[12:14]) == (b"\xff" * 6, MAC, b"\x08\x00")
    ip, udp = frame[14:34], frame[34:]
    assert ones_sum(ip) == 0xFFFF
    assert ones_sum(ip[12:20] + struct.pack("!BBH", 0, 17, len(udp)) + udp) == 0xFFFF
    assert struct.unpack("!HH", udp[:4]) == (68, 67)
    assert packet_socket.from_server(frame) is None, "it goes to a server, not to a client"


def test_the_payload_of_a_server_is_found_behind_ip_options() -> None:
    for words in (5, 7):
        frame = server_frame(b"payload", words=words) + b"padding of a short frame"
        datagram = packet_socket.from_server(frame)
        assert datagram is not None
        assert (datagram.source_mac, datagram.payload) == ("aa:bb:cc:dd:ee:ff", b"payload")


@given(st.binary(max_size=120), st.integers(0, 60))
def test_any_frame_is_a_datagram_or_none(garbage: bytes, cut: int) -> None:
    for frame in (garbage, server_frame(b"payload")[:cut] + garbage):
        packet_socket.from_server(frame)


def server_frame(payload: bytes, words: int = 5) -> bytes:
    udp = struct.pack("!HHHH", 67, 68, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH8s", 0x40 | words, 0, words * 4 + len(udp), 0, 0, 64, 17, 0, bytes(8))
    return bytes.fromhex("024200000001aabbccddeeff0800") + ip.ljust(words * 4, b"\0") + udp


def ones_sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
