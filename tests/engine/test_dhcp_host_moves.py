"""vPLCs on a host whose network cards and engine come and go."""

from collections.abc import Iterator

import pytest

from bus.messages.docker_worker import StopDevice
from tests.engine.test_dhcp_devices import NAME, dhcp, load_https_image, reaches, up, vnic_of
from tests.engine.worker_under_test import WorkerUnderTest, manual, worker_on
from tests.lab.host import edge_host
from tests.lab.lan import Lan, Outsider

pytestmark = pytest.mark.engine


class Site:
    """A host of this file's own: its engine is killed."""

    def __init__(self, plant: Lan, pc: Outsider, worker: WorkerUnderTest) -> None:
        self.plant, self.pc, self.worker = plant, pc, worker


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with edge_host() as edge:
        plant = edge.lan("plant", "192.168.10.0/24")
        edge.nic("ens37", plant, address="192.168.10.5/24", gateway="192.168.10.1")
        edge.start_engine()
        load_https_image(edge)
        with worker_on(edge) as worker:
            worker.start()
            yield Site(plant, plant.pc("pc", "192.168.10.50"), worker)


def test_a_network_card_that_was_away_has_its_vplcs_back_with_the_same_process(site: Site) -> None:
    worker, edge = site.worker, site.worker.edge
    worker.create(NAME, dhcp())
    worker.create("plc-manual", manual("192.168.10.60"))
    processes = {name: worker.settled(name) and worker.inspect(name)["State"]["Pid"] for name in (NAME, "plc-manual")}
    before = {name: up(worker, name) for name in processes}

    edge.remove_nic("ens37")
    for name in processes:
        worker.until(lambda name=name: vnic_of(worker, name).state == "no_parent", name)
    edge.nic("ens37", site.plant, address="192.168.10.5/24", gateway="192.168.10.1")
    for name, process in processes.items():
        vnic = up(worker, name)
        assert (vnic.ip_address, vnic.mac_address) == (before[name].ip_address, before[name].mac_address)
        assert reaches(site.pc, vnic)
        assert worker.inspect(name)["State"]["Pid"] == process
        worker.deleted(name)


def test_an_engine_restart_keeps_addresses_and_macs(site: Site) -> None:
    worker, edge = site.worker, site.worker.edge
    worker.created(NAME, dhcp())
    worker.created("plc-stopped", dhcp())
    before, stopped = up(worker), up(worker, "plc-stopped")
    worker.call(StopDevice(device_id="plc-stopped"))

    edge.engine.stop()
    edge.start_engine()
    worker.settled(NAME)
    after = up(worker)
    assert (after.ip_address, after.mac_address) == (before.ip_address, before.mac_address)
    worker.until(lambda: reaches(site.pc, after), NAME)
    assert vnic_of(worker, "plc-stopped").state == "down"
    assert {lease.mac for lease in site.plant.leases()} == {before.mac_address, stopped.mac_address}
    worker.deleted(NAME)
    worker.deleted("plc-stopped")
    assert site.plant.leases() == []
