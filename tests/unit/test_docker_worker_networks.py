"""Which network is chosen: found again whatever its name, and never on top of anything the host knows."""

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contracts.vnic import Vnic
from services.docker_worker import spec
from services.docker_worker.errors import EngineError, StepFailed, classify
from services.docker_worker.networks import Network, Networks, find_macvlan, host_routes, parse
from services.docker_worker.owner import Owner, recognise
from services.docker_worker.removal import is_referenced

OWNER = Owner(id="agent-7", known=frozenset({"agent-7"}))
VNIC = Vnic(name="eth0", parent_interface="ens37", mode="manual", ip_address="192.168.10.60", subnet="192.168.10.0/24")


class Listing:
    """An engine that makes every network it is asked for, unless it overlaps with one of `secret`."""

    def __init__(self, *secret: str) -> None:
        self.made: list[dict[str, Any]] = []
        self._secret = [IPv4Network(subnet) for subnet in secret]

    def create_network(self, body: dict[str, Any]) -> str:
        subnet = IPv4Network(body["IPAM"]["Config"][0]["Subnet"])
        if any(subnet.overlaps(other) for other in self._secret):
            raise EngineError("pool_overlaps", 403, "Pool overlaps with other one on this address space")
        self.made.append(body)
        return f"id{len(self.made)}"

    def networks(self) -> list[dict[str, Any]]:
        return [{"Id": f"id{number}", **body} for number, body in enumerate(self.made, 1)]


def networks(pool: str, *routes: str, secret: tuple[str, ...] = ()) -> Networks:
    return Networks(Listing(*secret), OWNER, IPv4Network(pool), lambda: [IPv4Network(route) for route in routes])  # type: ignore[arg-type]


def a_network(name: str, *subnets: str, **fields: Any) -> Network:
    known = {"driver": "macvlan", "parent": "ens37", "gateway": None, "labels": {}, **fields}
    return Network(id=f"id-{name}", name=name, subnets=subnets, **known)


def ignore(_step: str) -> None: ...


def test_the_internal_network_avoids_routes_and_other_networks() -> None:
    ours = networks("198.18.0.0/26", "198.18.0.0/28", secret=("198.18.0.24/29",))
    existing = [a_network("other", "198.18.0.16/29", driver="bridge")]
    assert ours.internal("plc-001", existing, ignore).subnets == ("198.18.0.32/29",)


def test_two_devices_that_choose_at_once_choose_differently() -> None:
    ours = networks("198.18.0.0/16")
    chosen = {ours.internal(f"plc-{number}", [], ignore).subnets for number in range(40)}
    assert len(chosen) == 40


def test_a_used_up_pool_says_which_setting_helps() -> None:
    ours = networks("198.18.0.0/29", "198.18.0.0/24")
    with pytest.raises(StepFailed, match="internal_pool"):
        ours.internal("plc-001", [], ignore)


@given(st.lists(st.integers(0, 31), max_size=31))
def test_the_choice_never_overlaps(taken: list[int]) -> None:
    routes = [f"198.18.0.{8 * number}/29" for number in set(taken)]
    ours = networks("198.18.0.0/24", *routes)
    if len(set(taken)) == 32:
        return
    (chosen,) = ours.internal("plc-001", [], ignore).subnets
    assert chosen not in routes


def test_our_network_of_an_earlier_try_is_taken_again_and_a_foreign_one_is_not() -> None:
    name = spec.internal_network("plc-001")
    ours = a_network(name, "198.18.0.0/29", driver="bridge", labels=spec.labels("agent-7", "plc-001"))
    assert networks("198.18.0.0/16").internal("plc-001", [ours], ignore) is ours
    with pytest.raises(StepFailed, match="not ours"):
        networks("198.18.0.0/16").internal("plc-001", [a_network(name, "198.18.0.0/29")], ignore)


def test_a_macvlan_network_is_found_by_parent_and_subnet_not_by_name() -> None:
    good = a_network("plant-lan", "192.168.10.0/24")
    others = [
        a_network("a", "192.168.10.0/24", parent="ens370"),
        a_network("b", "192.168.10.0/25"),
        a_network("c", "192.168.10.0/24", driver="bridge"),
    ]
    assert find_macvlan(VNIC, [*others, good]) is good
    assert find_macvlan(VNIC, others) is None


def test_a_new_macvlan_network_has_the_known_name_and_is_internal_without_a_gateway() -> None:
    engine = Listing()
    ours = Networks(engine, OWNER, IPv4Network("198.18.0.0/16"), list)  # type: ignore[arg-type]
    assert ours.macvlan(VNIC, [], ignore).name == "macvlan_ens37_192.168.10.0_24"
    (body,) = engine.made
    assert body["Internal"]
    assert body["Options"] == {"parent": "ens37"}
    assert body["IPAM"]["Config"][0]["Gateway"] != VNIC.ip_address


def test_a_network_is_kept_while_any_container_names_it() -> None:
    network = a_network("mv", "192.168.10.0/24")
    stopped = {"NetworkSettings": {"Networks": {"mv": {"NetworkID": ""}}}}
    renamed = {"NetworkSettings": {"Networks": {"x": {"NetworkID": network.id}}}}
    stranger = {"NetworkSettings": {"Networks": {"bridge": {"NetworkID": "b"}}}}
    assert is_referenced(network, [stranger, stopped])
    assert is_referenced(network, [renamed])
    assert not is_referenced(network, [stranger, {"NetworkSettings": None}])


def test_the_gateway_of_an_internal_network_is_none() -> None:
    listed = {
        "Id": "1",
        "Name": "n",
        "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}]},
    }
    assert parse(listed).gateway == "10.0.0.1"
    assert parse({**listed, "Internal": True}).gateway is None
    assert parse({**listed, "IPAM": {"Config": None}, "Options": None, "Labels": None}).subnets == ()


def test_routes_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "ens37\t00000000\t010AA8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "ens37\t000AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert host_routes(table) == [IPv4Network("192.168.10.0/24")]


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (403, "Pool overlaps with other one on this address space", "pool_overlaps"),
        (403, "invalid pool request: Pool overlaps with other one on this address space", "pool_overlaps"),
        (500, "network dm-57008489a301 is already using parent interface ens37", "parent_in_use"),
        (500, "invalid subinterface vlan name nope0, example formatting is eth0.10", "parent_missing"),
        (500, "the requested parent interface ens38 was not found on the Docker host", "parent_missing"),
        (403, "Address already in use", "address_in_use"),
        (403, "endpoint with name agB already exists in network plc", "already_connected"),
        (403, "error while removing network: network x id 1 has active endpoints", "in_use"),
        (500, "container 1 is not connected to the network plc", "not_connected"),
        (409, "removal of container 1 is already in progress", "removing"),
        (409, 'Conflict. The container name "/a" is already in use by container "1"', "name_taken"),
        (409, "network with name a already exists", "name_taken"),
        (404, "network nope not found", "not_found"),
        (404, "could not find an available, non-overlapping IPv4 address pool among the defaults", "pools_exhausted"),
        (500, "OCI runtime create failed: unable to apply caps: operation not permitted", "privileges_refused"),
        (500, "error setting rlimit type 14: operation not permitted", "privileges_refused"),
        (400, 'invalid CapAdd: capability not supported by your kernel: "CAP_SYS_NICE"', "privileges_refused"),
        (500, 'exec: "docker-init": executable file not found in $PATH', "init_missing"),
        (500, "something new", "other"),
    ],
)
def test_the_engines_answers_are_told_apart(status: int, text: str, kind: str) -> None:
    assert classify(status, text) == kind


def test_objects_of_every_id_we_ever_had_stay_ours(tmp_path: Path) -> None:
    local = recognise(tmp_path, None)
    assert local.id.startswith("local-")
    assert recognise(tmp_path, None) == local
    enrolled = recognise(tmp_path, "07048933")
    assert (enrolled.id, enrolled.known) == ("07048933", frozenset({"07048933", local.id}))
    assert recognise(tmp_path, None).id == local.id
