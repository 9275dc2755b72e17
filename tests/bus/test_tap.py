"""The tap, as a technician types it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bus.conftest import ROOT, Launch

Tap = Callable[..., "subprocess.CompletedProcess[str]"]

NETMON = """
from bus.messages.netmon import GetHostInterfaces, HostInterface, HostInterfaces
from bus.service import Service, start

NIC = HostInterface(name="ens37", ip_address="192.168.1.5", operstate="UP", gateway=None)
service = Service("netmon", start("netmon"), {GetHostInterfaces: lambda c, r: HostInterfaces(interfaces=(NIC,))}, None)
service.ready()
service.run()
"""


@pytest.fixture
def tap(environment: dict[str, str]) -> Tap:
    def run(*arguments: str, timeout: float = 30.0) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bus.tap", *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def netmon(environment: dict[str, str], run_dir: Path, tap: Tap) -> object:
    process = subprocess.Popen([sys.executable, "-c", NETMON], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    while tap("ping", "netmon").returncode != 0:
        assert process.poll() is None
    yield process
    process.kill()
    process.wait(5)


def test_list_shows_services_present_and_absent(netmon: object, tap: Tap) -> None:
    shown = tap("list")
    assert shown.returncode == 3  # three of the four are not there
    assert "netmon  pid" in shown.stdout and "ready" in shown.stdout
    assert "reads    netmon.get_host_interfaces" in shown.stdout
    assert "metrics  metrics does not answer" in shown.stdout
    assert "\x1b[" not in shown.stdout  # no colours where no terminal is


def test_ping_as_json(netmon: object, tap: Tap) -> None:
    shown = tap("ping", "netmon", "--json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["milliseconds"] > 0


def test_call_prints_the_answer(netmon: object, tap: Tap) -> None:
    shown = tap("call", "netmon.get_host_interfaces", '{"include_virtual": true}')
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["interfaces"][0]["name"] == "ens37"


def test_call_names_the_field_that_is_wrong(netmon: object, tap: Tap) -> None:
    shown = tap("call", "netmon.get_host_interfaces", '{"include_virtual": "perhaps"}')
    assert shown.returncode == 2
    assert "$.include_virtual" in json.loads(shown.stdout)["error"]


def test_a_call_that_changes_something_needs_yes(tap: Tap) -> None:
    shown = tap("call", "docker_worker.delete_device", '{"device_id": "plc1"}')
    assert shown.returncode == 2
    assert "--yes" in json.loads(shown.stdout)["error"]
    confirmed = tap("call", "docker_worker.delete_device", '{"device_id": "plc1"}', "--yes")
    assert confirmed.returncode == 3
    assert json.loads(confirmed.stdout)["code"] == "unavailable"


def test_call_of_an_unknown_name_lists_the_known(tap: Tap) -> None:
    shown = tap("call", "netmon.get_weather")
    assert shown.returncode == 2
    assert "netmon.get_host_interfaces" in json.loads(shown.stdout)["error"]


def test_tail_prints_messages_as_json_lines(netmon: object, tap: Tap) -> None:
    shown = tap("tail", "netmon.", "--json", "--count", "2")
    assert shown.returncode == 0
    assert [json.loads(line)["name"] for line in shown.stdout.splitlines()] == ["netmon.alive", "netmon.alive"]


def test_rate_counts_beside_what_is_expected(netmon: object, tap: Tap) -> None:
    shown = tap("rate", "netmon.", "--seconds", "4.5", "--json")
    row = json.loads(shown.stdout)
    assert row["name"] == "netmon.alive" and row["expected"] == 0.5
    assert 0.3 < row["per_second"] < 0.8


def test_the_states_of_a_running_service_are_shown_in_words(launch: Launch, tap: Tap) -> None:
    launch()
    shown = tap("tail", "echo.lamp.", "--count", "2")
    assert "echo.lamp.switched (replayed)" in shown.stdout
    assert '{"lamp":"green","on":false}' in shown.stdout
