"""A vNIC's status says what is, and every difference from what was wanted."""

from typing import Any

import msgspec
import pytest

from common.contracts.vnic import Vnic
from services.docker_worker.container import NEVER, Container, Endpoint, parse
from services.docker_worker.place import Place
from services.docker_worker.status import vnic_status
from tests.unit.docker_worker_container import a_container

VNIC = Vnic(
    name="eth0",
    parent_interface="ens37",
    mode="manual",
    ip_address="192.168.10.60",
    subnet="192.168.10.0/24",
    gateway="192.168.10.1",
    mac_address="06:00:00:00:00:01",
)
PLACE = Place(vnic=VNIC, decision="take")
UP = Endpoint(network_id="n", ip_address="192.168.10.60", mac_address="06:00:00:00:00:01", gateway="192.168.10.1")


def container(endpoint: Endpoint | None = UP, **fields: Any) -> Container:
    return a_container(endpoint, **fields)


def test_a_vnic_as_wanted_is_up() -> None:
    assert (vnic_status(PLACE, container()).state, vnic_status(PLACE, container()).reason) == ("up", "")


def test_a_reused_network_of_another_name_is_found_by_the_address() -> None:
    assert vnic_status(PLACE, container(network="plant-lan")).state == "up"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("mac_address", "02:42:c0:a8:0a:3c", "MAC 06:00:00:00:00:01 was wanted, it has 02:42:c0:a8:0a:3c"),
        ("ip_address", "192.168.10.2", "address 192.168.10.60 was wanted, it has 192.168.10.2"),
        ("gateway", "", "gateway 192.168.10.1 was wanted, it has none"),
    ],
)
def test_a_difference_is_an_error_with_both_sides(field: str, value: str, reason: str) -> None:
    status = vnic_status(PLACE, container(msgspec.structs.replace(UP, **{field: value})))
    assert (status.state, status.reason) == ("error", reason)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (None, "pending"),
        (container(status="created", started_at=NEVER), "pending"),
        (container(status="exited"), "down"),
        (container(None), "error"),
    ],
)
def test_a_vnic_that_is_not_up_says_why(seen: Container | None, state: str) -> None:
    status = vnic_status(PLACE, seen)
    assert status.state == state
    assert status.reason
    assert (status.ip_address, status.mac_address) == (VNIC.ip_address, VNIC.mac_address)


def test_what_an_engine_leaves_out_is_read_as_nothing() -> None:
    seen = parse(
        {
            "Id": "0" * 64,
            "Name": "/plc-001",
            "Image": "sha256:1",
            "State": {"Status": "created", "StartedAt": NEVER, "ExitCode": 0},
            "Config": {"Labels": None, "Env": None},
            "HostConfig": {"RestartPolicy": None},
            "NetworkSettings": {"Networks": {"n": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}, "IPAddress": ""}}},
        }
    )
    assert seen.never_started
    assert seen.restart_policy == "no"
    assert seen.endpoints["n"].ip_address == "10.0.0.9"
