"""What may be asked for a vNIC's lease, and what is refused with a sentence."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from bus.errors import CommandError
from bus.messages.netmon import HoldLease, ProbeAddress
from services.netmon import lease_requests
from services.netmon.holding import Wish

GOOD = {"key": "plc1/eth0", "parent_interface": "ens37", "mac_address": "02:42:AC:11:00:07", "hostname": "plc_1.eth0"}


@dataclass
class Kept:
    """Remembers what it was asked to hold."""

    wishes: list[Wish] = field(default_factory=list)

    def hold(self, wish: Wish) -> None:
        self.wishes.append(wish)


@dataclass
class Context:
    leases: Any = field(default_factory=Kept)


def test_a_wish_arrives_in_the_words_of_the_wire() -> None:
    context = Context()
    lease_requests.hold_lease(context, HoldLease(**GOOD))
    wish = Wish(key="plc1/eth0", parent_interface="ens37", mac_address="02:42:ac:11:00:07", hostname="plc-1-eth0")
    assert context.leases.wishes == [wish]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"key": ""}, r"\$\.key"),
        ({"key": "plc1\n"}, r"\$\.key"),
        ({"key": "k" * 129}, r"\$\.key"),
        ({"parent_interface": "../ens37"}, r"\$\.parent_interface"),
        ({"parent_interface": ".."}, r"\$\.parent_interface"),
        ({"mac_address": "02:42:ac:11:00"}, r"\$\.mac_address"),
        ({"mac_address": "03:42:ac:11:00:07"}, r"\$\.mac_address"),
        ({"mac_address": "00:00:00:00:00:00"}, r"\$\.mac_address"),
    ],
)
def test_what_cannot_be_meant_is_invalid(change: dict[str, str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence) as refusal:
        lease_requests.hold_lease(Context(), HoldLease(**GOOD | change))
    assert refusal.value.code == "invalid"


@pytest.mark.parametrize("address", ["", "192.168.1", "192.168.1.256", "fe80::1", "plc1"])
def test_only_an_ipv4_address_can_be_probed(address: str) -> None:
    asked = ProbeAddress(parent_interface="ens37", ip_address=address, mac_address=GOOD["mac_address"])
    with pytest.raises(CommandError, match=r"\$\.ip_address") as refusal:
        lease_requests.probe_address(Context(), asked)
    assert refusal.value.code == "invalid"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("plc1", "plc1"), ("Press_2.line", "Press-2-line"), ("-_", ""), ("p" * 62 + "_x", "p" * 62), ("größe", "gr--e")],
)
def test_a_hostname_is_made_of_letters_digits_and_hyphens(name: str, expected: str) -> None:
    assert lease_requests.hostname(name) == expected
