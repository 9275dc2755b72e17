"""Leases against a real DHCP server: netmon on an edge host with a plant LAN and an office LAN."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from msgspec import structs

from bus.errors import CommandError
from bus.messages.netmon import LeaseChanged, ProbeAddress
from tests.engine.netmon_under_test import NetmonUnderTest
from tests.lab import netns
from tests.lab.host import EdgeHost, edge_host
from tests.lab.lan import Lan, Outsider
from tests.lab.process import wait_until

pytestmark = pytest.mark.engine

MOVING = tuple(f"moving{number}/eth0" for number in range(5))


class Site:
    """An edge host with NICs on two LANs, and PCs there."""

    def __init__(self, edge: EdgeHost) -> None:
        self.edge = edge
        self.plant = edge.lan("plant", "192.168.10.0/24")
        self.office = edge.lan("office", "192.168.20.0/24")
        edge.nic("ens37", self.plant, address="192.168.10.5/24", gateway="192.168.10.1")
        edge.nic("ens38", self.office, address="192.168.20.5/24", metric=200)
        self.pc = self.plant.pc("pc", "192.168.10.50")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with edge_host() as edge:
        yield Site(edge)


@pytest.fixture
def netmon(site: Site, tmp_path: Path) -> Iterator[NetmonUnderTest]:
    """A netmon of the test's own; the LANs' servers keep what they gave to others."""
    netmon = NetmonUnderTest(edge=site.edge, dir=tmp_path / "netmon")
    netmon.start()
    yield netmon
    netmon.close()


def mac(number: int, kind: int = 0) -> str:
    return f"02:4e:00:00:{kind:02x}:{number:02x}"


def given(lan: Lan) -> dict[str, str]:
    """Address by MAC, as the server has it."""
    return {lease.mac: lease.address for lease in lan.leases()}


def log_of(lan: Lan) -> str:
    return lan.dhcp_log.read_text()


# --- taking and giving back


def test_twenty_leases_on_one_parent_are_all_different_and_as_the_server_has_them(
    site: Site, netmon: NetmonUnderTest
) -> None:
    keys = {f"plc{number}/eth0": mac(number) for number in range(20)}
    for key, address in keys.items():
        netmon.hold(key, "ens37", address)
    held = {key: netmon.bound(key) for key in keys}

    addresses = [lease.ip_address for lease in held.values()]
    assert len(set(addresses)) == 20
    assert all(IPv4Address(address or "") in site.plant.network for address in addresses)
    on_server = {lease.mac: lease for lease in site.plant.leases()}
    for key, lease in held.items():
        theirs = on_server[lease.mac_address]
        assert (theirs.address, theirs.hostname) == (lease.ip_address, key.replace("/", "-"))
        assert theirs.client_id == f"01:{lease.mac_address}"
        assert (lease.gateway, lease.dns, lease.prefixlen) == ("192.168.10.1", ("192.168.10.1",), 24)
        assert lease.expires_at is not None
        assert lease.obtained_at is not None
        assert lease.expires_at - lease.obtained_at == pytest.approx(120)
    assert {key: lease.ip_address for key, lease in netmon.leases().items()} == dict(zip(keys, addresses, strict=True))


def test_a_released_address_is_given_back_and_forgotten(site: Site, netmon: NetmonUnderTest) -> None:
    netmon.hold("plc1/eth0", "ens37", mac(1, kind=1))
    address = netmon.bound("plc1/eth0").ip_address
    assert netmon.release("plc1/eth0") == address
    wait_until(lambda: f"DHCPRELEASE(br0) {address} {mac(1, kind=1)}" in log_of(site.plant), 5, "the server's log")
    assert mac(1, kind=1) not in given(site.plant)
    assert netmon.leases() == {}
    assert "plc1/eth0" not in (netmon.dir / "state" / "leases.json").read_text()
    assert netmon.release("plc1/eth0") is None, "once more does no harm"


def test_holding_twice_is_holding_once_and_another_parent_takes_the_lease_there(
    site: Site, netmon: NetmonUnderTest
) -> None:
    netmon.hold("plc1/eth0", "ens37", mac(1, kind=2))
    first = netmon.bound("plc1/eth0")
    again = netmon.hold("plc1/eth0", "ens37", mac(1, kind=2).upper())
    assert (again.state, again.ip_address, again.obtained_at) == ("bound", first.ip_address, first.obtained_at)
    with pytest.raises(CommandError, match="is the MAC address of plc1/eth0"):
        netmon.hold("plc2/eth0", "ens37", mac(1, kind=2))

    netmon.hold("plc1/eth0", "ens38", mac(1, kind=2))
    moved = netmon.wait("plc1/eth0", lambda lease: lease.state == "bound" and lease.parent_interface == "ens38")
    assert moved.subnet == "192.168.20.0/24"
    wait_until(lambda: mac(1, kind=2) not in given(site.plant), 5, "the plant's server has it back")


# --- conflicts


@pytest.fixture
def squatter(site: Site) -> Iterator[Callable[[str], Outsider]]:
    """Put the PC on an address that the server thinks is free."""
    taken: list[str] = []

    def take(address: str) -> Outsider:
        site.pc.run(["ip", "address", "add", f"{address}/24", "dev", "eth0"])
        taken.append(address)
        return site.pc

    yield take
    for address in taken:
        site.pc.run(["ip", "address", "del", f"{address}/24", "dev", "eth0"])


def test_a_conflict_is_declined_and_survived_while_another_vnic_waits_for_a_server(
    site: Site, netmon: NetmonUnderTest, squatter: Callable[[str], Outsider]
) -> None:
    """Two stories at once, for both take their ten seconds."""
    netmon.hold("plc1/eth0", "ens37", mac(1, kind=3))
    coveted = netmon.bound("plc1/eth0").ip_address
    assert coveted
    netmon.release("plc1/eth0")  # the server will offer it to this MAC again
    pc = squatter(coveted)
    site.office.stop_dhcp()
    try:
        netmon.hold("plc2/eth0", "ens38", mac(2, kind=3))
        netmon.hold("plc1/eth0", "ens37", mac(1, kind=3))
        conflict = netmon.wait("plc1/eth0", lambda lease: lease.state == "conflict")
        assert (conflict.conflict_mac, conflict.ip_address) == (pc.mac, None)
        assert coveted in conflict.reason
        assert pc.mac in conflict.reason
        assert f"DHCPDECLINE(br0) {coveted} {mac(1, kind=3)}" in log_of(site.plant)

        waiting = netmon.wait("plc2/eth0", lambda lease: "no DHCP server answers on ens38" in lease.reason)
        assert (waiting.state, waiting.ip_address) == ("waiting_for_lease", None)
    finally:
        site.office.start_dhcp()

    other = netmon.bound("plc1/eth0")
    assert other.ip_address != coveted
    assert given(site.plant)[mac(1, kind=3)] == other.ip_address
    assert pc.arp("192.168.10.5"), "the PC was never disturbed"
    assert netmon.bound("plc2/eth0").subnet == "192.168.20.0/24", "found again when it started"


def test_a_probe_names_who_has_an_address(site: Site, netmon: NetmonUnderTest) -> None:
    def taken_by(address: str, parent: str = "ens37") -> str | None:
        asked = ProbeAddress(parent_interface=parent, ip_address=address, mac_address=mac(1, kind=4))
        return netmon.call(asked).taken_by

    assert taken_by(site.pc.address) == site.pc.mac
    assert taken_by("192.168.10.77") is None
    assert taken_by("192.168.10.5"), "the host's own address is taken, although nobody answers for it on the LAN"
    netmon.hold("plc1/eth0", "ens37", mac(2, kind=4))
    held = netmon.bound("plc1/eth0").ip_address
    assert held
    assert taken_by(held) == mac(2, kind=4)
    with pytest.raises(CommandError, match="nic9 does not exist"):
        taken_by("192.168.10.77", parent="nic9")


# --- staying


@pytest.fixture
def quick_plant(site: Site) -> Iterator[Lan]:
    """The plant's server wants to see its clients every few seconds."""
    site.plant.stop_dhcp()
    site.plant.start_dhcp("--dhcp-option-force=option:T1,2", "--dhcp-option-force=option:T2,4")
    yield site.plant
    site.plant.stop_dhcp()
    site.plant.start_dhcp()


def test_a_renewal_changes_nothing_but_the_times(site: Site, netmon: NetmonUnderTest, quick_plant: Lan) -> None:
    """A vPLC's kernel answers the server's ARP for its address; here a MACVLAN in a namespace plays the vPLC. The
    server finds no such kernel for a stopped vPLC, and answers to everybody when it is asked at T2."""
    running, stopped = mac(1, kind=5), mac(2, kind=5)
    netmon.hold("plc1/eth0", "ens37", running)
    netmon.hold("plc2/eth0", "ens37", stopped)
    before = {key: netmon.bound(key) for key in ("plc1/eth0", "plc2/eth0")}
    with plc_on(site, running, before["plc1/eth0"].ip_address):
        netmon.events.clear()
        for key, first in before.items():
            renewed = netmon.wait(key, lambda lease: lease.obtained_at != before[lease.key].obtained_at)
            assert without_times(renewed) == without_times(first)
            due = first.renew_at if key == "plc1/eth0" else first.rebind_at
            assert renewed.obtained_at == pytest.approx(due, abs=0.5)
    assert {(lease.state, lease.reason) for lease in netmon.events} == {("bound", "")}


def test_killed_and_started_again_it_has_the_same_addresses(site: Site, netmon: NetmonUnderTest) -> None:
    keys = [f"plc{number}/eth0" for number in range(5)]
    for number, key in enumerate(keys):
        netmon.hold(key, "ens37", mac(number, kind=6))
    before = {key: netmon.bound(key) for key in keys}
    netmon.kill()
    requests = log_of(site.plant).count("DHCPREQUEST(br0)")
    netmon.seen.clear()
    netmon.events.clear()
    netmon.start()
    for key in keys:
        netmon.wait(key, lambda lease: lease.obtained_at != before[lease.key].obtained_at)
    assert {lease.state for lease in netmon.events} == {"bound"}
    assert {(each.key, each.ip_address) for each in netmon.events} == {(key, before[key].ip_address) for key in keys}
    asked = log_of(site.plant).split("DHCPREQUEST(br0)")[requests + 1 :]
    assert len(asked) == 5, "each was confirmed by one request, none asked for anew"


def test_started_where_no_server_answers_it_keeps_the_lease(site: Site, netmon: NetmonUnderTest) -> None:
    netmon.hold("plc1/eth0", "ens37", mac(1, kind=7))
    before = netmon.bound("plc1/eth0")
    netmon.kill()
    netmon.seen.clear()
    site.plant.stop_dhcp()
    try:
        netmon.start()
        silent = netmon.wait("plc1/eth0", lambda lease: "no DHCP server answers" in lease.reason)
        assert (silent.state, silent.ip_address) == ("bound", before.ip_address)
    finally:
        site.plant.start_dhcp()
    well = netmon.wait("plc1/eth0", lambda lease: lease.reason == "")
    assert (well.state, well.ip_address) == ("bound", before.ip_address)


# --- the network


@dataclass
class Story:
    """What became of four leases while cables and cards were moved, each step one debounce long."""

    first: dict[str, LeaseChanged] = field(default_factory=dict)
    events: list[LeaseChanged] = field(default_factory=list)
    last: dict[str, LeaseChanged] = field(default_factory=dict)

    def of(self, key: str) -> list[LeaseChanged]:
        return [lease for lease in self.events if lease.key == key]


@pytest.fixture(scope="module")
def story(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """ens39 is moved from the plant to the office; ens40 loses its cable, is pulled out and put in again; ens41
    comes late; ens38 is left alone."""
    netmon, story = NetmonUnderTest(edge=site.edge, dir=tmp_path_factory.mktemp("story") / "netmon"), Story()
    for nic in ("ens39", "ens40"):
        site.edge.nic(nic, site.plant)
    netmon.start()
    try:
        vnics = {**dict.fromkeys(MOVING, "ens39"), "out/eth0": "ens40", "still/eth0": "ens38", "late/eth0": "ens41"}
        for number, (key, nic) in enumerate(vnics.items()):
            assert netmon.hold(key, nic, mac(number, kind=9)).state == (
                "no_parent" if nic == "ens41" else "waiting_for_lease"
            )
        story.first = {key: netmon.bound(key) for key in vnics if key != "late/eth0"}
        netmon.events.clear()

        site.edge.move_cable("ens39", site.office)
        site.edge.cable("ens40", up=False)
        site.edge.nic("ens41", site.plant)
        for key in (*MOVING, "late/eth0"):
            netmon.wait(key, lambda lease: lease.state == "bound" and lease != story.first.get(lease.key))
        netmon.wait("out/eth0", lambda lease: "has no carrier" in lease.reason)
        site.edge.remove_nic("ens40")
        netmon.wait("out/eth0", lambda lease: lease.state == "no_parent")
        site.edge.nic("ens40", site.plant)
        netmon.wait("out/eth0", lambda lease: lease.state == "bound" and lease.reason == "")
        story.events, story.last = netmon.events, dict(netmon.seen)
        yield story
    finally:
        netmon.close()


@pytest.mark.parametrize("key", MOVING)
def test_a_cable_in_another_lan_gives_a_lease_there(site: Site, story: Story, key: str) -> None:
    assert story.first[key].subnet == "192.168.10.0/24"
    there = story.last[key]
    assert (there.state, there.subnet, there.gateway) == ("bound", "192.168.20.0/24", "192.168.20.1")
    assert given(site.office)[there.mac_address] == there.ip_address
    refused = f"the DHCP server 192.168.20.1 refused {story.first[key].ip_address}: wrong network"
    assert refused in [lease.reason for lease in story.of(key)]


def test_a_nic_that_was_left_alone_keeps_its_lease_undisturbed(story: Story) -> None:
    assert (story.of("still/eth0"), story.last["still/eth0"]) == ([], story.first["still/eth0"])


def test_a_cable_out_and_a_card_gone_and_back(story: Story) -> None:
    address = story.first["out/eth0"].ip_address
    out, gone, back, *_ = story.of("out/eth0")
    assert (out.state, out.ip_address, out.reason) == ("bound", address, "ens40 is down or has no carrier")
    assert (gone.state, gone.reason) == ("no_parent", "there is no interface ens40")
    assert (back.state, back.ip_address, back.reason) == ("bound", address, "")


def test_a_card_that_comes_late_brings_the_lease(story: Story) -> None:
    assert (story.last["late/eth0"].state, story.last["late/eth0"].subnet) == ("bound", "192.168.10.0/24")


def test_without_the_right_to_raw_sockets_it_says_so(site: Site, tmp_path: Path) -> None:
    """All other tests run with CAP_NET_RAW and nothing else."""
    netmon = NetmonUnderTest(edge=site.edge, dir=tmp_path / "netmon")
    netmon.start(capabilities="-all")
    try:
        netmon.hold("plc1/eth0", "ens37", mac(1, kind=11))
        waiting = netmon.wait("plc1/eth0", lambda lease: lease.reason)
        assert waiting.reason == "nothing can be sent on ens37: Operation not permitted"
        told = "no raw socket on ens37 (Operation not permitted): netmon needs CAP_NET_RAW"
        assert netmon.info().reasons == [told]
        assert netmon.info().health == "degraded"
    finally:
        netmon.close()


def test_a_clean_stop_gives_nothing_back(site: Site, netmon: NetmonUnderTest) -> None:
    netmon.hold("plc1/eth0", "ens37", mac(1, kind=12))
    address = netmon.bound("plc1/eth0").ip_address
    netmon.signal(signal.SIGTERM)
    assert netmon.process is not None
    assert netmon.process.wait(10) == 0
    assert given(site.plant)[mac(1, kind=12)] == address


@contextmanager
def plc_on(site: Site, mac_address: str, ip_address: str | None) -> Iterator[None]:
    """A vPLC's own network: a MACVLAN of ens37 in a namespace."""
    ns = site.edge.lab.namespace("plc1")
    netns.add(ns)
    try:
        site.edge.ip(
            "link", "add", "plc1", "link", "ens37", "address", mac_address, "type", "macvlan", "mode", "bridge"
        )
        site.edge.ip("link", "set", "plc1", "netns", ns)
        netns.ip(ns, "address", "add", f"{ip_address}/24", "dev", "plc1")
        netns.ip(ns, "link", "set", "plc1", "up")
        yield
    finally:
        netns.delete(ns)


def without_times(lease: LeaseChanged) -> LeaseChanged:
    return structs.replace(lease, obtained_at=None, renew_at=None, rebind_at=None, expires_at=None)
