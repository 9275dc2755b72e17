"""The gateway: every command gets exactly one answer, whatever the payload, the services or our own code do."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.errors import CODES, CommandError, Timeout, Unavailable
from bus.messages import docker_worker, netmon
from bus.messages.base import Event, Request
from bus.messages.cloud_link import CommandAnswered, CommandReceived
from common import trace
from common.contracts.commands import DeviceCommand
from services.cloud_link.answers import LARGEST_ANSWER
from services.cloud_link.gateway import MOST_IN_HAND, Gateway
from services.cloud_link.topics import TOPICS, Topic
from services.cloud_link.turns import Turns

STATIC = {
    "name": "eth0",
    "parent_interface": "ens37",
    "network_mode": "static",
    "ip": "192.168.1.100",
    "subnet": "255.255.255.0",
}


class House:
    """The services behind the gateway: one async function answers, and every request is written down."""

    def __init__(self, reply: Callable[[Request[Any]], Awaitable[Any]] | Any = None) -> None:
        self.reply, self.asked, self.limits, self.published = reply, [], [], []  # type: ignore[var-annotated]
        self.traces: list[str | None] = []

    async def call(self, request: Request[Any], *, deadline: float, patience: float) -> Any:
        self.asked.append(request)
        self.limits.append((deadline, patience))
        self.traces.append(trace.current())
        if isinstance(self.reply, Exception):
            raise self.reply
        return await self.reply(request) if callable(self.reply) else self.reply

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def gateway(self, **more: Any) -> Gateway:
        return Gateway(self.call, self.publish, **more)

    def answer(self, topic: object, *arguments: object) -> dict[str, Any]:
        return run(self.gateway().answer(topic, *arguments))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def is_error(answer: dict[str, Any], code: str) -> bool:
    assert code in CODES
    assert list(answer)[:3] == ["action", "correlation_id", "status"]
    return answer["status"] == "error" and answer["code"] == code and bool(answer["error"])


# ---- each topic


def test_a_creation_is_accepted_at_once_in_the_seeds_words() -> None:
    house = House(docker_worker.Accepted(status="creating", device_id="plc-1", message="Creation started for plc-1"))
    payload = {
        "correlation_id": 12345,
        "container_name": "plc-1",
        "vnic_configs": [STATIC],
        "runtime_version": "v4.1.4",
    }
    assert house.answer("create_new_runtime", payload) == {
        "action": "create_new_runtime",
        "correlation_id": 12345,
        "status": "creating",
        "container_id": "plc-1",
        "message": "Creation started for plc-1",
    }
    (request,) = house.asked
    assert request.image_tag == "v4.1.4"
    assert request.vnics[0].subnet == "192.168.1.0/24"
    assert house.traces == ["12345"]


def test_a_deletion_is_accepted_at_once() -> None:
    house = House(docker_worker.Accepted(status="deleting", device_id="plc-1", message="gone soon"))
    answer = house.answer("delete_device", {"device_id": "plc-1"})
    assert (answer["status"], answer["device_id"], answer["message"]) == ("deleting", "plc-1", "gone soon")


@pytest.mark.parametrize(
    ("topic", "request_type"),
    [
        ("start_device", docker_worker.StartDevice),
        ("stop_device", docker_worker.StopDevice),
        ("restart_device", docker_worker.RestartDevice),
    ],
)
def test_start_stop_and_restart_are_real_and_keep_their_own_time(topic: str, request_type: Any) -> None:
    house = House(docker_worker.DeviceState(device_id="plc-1", container_status="running"))
    answer = house.answer(topic, {"device_id": "plc-1", "timeout_s": 25, "correlation_id": 1.5})
    assert answer == {
        "action": topic,
        "correlation_id": 1.5,
        "status": "success",
        "success": True,
        "device_id": "plc-1",
        "container_status": "running",
    }
    assert house.asked == [request_type(device_id="plc-1", timeout_s=25.0)]
    assert house.limits[0][0] > 25


HTTP = {"headers": {"X": "1"}, "content_type": "application/json"}


def test_run_command_relays_what_the_device_answered() -> None:
    reply = docker_worker.HttpResponse(status_code=200, body={"status": "PING:OK"}, ok=True, **HTTP)
    house = House(reply)
    payload = {
        "device_id": "plc-1",
        "method": "POST",
        "api": "/api/upload-file",
        "params": {"clean": 1},
        "headers": {"Authorization": "Bearer x"},
        "files": {"file": {"filename": "p.zip", "content_base64": base64.b64encode(b"PK").decode()}},
    }
    answer = house.answer("run_command", payload)
    assert answer["status"] == "success"
    assert answer["http_response"] == {
        "status_code": 200,
        "headers": {"X": "1"},
        "body": {"status": "PING:OK"},
        "ok": True,
        "content_type": "application/json",
    }
    (request,) = house.asked
    assert request.files == {"file": docker_worker.UploadedFile(filename="p.zip", content=b"PK")}
    assert (request.port, request.params, request.timeout_s) == (8443, {"clean": 1}, 30.0)
    assert house.limits[0][0] > 30


def test_a_devices_no_is_relayed_with_a_code() -> None:
    reply = docker_worker.HttpResponse(status_code=404, body={"msg": "No users found"}, ok=False, **HTTP)
    answer = House(reply).answer("run_command", {"device_id": "p", "method": "GET", "api": "/api/get-users-info"})
    assert is_error(answer, "not_found")
    assert answer["http_response"]["body"] == {"msg": "No users found"}


def test_the_status_of_a_device_is_passed_on_without_empty_fields() -> None:
    reply = docker_worker.DeviceStatus(status="creating", device_id="p", operation="create", step="pulling image")
    answer = House(reply).answer("get_device_status", {"device_id": "p", "correlation_id": 1})
    assert answer == {
        "action": "get_device_status",
        "correlation_id": 1,
        "status": "creating",
        "device_id": "p",
        "operation": "create",
        "step": "pulling image",
    }


def test_an_unknown_device_is_a_status_not_an_error() -> None:
    reply = docker_worker.DeviceStatus(status="not_found", device_id="p")
    assert House(reply).answer("get_device_status", {"device_id": "p"})["status"] == "not_found"


def test_a_failed_operation_has_a_code_like_every_error() -> None:
    reply = docker_worker.DeviceStatus(status="error", device_id="p", error="no such image")
    answer = House(reply).answer("get_device_status", {"device_id": "p"})
    assert is_error(answer, "internal")
    assert answer["error"] == "no such image"


def test_no_self_destruct_is_running() -> None:
    house = House()
    answer = house.answer("get_device_status", {"device_id": "__orchestrator__"})
    assert answer["status"] == "not_found"
    assert "no self-destruct is running" in answer["message"]
    assert house.asked == []


def test_host_interfaces_in_the_protocols_words() -> None:
    one = netmon.HostInterface(
        name="ens37",
        ip_address="192.168.1.50",
        operstate="UP",
        gateway="192.168.1.1",
        mac_address="02:00:00:00:00:01",
        subnet="192.168.1.0/24",
        ipv4_addresses=("192.168.1.50/24",),
    )
    house = House(netmon.HostInterfaces(interfaces=(one,)))
    (full,) = house.answer("get_host_interfaces", {"include_virtual": True})["interfaces"]
    assert set(full) == {
        "name", "ip_address", "ipv4_addresses", "mac_address", "subnet", "gateway", "operstate"
    }  # fmt: skip
    (brief,) = house.answer("get_host_interfaces", {"detailed": False})["interfaces"]
    assert set(brief) == {"name", "ip_address", "gateway", "operstate"}
    assert house.asked[0] == netmon.GetHostInterfaces(include_virtual=True)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("get_consumption_device", {"device_id": "p", "cpuPeriod": "1h", "memoryPeriod": "1h"}),
        ("get_consumption_orchestrator", {"cpuPeriod": "1h", "memoryPeriod": "1h"}),
        ("get_serial_devices", {}),
        ("delete_orchestrator", {}),
    ],
)
def test_what_is_not_built_yet_checks_its_payload_and_says_so(topic: str, payload: dict[str, Any]) -> None:
    assert is_error(House().answer(topic, payload), "unavailable")
    assert is_error(House().answer(topic, payload | {"requested_at": "never"}), "invalid")


# ---- every other way


@pytest.mark.parametrize("arguments", [(), (None,), ("x",), ([],), ({}, {}), (True,), (1,), (b"\x00",)])
@pytest.mark.parametrize("topic", list(TOPICS))
def test_anything_but_one_object_is_invalid(topic: str, arguments: tuple[Any, ...]) -> None:
    assert is_error(House().answer(topic, *arguments), "invalid")


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("reboot", "unknown_command"),
        ("", "unknown_command"),
        ("\ud800", "unknown_command"),
        ("x" * 5000, "unknown_command"),
        (None, "invalid"),
        (5, "invalid"),
        (["x"], "invalid"),
        ({"a": 1}, "invalid"),
    ],
)
def test_an_unknown_event_is_answered(topic: object, code: str) -> None:
    answer = House().answer(topic, {"correlation_id": 3})
    assert is_error(answer, code)
    assert answer["correlation_id"] == 3


@pytest.mark.parametrize("failure", [CommandError("conflict", "another"), Unavailable("gone"), Timeout("late")])
def test_a_services_no_reaches_the_cloud_with_its_code_and_sentence(failure: Any) -> None:
    answer = House(failure).answer("delete_device", {"device_id": "p"})
    assert is_error(answer, failure.code)
    assert answer["error"] == failure.message


@pytest.mark.parametrize("failure", [KeyError("x"), RuntimeError("bug"), TypeError(), RecursionError()])
def test_a_bug_is_answered_as_internal_without_its_inner_words(failure: Exception) -> None:
    answer = House(failure).answer("delete_device", {"device_id": "p"})
    assert is_error(answer, "internal")
    assert "bug" not in answer["error"]


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        (5, 5), (1.5, 1.5), ("abc", "abc"), (True, True), (None, None), (2**70, None), ("x" * 500, None),
        ("a\nb", None), ([1], None), ({"a": 1}, None), (float("nan"), None), ("\ud800", None),
    ],
)  # fmt: skip
def test_the_correlation_id_comes_back_as_received_when_it_is_sane(given: object, echoed: object) -> None:
    assert House().answer("get_serial_devices", {"correlation_id": given})["correlation_id"] == echoed


def test_an_answer_too_large_for_a_server_is_refused_with_its_size() -> None:
    house = House(docker_worker.HttpResponse(status_code=200, body="x" * LARGEST_ANSWER, ok=True, **HTTP))
    gateway = house.gateway()
    packed = run(gateway.answer_json("run_command", {"device_id": "p", "method": "GET", "api": "/"}))
    answer = json.loads(packed)
    assert is_error(answer, "refused")
    assert str(LARGEST_ANSWER) in answer["error"]
    assert len(packed) < 1000
    assert house.published[-1].code == "refused"


def test_an_answer_that_is_no_json_is_an_error_not_silence() -> None:
    house = House(docker_worker.HttpResponse(status_code=200, body="\ud800", ok=True, **HTTP))
    assert is_error(house.answer("run_command", {"device_id": "p", "method": "GET", "api": "/"}), "internal")


def test_commands_are_told_on_the_bus_without_their_payload() -> None:
    house = House(Unavailable("gone"))
    house.answer("delete_device", {"device_id": "p", "correlation_id": 9, "password": "canary"})
    received, answered = house.published
    assert received == CommandReceived(topic="delete_device", correlation_id=9)
    assert isinstance(answered, CommandAnswered)
    assert (answered.status, answered.code) == ("error", "unavailable")
    assert "canary" not in repr(house.published)


def test_a_command_without_correlation_id_gets_a_trace_of_its_own() -> None:
    house = House(Unavailable("gone"))
    house.answer("delete_device", {"device_id": "p"})
    house.answer("delete_device", {"device_id": "p"})
    first, second = house.traces
    assert first
    assert first != second


# ---- many at once


def test_beyond_the_limit_the_answer_is_busy_at_once() -> None:
    async def flood() -> None:
        gate = asyncio.Event()

        async def slow(_request: Request[Any]) -> Any:
            await gate.wait()
            return docker_worker.DeviceStatus(status="success", device_id="p")

        house = House(slow)
        gateway = house.gateway()
        first = [
            asyncio.create_task(gateway.answer("get_device_status", {"device_id": "p"})) for _ in range(MOST_IN_HAND)
        ]
        await asyncio.sleep(0)
        begun = time.monotonic()
        busy = await gateway.answer("get_device_status", {"device_id": "p", "correlation_id": 4})
        assert time.monotonic() - begun < 0.1
        assert is_error(busy, "unavailable")
        assert busy["error"].startswith("busy:")
        assert busy["correlation_id"] == 4
        gate.set()
        assert {answer["status"] for answer in await asyncio.gather(*first)} == {"success"}
        assert gateway.in_hand == 0

    run(flood())


def test_changes_of_one_device_keep_their_order_and_others_do_not_wait() -> None:
    async def play() -> None:
        gates = {name: asyncio.Event() for name in ("StopDevice", "StartDevice")}

        async def worker(request: Request[Any]) -> Any:
            name = type(request).__name__
            if request.device_id == "a" and name in gates:  # type: ignore[attr-defined]
                await gates[name].wait()
            if isinstance(request, docker_worker.GetDeviceStatus):
                return docker_worker.DeviceStatus(status="success", device_id="a")
            return docker_worker.DeviceState(device_id="a", container_status="x")

        house = House(worker)
        gateway = house.gateway()
        stop = asyncio.create_task(gateway.answer("stop_device", {"device_id": "a"}))
        start = asyncio.create_task(gateway.answer("start_device", {"device_id": "a"}))
        await asyncio.sleep(0)  # both have arrived
        other = await gateway.answer("start_device", {"device_id": "b"})
        read = await gateway.answer("get_device_status", {"device_id": "a"})
        assert (other["status"], read["status"]) == ("success", "success")
        assert [type(request).__name__ for request in house.asked] == ["StopDevice", "StartDevice", "GetDeviceStatus"]
        assert not start.done()
        gates["StartDevice"].set()
        gates["StopDevice"].set()
        await asyncio.gather(stop, start)
        assert type(house.asked[-1]).__name__ == "StartDevice"
        assert house.asked[-1].device_id == "a"

    run(play())


def test_whoever_waits_too_long_for_a_turn_is_told_busy_and_the_line_goes_on() -> None:
    async def play() -> None:
        turns = Turns()
        async with turns.take("plc-1"):
            with pytest.raises(Unavailable, match="busy: plc-1"):
                async with turns.take("plc-1", patience=0.01):
                    pytest.fail("two at once")
        async with turns.take("plc-1", patience=1.0):
            pass
        assert turns._lines == {}

    run(play())


def test_commands_that_waited_for_a_dead_service_do_not_wait_for_it_once_more() -> None:
    async def play() -> None:
        async def dead(_request: Request[Any]) -> Any:
            await asyncio.sleep(0.3)
            raise Unavailable("docker_worker does not answer: it is not running")

        house = House(dead)
        gateway = house.gateway()
        await asyncio.gather(*(gateway.answer("delete_device", {"device_id": "p"}) for _ in range(3)))
        patience = [limit[1] for limit in house.limits]
        assert patience[0] > 2.9
        assert patience[1] < 2.75
        assert patience[2] < 2.45

    run(play())


def test_a_service_that_never_answers_is_given_up_within_five_seconds() -> None:
    waits: list[float] = []

    async def never(_request: Request[Any], *, deadline: float, patience: float) -> Any:
        waits.append(max(deadline, patience))
        raise Timeout("netmon has not answered")

    async def play() -> dict[str, Any]:
        gateway = Gateway(never, lambda _event: None)
        return await gateway.answer("get_device_status", {"device_id": "p"})

    assert is_error(run(play()), "timeout")
    assert max(waits) < 5.0


def test_a_row_of_the_table_may_be_as_wrong_as_it_likes() -> None:
    def broken(_command: Any) -> Any:
        raise ZeroDivisionError

    table = {"x": Topic(contract=DeviceCommand, ask=broken)}
    assert is_error(run(House().gateway(topics=table).answer("x", {"device_id": "p"})), "internal")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
HEAD = st.fixed_dictionaries(
    {}, optional={"correlation_id": ANYTHING, "device_id": ANYTHING | st.just("p"), "container_name": ANYTHING}
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(TOPICS)) | ANYTHING, st.lists(HEAD | ANYTHING, max_size=2))
def test_whatever_comes_there_is_one_readable_answer(topic: object, arguments: list[object]) -> None:
    answer = House(Unavailable("nobody there")).answer(topic, *arguments)
    assert {"action", "correlation_id", "status"} <= set(answer)
    if answer["status"] == "error":
        assert answer["code"] in CODES
        assert answer["code"] != "internal"
        assert answer["error"]
