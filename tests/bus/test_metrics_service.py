"""The service metrics as a process: its samples on the bus."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from bus.events import Subscriber
from bus.messages.metrics import HostSampled


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """The run directory of a metrics service that has just been started, outside supervisord."""
    environment = os.environ | {
        "ORCHESTRATOR_RUN_DIR": str(tmp_path / "run"),
        "ORCHESTRATOR_STATE_DIR": str(tmp_path / "state"),
    }
    with subprocess.Popen([sys.executable, "-m", "services.metrics"], env=environment) as process:
        yield tmp_path / "run"
        process.terminate()
        assert process.wait(10) == 0


def samples(run_dir: Path, count: int, within: float) -> list[HostSampled]:
    end = time.monotonic() + within
    found: list[HostSampled] = []
    subscriber = Subscriber(zmq.Context.instance(), run_dir, ("metrics.host.",))
    while len(found) < count and (left := end - time.monotonic()) > 0:
        heard = subscriber.receive(left)
        if heard is not None and isinstance(heard.record, HostSampled):
            found.append(heard.record)
    subscriber.close()
    return found


def test_the_host_is_sampled_at_once_and_then_every_five_seconds(run_dir: Path) -> None:
    first, second = samples(run_dir, 2, within=20)
    assert first.uptime < 1.0 + 2.0  # of the process: the imports of a busy machine, and the first look of 0.5 s
    assert second.sampled_at - first.sampled_at == pytest.approx(4.5, abs=0.7)
    assert second.uptime - first.uptime == pytest.approx(second.sampled_at - first.sampled_at, abs=0.05)
    for sample in (first, second):
        assert 0.0 <= sample.cpu_usage <= 100.0
        assert 0.0 < sample.memory_usage < sample.memory_total
        assert 0.0 < sample.disk_usage <= sample.disk_total

    (replayed,) = samples(run_dir, 1, within=3)
    assert replayed == second
