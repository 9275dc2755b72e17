"""The main job: a command from the cloud becomes a running vPLC on the plant's LAN, and goes without a trace."""

import json
from typing import Any

import docker
import pytest

from tests.e2e.product import Product
from tests.lab.fixtures import Site
from tests.lab.image import BASE_TAG
from tests.lab.process import wait_until

MAC = "02:42:ac:11:00:77"
ADDRESS = "192.168.10.40"  # no test before used it: LAN PCs remember an address by its last MAC


def everything(client: docker.DockerClient) -> dict[str, set[str]]:
    """Ids of all containers, networks and volumes of the engine."""
    return {
        "containers": {found.id for found in client.containers.list(all=True)},
        "networks": {found.id for found in client.networks.list()},
        "volumes": {found.name for found in client.volumes.list()},
    }


def shown(client: docker.DockerClient, container: str | None, network: str | None) -> str:
    """The engine's whole account of a container and a network, byte for byte."""
    both = (client.api.inspect_container(container), client.api.inspect_network(network))
    return json.dumps(both, sort_keys=True)


@pytest.fixture
def client(agent: Product) -> Any:
    client = agent.edge.engine.client()
    yield client
    client.close()


def test_from_command_to_a_plc_on_the_lan_and_back(agent: Product, plant: Site, client: docker.DockerClient) -> None:
    foreign_network = client.networks.create("plant-database")
    foreign = client.containers.run(BASE_TAG, ["sleep", "10000"], detach=True, network="plant-database", init=True)
    before, foreign_before = everything(client), shown(client, foreign.name, foreign_network.name)
    try:
        status = agent.create(
            "plc-001",
            ip=ADDRESS,
            subnet="192.168.10.0/24",
            gateway="192.168.10.1",
            mac_address=MAC,
            dns=["192.168.10.1"],
        )
        (vnic,) = status["vnics"]
        assert (vnic["ip_address"], vnic["mac_address"], vnic["gateway"]) == (ADDRESS, MAC, "192.168.10.1")
        assert vnic["state"] == "up", vnic
        assert status["networks"]["macvlan_ens37_192.168.10.0_24"]["ip_address"] == ADDRESS
        assert status["internal_ip"] == status["networks"]["plc-001_internal"]["ip_address"]

        # An outsider on the plant's LAN reaches it, at that address and MAC.
        wait_until(lambda: answers(plant), 20.0, "the vPLC answers HTTPS on the LAN")
        code, body = plant.pc.https_get(ADDRESS, path="/api/version")
        assert code == 200 and b"version" in body
        assert plant.pc.arp(ADDRESS) == MAC

        # The cloud reaches its API over the internal network.
        answer = agent.send("run_command", {"device_id": "plc-001", "method": "GET", "api": "/api/get-users-info"})
        assert answer["http_response"]["status_code"] == 404  # a fresh device has no users
        assert answer["http_response"]["body"] == {"msg": "No users found"}
        user = {"username": "admin", "password": "canary-of-the-main-job"}
        made = agent.send(
            "run_command", {"device_id": "plc-001", "method": "POST", "api": "api/create-user", "data": user}
        )
        assert (made["status"], made["http_response"]["status_code"]) == ("success", 201)

        container = client.containers.get("plc-001")
        assert container.attrs["HostConfig"]["RestartPolicy"]["Name"] == "always"
        assert container.attrs["HostConfig"]["LogConfig"]["Config"]["max-size"]

        stopped = agent.send("stop_device", {"device_id": "plc-001"})
        assert (stopped["success"], stopped["container_status"]) == (True, "exited")
        assert not plant.pc.ping(ADDRESS)
        assert client.api.inspect_container(container.id)["State"]["ExitCode"] == 0  # it was asked, not killed
        started = agent.send("start_device", {"device_id": "plc-001"})
        assert (started["success"], started["container_status"]) == (True, "running")
        wait_until(lambda: answers(plant), 20.0, "the vPLC answers again")
        pid = client.api.inspect_container(container.id)["State"]["Pid"]
        restarted = agent.send("restart_device", {"device_id": "plc-001"})
        assert (restarted["success"], restarted["container_status"]) == (True, "running")
        assert client.api.inspect_container(container.id)["State"]["Pid"] != pid
        wait_until(lambda: answers(plant), 20.0, "the vPLC answers after the restart")
        assert plant.pc.arp(ADDRESS) == MAC

        # What it keeps survived all that.
        kept = agent.send("run_command", {"device_id": "plc-001", "method": "GET", "api": "/api/get-users-info"})
        assert kept["http_response"]["body"] == {"msg": "Users found"}
    finally:
        agent.delete("plc-001")

    after = everything(client)
    assert after["containers"] == before["containers"]
    assert after["networks"] == before["networks"]
    (volume,) = after["volumes"] - before["volumes"]
    assert "plc-001" in volume
    assert shown(client, foreign.name, foreign_network.name) == foreign_before
    assert "canary-of-the-main-job" not in agent.logs()
    client.volumes.get(volume).remove()
    foreign.remove(force=True)
    foreign_network.remove()


def answers(plant: Site) -> bool:
    """Whether the vPLC's API answers the outsider."""
    try:
        return plant.pc.https_get(ADDRESS, path="/api/version", timeout=2)[0] == 200
    except OSError:
        return False


def test_bad_input_names_the_field_and_makes_nothing(agent: Product, client: docker.DockerClient) -> None:
    before = everything(client)
    vnic = {"name": "eth0", "parent_interface": "ens37", "network_mode": "manual", "ip_address": "192.168.10.61"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"vnic_configs": []}, "container_name"),
        ({"container_name": "../x", "vnic_configs": []}, "container_name"),
        ({"container_name": "plc-x", "vnic_configs": {}}, "vnic_configs"),
        ({"container_name": "plc-x", "vnic_configs": [vnic | {"network_mode": "magic"}]}, "network_mode"),
        ({"container_name": "plc-x", "vnic_configs": [vnic | {"parent_interface": "eth0/../x"}]}, "parent_interface"),
        ({"container_name": "plc-x", "vnic_configs": [vnic | {"parent_interface": "ens99"}]}, "parent_interface"),
        ({"container_name": "plc-x", "vnic_configs": [vnic | {"subnet": "10.0.0.0/24"}]}, "ip_address"),
        ({"container_name": "plc-x", "vnic_configs": [vnic | {"mac_address": "01:00:5e:00:00:01"}]}, "mac_address"),
        ({"container_name": "plc-x", "vnic_configs": [vnic, vnic]}, "vnic_configs"),
        (
            {
                "container_name": "plc-x",
                "vnic_configs": [vnic, vnic | {"name": "eth1", "network_mode": "dhcp", "ip_address": None}],
            },
            "parent_interface",
        ),
        ({"container_name": "plc-x", "correlation_id": True, "vnic_configs": []}, "correlation_id"),
    ]
    for payload, field in wrong:
        answer = agent.send("create_new_runtime", payload)
        assert (answer["status"], answer["code"]) == ("error", "invalid"), (payload, answer)
        assert field in answer["error"], answer
    assert agent.status("plc-x")["status"] == "not_found"
    assert everything(client) == before


def test_an_identical_create_succeeds_and_a_different_one_is_a_conflict(agent: Product) -> None:
    vnic = {"name": "eth0", "parent_interface": "ens37", "network_mode": "static", "ip": "192.168.10.62"}
    payload = {"container_name": "plc-twice", "vnic_configs": [vnic]}
    try:
        assert agent.send("create_new_runtime", payload)["status"] == "creating"
        assert agent.send("create_new_runtime", payload)["status"] in ("creating", "success")
        agent.wait_for_status("plc-twice", status="success", is_running=True)
        assert agent.send("create_new_runtime", payload)["status"] == "success"
        different = agent.send(
            "create_new_runtime", {"container_name": "plc-twice", "vnic_configs": [vnic | {"ip": "192.168.10.63"}]}
        )
        assert (different["status"], different["code"]) == ("error", "conflict")
        assert agent.status("plc-twice")["vnics"][0]["ip_address"] == "192.168.10.62"
    finally:
        agent.delete("plc-twice")


def test_a_foreign_container_is_nobodys_device(agent: Product, client: docker.DockerClient) -> None:
    foreign = client.containers.run(BASE_TAG, ["sleep", "10000"], detach=True, name="boiler-db", init=True)
    network = client.networks.create("boiler-net")
    try:
        before = shown(client, foreign.name, network.name)
        for topic in ("stop_device", "start_device", "restart_device"):
            answer = agent.send(topic, {"device_id": "boiler-db"})
            assert (answer["status"], answer["code"]) == ("error", "not_found"), answer
        assert (
            agent.send("create_new_runtime", {"container_name": "boiler-db", "vnic_configs": []})["code"] == "conflict"
        )
        agent.send("delete_device", {"device_id": "boiler-db"})
        assert agent.status("boiler-db")["status"] == "not_found"
        assert shown(client, foreign.name, network.name) == before
    finally:
        foreign.remove(force=True)
        network.remove()
