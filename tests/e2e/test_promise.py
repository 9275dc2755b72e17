"""The promise: a crash in one process never takes down the cloud session, loses a command, or touches a PLC."""

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from bus.errors import CallFailed
from bus.events import Subscriber
from bus.messages.cloud_link import HeartbeatSent
from bus.messages.common import Ping
from bus.messages.docker_worker import DeviceProgressed
from services.local_cloud.ctl_client import Refused
from tests.e2e.product import OWNERS, Product
from tests.lab.fixtures import Site
from tests.lab.process import wait_until

ROUNDS = 10


class Beats:
    """When heartbeats went out, by the wall clock of their envelopes."""

    def __init__(self, agent: Product) -> None:
        self.times: list[float] = []
        self._agent, self._stop = agent, threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        subscriber = Subscriber(self._agent.context, self._agent.run_dir, ("cloud_link.heartbeat.",))
        while not self._stop.is_set():
            heard = subscriber.receive(0.2)
            if heard is not None and isinstance(heard.record, HeartbeatSent):
                self.times.append(heard.envelope.ts)
        subscriber.close()

    def __enter__(self) -> "Beats":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def longest_pause(self) -> float:
        return max(later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False))


@contextmanager
def commands(agent: Product, per_second: float) -> Iterator[list[dict[str, Any]]]:
    """Send commands all the time; the list holds one record a command, with its outcome."""
    outcomes: list[dict[str, Any]] = []
    stop = threading.Event()
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("get_host_interfaces", {}),
        ("get_device_status", {"device_id": "nobody"}),
        ("delete_device", {"device_id": "nobody"}),
        ("stop_device", {"device_id": "nobody"}),
        ("get_consumption_orchestrator", {"cpuPeriod": "1h", "memoryPeriod": "1h"}),
    ]

    def one(record: dict[str, Any]) -> None:
        began = time.monotonic()
        try:
            record["answer"] = agent.send(record["topic"], record["payload"], timeout=20.0)
        except Refused as problem:
            record["failure"] = str(problem)
        record["seconds"] = time.monotonic() - began

    def flow() -> None:
        with ThreadPoolExecutor(32) as pool:
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                topic, payload = kinds[len(outcomes) % len(kinds)]
                record: dict[str, Any] = {"topic": topic, "payload": payload | {"correlation_id": len(outcomes)}}
                outcomes.append(record)
                pool.submit(one, record)
                due += 1 / per_second

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join(60)


def back_within(agent: Product, program: str, before: str, within: float) -> float:
    """Seconds until the program answers again, as another run of itself."""
    caller, began = agent.caller(), time.monotonic()

    def answers() -> bool:
        try:
            return caller.call(Ping(), owner=OWNERS[program], patience=0.1, deadline=0.5).run != before
        except CallFailed:
            return False

    wait_until(answers, within, f"{program} answers again")
    return time.monotonic() - began


@pytest.mark.timeout(400)
def test_killed_services_never_end_the_session_nor_lose_a_command(
    agent: Product, record_property: Callable[[str, object], None]
) -> None:
    session = agent.agent()["sid"]
    recovered: dict[str, list[float]] = {program: [] for program in ("docker-worker", "metrics", "netmon")}
    caller = agent.caller()
    with Beats(agent) as beats, commands(agent, per_second=5.0) as outcomes:
        wait_until(lambda: beats.times, 10.0, "a first heartbeat")
        for _ in range(ROUNDS):
            for program, times in recovered.items():
                before = caller.call(Ping(), owner=OWNERS[program]).run
                agent.kill(program)
                times.append(back_within(agent, program, before, within=10.0))
                assert agent.agent()["sid"] == session
        last = len(beats.times)
        wait_until(lambda: len(beats.times) > last + 1, 15.0, "heartbeats after the last kill")
    assert agent.agent()["sid"] == session
    assert beats.longest_pause() <= 6.0
    assert len(outcomes) > 5 * 3 * ROUNDS * 0.3
    unanswered = [record for record in outcomes if "answer" not in record]
    assert unanswered == []
    for number, record in enumerate(outcomes):
        assert record["answer"]["action"] == record["topic"]
        assert record["answer"]["correlation_id"] == number
        assert record["seconds"] < 6.0, record
    for program, times in recovered.items():
        median = statistics.median(times)
        record_property(f"{program} back after, median s", round(median, 3))
        print(f"{program}: back after {median:.2f} s (median of {ROUNDS}, worst {max(times):.2f} s)")
        assert median <= 3.0


def test_a_killed_cloud_link_is_back_and_no_plc_notices(agent: Product, plant: Site) -> None:
    agent.create("plc-calm", ip="192.168.10.70")
    client = agent.edge.engine.client()
    try:
        wait_until(lambda: plant.pc.ping("192.168.10.70"), 10.0, "the vPLC answers pings")
        pid = client.api.inspect_container("plc-calm")["State"]["Pid"]
        with pinging(plant, "192.168.10.70") as lost:
            sessions = agent.agent()["sessions"]
            began = time.monotonic()
            agent.kill("cloud-link")
            wait_until(lambda: agent.agent()["sessions"] > sessions and agent.online(), 15.0, "a new session")
            seconds = time.monotonic() - began
            assert agent.status("plc-calm")["is_running"] is True
        print(f"cloud-link: session back after {seconds:.2f} s")
        assert seconds <= 5.0
        assert lost == [0]
        assert client.api.inspect_container("plc-calm")["State"]["Pid"] == pid
    finally:
        client.close()
        agent.delete("plc-calm")


@contextmanager
def pinging(site: Site, address: str) -> Iterator[list[int]]:
    """Ping all the time; afterwards the list holds the number of lost pings."""
    lost: list[int] = []
    stop = threading.Event()
    misses = [0]

    def ping() -> None:
        while not stop.is_set():
            misses[0] += not site.pc.ping(address)

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield lost
    finally:
        stop.set()
        thread.join(10)
        lost.append(misses[0])


@pytest.mark.timeout(400)
def test_a_docker_worker_killed_at_any_step_of_a_creation_makes_one_device(agent: Product) -> None:
    seen = steps_of_a_creation(agent)
    assert len(seen) >= 4, seen
    client = agent.edge.engine.client()
    try:
        for number, step_seen in enumerate(seen):
            device, address = f"plc-step{number}", f"192.168.10.{80 + number}"
            step = step_seen.replace("plc-steps", device)
            with killer(agent, device, step) as killed:
                vnic = {
                    "name": "eth0",
                    "parent_interface": "ens37",
                    "network_mode": "manual",
                    "ip_address": address,
                }
                agent.send("create_new_runtime", {"container_name": device, "vnic_configs": [vnic]})
                status = agent.wait_for_status(device, status="success", is_running=True)
            assert killed.is_set(), f"never saw {step} of {device}"
            assert status["vnics"][0]["ip_address"] == address
            containers = [found for found in client.containers.list(all=True) if device in found.name]
            assert [found.name for found in containers] == [device]
            assert len([found for found in client.networks.list() if found.name == f"{device}_internal"]) == 1
            assert len([found for found in client.networks.list() if found.name.startswith("macvlan_ens37")]) == 1
            assert containers[0].attrs["RestartCount"] == 0
            agent.delete(device)
    finally:
        client.close()


def steps_of_a_creation(agent: Product) -> list[str]:
    """The steps that an undisturbed creation announces, in order."""
    subscriber = Subscriber(agent.context, agent.run_dir, ("docker_worker.device.progressed",))
    assert subscriber.wait_connected(1, 5.0)
    agent.create("plc-steps", ip="192.168.10.79")
    steps: list[str] = []
    while (heard := subscriber.receive(0.3)) is not None:
        if isinstance(heard.record, DeviceProgressed) and heard.record.device_id == "plc-steps":
            steps.append(heard.record.step)
    subscriber.close()
    agent.delete("plc-steps")
    return list(dict.fromkeys(steps))


@contextmanager
def killer(agent: Product, device: str, step: str) -> Iterator[threading.Event]:
    """kill -9 docker-worker, once, as soon as it announces `step` of `device`."""
    killed, stop = threading.Event(), threading.Event()
    ready = threading.Event()
    pid = agent.pid("docker-worker")  # looked up before: the kill must not come after the step

    def watch() -> None:
        subscriber = Subscriber(agent.context, agent.run_dir, ("docker_worker.device.progressed",))
        subscriber.wait_connected(1, 5.0)
        ready.set()
        while not stop.is_set() and not killed.is_set():
            heard = subscriber.receive(0.2)
            record = heard.record if heard else None
            if isinstance(record, DeviceProgressed) and (record.device_id, record.step) == (device, step):
                os.kill(pid, signal.SIGKILL)
                killed.set()
        subscriber.close()

    thread = threading.Thread(target=watch)
    thread.start()
    ready.wait(5)
    try:
        yield killed
    finally:
        stop.set()
        thread.join(10)


def test_the_local_cloud_may_go_and_come(agent: Product) -> None:
    before, pid = agent.agent()["sid"], agent.pid("cloud-link")
    agent.supervisorctl("restart", "local-cloud")
    wait_until(agent.online, 30.0, "the agent is online again")
    assert agent.agent()["sid"] != before
    assert agent.pid("cloud-link") == pid  # it came back without a restart
    assert agent.send("get_host_interfaces")["status"] == "success"


def test_a_frozen_engine_leaves_every_command_answered(agent: Product) -> None:
    agent.edge.engine.freeze()
    try:
        for topic, payload in (
            ("get_host_interfaces", {}),
            ("get_device_status", {"device_id": "nobody"}),
            ("create_new_runtime", {"container_name": "plc-frozen", "vnic_configs": []}),
            ("start_device", {"device_id": "nobody"}),
            ("delete_device", {"device_id": "plc-frozen"}),
        ):
            began = time.monotonic()
            answer = agent.send(topic, payload, timeout=20.0)
            assert answer["action"] == topic
            assert time.monotonic() - began < 5.5, (topic, answer)
    finally:
        agent.edge.engine.thaw()
    agent.wait_for_status("plc-frozen", status="not_found", within=60.0)
