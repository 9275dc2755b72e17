"""Ten thousand malformed messages against a live agent: each is acknowledged, and nothing comes of any of them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bus.errors import CODES
from bus.messages.common import Stats
from tests.e2e.product import Product
from tests.lab.process import wait_until

BATCH, BATCHES = 50, 200

VNIC = {"name": "eth0", "parent_interface": "ens37", "network_mode": "manual", "ip_address": "192.168.10.99"}
VALID: dict[str, dict[str, Any]] = {
    "create_new_runtime": {"container_name": "plc-never", "vnic_configs": [VNIC]},
    "delete_device": {"device_id": "plc-never"},
    "start_device": {"device_id": "plc-never"},
    "stop_device": {"device_id": "plc-never", "timeout_s": 5},
    "restart_device": {"device_id": "plc-never"},
    "run_command": {"device_id": "plc-never", "method": "GET", "api": "/api/version"},
    "get_device_status": {"device_id": "plc-never"},
    "get_host_interfaces": {"detailed": True},
    "get_consumption_device": {"device_id": "plc-never", "cpuPeriod": "1h", "memoryPeriod": "1h"},
    "get_consumption_orchestrator": {"cpuPeriod": "1h", "memoryPeriod": "1h"},
    "get_serial_devices": {},
    "delete_orchestrator": {},
}

numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=40)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
never_an_object = scalars | st.lists(anything, max_size=4)
bad_name = (
    st.sampled_from(["", "../etc", "a/b", "-x", ".", "a" * 64, "plc never", "plc\n1", "@", "%2e%2e"]) | st.integers()
)


def spoilt(topic: str) -> st.SearchStrategy[Any]:
    """A valid payload with one field made wrong for sure."""
    valid = VALID[topic]
    wrong_base = st.sampled_from([{"correlation_id": "seven"}, {"correlation_id": True}, {"requested_at": "yesterday"}])
    choices: list[st.SearchStrategy[Any]] = [wrong_base.map(lambda change: valid | change)]
    if "device_id" in valid:
        not_text = st.booleans() | st.integers() | st.lists(st.integers(), max_size=2) | st.just("")
        choices.append(not_text.map(lambda value: valid | {"device_id": value}))
    if topic == "create_new_runtime":
        choices.append(bad_name.map(lambda value: valid | {"container_name": value}))
        not_a_list = st.booleans() | st.integers() | st.text(max_size=5) | st.just({"a": 1})
        choices.append(not_a_list.map(lambda value: valid | {"vnic_configs": value}))
        field = st.sampled_from(["name", "parent_interface", "network_mode", "ip_address", "mac_address", "subnet"])
        bad = st.just("no such/thing") | st.integers() | st.booleans() | st.lists(st.integers(), max_size=2)
        choices.append(st.tuples(field, bad).map(lambda pair: valid | {"vnic_configs": [VNIC | {pair[0]: pair[1]}]}))
    return st.one_of(choices)


messages = st.one_of(
    st.sampled_from(sorted(VALID)).flatmap(lambda topic: st.tuples(st.just(topic), spoilt(topic))),
    st.tuples(st.sampled_from(sorted(VALID)), never_an_object),
    st.tuples(st.sampled_from(["launch_rocket", "getHostInterfaces", "create-new-runtime"]), anything),
)


@pytest.mark.timeout(600)
def test_ten_thousand_malformed_messages_are_all_acknowledged_as_errors(agent: Product) -> None:
    caller = agent.caller()
    session = agent.agent()["sid"]
    before = {owner: caller.call(Stats(), owner=owner) for owner in ("cloud_link", "docker_worker")}
    sent: list[str] = []
    lock = threading.Lock()
    with ThreadPoolExecutor(8) as pool:

        def one(message: tuple[str, Any]) -> tuple[tuple[str, Any], dict[str, Any]]:
            answer = agent.cloud.send(agent.agent_id, *message, 30.0, raw=True)
            with lock:
                sent.append(answer["code"] if "code" in answer else answer["status"])
            return message, answer

        @settings(
            max_examples=BATCHES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # a message that was not acknowledged is told as it was
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(messages, min_size=BATCH, max_size=BATCH))
        def send(batch: list[tuple[str, Any]]) -> None:
            for (topic, payload), answer in pool.map(one, batch):
                assert answer["status"] == "error", (topic, payload, answer)
                assert answer["code"] in CODES and answer["error"], answer
                assert answer["code"] != "internal", (topic, payload, answer)
                assert answer["action"] == topic

        send()
    assert len(sent) >= BATCH * BATCHES
    assert agent.agent()["sid"] == session
    after = {owner: caller.call(Stats(), owner=owner) for owner in before}
    for owner, stats in after.items():
        assert stats.run == before[owner].run, f"{owner} was restarted"
        assert stats.rss < before[owner].rss + 40 * 1024 * 1024
        assert stats.descriptors <= before[owner].descriptors + 5
    client = agent.edge.engine.client()
    assert [found.name for found in client.containers.list(all=True) if "never" in found.name] == []
    client.close()
    wait_until(lambda: agent.status("plc-never")["status"] == "not_found", 5.0, "no such device")
