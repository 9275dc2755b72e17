"""The cloud's commands: every spelling is understood, everything else gets one sentence that names the field."""

import base64
import json
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contracts import commands
from common.contracts.commands import (
    MAX_UPLOAD,
    CreateNewRuntime,
    DeviceCommand,
    GetConsumptionDevice,
    GetDeviceStatus,
    GetHostInterfaces,
    RunCommand,
    TimedDeviceCommand,
    checked_environment,
    file_contents,
    require_honoured,
)
from common.contracts.decode import MAX_DEPTH, Command, ContractError, decode, require_plain
from common.contracts.vnic import Vnic
from common.contracts.vnic_spellings import to_vnics

CONTRACTS = [
    kind
    for kind in vars(commands).values()
    if isinstance(kind, type) and issubclass(kind, Command) and kind is not Command
]

STATIC = {
    "name": "eth0",
    "parent_interface": "ens37",
    "network_mode": "manual",
    "ip_address": "192.168.1.100",
    "subnet": "192.168.1.0/24",
    "gateway": "192.168.1.1",
}


def refusal(contract: type[Command], payload: object) -> ContractError:
    with pytest.raises(ContractError) as caught:
        decode(contract, payload)
    return caught.value


def vnics_of(*configs: dict[str, Any]) -> tuple[Vnic, ...]:
    return to_vnics(decode(CreateNewRuntime, {"container_name": "p", "vnic_configs": list(configs)}).vnic_configs)


def vnic_refusal(*configs: dict[str, Any]) -> str:
    with pytest.raises(ContractError) as caught:
        vnics_of(*configs)
    assert caught.value.code == "invalid"
    return caught.value.message


# ---- the head


def test_the_head_is_optional_and_extra_fields_are_ignored() -> None:
    assert decode(GetHostInterfaces, {"something": {"new": [1]}}) == GetHostInterfaces()


@pytest.mark.parametrize("stamp", ["2025-11-20T20:30:45Z", "2025-11-20T20:30:45.123456", "2025-11-20T20:30:45+01:00"])
def test_requested_at_is_any_iso_8601_date(stamp: str) -> None:
    assert decode(GetHostInterfaces, {"requested_at": stamp}).requested_at == stamp


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("correlation_id", True, "$.correlation_id: expected number or null, got boolean"),
        ("correlation_id", "12", "$.correlation_id: expected number or null, got string"),
        ("correlation_id", float("nan"), "$.correlation_id: expected a finite number, integers within 64 bits"),
        ("correlation_id", float("inf"), "$.correlation_id: expected a finite number, integers within 64 bits"),
        ("correlation_id", 2**70, "$.correlation_id: expected a finite number, integers within 64 bits"),
        ("action", 5, "$.action: expected string or null, got integer"),
        ("requested_at", "yesterday", "$.requested_at: expected an ISO 8601 date like 2025-11-20T20:30:45Z"),
        ("requested_at", 1700000000, "$.requested_at: expected string or null, got integer"),
    ],
)
def test_a_wrong_head_names_field_and_expectation(field: str, value: object, expected: str) -> None:
    found = refusal(GetHostInterfaces, {field: value})
    assert found.code == "invalid"
    assert found.message.startswith(expected)


@pytest.mark.parametrize("payload", [None, True, 3, 1.5, "x", [], [{}], b"\x00"])
def test_a_payload_is_one_json_object(payload: object) -> None:
    assert refusal(GetHostInterfaces, payload).message.startswith("$: expected one JSON object, got ")


# ---- devices


@pytest.mark.parametrize("name", ["", "-a", "a/b", "../x", "a b", "a\n", "a" * 64, "ä", "__orchestrator__", ".hidden"])
def test_a_device_has_a_containers_name(name: str) -> None:
    assert "$.device_id: expected 1-63 characters" in refusal(DeviceCommand, {"device_id": name}).message


def test_a_missing_device_is_named() -> None:
    assert refusal(DeviceCommand, {}).message == "$.device_id: expected a value, got none"
    assert refusal(DeviceCommand, {"device_id": None}).message == "$.device_id: expected string, got null"


def test_only_the_status_may_be_asked_of_the_orchestrator_itself() -> None:
    assert decode(GetDeviceStatus, {"device_id": "__orchestrator__"}).device_id == "__orchestrator__"


@pytest.mark.parametrize("seconds", [0, -1, 301, float("nan"), float("inf"), True, "10"])
def test_a_time_limit_is_a_sensible_number_of_seconds(seconds: object) -> None:
    assert refusal(TimedDeviceCommand, {"device_id": "p", "timeout_s": seconds}).message.startswith("$.timeout_s: ")


@pytest.mark.parametrize("period", ["15m", "1h", "24h", "7d", "3600", "1700000000,1700003600"])
def test_periods_of_the_protocol_are_understood(period: str) -> None:
    assert decode(GetConsumptionDevice, {"device_id": "p", "cpuPeriod": period, "memoryPeriod": period})


@pytest.mark.parametrize("period", ["", "soon", "-1h", "1h30", "1,", ",2", "0", 3600, "1h\n"])
def test_a_period_that_cannot_be_parsed_is_invalid(period: object) -> None:
    payload = {"device_id": "p", "cpuPeriod": "1h", "memoryPeriod": period}
    assert refusal(GetConsumptionDevice, payload).message.startswith("$.memoryPeriod: expected ")


# ---- vNICs


def test_a_vnic_in_the_seeds_spelling() -> None:
    full = STATIC | {
        "parent_subnet": "192.168.1.0/24",
        "parent_gateway": "192.168.1.1",
        "dns": ["192.168.1.1"],
        "mac_address": "02:42:AC:11:00:02",
    }
    assert vnics_of(full) == (
        Vnic(
            name="eth0",
            parent_interface="ens37",
            mode="manual",
            ip_address="192.168.1.100",
            subnet="192.168.1.0/24",
            gateway="192.168.1.1",
            dns=("192.168.1.1",),
            mac_address="02:42:ac:11:00:02",
        ),
    )


BASE = {"name": "eth0", "parent_interface": "ens37"}


@pytest.mark.parametrize("mode", ["manual", "static"])
@pytest.mark.parametrize("address", ["ip_address", "ip"])
@pytest.mark.parametrize("mac", ["mac_address", "mac"])
@pytest.mark.parametrize(
    "network",
    [
        {"subnet": "10.1.0.0/16", "gateway": "10.1.0.1"},
        {"subnet": "255.255.0.0", "gateway": "10.1.0.1"},
        {"parent_subnet": "10.1.0.0/16", "parent_gateway": "10.1.0.1"},
        {"subnet": "255.255.0.0", "parent_subnet": "10.1.0.0/16", "gateway": "10.1.0.1", "parent_gateway": "10.1.0.9"},
        {"subnet": "10.1.0.0/255.255.0.0", "gateway": "10.1.0.1"},
    ],
)
def test_every_spelling_means_the_same_vnic(mode: str, address: str, mac: str, network: dict[str, str]) -> None:
    config = BASE | {"network_mode": mode, address: "10.1.2.3", mac: "02-42-ac-11-00-02"} | network
    (vnic,) = vnics_of(config)
    assert (vnic.mode, vnic.ip_address, vnic.subnet, vnic.gateway) == ("manual", "10.1.2.3", "10.1.0.0/16", "10.1.0.1")
    assert vnic.mac_address == "02:42:ac:11:00:02"


def test_null_counts_as_absent() -> None:
    nothing = dict.fromkeys(("ip_address", "ip", "mac", "subnet", "gateway", "dns", "parent_subnet", "parent_gateway"))
    (vnic,) = vnics_of(BASE | {"network_mode": "dhcp"} | nothing)
    assert vnic == Vnic(name="eth0", parent_interface="ens37", mode="dhcp")


def test_an_isolated_field_network_has_no_gateway() -> None:
    (vnic,) = vnics_of({key: value for key, value in STATIC.items() if key != "gateway"})
    assert vnic.gateway is None


def test_a_dhcp_vnic_may_describe_its_parent() -> None:
    config = BASE | {"network_mode": "dhcp", "parent_subnet": "10.0.0.0/24", "parent_gateway": "10.0.0.1"}
    (vnic,) = vnics_of(config)
    assert (vnic.mode, vnic.subnet, vnic.gateway, vnic.ip_address) == ("dhcp", "10.0.0.0/24", None, None)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"name": 5}, "$.vnic_configs[0].name: expected string, got integer"),
        ({"name": "a" * 16}, "$.vnic_configs[0].name: expected 1-15 characters"),
        ({"parent_interface": "eth0/1"}, "$.vnic_configs[0].parent_interface: expected an interface name"),
        ({"network_mode": "bridge"}, "$.vnic_configs[0].network_mode: expected dhcp, manual or static"),
        ({"ip_address": "192.168.2.4"}, "$.vnic_configs[0].ip_address: expected an address inside 192.168.1.0/24"),
        ({"ip_address": "192.168.1.0"}, "$.vnic_configs[0].ip_address: expected a host's address"),
        ({"ip_address": "192.168.1.1"}, "$.vnic_configs[0].gateway: expected another address"),
        ({"ip_address": None}, "$.vnic_configs[0].ip_address: expected an IPv4 address in manual mode, got none"),
        ({"ip_address": None, "ip": "192.168.2.4"}, "$.vnic_configs[0].ip: expected an address inside"),
        ({"ip": "192.168.1.7"}, "$.vnic_configs[0].ip: expected the same as ip_address"),
        ({"mac": "zz"}, "$.vnic_configs[0].mac: expected six pairs of hex digits"),
        ({"mac_address": "01:00:5e:00:00:01"}, "$.vnic_configs[0].mac_address: expected the address of one device"),
        ({"subnet": "192.168.1.7/24"}, "$.vnic_configs[0].subnet: expected an IPv4 network like 192.168.1.0/24"),
        ({"subnet": "255.0.255.0"}, "$.vnic_configs[0].subnet: expected a network like 192.168.1.0/24 or a netmask"),
        ({"subnet": "192.168.1.0"}, "$.vnic_configs[0].subnet: expected a network like 192.168.1.0/24 or a netmask"),
        ({"subnet": "0.0.0.0/0"}, "$.vnic_configs[0].subnet: expected a prefix of 8 to 30 bits"),
        ({"parent_subnet": "192.168.0.0/16"}, "$.vnic_configs[0].parent_subnet: expected the same network as subnet"),
        ({"subnet": None, "parent_subnet": "10.0.0.0/24"}, "$.vnic_configs[0].ip_address: expected an address inside"),
        ({"gateway": None, "parent_gateway": "10.0.0.1"}, "$.vnic_configs[0].parent_gateway: expected an address"),
        ({"dns": "1.1.1.1"}, "$.vnic_configs[0].dns: expected array or null, got string"),
        ({"dns": ["one"]}, "$.vnic_configs[0].dns[0]: expected an IPv4 address"),
        ({"network_mode": "dhcp"}, "$.vnic_configs[0].ip_address: expected nothing in dhcp mode"),
        (
            {"network_mode": "dhcp", "ip_address": None, "subnet": "255.255.255.0"},
            "$.vnic_configs[0].subnet: expected an",
        ),
    ],
)
def test_a_wrong_vnic_names_the_field_as_it_was_spelled(changed: dict[str, Any], expected: str) -> None:
    assert vnic_refusal(STATIC | changed).startswith(expected)


def test_two_vnics_may_not_share_what_must_be_unique() -> None:
    other = STATIC | {"name": "eth1", "ip_address": "192.168.1.101"}
    assert len(vnics_of(STATIC, other)) == 2
    assert "$.vnic_configs[1].ip_address" in vnic_refusal(STATIC, STATIC | {"name": "eth1"})
    assert "$.vnic_configs[1].name" in vnic_refusal(STATIC, other | {"name": "eth0"})
    mac = {"mac": "02:42:ac:11:00:02"}
    assert "$.vnic_configs[1].mac: expected another MAC" in vnic_refusal(STATIC | mac, other | mac)


def test_a_creation_needs_its_list_of_vnics_which_may_be_empty() -> None:
    assert decode(CreateNewRuntime, {"container_name": "p", "vnic_configs": []}).vnic_configs == ()
    assert refusal(CreateNewRuntime, {"container_name": "p"}).message == "$.vnic_configs: expected a value, got none"


# ---- what later versions will honour


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("serial_configs", [{"path": "/dev/ttyUSB0"}]),
        ("dedicated_interface", "eth3"),
        ("resources", {"cpus": 1}),
        ("realtime", True),
        ("realtime", {"required": True}),
        ("volumes", [{"name": "x"}]),
    ],
)
def test_a_wish_that_cannot_be_honoured_yet_is_unavailable_and_named(field: str, value: object) -> None:
    command = decode(CreateNewRuntime, {"container_name": "p", "vnic_configs": [], field: value})
    with pytest.raises(ContractError) as caught:
        require_honoured(command)
    assert caught.value.code == "unavailable"
    assert f"$.{field}" in caught.value.message


def test_an_empty_wish_is_none() -> None:
    empty = {"serial_configs": [], "dedicated_interface": "", "resources": {}, "realtime": False, "volumes": None}
    require_honoured(decode(CreateNewRuntime, {"container_name": "p", "vnic_configs": []} | empty))


@pytest.mark.parametrize(
    ("field", "value"),
    [("serial_configs", {}), ("dedicated_interface", "eth/3"), ("resources", []), ("realtime", 1), ("volumes", "x")],
)
def test_a_wish_of_the_wrong_type_is_invalid(field: str, value: object) -> None:
    found = refusal(CreateNewRuntime, {"container_name": "p", "vnic_configs": [], field: value})
    assert found.message.startswith(f"$.{field}: expected ")


@pytest.mark.parametrize("tag", ["../x", "", "-1", "a b", "x" * 129, "v1\n"])
def test_a_runtime_version_is_an_image_tag(tag: str) -> None:
    found = refusal(CreateNewRuntime, {"container_name": "p", "vnic_configs": [], "runtime_version": tag})
    assert found.message.startswith("$.runtime_version: expected an image tag")


def test_environment_variables_are_such_as_a_process_can_be_given() -> None:
    assert checked_environment({"TZ": "UTC", "A_1": ""}) == {"TZ": "UTC", "A_1": ""}
    assert checked_environment(None) == {}
    for wrong in ({"A=B": "x"}, {"": "x"}, {"A": "x\0"}, {"A": "\ud800"}):
        with pytest.raises(ContractError):
            checked_environment(wrong)


# ---- run_command

RUN = {"device_id": "p", "method": "POST", "api": "/api/upload-file"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"method": "TRACE"}, "$.method: expected GET, POST, PUT, DELETE, PATCH or HEAD"),
        ({"api": ""}, "$.api: expected string"),
        ({"port": 0}, "$.port: expected integer"),
        ({"port": True}, "$.port: expected integer"),
        ({"port": 8443.5}, "$.port: expected integer"),
        ({"headers": {"a": 1}}, "$.headers[...]: expected string, got integer"),
        ({"params": {"a": {}}}, "$.params[...]: expected "),
        ({"files": {"f": {"filename": "x"}}}, "$.files[...].content_base64: expected a value, got none"),
    ],
)
def test_a_wrong_request_names_the_field(changed: dict[str, Any], expected: str) -> None:
    assert refusal(RunCommand, RUN | changed).message.startswith(expected)


def test_files_are_decoded_or_named() -> None:
    good = decode(RunCommand, RUN | {"files": {"file": {"filename": "p.zip", "content_base64": "UEs="}}})
    assert file_contents(good.files) == {"file": b"PK"}
    bad = decode(RunCommand, RUN | {"files": {"file": {"filename": "p.zip", "content_base64": "U*s"}}})
    with pytest.raises(ContractError, match=r"\$\.files\.file\.content_base64: expected base64"):
        file_contents(bad.files)


def test_files_too_large_for_the_bus_are_refused_with_the_figures() -> None:
    half = {"filename": "x", "content_base64": base64.b64encode(bytes(MAX_UPLOAD // 2 + 1)).decode()}
    command = decode(RunCommand, RUN | {"files": {"a": half, "b": half}})
    with pytest.raises(ContractError) as caught:
        file_contents(command.files)
    assert caught.value.code == "refused"
    assert str(MAX_UPLOAD) in caught.value.message
    assert str(MAX_UPLOAD + 2) in caught.value.message


@pytest.mark.parametrize("value", [float("nan"), 2**64, b"x", "\udc80", {"a": [float("-inf")]}, {"\ud800": 1}])
def test_data_that_no_json_can_carry_is_invalid(value: object) -> None:
    with pytest.raises(ContractError, match=r"^\$\.data"):
        require_plain(value, "$.data")


def test_nesting_has_a_limit_and_never_overflows() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ContractError, match=f"at most {MAX_DEPTH} levels"):
        require_plain(deep, "$.data")


# ---- whatever comes

TEXT = st.text(st.characters(exclude_categories=())) | st.sampled_from(["\ud800", "\0"])
VNIC_FIELDS = ["name", "parent_interface", "network_mode", "ip", "subnet", "mac", "dns"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def fields(contract: type[msgspec.Struct]) -> list[str]:
    return list(contract.__struct_fields__)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[type[Command], Any]:
    contract = draw(st.sampled_from(CONTRACTS))
    known = st.sampled_from(fields(contract))
    vnic = st.dictionaries(
        st.sampled_from(["name", "parent_interface", "network_mode", "ip", "subnet", "mac", "dns"]), ANYTHING
    )
    value = ANYTHING | st.lists(st.just(STATIC) | vnic, max_size=3) | st.sampled_from(["p", "GET", "/api/x", "1h"])
    return contract, draw(st.dictionaries(known | st.text(max_size=6), value) | ANYTHING)


@settings(max_examples=600, deadline=None)
@given(mutated())
def test_no_payload_raises_anything_but_the_contracts_own_error(case: tuple[type[Command], Any]) -> None:
    contract, payload = case
    try:
        command = decode(contract, payload)
        if isinstance(command, CreateNewRuntime):
            require_honoured(command)
            to_vnics(command.vnic_configs)
            checked_environment(command.environment)
        if isinstance(command, RunCommand):
            require_plain(command.data, "$.data")
            file_contents(command.files)
    except ContractError as refused:
        assert refused.message.startswith("$")
        assert ": expected" in refused.message or refused.code == "unavailable"


def test_every_topics_contract_is_a_record_with_the_head() -> None:
    assert len(CONTRACTS) >= 10
    for contract in CONTRACTS:
        assert {"correlation_id", "action", "requested_at"} <= set(fields(contract))
        assert get_args(get_type_hints(contract)["action"]) == (str, type(None))


def test_a_valid_payload_survives_a_trip_through_json() -> None:
    payload = json.loads(json.dumps({"correlation_id": 12345, "container_name": "plc-001", "vnic_configs": [STATIC]}))
    assert decode(CreateNewRuntime, payload).correlation_id == 12345
