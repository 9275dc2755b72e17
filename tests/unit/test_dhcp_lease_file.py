"""leases.json: a lease outlives netmon, and the host's boot as far as the clock can be believed."""

from pathlib import Path

import pytest

from services.netmon import lease, lease_file
from services.netmon.grant import Grant
from services.netmon.holding import Holding, Wish

WISH = Wish(key="plc1/eth0", parent_interface="ens37", mac_address="02:00:00:00:00:01", hostname="plc1")
GRANT = Grant(
    ip_address="192.168.10.100",
    prefixlen=24,
    gateway="192.168.10.1",
    routes=(("10.0.0.0/8", "192.168.10.254"),),
    dns=("192.168.10.1",),
    domain="plant.example",
    server="192.168.10.1",
    server_mac="aa:00:00:00:00:01",
    obtained=500.0,
    obtained_at=1_700_000_000.0,
    renew_after=60.0,
    rebind_after=105.0,
    lasts=120.0,
)


def reread(now: float, wall: float, boot: str = "this boot", grant: Grant | None = GRANT) -> Holding:
    content = lease_file.encode(lease_file.kept([lease.hold(WISH, grant=grant)]), "this boot")
    (holding,) = lease_file.decode(content, boot, now, wall)
    assert holding.wish == WISH
    return holding


def test_in_the_same_boot_a_lease_goes_on_whatever_the_wall_clock_says() -> None:
    holding = reread(now=560.0, wall=0.0)
    assert holding.grant == GRANT


def test_after_another_boot_its_age_is_that_of_the_wall_clock() -> None:
    holding = reread(now=5.0, wall=GRANT.obtained_at + 100.0, boot="another boot")
    assert holding.grant is not None
    assert holding.grant.ends() == 5.0 + 20.0


@pytest.mark.parametrize(
    ("now", "wall", "boot"),
    [
        (621.0, GRANT.obtained_at, "this boot"),  # over
        (5.0, GRANT.obtained_at + 121.0, "another boot"),  # over
        (5.0, 86_400.0, "another boot"),  # a clock without a battery: nobody knows
    ],
)
def test_what_may_be_over_is_only_an_address_to_ask_for(now: float, wall: float, boot: str) -> None:
    holding = reread(now=now, wall=wall, boot=boot)
    assert (holding.grant, holding.wanted) == (None, GRANT.ip_address)


def test_a_lease_that_was_never_granted_is_asked_for_again() -> None:
    assert reread(now=0.0, wall=0.0, grant=None) == lease.hold(WISH)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 2, "boot_id": "", "holdings": []}', b"\xff"])
def test_a_file_that_makes_no_sense_is_told_and_left(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / lease_file.NAME
    file.write_bytes(content)
    assert lease_file.load(file, 0.0, 0.0) == []
    assert "leases will be asked for anew" in caplog.text


def test_no_file_is_no_leases(tmp_path: Path) -> None:
    assert lease_file.load(tmp_path / "none", 0.0, 0.0) == []
