"""Where a vNIC shall be, by what netmon says of its lease or its address; and what is told of it."""

import re
import threading
from typing import Any

import msgspec
import pytest

from bus.errors import Unavailable
from bus.messages.base import Event
from bus.messages.docker_worker import DeviceChanged, VnicStatus
from bus.messages.netmon import HoldLease, Lease, ListLeases, ProbeAddress, ProbeResult, ReleaseLease
from bus.messages.netmon import Leases as LeaseList
from common.contracts.vnic import Vnic
from services.docker_worker import mac_correction, place
from services.docker_worker.address_probes import AddressProbes
from services.docker_worker.container import NEVER, Container, Endpoint
from services.docker_worker.corrections import Corrected, Corrections, life_of
from services.docker_worker.leases import Leases
from services.docker_worker.place import Verdict
from services.docker_worker.status import vnic_status
from services.docker_worker.vnic_news import VnicNews
from tests.unit.docker_worker_container import a_container

MAC = "06:00:00:00:00:01"
DHCP = Vnic(name="eth0", parent_interface="ens37", mode="dhcp", mac_address=MAC)
MANUAL = Vnic(
    name="eth0",
    parent_interface="ens37",
    mode="manual",
    ip_address="192.168.10.60",
    subnet="192.168.10.0/24",
    mac_address=MAC,
)
BOUND = Lease(
    key="plc/eth0",
    parent_interface="ens37",
    mac_address=MAC,
    hostname="plc",
    state="bound",
    ip_address="192.168.10.101",
    prefixlen=24,
    subnet="192.168.10.0/24",
    gateway="192.168.10.1",
    dns=("192.168.10.1",),
    server="192.168.10.1",
    obtained_at=1000.0,
    renew_at=1060.0,
    expires_at=1120.0,
)


def lease(**fields: Any) -> Lease:
    return msgspec.structs.replace(BOUND, **fields)


WITHOUT = lease(ip_address=None, subnet=None, gateway=None, state="waiting_for_lease", reason="no server answers")


# ---- the place of a lease


def test_a_bound_lease_is_where_the_vnic_belongs() -> None:
    found = place.of_lease(DHCP, BOUND)
    vnic = found.vnic
    assert found.decision == "take"
    assert (vnic.ip_address, vnic.subnet, vnic.gateway, vnic.dns) == (
        "192.168.10.101",
        "192.168.10.0/24",
        "192.168.10.1",
        ("192.168.10.1",),
    )


def test_the_vnics_own_servers_of_names_come_first_and_a_gateway_elsewhere_is_none() -> None:
    own = msgspec.structs.replace(DHCP, dns=("9.9.9.9",))
    vnic = place.of_lease(own, lease(gateway="10.0.0.1")).vnic
    assert (vnic.dns, vnic.gateway) == (("9.9.9.9",), None)


@pytest.mark.parametrize(
    ("known", "decision", "state"),
    [
        (None, "keep", "waiting_for_lease"),
        (WITHOUT, "leave", "waiting_for_lease"),
        (msgspec.structs.replace(WITHOUT, state="probing"), "leave", "waiting_for_lease"),
        (msgspec.structs.replace(WITHOUT, state="conflict"), "leave", "conflict"),
        (lease(state="no_parent"), "leave", "no_parent"),
        (lease(subnet="192.168.10.101/32", prefixlen=32), "leave", "error"),
    ],
)
def test_without_a_usable_lease_no_address_is_taken(known: Lease | None, decision: str, state: str) -> None:
    found = place.of_lease(DHCP, known)
    assert (found.decision, found.state, found.vnic.ip_address) == (decision, state, None)


# ---- the place of an address


@pytest.mark.parametrize(
    ("verdict", "held", "decision", "state"),
    [
        (None, True, "take", "up"),
        (None, False, "leave", "probing"),
        (Verdict(), False, "take", "up"),
        (Verdict(taken_by="52:54:00:00:00:09", again=5.0), False, "leave", "conflict"),
        (Verdict(problem="netmon does not answer", again=1.0), False, "leave", "pending"),
    ],
)
def test_an_address_is_taken_when_it_is_held_or_proved(
    verdict: Verdict | None, held: bool, decision: str, state: str
) -> None:
    found = place.of_address(MANUAL, verdict, held=held)
    assert (found.decision, found.state) == (decision, state)
    assert found.again == (verdict.again if verdict and verdict.again else None)
    assert verdict is None or (verdict.taken_by or "") in found.reason


# ---- what is remembered of leases


class Netmon:
    """Answers as netmon does; counts what it is asked."""

    def __init__(self, held: Lease | None = None) -> None:
        self.asked: list[Any] = []
        self.held = held
        self.taken_by: str | None = None

    def __call__(self, request: Any, deadline: float | None = None) -> Any:
        self.asked.append(request)
        if self.held is None:
            raise Unavailable("netmon does not answer: is it running?")
        if isinstance(request, HoldLease):
            return self.held
        if isinstance(request, ListLeases):
            return LeaseList(leases=(self.held,))
        if isinstance(request, ProbeAddress):
            return ProbeResult(parent_interface="ens37", ip_address=request.ip_address, taken_by=self.taken_by)
        return None


def test_a_renewal_that_changes_nothing_moves_nobody() -> None:
    looked: list[tuple[str, bool]] = []
    leases = Leases(Netmon(), lambda name, fresh: looked.append((name, fresh)))
    leases.hear(BOUND)
    leases.hear(lease(obtained_at=1060.0, renew_at=1120.0, expires_at=1180.0))
    assert looked == [("plc", True)]
    known = leases.known("plc", DHCP)
    assert known is not None
    assert known.expires_at == 1180.0
    leases.hear(lease(ip_address="192.168.10.102"))
    assert len(looked) == 2


def test_a_reply_never_replaces_what_an_event_has_told() -> None:
    leases = Leases(Netmon(WITHOUT), lambda _name, _fresh: None)
    leases.hold("plc", DHCP)
    assert leases.known("plc", DHCP) == WITHOUT
    leases.hear(BOUND)
    leases.hold("plc", DHCP)
    assert leases.known("plc", DHCP) == BOUND


def test_the_lease_of_an_earlier_device_of_the_name_does_not_count() -> None:
    leases = Leases(Netmon(), lambda _name, _fresh: None)
    leases.hear(BOUND)
    assert leases.known("plc", msgspec.structs.replace(DHCP, mac_address="06:00:00:00:00:02")) is None
    assert leases.known("plc", msgspec.structs.replace(DHCP, parent_interface="ens38")) is None


def test_a_netmon_that_is_away_is_named_until_it_answers() -> None:
    netmon = Netmon()
    leases = Leases(netmon, lambda _name, _fresh: None)
    leases.hold("plc", DHCP)
    assert "netmon" in leases.problem("plc", DHCP)
    netmon.held = BOUND
    leases.hold("plc", DHCP)
    assert leases.problem("plc", DHCP) == ""


def test_orphans_are_released_and_nothing_else() -> None:
    netmon = Netmon(BOUND)
    leases = Leases(netmon, lambda _name, _fresh: None)
    leases.release_orphans(lambda key: key == "plc/eth0")
    assert not any(isinstance(request, ReleaseLease) for request in netmon.asked)
    leases.release_orphans(lambda _key: False)
    assert netmon.asked[-1] == ReleaseLease(key="plc/eth0")


# ---- asking for addresses


def verdict_of(probes: AddressProbes, heard: threading.Event) -> Verdict | None:
    heard.clear()
    probes.want("plc", MANUAL)
    heard.wait(5.0)
    return probes.verdict("plc", MANUAL)


def test_an_address_is_asked_for_once_and_a_conflict_again_with_growing_pauses() -> None:
    netmon, heard = Netmon(BOUND), threading.Event()
    probes = AddressProbes(netmon, lambda _name, _fresh: heard.set())
    probes.start()
    assert probes.verdict("plc", MANUAL) is None
    free = verdict_of(probes, heard)
    assert free is not None
    assert (free.taken_by, free.problem) == (None, "")
    probes.want("plc", MANUAL)
    assert len(netmon.asked) == 1

    probes.forget("plc")
    netmon.taken_by = "52:54:00:00:00:09"
    taken = verdict_of(probes, heard)
    assert taken is not None
    assert (taken.taken_by, taken.again) == (netmon.taken_by, pytest.approx(5.0, abs=0.5))
    probes.want("plc", MANUAL)
    assert len(netmon.asked) == 2


def test_without_netmon_an_address_is_not_free() -> None:
    heard = threading.Event()
    probes = AddressProbes(Netmon(), lambda _name, _fresh: heard.set())
    probes.start()
    verdict = verdict_of(probes, heard)
    assert verdict is not None
    assert "netmon" in verdict.problem


# ---- status and news

UP = Endpoint(network_id="n", ip_address="192.168.10.101", mac_address=MAC, gateway="192.168.10.1", id="e1")


def container(endpoint: Endpoint | None = UP, **fields: Any) -> Container:
    return a_container(endpoint, **{"name": "plc", **fields})


def test_a_leased_vnic_tells_its_lease() -> None:
    status = vnic_status(place.of_lease(DHCP, BOUND), container(), BOUND)
    assert (status.state, status.ip_address, status.reason) == ("up", "192.168.10.101", "")
    assert status.lease is not None
    assert (status.lease.server, status.lease.expires_at) == ("192.168.10.1", "1970-01-01T00:18:40.000+00:00")


def test_a_vnic_without_lease_says_so_whatever_its_container_does() -> None:
    for seen in (None, container(None), container(None, status="created", started_at=NEVER)):
        status = vnic_status(place.of_lease(DHCP, WITHOUT), seen, WITHOUT)
        assert (status.state, status.ip_address, status.reason, status.lease) == (
            "waiting_for_lease",
            None,
            "no server answers",
            None,
        )


def test_a_corrected_mac_is_the_real_one_until_the_next_start_or_connect() -> None:
    by_docker = msgspec.structs.replace(UP, mac_address="02:42:c0:a8:0a:65")
    seen, corrections = container(by_docker), Corrections()
    corrections.put(seen, "eth0", Corrected(life=life_of(seen, by_docker), mac_address=MAC))
    one = place.of_lease(DHCP, BOUND)

    corrected = vnic_status(one, seen, BOUND, corrections.get(seen, "eth0", by_docker))
    assert (corrected.state, corrected.mac_address) == ("up", MAC)

    restarted = container(by_docker, started_at="2026-01-01T00:00:09Z")
    again = vnic_status(one, restarted, BOUND, corrections.get(restarted, "eth0", by_docker))
    assert (again.state, again.mac_address) == ("error", "02:42:c0:a8:0a:65")
    assert again.reason == f"MAC {MAC} was wanted, it has 02:42:c0:a8:0a:65"
    assert corrections.get(seen, "eth0", msgspec.structs.replace(by_docker, id="e2")) is None


def test_the_helper_has_two_capabilities_in_the_vplcs_network_and_no_more() -> None:
    config: dict[str, Any] = mac_correction.helper_config(container(), "agent-7", "192.168.10.101", MAC)
    host = config["HostConfig"]
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["NET_ADMIN", "NET_RAW"])
    assert (host["NetworkMode"], host["ReadonlyRootfs"]) == ("container:" + "0" * 64, True)
    assert not re.search(r"^\s*(import|from) (?!fcntl|socket|struct|sys)", config["Entrypoint"][3], re.MULTILINE)


def status_of(state: Any, address: str | None = None) -> VnicStatus:
    return VnicStatus(
        name="eth0",
        parent_interface="ens37",
        mode="dhcp",
        ip_address=address,
        mac_address=MAC,
        gateway=None,
        state=state,
        reason="" if state == "up" else "because",
    )


def test_news_of_vnics_are_told_once() -> None:
    told: list[Event] = []
    news = VnicNews(told.append)

    def after(*states: VnicStatus) -> list[tuple[str, str | None]]:
        told.clear()
        for state in states:
            news.tell("plc", "running", (state,))
        return [(event.event, event.error) for event in told if isinstance(event, DeviceChanged)]

    assert after(status_of("up", "192.168.10.101")) == []
    down = status_of("waiting_for_lease")
    assert after(down, down) == [("vnic_down", "eth0: waiting_for_lease: because")]
    assert after(status_of("up", "192.168.20.101")) == [("vnic_up", None)]
    assert after(status_of("up", "192.168.20.102")) == [("vnic_up", None)]
