"""vPLCs whose vNICs get their addresses from a DHCP server: docker_worker and netmon on an edge host with two LANs."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import docker
import pytest

from bus.messages.docker_worker import VnicStatus
from common.contracts.vnic import Vnic
from tests.engine.worker_under_test import IMAGE, WorkerUnderTest, worker_on
from tests.lab import image
from tests.lab.host import EdgeHost, edge_host
from tests.lab.lan import Lan, Outsider

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
