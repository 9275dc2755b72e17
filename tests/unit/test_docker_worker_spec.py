"""From a device to the engine's words, and back from the labels."""

import json
from typing import Any

import msgspec
import pytest

from common.contracts.vnic import Vnic
from services.docker_worker import spec
from services.docker_worker.container import parse
from services.docker_worker.desired import Device, DeviceSpec
from services.docker_worker.spec import Attachment

VNICS = (
    Vnic(name="eth0", parent_interface="ens37", mode="manual", ip_address="192.168.10.60", dns=("9.9.9.9", "1.1.1.1")),
    Vnic(
        name="eth1",
        parent_interface="ens38",
        mode="manual",
        ip_address="10.0.0.60",
        mac_address="06:00:00:00:00:01",
        dns=("1.1.1.1",),
    ),
)
DEVICE = Device(
    name="plc-001",
    power="running",
    spec=DeviceSpec(vnics=VNICS, image="runtime:v4", environment={"PASSWORD": "canary"}),
    vnics=VNICS,
    image_id="sha256:77",
    grace=7.0,
)
ATTACHMENTS = (
    Attachment(network="plc-001_internal", network_id="a"),
    Attachment(network="mv38", network_id="b", ip_address="10.0.0.60", mac_address="06:00:00:00:00:01"),
    Attachment(network="mv37", network_id="c", ip_address="192.168.10.60"),
)


def config(device: Device = DEVICE, *, per_network_mac: bool) -> dict[str, Any]:
    return spec.container_config(device, "agent-7", ATTACHMENTS, per_network_mac=per_network_mac)


def test_an_old_engine_gets_the_primary_network_at_create_and_its_mac_on_the_container() -> None:
    made = config(per_network_mac=False)
    assert made["MacAddress"] == "06:00:00:00:00:01"
    assert made["HostConfig"]["NetworkMode"] == "mv38"
    assert made["NetworkingConfig"]["EndpointsConfig"] == {"mv38": {"IPAMConfig": {"IPv4Address": "10.0.0.60"}}}


def test_a_new_engine_gets_every_network_with_its_mac_at_create() -> None:
    made = config(per_network_mac=True)
    assert "MacAddress" not in made
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "plc-001_internal": {},
        "mv38": {"IPAMConfig": {"IPv4Address": "10.0.0.60"}, "MacAddress": "06:00:00:00:00:01"},
        "mv37": {"IPAMConfig": {"IPv4Address": "192.168.10.60"}},
    }


def test_a_device_without_vnics_lives_on_its_internal_network() -> None:
    made = spec.container_config(DEVICE, "agent-7", ATTACHMENTS[:1], per_network_mac=False)
    assert made["HostConfig"]["NetworkMode"] == "plc-001_internal"


def test_dns_servers_are_told_once_and_at_most_three() -> None:
    servers = spec.dns_servers(VNICS)
    assert servers == ("9.9.9.9", "1.1.1.1")
    made = spec.container_config(DEVICE, "agent-7", ATTACHMENTS, dns=servers, per_network_mac=False)
    assert made["HostConfig"]["Dns"] == ["9.9.9.9", "1.1.1.1"]


@pytest.mark.parametrize(("without", "gone"), [(("capabilities",), "CapAdd"), (("init",), "Init")])
def test_refused_options_are_left_out(without: tuple[str, ...], gone: str) -> None:
    assert gone in config(per_network_mac=False)["HostConfig"]
    made = config(msgspec.structs.replace(DEVICE, without=without), per_network_mac=False)
    assert gone not in made["HostConfig"]
    assert made["Labels"][spec.WITHOUT] == ",".join(without)


def test_the_primary_vnic_is_the_one_with_a_mac() -> None:
    assert spec.primary(VNICS) is VNICS[1]
    assert spec.primary(VNICS[:1]) is VNICS[0]
    assert spec.primary(()) is None


def test_labels_keep_no_values_of_variables() -> None:
    assert "canary" not in json.dumps(config(per_network_mac=True)["Labels"])


def test_the_labels_give_the_device_back() -> None:
    made = config(per_network_mac=False)
    inspected = {
        "Id": "0" * 64,
        "Name": "/plc-001",
        "Image": DEVICE.image_id,
        "State": {"Status": "running", "StartedAt": "2026-01-01T00:00:00.123456789Z", "ExitCode": 0, "Error": ""},
        "Config": {"Labels": made["Labels"], "Env": [*made["Env"], "PATH=/bin"]},
        "HostConfig": {"RestartPolicy": made["HostConfig"]["RestartPolicy"]},
        "NetworkSettings": {"Networks": {}},
    }
    assert spec.from_labels(parse(inspected)) == DEVICE


@pytest.mark.parametrize("key", ["TINI_KILL_PROCESS_GROUP", "A B", "", "1A", "A=B"])
def test_variables_that_cannot_be_passed_on_are_named(key: str) -> None:
    (problem,) = spec.environment_problems({key: "x", "GOOD": "y"})
    assert problem.startswith(f"$.environment.{key}:")


def test_the_names_are_those_that_technicians_know() -> None:
    assert spec.macvlan_network("ens37", "192.168.10.0/24") == "macvlan_ens37_192.168.10.0_24"
    assert spec.internal_network("plc-001") == "plc-001_internal"
