"""cloud_link as a whole: the real process between a real cloud and services that die, freeze and come back."""

import base64
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.calls import Caller
from bus.messages.common import Info, ServiceInfo
from common.contracts.commands import MAX_UPLOAD
from tests.bus.cloud_link_cloud import Authority, Cloud, server_tls
from tests.bus.conftest import ROOT, Context, Launch, Program, wait_for

LINK = ("services.cloud_link", "cloud_link")
NETMON = ("tests.bus.programs.cloud_link_netmon", "netmon")
WORKER = ("tests.bus.programs.cloud_link_worker", "docker_worker")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def cloud(authority: Authority) -> Iterator[Cloud]:
    cloud = Cloud(server_tls(authority.ca_file, authority.server("localhost")))
    yield cloud
    cloud.close()


@pytest.fixture
def link(cloud: Cloud, authority: Authority, environment: dict[str, str], launch: Launch) -> Program:
    environment["ORCHESTRATOR_SERVER_URL"] = cloud.url
    environment["ORCHESTRATOR_CA_FILE"] = str(authority.ca_file)
    environment["ORCHESTRATOR_MTLS_DIR"] = str(authority.agent())
    program: Program = launch(*LINK)
    return program


Told = Callable[[], ServiceInfo]


@pytest.fixture
def told(context: Context, run_dir: Path) -> Told:
    caller = Caller(context, run_dir, "test")
    return lambda: caller.call(Info(), owner="cloud_link")


def online(cloud: Cloud) -> str:
    wait_for(lambda: cloud.sessions, 10, "a session")
    return cloud.sessions[-1]


def test_a_command_goes_through_the_house_and_back(cloud: Cloud, link: Program, launch: Launch, told: Told) -> None:
    launch(*NETMON)
    online(cloud)
    answer = cloud.command("get_host_interfaces", {"correlation_id": 1, "detailed": False})
    assert answer["interfaces"] == [
        {"name": "ens37", "ip_address": "192.168.1.50", "gateway": "192.168.1.1", "operstate": "UP"}
    ]
    info = told()
    assert info.health == "ready"
    assert info.detail["session"]["state"] == "online"
    assert info.detail["session"]["session_id"] == cloud.sessions[-1]


def test_the_state_says_why_there_is_no_session(
    cloud: Cloud, authority: Authority, environment: dict[str, str], launch: Launch, told: Told
) -> None:
    mtls = authority.agent()
    (mtls / "client.key").chmod(0o640)
    environment |= {
        "ORCHESTRATOR_SERVER_URL": cloud.url,
        "ORCHESTRATOR_CA_FILE": str(authority.ca_file),
        "ORCHESTRATOR_MTLS_DIR": str(mtls),
    }
    program = launch(*LINK)
    wait_for(lambda: told().detail["session"]["state"] == "identity_problem")
    info = told()
    assert info.health == "degraded"
    assert "chmod 0600" in info.reasons[0]
    assert "chmod 0600" in program.log.read_text()
    (mtls / "client.key").chmod(0o600)
    online(cloud)
    wait_for(lambda: told().health == "ready")


def test_an_address_without_tls_stops_the_start_with_one_line(environment: dict[str, str], launch: Launch) -> None:
    environment["ORCHESTRATOR_SERVER_URL"] = "http://localhost:1"
    program = launch(*LINK, wait=False)
    assert program.process.wait(10) == 2
    assert "https://" in program.log.read_text()


def test_a_missing_service_is_answered_within_five_seconds(cloud: Cloud, link: Program) -> None:
    online(cloud)
    begun = time.monotonic()
    answers: list[dict[str, Any]] = []
    asking = [
        threading.Thread(target=lambda topic=topic: answers.append(cloud.command(topic, {"device_id": "p"})))  # type: ignore[misc]
        for topic in ("get_host_interfaces", "delete_device", "start_device", "stop_device", "restart_device")
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(10)
    assert time.monotonic() - begun < 5
    assert [answer["code"] for answer in answers] == ["unavailable"] * 5


def test_a_service_that_is_just_being_restarted_is_waited_for(cloud: Cloud, link: Program, launch: Launch) -> None:
    netmon = launch(*NETMON)
    session = online(cloud)
    assert cloud.command("get_host_interfaces", {})["status"] == "success"
    netmon.kill()
    begun = threading.Thread(target=lambda: launch(*NETMON))
    begun.start()
    assert cloud.command("get_host_interfaces", {})["status"] == "success"
    begun.join(10)
    assert cloud.sessions == [session]


def test_a_service_that_dies_with_a_command_in_hand_is_told_at_once(
    cloud: Cloud, link: Program, launch: Launch
) -> None:
    worker = launch(*WORKER)
    online(cloud)
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(
        target=lambda: answers.append(cloud.command("stop_device", {"device_id": "p", "timeout_s": 60}, within=30))
    )
    asking.start()
    wait_for(lambda: cloud.command("get_device_status", {"device_id": "p"})["status"] == "stopping")
    begun = time.monotonic()
    worker.kill()
    asking.join(10)
    assert answers[0]["code"] == "timeout"
    assert time.monotonic() - begun < 2


def test_a_frozen_service_is_answered_for_within_five_seconds(cloud: Cloud, link: Program, launch: Launch) -> None:
    netmon, worker = launch(*NETMON), launch(*WORKER)
    online(cloud)
    assert cloud.command("get_host_interfaces", {})["status"] == "success"
    assert cloud.command("start_device", {"device_id": "p"})["status"] == "success"
    netmon.freeze()
    worker.freeze()
    for topic in ("get_host_interfaces", "start_device"):
        begun = time.monotonic()
        assert cloud.command(topic, {"device_id": "p"})["code"] == "timeout"
        assert time.monotonic() - begun < 5


def test_a_file_goes_through_and_one_too_large_is_refused(cloud: Cloud, link: Program, launch: Launch) -> None:
    launch(*WORKER)
    online(cloud)

    def upload(size: int) -> dict[str, Any]:
        content = base64.b64encode(bytes(size)).decode()
        files = {"file": {"filename": "p.zip", "content_base64": content}}
        answer: dict[str, Any] = cloud.command(
            "run_command", {"device_id": "p", "method": "POST", "api": "/api/upload-file", "files": files}, within=20
        )
        return answer

    assert upload(MAX_UPLOAD)["http_response"]["body"] == {"received": MAX_UPLOAD}
    assert upload(MAX_UPLOAD + 1)["code"] == "refused"


def test_heartbeats_come_and_device_events_follow_their_commands(cloud: Cloud, link: Program, launch: Launch) -> None:
    launch(*WORKER)
    online(cloud)

    def told() -> bool:  # what a service publishes before its listeners have found it is heard by nobody
        cloud.command("start_device", {"device_id": "plc-1", "correlation_id": 77})
        return any(name == "device_event" for name, _ in cloud.heard)

    wait_for(told)
    wait_for(lambda: any(name == "heartbeat" for name, _ in cloud.heard))
    event = next(data for name, data in cloud.heard if name == "device_event")
    assert (event["device_id"], event["event"], event["trace"]) == ("plc-1", "started", "77")
    beats = [data for name, data in cloud.heard if name == "heartbeat"]
    assert beats[0]["agent_id"] == "07048933"
    assert beats[0]["stale"] is True  # there is no metrics service in this house


def test_it_ends_politely_and_soon(cloud: Cloud, link: Program) -> None:
    online(cloud)
    begun = time.monotonic()
    link.process.send_signal(signal.SIGTERM)
    assert link.process.wait(10) == 0
    assert time.monotonic() - begun < 3
    assert "Traceback" not in link.log.read_text()


def test_nothing_heavy_is_loaded_that_is_not_needed(link: Program) -> None:
    mapped = Path(f"/proc/{link.process.pid}/maps").read_text(encoding="utf-8")
    assert [library for library in ("cryptography", "psutil", "simple_websocket") if library in mapped] == []


def test_only_what_is_needed_is_imported() -> None:
    program = "import sys, services.cloud_link.__main__; print(*{name.split('.')[0] for name in sys.modules})"
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(shown.split())
    assert {"socketio", "aiohttp", "zmq"} <= loaded
    assert loaded.isdisjoint({"docker", "pyroute2", "cryptography", "psutil", "urllib3", "simple_websocket"})
