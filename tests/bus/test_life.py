"""How a service starts, ends, and refuses to be there twice."""

import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bus import endpoints
from bus.calls import Caller
from bus.messages.common import Ping
from tests.bus.conftest import ROOT, Context, Launch, wait_for


def test_a_second_instance_ends_and_the_first_stays_reachable(launch: Launch, context: Context, run_dir: Path) -> None:
    first = launch()
    second = launch(wait=False)
    assert second.process.wait(10) == 3
    assert f"pid {first.process.pid}" in second.log.read_text()
    assert Caller(context, run_dir, "test").call(Ping(), owner="echo").owner == "echo"


def test_a_killed_service_leaves_nothing_in_the_way(launch: Launch) -> None:
    launch().kill()
    assert launch().process.poll() is None


def test_sigterm_ends_a_service_quickly_and_well(launch: Launch) -> None:
    program = launch()
    began = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(5) == 0
    assert time.monotonic() - began < 2.0
    assert "ends on SIGTERM" in program.log.read_text()


def test_a_failing_thread_ends_the_process_with_a_traceback(run_dir: Path, environment: dict[str, str]) -> None:
    program = (
        "from bus.service import Service, start\n"
        "service = Service('broken', start('broken'), {}, None)\n"
        "service.spawn('saw', lambda: 1 / 0)\n"
        "service.run()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 1
    assert "thread saw failed" in ended.stderr and "ZeroDivisionError" in ended.stderr


def test_a_wrong_setting_stops_the_start_with_one_line(environment: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bus.programs.echo"],
        env=environment | {"ORCHESTRATOR_COLOUR": "blue"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert "ORCHESTRATOR_COLOUR" in line and "ORCHESTRATOR_SERVER_URL" in line


def test_the_run_directory_is_not_for_strangers(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    endpoints.claim(directory, "echo")
    assert stat.S_IMODE(directory.stat().st_mode) & 0o007 == 0


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run directory too deep"):
        endpoints.events(tmp_path / ("deep" * 40), "echo")


def test_logs_of_a_service_go_to_the_files_technicians_know(launch: Launch, run_dir: Path) -> None:
    launch()
    wait_for(lambda: list((run_dir / "state" / "logs").glob("orchestrator-logs-????-??-??.log")))
    wait_for(lambda: list((run_dir / "state" / "debug").glob("orchestrator-debug-????-??-??.log")))
