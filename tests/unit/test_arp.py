"""ARP probes: who has the address, and who does not count."""

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import CommandError
from services.netmon import arp
from services.netmon.address_probes import AddressProbes

OURS, THEIRS = "02:00:00:00:00:01", "72:fc:00:00:00:99"
ADDRESS = "192.168.10.2"


def frame(*, asks: bool, sender_mac: str, sender_ip: str, target_ip: str) -> bytes:
    mac = bytes.fromhex(sender_mac.replace(":", ""))
    ends = (mac, IPv4Address(sender_ip).packed, bytes(6), IPv4Address(target_ip).packed)
    return struct.pack("!6s6sHHHBBH6s4s6s4s", b"\xff" * 6, mac, 0x806, 1, 0x800, 6, 4, 1 if asks else 2, *ends)


def test_a_probe_asks_without_claiming() -> None:
    heard = arp.decode(arp.probe(OURS, ADDRESS))
    assert heard == arp.Arp(asks=True, sender_mac=OURS, sender_ip="0.0.0.0", target_ip=ADDRESS)


@pytest.mark.parametrize(
    ("asks", "sender_mac", "sender_ip", "target_ip", "expected"),
    [
        (False, THEIRS, ADDRESS, "0.0.0.0", THEIRS),  # it answers the probe
        (True, THEIRS, ADDRESS, "192.168.10.9", THEIRS),  # it has the address and asks for another one
        (True, THEIRS, ADDRESS, ADDRESS, THEIRS),  # it announces itself
        (True, THEIRS, "0.0.0.0", ADDRESS, THEIRS),  # it probes for the same address
        (True, THEIRS, "192.168.10.9", ADDRESS, None),  # it only looks for whoever has it
        (False, THEIRS, "192.168.10.9", "0.0.0.0", None),
        (False, OURS, ADDRESS, "0.0.0.0", None),  # the vNIC itself
        (True, OURS, "0.0.0.0", ADDRESS, None),  # our own probe, come back through a switch
    ],
)
def test_who_is_a_rival(asks: bool, sender_mac: str, sender_ip: str, target_ip: str, expected: str | None) -> None:
    heard = arp.decode(frame(asks=asks, sender_mac=sender_mac, sender_ip=sender_ip, target_ip=target_ip))
    assert heard is not None
    assert arp.rival(heard, ADDRESS, OURS) == expected


@given(st.binary(max_size=80))
def test_any_frame_is_arp_or_none(garbage: bytes) -> None:
    arp.decode(garbage)
    arp.decode(bytes(12) + b"\x08\x06" + garbage)


class Wire:
    """What was sent, on a cable that may be out."""

    def __init__(self, carries: bool = True) -> None:
        self.carries = carries
        self.sent: list[str] = []

    def send(self, parent: str, _frame: bytes) -> str | None:
        self.sent.append(parent)
        return None if self.carries else f"nothing can be sent on {parent}"


def test_silence_after_three_probes_means_free() -> None:
    wire = Wire()
    probes = AddressProbes(wire.send)
    verdict = probes.start("ens37", ADDRESS, OURS, None, now=100.0)
    moment = 100.0
    while not verdict.done():
        (moment,) = probes.moments()
        probes.tick(moment)
    assert (verdict.result(), wire.sent) == (None, ["ens37"] * 3)
    assert moment == pytest.approx(100.0 + 3 * arp.INTERVAL)
    assert (probes.moments(), probes.parents()) == ([], set())


def test_an_answer_ends_the_probe_and_only_on_its_own_lan() -> None:
    probes = AddressProbes(Wire().send)
    here = probes.start("ens37", ADDRESS, OURS, None, now=0.0)
    there = probes.start("ens38", ADDRESS, OURS, None, now=0.0)
    heard = arp.Arp(asks=False, sender_mac=THEIRS, sender_ip=ADDRESS, target_ip="0.0.0.0")
    probes.hear("ens37", heard)
    assert here.result(0) == THEIRS
    assert not there.done()


def test_what_is_known_is_not_asked() -> None:
    wire = Wire()
    assert AddressProbes(wire.send).start("ens37", ADDRESS, OURS, THEIRS, now=0.0).result(0) == THEIRS
    assert wire.sent == []


def test_a_probe_that_cannot_leave_is_no_free_address() -> None:
    wire = Wire()
    probes = AddressProbes(wire.send)
    verdict = probes.start("ens37", ADDRESS, OURS, None, now=0.0)
    wire.carries = False
    probes.tick(arp.INTERVAL)
    with pytest.raises(CommandError, match=r"192\.168\.10\.2 cannot be probed: nothing can be sent on ens37"):
        verdict.result(0)
    assert probes.parents() == set()
