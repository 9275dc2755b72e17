"""install/engine.sh brings up an engine where there is none, and leaves alone the one that is there."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.lab.engine import answers
from tests.lab.host import EdgeHost, edge_host
from tests.lab.process import is_running
from tests.lab.tools import ENGINE_SH

pytestmark = pytest.mark.engine


@pytest.fixture
def host() -> Iterator[EdgeHost]:
    """A host without an engine: the script's engine must not touch the machine's own network."""
    with edge_host() as host:
        yield host


def test_an_engine_is_started_used_again_and_stopped(host: EdgeHost) -> None:
    first = engine_sh(host, "ensure")
    assert f"no engine answers at {docker_host(host)}" in first.stdout
    assert answers(socket_of(host))
    engine = psutil.Process(int(pid_file(host).read_text()))

    second = engine_sh(host, "ensure")
    assert second.stdout == f"engine: an engine answers at {docker_host(host)}: using it\n"
    assert pid_file(host).read_text().strip() == str(engine.pid)

    assert "stopped" in engine_sh(host, "stop").stdout
    assert not is_running(engine)
    assert not pid_file(host).exists()
    assert "nothing to stop" in engine_sh(host, "stop").stdout


def test_an_engine_of_somebody_else_is_used_and_never_stopped(host: EdgeHost) -> None:
    host.start_engine()
    assert "using it" in engine_sh(host, "ensure").stdout
    assert not pid_file(host).exists()
    assert "nothing to stop" in engine_sh(host, "stop").stdout
    assert host.engine.answers()


def test_leftovers_of_a_killed_engine_do_not_hinder_the_next(host: EdgeHost) -> None:
    """The numbers in the pid files belong to another living program by now: this test's."""
    for left in ("engine/docker.pid", "engine/exec/containerd/containerd.pid"):
        (host.dir / left).parent.mkdir(parents=True, exist_ok=True)
        (host.dir / left).write_text(str(os.getpid()))
    socket_of(host).mkdir()  # what `docker run -v docker.sock:...` makes when the engine is away

    report = engine_sh(host, "ensure").stdout
    assert "docker.pid: no such dockerd runs" in report
    assert "containerd.pid: no such containerd runs" in report
    assert answers(socket_of(host))
    engine_sh(host, "stop")


def test_nothing_is_started_when_told_so(host: EdgeHost) -> None:
    assert "not starting it, as asked" in engine_sh(host, "ensure", "--no-start").stdout
    assert not socket_of(host).exists()


def test_an_engine_that_cannot_start_is_an_error_with_the_end_of_its_log(host: EdgeHost) -> None:
    (host.dir / "engine").mkdir()
    (host.dir / "engine/data").write_text("a file where the engine wants a folder")
    failed = engine_sh(host, "ensure", check=False)
    assert failed.returncode == 1
    assert "engine: error: dockerd ended again" in failed.stderr
    assert "path points to a file" in failed.stderr
    assert not pid_file(host).exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "no command given"),
        (["begin"], "unknown command begin"),
        (["ensure", "--fast"], "unknown option --fast"),
        (["ensure", "--log"], "--log needs a value"),
    ],
)
def test_wrong_usage_names_the_word(words: list[str], complaint: str) -> None:
    refused = subprocess.run([ENGINE_SH, *words], capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert complaint in refused.stderr
    assert "usage: engine.sh" in refused.stderr


def test_a_remote_engine_that_is_silent_is_not_replaced_by_a_local_one(host: EdgeHost) -> None:
    remote = {**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:1"}
    refused = host.run([ENGINE_SH, "ensure"], env=remote, check=False)
    assert refused.returncode == 1
    assert "check that address, or unset DOCKER_HOST" in refused.stderr


def engine_sh(host: EdgeHost, command: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the script on the host, with all its files in the host's folder."""
    settings = {
        "DOCKER_HOST": docker_host(host),
        "ORCHESTRATOR_ENGINE_DIR": str(host.dir / "engine"),
        "ORCHESTRATOR_ENGINE_LOG": str(host.dir / "engine.log"),
        "ORCHESTRATOR_ENGINE_PID": str(pid_file(host)),
    }
    return host.run([ENGINE_SH, command, *options], env={**os.environ, **settings}, check=check, timeout=90)


def socket_of(host: EdgeHost) -> Path:
    return host.dir / "docker.sock"


def docker_host(host: EdgeHost) -> str:
    return f"unix://{socket_of(host)}"


def pid_file(host: EdgeHost) -> Path:
    return host.dir / "started.pid"
