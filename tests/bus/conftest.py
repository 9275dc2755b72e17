"""Run directories and real child processes for the bus tests."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from bus.calls import Caller
from bus.messages.common import Ping

ROOT = Path(__file__).parents[2]

Context = zmq.Context[zmq.Socket[bytes]]


@dataclass
class Program:
    """A service in a child process."""

    owner: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="bus-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def environment(run_dir: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
    return kept | {
        "ORCHESTRATOR_RUN_DIR": str(run_dir),
        "ORCHESTRATOR_STATE_DIR": str(run_dir / "state"),
        "PYTHONPATH": str(ROOT),
    }


Launch = Callable[..., Program]


@pytest.fixture
def launch(run_dir: Path, environment: dict[str, str], context: Context) -> Iterator[Launch]:
    """Start `module` as `owner` and wait until it answers."""
    programs: list[Program] = []

    def start(module: str = "tests.bus.programs.echo", owner: str = "echo", *, wait: bool = True) -> Program:
        log = run_dir / f"{owner}-{len(programs)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module], env=environment, stdout=out, stderr=out, cwd=ROOT
            )
        program = Program(owner, process, log)
        programs.append(program)
        if wait:
            Caller(context, run_dir, "test").call(Ping(), owner=owner, patience=10.0, deadline=10.0)
        return program

    yield start
    for program in programs:
        program.thaw()
        program.process.kill()
        program.process.wait(5)


def wait_for(condition: Callable[[], object], timeout: float = 5.0, what: str = "the condition") -> None:
    """Poll until `condition` holds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not hold within {timeout:g} s")
        time.sleep(0.01)
