"""docker_worker when things die: itself, the engine, the registry, its own memory of what was wanted."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bus.errors import CallFailed
from bus.messages.docker_worker import (
    CreateRuntime,
    DeleteDevice,
    EngineChanged,
    RestartDevice,
    StartDevice,
    StopDevice,
)
from tests.engine.worker_under_test import (
    IMAGE,
    WorkerUnderTest,
    is_step,
    load_plc_image,
    manual,
    worker_on,
)
from tests.lab.fixtures import Site
from tests.lab.host import EdgeHost

pytestmark = pytest.mark.engine

NAME = "plc-001"
ADDRESS = "192.168.10.60"
MACVLAN = "macvlan_ens37_192.168.10.0_24"
NewEdgeHost = Callable[[], EdgeHost]


@pytest.fixture(scope="module")
def host(edge: EdgeHost, plant: Site) -> EdgeHost:
    load_plc_image(edge.engine.docker_host)
    return edge


@pytest.fixture
def worker(host: EdgeHost) -> Iterator[WorkerUnderTest]:
    with worker_on(host) as worker:
        worker.start()
        yield worker


@pytest.fixture
def own_host(new_edge_host: NewEdgeHost) -> EdgeHost:
    """A host whose engine the test may kill."""
    host = new_edge_host()
    lan = host.lan("plant", "192.168.10.0/24", dhcp=False)
    host.nic("ens37", lan, address="192.168.10.5/24")
    return host


@pytest.fixture
def own_worker(own_host: EdgeHost) -> Iterator[WorkerUnderTest]:
    own_host.start_engine()
    load_plc_image(own_host.engine.docker_host)
    with worker_on(own_host) as worker:
        worker.start()
        yield worker


# ---- killed at any step

CREATION = (
    "creating the internal network",
    "creating the network for eth0",
    "creating the volume",
    "creating the container",
    f"connecting to {NAME}_internal",
    "starting the container",
)
REMOVAL = (
    "stopping the container",
    "removing the container",
    "removing the internal network",
    "removing the network macvlan",
)


@pytest.mark.parametrize("step", CREATION)
def test_killed_in_a_creation_the_device_runs_once(worker: WorkerUnderTest, plant: Site, step: str) -> None:
    with worker.listening("docker_worker.device.progressed") as wait:
        worker.create(NAME, manual(ADDRESS))
        # Engines from 25 on connect at create: then the start, which is the next step, stands for it.
        wait(lambda event: is_step(event, step) or is_step(event, CREATION[-1]), 10.0)
        worker.kill()
    worker.start()
    worker.settled(NAME)

    left = worker.left_behind()
    assert (left["containers"], left["volumes"]) == ([NAME], [f"{NAME}_runtime"])
    assert sorted(left["networks"]) == [MACVLAN, f"{NAME}_internal"]
    assert plant.pc.arp(ADDRESS) == worker.inspect(NAME)["NetworkSettings"]["Networks"][MACVLAN]["MacAddress"]


@pytest.mark.parametrize("step", REMOVAL)
def test_killed_in_a_removal_nothing_is_left(worker: WorkerUnderTest, step: str) -> None:
    worker.created(NAME, manual(ADDRESS))
    with worker.listening("docker_worker.device.progressed") as wait:
        worker.call(DeleteDevice(device_id=NAME))
        wait(lambda event: is_step(event, step), 10.0)
        worker.kill()
    worker.start()
    worker.until(lambda: worker.status(NAME).status == "not_found", NAME)
    assert worker.left_behind() == {"containers": [], "networks": [], "volumes": [f"{NAME}_runtime"]}


@pytest.mark.parametrize("step", ["stopping the container", "starting the container"])
def test_killed_in_a_restart_the_device_restarts_once(worker: WorkerUnderTest, step: str) -> None:
    worker.created(NAME)
    before = worker.inspect(NAME)["State"]["StartedAt"]
    with worker.listening("docker_worker.device.progressed") as wait:
        with pytest.raises(CallFailed):
            worker.call(RestartDevice(device_id=NAME), deadline=0.001)
        wait(lambda event: is_step(event, step), 10.0)
        worker.kill()
    worker.start()
    worker.settled(NAME)
    after = worker.inspect(NAME)["State"]["StartedAt"]
    assert after != before
    worker.kill()
    worker.start()
    worker.settled(NAME)
    assert worker.inspect(NAME)["State"]["StartedAt"] == after


# ---- the state file


def test_a_lost_state_file_is_rebuilt_from_the_labels(worker: WorkerUnderTest) -> None:
    vnic = manual(ADDRESS)
    worker.created(NAME, vnic, environment={"SECRET": "s3"})
    worker.created("plc-002")
    worker.call(StopDevice(device_id="plc-002"))
    before, written = worker.inspect(NAME), worker.state_file.read_text()
    worker.kill()
    worker.state_file.unlink()
    worker.state_file.with_name(worker.state_file.name + ".bak").unlink()
    worker.start()

    worker.settled(NAME)
    worker.settled("plc-002", "exited")
    assert worker.inspect(NAME) == before
    again = worker.call(CreateRuntime(container_name=NAME, vnics=(vnic,), environment={"SECRET": "s3"}))
    assert again.status == "success"
    assert worker.state_file.read_text() == written
    worker.deleted(NAME)
    assert MACVLAN not in worker.left_behind()["networks"]


def test_networks_of_a_creation_that_nobody_remembers_are_swept(worker: WorkerUnderTest) -> None:
    with worker.listening("docker_worker.device.progressed") as wait:
        worker.create(NAME, manual(ADDRESS))
        wait(lambda event: is_step(event, "creating the volume"), 10.0)
        worker.kill()
    assert MACVLAN in worker.left_behind()["networks"]
    with closing(worker.engine()) as engine:
        for container in worker.left_behind()["containers"]:
            engine.api.remove_container(container, force=True)
    worker.state_file.unlink()
    worker.state_file.with_name(worker.state_file.name + ".bak").unlink(missing_ok=True)
    worker.start()
    worker.until(lambda: worker.left_behind()["networks"] == [], NAME)


# ---- what others do to our devices


def test_a_device_taken_off_its_internal_network_is_put_back_without_a_restart(worker: WorkerUnderTest) -> None:
    address = worker.created(NAME, manual(ADDRESS)).internal_ip
    process = worker.inspect(NAME)["State"]["Pid"]
    with closing(worker.engine()) as engine:
        engine.api.disconnect_container_from_network(NAME, f"{NAME}_internal")
    worker.until(lambda: worker.status(NAME).internal_ip == address, NAME)
    assert worker.inspect(NAME)["State"]["Pid"] == process


def test_a_stopped_device_starts_again_although_its_networks_were_removed(worker: WorkerUnderTest, plant: Site) -> None:
    before = worker.created(NAME, manual(ADDRESS))
    worker.call(StopDevice(device_id=NAME))
    with closing(worker.engine()) as engine:
        engine.api.remove_network(MACVLAN)
        engine.api.remove_network(f"{NAME}_internal")
    assert worker.call(StartDevice(device_id=NAME)).container_status == "running"
    after = worker.settled(NAME)
    assert after.internal_ip
    (was,), (vnic,) = before.vnics or (), after.vnics or ()
    assert (vnic.ip_address, plant.pc.arp(ADDRESS)) == (ADDRESS, vnic.mac_address)
    # Engines from 25 on lose the MAC at a reconnect; then the status has to say so.
    assert (vnic.state, vnic.mac_address) == ("up", was.mac_address) or str(was.mac_address) in vnic.reason


# ---- the engine


def test_what_was_stopped_stays_stopped_through_an_engine_restart(own_worker: WorkerUnderTest) -> None:
    worker, edge = own_worker, own_worker.edge
    worker.created(NAME, manual(ADDRESS))
    worker.created("plc-002", manual("192.168.10.61"))
    worker.call(StopDevice(device_id="plc-002"))
    life = worker.inspect(NAME)["State"]["StartedAt"]

    edge.engine.stop()
    refused = time.monotonic()
    with pytest.raises(CallFailed) as unavailable:
        worker.call(CreateRuntime(container_name="plc-003"))
    assert unavailable.value.code == "unavailable"
    assert time.monotonic() - refused < 4.0
    assert any("engine" in note for note in worker.status(NAME).notes or ())

    with worker.listening("docker_worker.engine") as wait:
        edge.start_engine()
        wait(lambda event: isinstance(event, EngineChanged) and event.reachable, 20.0)
    worker.settled(NAME)
    assert worker.inspect(NAME)["State"]["StartedAt"] != life
    worker.settled("plc-002", "exited")
    assert not worker.inspect("plc-002")["State"]["Running"]


def test_a_frozen_engine_blocks_nobody(own_worker: WorkerUnderTest) -> None:
    worker, engine = own_worker, own_worker.edge.engine
    worker.created(NAME)
    engine.freeze()
    try:
        for request in (CreateRuntime(container_name="plc-002"), CreateRuntime(container_name="plc-003")):
            asked = time.monotonic()
            with pytest.raises(CallFailed) as refused:
                worker.call(request)
            assert refused.value.code == "unavailable"
            assert time.monotonic() - asked < 4.0
        assert worker.status(NAME).container_status == "running"
        worker.until(lambda: any("does not answer" in note for note in worker.status(NAME).notes or ()), NAME)
    finally:
        engine.thaw()
    worker.until(lambda: not worker.status(NAME).notes, NAME)
    worker.created("plc-002")


def test_a_worker_started_before_its_engine_waits_for_it(own_host: EdgeHost) -> None:
    own_host.start_engine()
    load_plc_image(own_host.engine.docker_host)
    with worker_on(own_host) as worker:
        worker.start()
        worker.created(NAME)
        worker.stop()
        own_host.engine.stop()
        worker.start()
        assert worker.status(NAME).status == "unknown"
        own_host.start_engine()
        worker.settled(NAME)


def test_without_netmon_a_device_on_a_lan_is_unavailable_and_one_without_is_made(host: EdgeHost) -> None:
    with worker_on(host, with_netmon=False) as worker:
        worker.start()
        asked = time.monotonic()
        with pytest.raises(CallFailed, match="netmon") as refused:
            worker.call(CreateRuntime(container_name=NAME, vnics=(manual(ADDRESS),)))
        assert refused.value.code == "unavailable"
        assert time.monotonic() - asked < 4.0
        worker.created(NAME)


# ---- hosts that refuse something


def test_refused_capabilities_are_left_out_and_told(own_host: EdgeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every program of this engine, and so every container, is without CAP_SYS_NICE for good.
    from tests.lab import netns

    real = netns.command_in
    drop = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", "--"]
    monkeypatch.setattr(netns, "command_in", lambda ns, argv: real(ns, [*drop, *argv]))
    own_host.start_engine()
    monkeypatch.undo()
    load_plc_image(own_host.engine.docker_host)
    with worker_on(own_host) as worker:
        worker.start()
        status = worker.created(NAME, manual(ADDRESS))
        assert any("SYS_NICE" in note for note in status.notes or ())
        assert worker.inspect(NAME)["HostConfig"]["CapAdd"] is None
        assert worker.left_behind()["containers"] == [NAME]


def test_a_missing_init_is_told(own_host: EdgeHost) -> None:
    own_host.start_engine("--init-path", "/nonexistent/docker-init")
    load_plc_image(own_host.engine.docker_host)
    with worker_on(own_host) as worker:
        worker.start()
        status = worker.created(NAME)
        assert any("docker-init" in note for note in status.notes or ())
        assert not worker.inspect(NAME)["HostConfig"].get("Init")


# ---- images


def test_an_image_that_cannot_be_pulled_is_replaced_by_the_newest_local_one(worker: WorkerUnderTest) -> None:
    load_plc_image(worker.docker_host, tag="v4.0.9")
    load_plc_image(worker.docker_host, tag="v4.1.4")
    status = worker.created(NAME, image_tag="v9.9.9")
    (note,) = status.notes or ()
    assert "v9.9.9 cannot be pulled" in note
    with closing(worker.engine()) as engine:
        assert worker.inspect(NAME)["Image"] in {one["Id"] for one in engine.api.images(name=IMAGE)}


def test_no_image_at_all_is_an_error_that_is_tried_again(host: EdgeHost) -> None:
    nowhere = "127.0.0.1:9/none"
    with worker_on(host, ORCHESTRATOR_RUNTIME_IMAGE=nowhere) as worker:
        worker.start()
        worker.create(NAME)
        status = worker.failed(NAME, 30.0)
        assert "cannot be pulled" in (status.error or "")
        assert status.step == "pulling the image"
        with closing(worker.engine()) as engine:
            engine.api.tag(f"{IMAGE}:latest", nowhere, "latest")
        worker.settled(NAME, within=60.0)


SILENT_REGISTRY = """
import socket, time
with socket.create_server(("127.0.0.1", 5999)) as server:
    print("listening", flush=True)
    taken = []
    while True:
        taken.append(server.accept())
"""


def test_a_delete_does_not_wait_for_a_registry_that_never_answers(host: EdgeHost) -> None:
    registry = host.popen([sys.executable, "-c", SILENT_REGISTRY])
    assert registry.stdout is not None
    assert registry.stdout.readline() == "listening\n"
    try:
        with worker_on(host, ORCHESTRATOR_RUNTIME_IMAGE="127.0.0.1:5999/plc") as worker:
            worker.start()
            with worker.listening("docker_worker.device.progressed") as wait:
                worker.create(NAME)
                wait(lambda event: is_step(event, "pulling the image"), 10.0)
            asked = time.monotonic()
            worker.deleted(NAME)
            assert time.monotonic() - asked < 5.0
    finally:
        registry.kill()


def test_only_one_worker_runs_on_a_host(worker: WorkerUnderTest) -> None:
    second = worker._popen("services.docker_worker")
    try:
        assert second.wait(10) == 3
    except subprocess.TimeoutExpired:
        second.kill()
        raise
