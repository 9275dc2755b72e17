"""docker_worker on a real engine: a vPLC's life, its networks, and what is not ours."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from docker.types import IPAMConfig, IPAMPool

from bus.errors import CallFailed
from bus.messages.docker_worker import (
    CreateRuntime,
    DeleteDevice,
    DeviceChanged,
    RestartDevice,
    StartDevice,
    StopDevice,
)
from tests.engine.worker_under_test import IMAGE, WorkerUnderTest, load_plc_image, manual, worker_on
from tests.lab.fixtures import Site
from tests.lab.host import EdgeHost
from tests.lab.process import wait_until

pytestmark = pytest.mark.engine

NAME = "plc-001"
ADDRESS = "192.168.10.60"
MAC = "06:00:5e:10:00:60"
MACVLAN = "macvlan_ens37_192.168.10.0_24"


@pytest.fixture(scope="module")
def host(edge: EdgeHost, plant: Site) -> EdgeHost:
    load_plc_image(edge.engine.docker_host)
    return edge


@pytest.fixture
def worker(host: EdgeHost) -> Iterator[WorkerUnderTest]:
    with worker_on(host) as worker:
        worker.start()
        yield worker


def refusal(worker: WorkerUnderTest, request: Any) -> CallFailed:
    with pytest.raises(CallFailed) as refused:
        worker.call(request)
    return refused.value


def reaches(site: Site, address: str) -> bool:
    """From the LAN, by a PC that has forgotten who had the address before."""
    site.pc.run(["ip", "neighbour", "flush", "all"])
    return site.pc.ping(address)


# ---- a life


def test_a_device_is_on_the_lan_under_its_address_and_mac(worker: WorkerUnderTest, plant: Site) -> None:
    status = worker.created(NAME, manual(ADDRESS, mac_address=MAC))

    assert reaches(plant, ADDRESS)
    assert plant.pc.arp(ADDRESS) == MAC
    assert status.vnics is not None
    assert [(vnic.state, vnic.ip_address, vnic.mac_address, vnic.gateway) for vnic in status.vnics] == [
        ("up", ADDRESS, MAC, "192.168.10.1")
    ]
    assert worker.edge.run(["busybox", "ping", "-c1", "-W2", status.internal_ip or ""]).returncode == 0


def test_stop_start_restart_and_delete(worker: WorkerUnderTest, plant: Site) -> None:
    worker.created(NAME, manual(ADDRESS))
    mac = plant.pc.arp(ADDRESS)

    assert worker.call(StopDevice(device_id=NAME)).container_status == "exited"
    assert worker.inspect(NAME)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert worker.call(StopDevice(device_id=NAME)).container_status == "exited"

    assert worker.call(StartDevice(device_id=NAME)).container_status == "running"
    first = worker.inspect(NAME)
    assert worker.call(StartDevice(device_id=NAME)).container_status == "running"
    assert worker.inspect(NAME)["State"]["Pid"] == first["State"]["Pid"]
    assert first["HostConfig"]["RestartPolicy"]["Name"] == "always"

    assert worker.call(RestartDevice(device_id=NAME)).container_status == "running"
    second = worker.inspect(NAME)
    assert (second["Id"], second["State"]["Pid"] != first["State"]["Pid"]) == (first["Id"], True)
    assert plant.pc.arp(ADDRESS) == mac

    worker.deleted(NAME)
    assert worker.left_behind() == {"containers": [], "networks": [], "volumes": [f"{NAME}_runtime"]}
    worker.deleted(NAME)


def test_the_container_is_made_as_a_runtime_needs_it(worker: WorkerUnderTest) -> None:
    worker.created(NAME, manual(ADDRESS, dns=("192.168.10.1",)), environment={"TZ": "UTC"})
    made = worker.inspect(NAME)
    config, host = made["Config"], made["HostConfig"]

    assert config["Hostname"] == NAME
    assert {"TZ=UTC", "TINI_KILL_PROCESS_GROUP=1"} <= set(config["Env"])
    assert (config["StopSignal"], host["Init"]) == ("SIGINT", True)
    assert (host["CapAdd"], host["SecurityOpt"]) == (["SYS_NICE", "IPC_LOCK"], ["no-new-privileges"])
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert host["Dns"] == ["192.168.10.1"]
    assert [(mount["Name"], mount["Destination"]) for mount in made["Mounts"]] == [
        (f"{NAME}_runtime", "/var/run/runtime")
    ]
    assert made["State"]["ExitCode"] == 0


def test_the_same_create_again_succeeds_and_a_different_one_conflicts(worker: WorkerUnderTest) -> None:
    worker.created(NAME, manual(ADDRESS))
    before = worker.inspect(NAME)

    again = worker.call(CreateRuntime(container_name=NAME, vnics=(manual(ADDRESS),)))
    assert again.status == "success"
    different = refusal(worker, CreateRuntime(container_name=NAME, vnics=(manual("192.168.10.61"),)))
    assert different.code == "conflict"
    assert worker.inspect(NAME) == before


def test_a_stop_during_the_creation_leaves_the_device_there_and_stopped(worker: WorkerUnderTest) -> None:
    worker.create(NAME, manual(ADDRESS))
    assert worker.call(StopDevice(device_id=NAME)).container_status in ("created", "exited")
    worker.settled(NAME, worker.status(NAME).container_status or "")
    assert worker.call(StartDevice(device_id=NAME)).container_status == "running"


def test_a_delete_during_the_creation_wins(worker: WorkerUnderTest) -> None:
    worker.create(NAME, manual(ADDRESS))
    worker.deleted(NAME)
    left = worker.left_behind()
    assert (left["containers"], left["networks"]) == ([], [])


def test_a_device_that_somebody_stops_behind_our_back_comes_back(worker: WorkerUnderTest) -> None:
    worker.created(NAME)
    with worker.listening("docker_worker.device") as wait, closing(worker.engine()) as engine:
        engine.api.stop(NAME, timeout=1)
        wait(lambda event: isinstance(event, DeviceChanged) and event.event == "died", 10.0)
        wait(lambda event: isinstance(event, DeviceChanged) and event.event == "recovered", 10.0)
    worker.settled(NAME)


def test_our_own_restart_touches_no_running_device(worker: WorkerUnderTest) -> None:
    worker.created(NAME, manual(ADDRESS))
    before = worker.inspect(NAME)
    worker.kill()
    worker.start()
    worker.settled(NAME)
    assert worker.inspect(NAME) == before


# ---- networks


def test_two_devices_share_a_network_which_goes_with_the_last(worker: WorkerUnderTest, plant: Site) -> None:
    worker.created(NAME, manual(ADDRESS))
    worker.created("plc-002", manual("192.168.10.61"))
    assert reaches(plant, ADDRESS)
    assert reaches(plant, "192.168.10.61")
    assert sorted(worker.left_behind()["networks"]) == [MACVLAN, f"{NAME}_internal", "plc-002_internal"]

    worker.call(StopDevice(device_id="plc-002"))
    worker.deleted(NAME)
    assert sorted(worker.left_behind()["networks"]) == [MACVLAN, "plc-002_internal"]
    assert worker.call(StartDevice(device_id="plc-002")).container_status == "running"
    worker.deleted("plc-002")
    assert worker.left_behind()["networks"] == []


def test_a_network_of_another_name_on_the_same_lan_is_reused_and_left(worker: WorkerUnderTest, plant: Site) -> None:
    with closing(worker.engine()) as engine:
        pool = IPAMConfig(pool_configs=[IPAMPool(subnet="192.168.10.0/24", gateway="192.168.10.1")])
        foreign = engine.api.create_network("plant-lan", driver="macvlan", options={"parent": "ens37"}, ipam=pool)["Id"]
        try:
            before = engine.api.inspect_network(foreign)
            status = worker.created(NAME, manual(ADDRESS))
            assert set(status.networks or {}) == {"plant-lan", f"{NAME}_internal"}
            assert reaches(plant, ADDRESS)
            worker.deleted(NAME)
            assert engine.api.inspect_network(foreign) == before
        finally:
            worker.deleted(NAME)
            engine.api.remove_network(foreign)


def test_a_network_in_the_way_is_named(worker: WorkerUnderTest) -> None:
    worker.created(NAME, manual(ADDRESS))
    worker.create("plc-002", manual("10.20.0.60", subnet="10.20.0.0/24"))
    status = worker.failed("plc-002")
    assert MACVLAN in (status.error or "")
    worker.deleted("plc-002")
    assert f"{NAME}_internal" in worker.left_behind()["networks"]


def test_the_default_route_leads_to_the_plants_gateway(worker: WorkerUnderTest) -> None:
    worker.created(NAME, manual(ADDRESS))
    assert "default via 192.168.10.1 " in routes(worker)


def test_an_isolated_network_gets_no_default_route(worker: WorkerUnderTest) -> None:
    worker.created(NAME, manual("10.20.0.60", subnet="10.20.0.0/24"))
    assert "10.20.0.0/24" in routes(worker)
    assert "via 10.20" not in routes(worker)


def routes(worker: WorkerUnderTest) -> str:
    with closing(worker.engine()) as engine:
        return str(engine.containers.get(NAME).exec_run(["/bin/busybox", "ip", "route"]).output.decode())


def test_an_address_in_use_on_the_engine_is_a_conflict_and_heals(worker: WorkerUnderTest) -> None:
    worker.created(NAME, manual(ADDRESS))
    with closing(worker.engine()) as engine:
        endpoint = engine.api.create_endpoint_config(ipv4_address="192.168.10.70")
        squatter = engine.api.create_container(
            IMAGE, name="squatter", networking_config=engine.api.create_networking_config({MACVLAN: endpoint})
        )
        try:
            engine.api.start(squatter)
            worker.create("plc-002", manual("192.168.10.70"))
            assert "already in use" in (worker.failed("plc-002").error or "")
        finally:
            engine.api.remove_container(squatter, force=True)
    worker.settled("plc-002")


# ---- what is not ours


def test_foreign_objects_are_identical_before_and_after(worker: WorkerUnderTest) -> None:
    with closing(worker.engine()) as engine:
        network = engine.api.create_network("foreign-net", driver="bridge", labels={"owner": "somebody"})["Id"]
        config = engine.api.create_host_config(network_mode="foreign-net", restart_policy={"Name": "always"})
        container = engine.api.create_container(IMAGE, name="foreign", host_config=config)["Id"]
        volume = engine.api.create_volume("foreign_runtime")["Name"]

        def everything() -> str:
            seen = engine.api.inspect_container(container), engine.api.inspect_network(network)
            return json.dumps([*seen, engine.api.inspect_volume(volume)], sort_keys=True)

        try:
            engine.api.start(container)
            before = everything()
            assert refusal(worker, CreateRuntime(container_name="foreign")).code == "conflict"
            for request in (StopDevice, StartDevice, RestartDevice):
                assert refusal(worker, request(device_id="foreign")).code == "not_found"
            worker.call(DeleteDevice(device_id="foreign"))
            worker.created(NAME, manual(ADDRESS))
            worker.call(RestartDevice(device_id=NAME))
            worker.deleted(NAME)
            assert everything() == before
        finally:
            engine.api.remove_container(container, force=True)
            engine.api.remove_network(network)
            engine.api.remove_volume(volume)


def test_a_foreign_volume_is_not_mounted(worker: WorkerUnderTest) -> None:
    with closing(worker.engine()) as engine:
        volume = engine.api.create_volume(f"{NAME}_runtime")["Name"]
        try:
            worker.create(NAME)
            assert "not ours" in (worker.failed(NAME).error or "")
            worker.deleted(NAME)
            assert not engine.api.inspect_volume(volume)["Labels"]
        finally:
            engine.api.remove_volume(volume)


def test_a_container_that_takes_the_name_during_creation_is_left_alone(worker: WorkerUnderTest) -> None:
    worker.created(NAME)
    worker.kill()
    with closing(worker.engine()) as engine:
        engine.api.remove_container(NAME, force=True)
        foreign = engine.api.create_container(IMAGE, name=NAME)["Id"]
        try:
            before = engine.api.inspect_container(foreign)
            worker.start()
            assert "not ours" in (worker.failed(NAME).error or "")
            assert engine.api.inspect_container(foreign) == before
        finally:
            engine.api.remove_container(foreign, force=True)
    worker.settled(NAME)


# ---- bad input


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (CreateRuntime(container_name="../plc"), "invalid", "$.container_name"),
        (CreateRuntime(container_name="p"), "invalid", "$.container_name"),
        (CreateRuntime(container_name="plc", image_tag="a b"), "invalid", "$.runtime_version"),
        (
            CreateRuntime(container_name="plc", environment={"TINI_KILL_PROCESS_GROUP": "0"}),
            "invalid",
            "$.environment.TINI_KILL_PROCESS_GROUP",
        ),
        (
            CreateRuntime(container_name="plc", vnics=(manual(ADDRESS, parent="eth9"),)),
            "invalid",
            "$.vnic_configs[0].parent_interface",
        ),
        (
            CreateRuntime(container_name="plc", vnics=(manual("10.9.9.9"),)),
            "invalid",
            "$.vnic_configs[0].ip_address",
        ),
        (
            CreateRuntime(container_name="plc", vnics=(manual("192.168.10.5"),)),
            "conflict",
            "$.vnic_configs[0].ip_address",
        ),
        (StopDevice(device_id="plc", timeout_s=-1), "not_found", ""),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    worker: WorkerUnderTest, request_: Any, code: str, field: str
) -> None:
    refused = refusal(worker, request_)
    assert (refused.code, field in refused.message) == (code, True), refused.message
    assert worker.left_behind()["containers"] == []
    assert worker.left_behind()["networks"] == []


def test_the_container_died_for_good_shows_in_the_status(worker: WorkerUnderTest) -> None:
    load_plc_image(worker.docker_host, tag="broken", entry="exit 3")
    worker.create("plc-003", image_tag="broken")
    wait_until(lambda: any("ended" in note for note in worker.status("plc-003").notes or ()), 20, "a note of the ends")
    assert worker.call(StopDevice(device_id="plc-003")).container_status == "exited"
