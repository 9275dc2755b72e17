"""What a technician on site types, and what they see."""

import json
import re
import subprocess
import sys

from tests.e2e.product import OWNERS, ROOT, Product
from tests.lab.process import run, wait_until

LINE = re.compile(r"^(\S+)\s+(\w+)\s", re.MULTILINE)


def shell(agent: Product, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """A command as the README writes it, with the environment of var/env.sh."""
    return run([sys.executable, "-m", *words], env=agent.environment, cwd=ROOT, check=check)


def test_supervisorctl_shows_all_four_running(agent: Product) -> None:
    states = dict(LINE.findall(agent.supervisorctl("status", check=False)))
    assert all(states[program] == "RUNNING" for program in OWNERS), states
    assert states["local-cloud"] == "RUNNING"


def test_supervisorctl_tail_shows_the_log(agent: Product) -> None:
    for program, owner in OWNERS.items():
        assert f"{owner} " in agent.supervisorctl("tail", "-4000", program)


def test_supervisorctl_restart_brings_a_service_back(agent: Product) -> None:
    before = agent.pid("metrics")
    assert "metrics: started" in agent.supervisorctl("restart", "metrics")
    assert agent.pid("metrics") not in (0, before)


def test_the_tap_lists_healthy_services(agent: Product) -> None:
    def healthy() -> bool:
        told = [json.loads(line) for line in shell(agent, "bus.tap", "list", "--json", check=False).stdout.splitlines()]
        return [service.get("health") for service in told] == ["ready"] * 4

    wait_until(healthy, 20.0, "four ready services in the tap", every=0.5)


def test_the_tap_asks_a_service(agent: Product) -> None:
    told = json.loads(shell(agent, "bus.tap", "call", "netmon.get_host_interfaces").stdout)
    assert "ens37" in [interface["name"] for interface in told["interfaces"]]


def test_one_correlation_id_tells_the_story(agent: Product) -> None:
    number = 77_001_177
    vnic = {"name": "eth0", "parent_interface": "ens37", "network_mode": "manual", "ip_address": "192.168.10.66"}
    agent.send("create_new_runtime", {"container_name": "plc-story", "vnic_configs": [vnic], "correlation_id": number})
    agent.wait_for_status("plc-story", status="success", is_running=True)
    agent.delete("plc-story")
    story = [line for line in agent.logs().splitlines() if f"trace={number}" in line]
    assert any(" cloud_link " in line for line in story), story
    assert any(" docker_worker " in line and "plc-story" in line for line in story), story


def test_ctl_shows_the_agent_and_a_device(agent: Product) -> None:
    assert agent.agent_id in shell(agent, "services.local_cloud.ctl", "agents").stdout
    missing = shell(agent, "services.local_cloud.ctl", "status", "no-such-plc", check=False)
    assert (missing.returncode, missing.stderr) == (1, "error: there is no device no-such-plc\n")


def test_heartbeats_carry_the_seeds_fields(agent: Product) -> None:
    beat = wait_until(lambda: agent.agent()["heartbeat"], 10.0, "a heartbeat")
    figures = ["cpu_usage", "memory_usage", "memory_total", "disk_usage", "disk_total", "uptime"]
    assert {"agent_id", "status", "timestamp", *figures} <= set(beat)
    assert (beat["agent_id"], beat["status"]) == (agent.agent_id, "online")
    fresh = wait_until(
        lambda: (found := agent.agent()["heartbeat"]) and "stale" not in found and found, 20.0, "figures"
    )
    assert 0 < fresh["memory_usage"] < fresh["memory_total"]
    assert 0 < fresh["disk_usage"] < fresh["disk_total"]


def test_the_agent_opens_no_port(agent: Product) -> None:
    pids = {agent.pid(program) for program in OWNERS}
    listening = agent.edge.run(["ss", "-H", "-lntup"]).stdout
    assert not [line for line in listening.splitlines() if any(f"pid={pid}," in line for pid in pids)]
