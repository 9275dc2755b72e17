"""ctl: what a technician types, what the agent gets, what is said, and the exit code."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.local_cloud import ctl
from tests.unit.local_cloud_rig import Agent, LocalCloud, agent_in_background, local_cloud, wait_for

INTERFACES = [{"name": "eth0", "ip_address": "192.168.1.5", "operstate": "UP", "gateway": None}]
STEPS = iter(["pulling image", "pulling image", "creating container", None])


async def plant(topic: str, arguments: list[Any]) -> Any:
    """An agent with one vPLC, plc1; plc2 gets created, plc3 fails."""
    head = {"action": topic, "correlation_id": arguments[0]["correlation_id"]} if isinstance(arguments[0], dict) else {}
    name = arguments[0].get("device_id") or arguments[0].get("container_name") if head else None
    if topic == "heartbeat_ack":
        return None
    if topic == "get_host_interfaces":
        return head | {"status": "success", "interfaces": INTERFACES}
    if topic == "create_new_runtime":
        return head | {"status": "creating", "container_id": name, "message": f"creating {name}"}
    if topic == "run_command":
        code = 404 if arguments[0]["api"] == "/api/nothing" else 200
        response = {"status_code": code, "headers": {}, "body": {"asked": arguments[0].get("data")}, "ok": code == 200}
        return head | {"status": "success" if code == 200 else "error", "http_response": response}
    if topic == "get_device_status" and name == "plc2" and (step := next(STEPS)):
        return head | {"status": "creating", "device_id": name, "step": step}
    if topic == "get_device_status" and name == "plc3":
        return head | {"status": "error", "device_id": name, "error": "no space left on the host"}
    if name in ("plc1", "plc2"):
        vnic = {
            "name": "eth0",
            "parent_interface": "eth0",
            "mode": "manual",
            "ip_address": "192.168.1.50",
            "state": "up",
        }
        return head | {"status": "success", "device_id": name, "is_running": True, "vnics": [vnic]}
    return head | {"status": "error", "code": "not_found", "error": f"there is no device {name}"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with local_cloud(tmp_path_factory.mktemp("lc")) as running:
        yield running


@pytest.fixture(scope="module")
def agent_id(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    return cloud.enrol(tmp_path_factory.mktemp("mtls") / "agent")


@pytest.fixture(scope="module")
def agent(cloud: LocalCloud, agent_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    mtls = next(tmp_path_factory.getbasetemp().glob("mtls*/agent"))
    with agent_in_background(cloud, mtls, plant) as connected:
        yield connected


class Shell:
    """Types a ctl command; keeps what was said."""

    def __init__(self, cloud: LocalCloud, capsys: pytest.CaptureFixture[str]) -> None:
        self._cloud, self._capsys, self.out, self.err = cloud, capsys, "", ""

    def __call__(self, *words: str) -> int:
        try:
            code = ctl.main(["--dir", str(self._cloud.directory), *words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def shell(cloud: LocalCloud, agent: Agent, capsys: pytest.CaptureFixture[str]) -> Shell:
    agent.heard.clear()
    return Shell(cloud, capsys)


def test_agents_and_commands_are_tables(shell: Shell, agent_id: str) -> None:
    assert shell("agents") == 0
    header, row = shell.out.splitlines()
    assert header.split()[:2] == ["AGENT", "STATE"] and row.split()[:2] == [agent_id, "online"]
    assert shell("start", "plc1") == 0 and shell("stop", "plc9") == 1
    assert shell("commands", "--limit", "2") == 0
    assert shell.out.splitlines()[1].split()[3:5] == ["stop_device", "error"]
    assert (
        shell("commands", "--json") == 0 and json.loads(shell.out)["commands"][0]["detail"] == "there is no device plc9"
    )


@pytest.mark.parametrize(
    "word, topic",
    [
        ("delete", "delete_device"),
        ("start", "start_device"),
        ("stop", "stop_device"),
        ("restart", "restart_device"),
        ("status", "get_device_status"),
    ],
)
def test_a_device_is_named_with_or_without_its_agent(
    shell: Shell, agent: Agent, agent_id: str, word: str, topic: str
) -> None:
    assert shell(word, "plc1") == 0
    assert shell(word, agent_id, "plc1", "--json") == 0 and json.loads(shell.out)["device_id"] == "plc1"
    assert [(name, sent[0]["device_id"]) for name, sent in agent.heard] == [(topic, "plc1")] * 2
    assert shell(word, "plc9") == 1 and shell.err == "error: there is no device plc9 (not_found)\n"
    assert shell(word) == 2 and "[agent] name" in shell.err


def test_status_and_interfaces_are_readable(shell: Shell, agent_id: str) -> None:
    assert shell("status", "plc1") == 0 and "is_running: True" in shell.out and "192.168.1.50" in shell.out
    assert shell("interfaces") == 0
    assert shell.out.splitlines()[1].split() == ["eth0", "UP", "192.168.1.5", "-", "-", "-"]
    assert shell("interfaces", agent_id, "--virtual") == 0


def test_create_describes_vnics_and_waits_step_by_step(shell: Shell, agent: Agent) -> None:
    network = ["--parent", "eth0", "--ip", "192.168.1.50/24", "--gateway", "192.168.1.1", "--dns", "9.9.9.9"]
    second = ["--dns", "1.1.1.1", "--parent", "eth1", "--mac", "02:00:00:00:00:01", "--vnic", "name=field"]
    assert shell("create", "plc2", *network, *second, "--runtime-version", "v4", "--wait") == 0
    sent = agent.heard[0][1][0]
    assert sent["container_name"] == "plc2" and sent["runtime_version"] == "v4"
    assert sent["vnic_configs"] == [
        {
            "name": "eth0",
            "parent_interface": "eth0",
            "network_mode": "manual",
            "ip_address": "192.168.1.50",
            "subnet": "192.168.1.0/24",
            "gateway": "192.168.1.1",
            "dns": ["9.9.9.9", "1.1.1.1"],
        },
        {
            "name": "field",
            "parent_interface": "eth1",
            "network_mode": "dhcp",
            "mac_address": "02:00:00:00:00:01",
        },
    ]
    assert shell.out.count("pulling image") == 1 and shell.out.count("creating container") == 1
    assert "is_running: True" in shell.out
    assert shell("create", "plc3", "--wait") == 1 and "no space left" in shell.err


@pytest.mark.parametrize(
    "words, what",
    [
        (["create", "plc2", "--ip", "192.168.1.5/24"], "--parent"),
        (["create", "plc2", "--parent", "eth0", "--ip", "192.168.1.500"], "A.B.C.D/NN"),
        (["create", "plc2", "--vnic", "colour=red"], "colour=red"),
        (["create"], "[agent] name"),
        (["send", "topic", "{"], "no JSON"),
        (["send", "agent", "topic", "{}", "more"], "[agent] topic [json]"),
        (["send", "no such topic"], "topic"),
        (["run", "plc1", "GET"], "METHOD"),
        (["fly"], "fly"),
        ([], "command"),
        (["agents", "--timeout", "never"], "--timeout"),
    ],
)
def test_wrong_use_is_told_and_sends_nothing(shell: Shell, agent: Agent, words: list[str], what: str) -> None:
    assert shell(*words) == 2 and what in shell.err
    assert agent.heard == []


def test_send_and_run_reach_the_agent(shell: Shell, agent: Agent, agent_id: str) -> None:
    assert shell("send", agent_id, "get_host_interfaces") == 0
    assert shell("send", "get_device_status", '{"device_id": "plc1"}') == 0
    assert shell("send", agent_id, "run_command", '{"device_id": "plc1", "api": "/api/x"}', "--timeout", "5") == 0
    assert shell("send", "get_device_status", "[1]", "--raw") == 1 and agent.heard[-1][1] == [[1]]
    assert shell("run", "plc1", "post", "/api/create-user", "--data", '{"username": "u"}') == 0
    sent = agent.heard[-1][1][0]
    assert (sent["method"], sent["api"], sent["data"]) == ("POST", "/api/create-user", {"username": "u"})
    assert shell.out.startswith("HTTP 200\n") and '"username": "u"' in shell.out
    assert shell("run", "plc1", "GET", "/api/nothing") == 1 and shell.out.startswith("HTTP 404")


def test_events_are_shown_and_followed_until_the_cloud_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer_nothing(_topic: str, _arguments: list[Any]) -> Any:
        return None

    with local_cloud(tmp_path / "lc") as cloud:
        shell, agent_id = Shell(cloud, capsys), cloud.enrol(tmp_path / "mtls")
        with agent_in_background(cloud, tmp_path / "mtls", answer_nothing) as agent:
            assert shell("status", "plc1") == 0 and shell.out == "null\n"
            event = {"device_id": "plc1", "event": "progress", "step": "pull", "percent": 40}
            asyncio.run_coroutine_threadsafe(agent.client.emit("device_event", event), agent.loop).result(5)
            wait_for(lambda: cloud.agent(agent_id)["last_event_seq"] == 1)
            assert shell("events") == 0 and shell.out.rstrip().endswith("plc1 progress step=pull percent=40")
            agent.loop.call_soon_threadsafe(agent.loop.call_later, 0.3, cloud.process.terminate)
            assert shell("events", "--follow") == 3
            assert "percent=40" in shell.out and "has stopped" in shell.err
        assert shell("start", "plc1") == 3


def test_who_is_not_there_is_told(shell: Shell, cloud: LocalCloud, tmp_path: Path) -> None:
    assert shell("start", "00000000", "plc1") == 1 and "no agent" in shell.err
    offline = cloud.enrol(tmp_path / "second")
    assert shell("start", offline, "plc1") == 1 and "not connected" in shell.err
    assert shell("start", "plc1") == 2 and "name one of the agents" in shell.err
    assert shell("--dir", str(tmp_path / "nowhere"), "agents") == 3
    assert "does not answer" in shell.err and "is it running?" in shell.err and shell.err.count("\n") == 1
