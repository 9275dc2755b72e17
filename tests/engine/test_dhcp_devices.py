"""vPLCs whose vNICs get their addresses from a DHCP server: docker_worker and netmon on an edge host with two LANs."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import docker
import pytest

from bus.messages.docker_worker import DeviceChanged, StartDevice, StopDevice, VnicStatus
from common.contracts.vnic import Vnic
from tests.engine.worker_under_test import IMAGE, WorkerUnderTest, is_step, manual, worker_on
from tests.lab import image
from tests.lab.host import EdgeHost, edge_host
from tests.lab.lan import Lan, Outsider
from tests.lab.process import wait_until

pytestmark = pytest.mark.engine

NAME = "plc-001"
HTTPS = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=plc -days 2"
    " -keyout /tmp/key -out /tmp/cert 2>/dev/null;"
    " exec openssl s_server -quiet -accept 8443 -key /tmp/key -cert /tmp/cert -WWW"
)


@dataclass(frozen=True, kw_only=True)
class World:
    """An edge host with NICs on two LANs; a real PLC has the address that Docker would give out first."""

    edge: EdgeHost
    plant: Lan
    office: Lan
    pc: Outsider
    clerk: Outsider
    real_plc: Outsider


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with edge_host() as edge:
        plant, office = edge.lan("plant", "192.168.10.0/24"), edge.lan("office", "192.168.20.0/24")
        edge.nic("ens37", plant, address="192.168.10.5/24", gateway="192.168.10.1")
        edge.nic("ens38", office, address="192.168.20.5/24")
        edge.start_engine()
        load_https_image(edge)
        yield World(
            edge=edge,
            plant=plant,
            office=office,
            pc=plant.pc("pc", "192.168.10.50"),
            clerk=office.pc("clerk", "192.168.20.50"),
            real_plc=plant.pc("real", "192.168.10.2"),
        )


@pytest.fixture
def worker(world: World) -> Iterator[WorkerUnderTest]:
    with worker_on(world.edge) as worker:
        worker.start()
        yield worker


def load_https_image(edge: EdgeHost) -> None:
    """The base image with a web server in place of a PLC."""
    edge.load_image(image.base_image(), image.BASE_TAG)
    with closing(docker.DockerClient(base_url=edge.engine.docker_host, timeout=60)) as engine:
        made = engine.containers.create(image.BASE_TAG, ["sh", "-c", HTTPS])
        made.commit(IMAGE, "latest")
        made.remove()


def dhcp(parent: str = "ens37", name: str = "eth0", **fields: str) -> Vnic:
    return Vnic(name=name, parent_interface=parent, mode="dhcp", **fields)


def vnic_of(worker: WorkerUnderTest, name: str, position: int = 0) -> VnicStatus:
    return (worker.status(name).vnics or ())[position]


def up(worker: WorkerUnderTest, name: str = NAME, position: int = 0, within: float = 20.0) -> VnicStatus:
    """The vNIC's status once it is up."""
    worker.until(lambda: vnic_of(worker, name, position).state == "up", name, within)
    return vnic_of(worker, name, position)


def given(lan: Lan) -> dict[str, str]:
    """Address by MAC, as the server has it."""
    return {lease.mac: lease.address for lease in lan.leases()}


def reaches(pc: Outsider, vnic: VnicStatus) -> bool:
    """Does the PC, which has forgotten all it knew, find the vPLC's web server at the vNIC's address and MAC?"""
    assert vnic.ip_address
    pc.run(["ip", "neighbour", "flush", "all"])
    return pc.arp(vnic.ip_address) == vnic.mac_address and pc.https_get(vnic.ip_address)[0] == 200


def test_the_server_the_engine_the_status_and_the_lan_agree(world: World, worker: WorkerUnderTest) -> None:
    status = worker.created(NAME, dhcp())
    vnic = up(worker)
    assert vnic.ip_address
    assert vnic.mac_address

    lease = {lease.mac: lease for lease in world.plant.leases()}[vnic.mac_address]
    assert (lease.address, lease.hostname) == (vnic.ip_address, NAME)
    made = worker.inspect(NAME)
    endpoint = made["NetworkSettings"]["Networks"]["macvlan_ens37_192.168.10.0_24"]
    assert (endpoint["IPAddress"], endpoint["MacAddress"]) == (vnic.ip_address, vnic.mac_address)
    assert (vnic.gateway, made["HostConfig"]["Dns"]) == ("192.168.10.1", ["192.168.10.1"])
    assert vnic.lease is not None
    assert vnic.lease.server == "192.168.10.1"
    assert vnic.lease.obtained_at is not None
    assert vnic.lease.renew_at is not None
    assert vnic.lease.expires_at is not None
    assert vnic.lease.obtained_at < vnic.lease.renew_at < vnic.lease.expires_at
    assert status.internal_ip
    worker.until(lambda: reaches(world.pc, vnic), NAME)


def test_five_at_once_are_all_different_and_the_real_plc_is_left_alone(world: World, worker: WorkerUnderTest) -> None:
    names = [f"plc-{number}" for number in range(5)]
    for name in names:
        worker.create(name, dhcp())
    for name in names:
        worker.settled(name)
    vnics = [up(worker, name) for name in names]

    assert len({vnic.ip_address for vnic in vnics}) == len({vnic.mac_address for vnic in vnics}) == 5
    assert {vnic.mac_address: vnic.ip_address for vnic in vnics}.items() <= given(world.plant).items()
    for vnic in vnics:
        worker.until(lambda vnic=vnic: reaches(world.pc, vnic), NAME)
    assert world.pc.arp(world.real_plc.address) == world.real_plc.mac
    assert not any((vnic.ip_address or "").rpartition(".")[2] == "2" for vnic in vnics)


def test_beside_a_manual_device_and_on_two_lans(world: World, worker: WorkerUnderTest) -> None:
    worker.create("plc-manual", manual("192.168.10.60"))
    worker.create(NAME, dhcp(), dhcp("ens38", "eth1"))
    worker.settled("plc-manual")
    worker.settled(NAME)
    first, second = up(worker), up(worker, position=1)

    assert reaches(world.pc, up(worker, "plc-manual"))
    assert reaches(world.pc, first)
    # The second vNIC of an engine below 25 has its MAC from us, not from Docker.
    assert reaches(world.clerk, second)
    assert given(world.office)[second.mac_address or ""] == second.ip_address
    assert given(world.plant)[first.mac_address or ""] == first.ip_address


def test_without_a_server_the_plc_runs_and_the_vnic_joins_when_it_comes(world: World, worker: WorkerUnderTest) -> None:
    world.plant.stop_dhcp()
    try:
        with worker.listening("docker_worker.device.changed") as wait:
            began = time.monotonic()
            worker.created(NAME, dhcp())
            assert time.monotonic() - began < 8.0
            vnic = vnic_of(worker, NAME)
            assert (vnic.state, vnic.ip_address) == ("waiting_for_lease", None)
            assert "ens37" in vnic.reason
            assert list(worker.inspect(NAME)["NetworkSettings"]["Networks"]) == [f"{NAME}_internal"]
            process = worker.inspect(NAME)["State"]["Pid"]
            world.plant.start_dhcp()
            wait(lambda event: isinstance(event, DeviceChanged) and event.event == "vnic_up", 20.0)
    finally:
        if world.plant.server is None:
            world.plant.start_dhcp()
    vnic = up(worker)
    assert worker.inspect(NAME)["State"]["Pid"] == process
    assert reaches(world.pc, vnic)
    assert given(world.plant)[vnic.mac_address or ""] == vnic.ip_address

    # What docker restarts behind our back has Docker's MAC again until we see it.
    with closing(worker.engine()) as engine:
        engine.api.restart(NAME, timeout=1)
    worker.until(lambda: worker.inspect(NAME)["State"]["Pid"] not in (0, process), NAME)
    worker.until(lambda: reaches(world.pc, up(worker)), NAME)


def test_devices_follow_the_cable_with_the_same_process(world: World, worker: WorkerUnderTest) -> None:
    names = [f"plc-{number}" for number in range(3)]
    for name in names:
        worker.create(name, dhcp())
    processes = {name: worker.settled(name) and worker.inspect(name)["State"]["Pid"] for name in names}
    macs = {name: up(worker, name).mac_address for name in names}
    try:
        world.edge.move_cable("ens37", world.office)
        world.edge.set_address("ens37", "192.168.20.6/24")
        moved = time.monotonic()

        def has_moved(name: str) -> bool:
            vnic = vnic_of(worker, name)
            return vnic.state == "up" and (vnic.ip_address or "").startswith("192.168.20.")

        for name in names:
            worker.until(lambda name=name: has_moved(name), name, 30.0)
        print(f"followed the cable within {time.monotonic() - moved:.1f} s")
        for name in names:
            vnic = vnic_of(worker, name)
            assert reaches(world.clerk, vnic)
            assert (vnic.mac_address, worker.inspect(name)["State"]["Pid"]) == (macs[name], processes[name])
        assert "macvlan_ens37_192.168.10.0_24" not in worker.left_behind()["networks"]
        # That one had to wait for another to make room is no failure of a device.
        assert "uses ens37 already" not in (worker.dir / "log").read_text()
    finally:
        world.edge.move_cable("ens37", world.plant)
        world.edge.set_address("ens37", "192.168.10.5/24", gateway="192.168.10.1")
    for name in names:
        worker.until(lambda name=name: (vnic_of(worker, name).ip_address or "").startswith("192.168.10."), name, 30.0)
        assert reaches(world.pc, up(worker, name))
        assert worker.inspect(name)["State"]["Pid"] == processes[name]


def test_a_manual_address_in_use_is_named_and_taken_when_it_is_free(world: World, worker: WorkerUnderTest) -> None:
    rival = world.plant.pc("rival", "192.168.10.61")
    worker.created(NAME, manual("192.168.10.61"))
    vnic = vnic_of(worker, NAME)
    assert (vnic.state, rival.mac in vnic.reason) == ("conflict", True)
    assert list(worker.inspect(NAME)["NetworkSettings"]["Networks"]) == [f"{NAME}_internal"]
    process = worker.inspect(NAME)["State"]["Pid"]

    rival.run(["ip", "address", "flush", "dev", "eth0"])
    assert reaches(world.pc, up(worker))
    assert worker.inspect(NAME)["State"]["Pid"] == process

    # While it is stopped, the address may go to somebody else.
    worker.call(StopDevice(device_id=NAME))
    rival.run(["ip", "address", "add", "192.168.10.61/24", "dev", "eth0"])
    assert worker.call(StartDevice(device_id=NAME)).container_status == "running"
    assert vnic_of(worker, NAME).state == "conflict"
    rival.run(["ip", "address", "flush", "dev", "eth0"])
    assert reaches(world.pc, up(worker))


@pytest.mark.parametrize("victim", ["docker_worker", "netmon"])
def test_killed_in_a_creation_the_device_has_one_lease(world: World, worker: WorkerUnderTest, victim: str) -> None:
    steps = ("waiting for addresses", "creating the network for eth0", "starting the container")
    for step in steps if victim == "docker_worker" else steps[:1]:
        with worker.listening("docker_worker.device.progressed") as wait:
            worker.create(NAME, dhcp())
            wait(lambda event, step=step: is_step(event, step), 10.0)
            worker.kill() if victim == "docker_worker" else worker.kill_netmon()
        worker.start() if victim == "docker_worker" else worker.start_netmon()
        worker.settled(NAME)
        vnic = up(worker)
        assert [lease.address for lease in world.plant.leases() if lease.hostname == NAME] == [vnic.ip_address]
        assert reaches(world.pc, vnic)
        worker.deleted(NAME)
        wait_until(lambda vnic=vnic: vnic.mac_address not in given(world.plant), 5, "the server to have it back")


def test_what_is_deleted_gives_its_lease_back_even_if_netmon_was_away(world: World, worker: WorkerUnderTest) -> None:
    worker.created(NAME, dhcp())
    mac = up(worker).mac_address
    assert mac in given(world.plant)
    worker.kill_netmon()
    worker.deleted(NAME)
    assert worker.left_behind()["networks"] == []
    worker.start_netmon()
    worker.kill()
    worker.start()
    wait_until(lambda: mac not in given(world.plant), 10, "the server to have the lease back")
