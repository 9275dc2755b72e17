"""A Docker engine inside the edge host's namespace: containerd and dockerd, as two programs.

On a real host these are two services, and the death of dockerd leaves containerd and the containers alone.
A dockerd that starts its own containerd loses it when killed, and cannot start again on the same folder.
"""

import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker

from tests.lab import netns
from tests.lab.process import tail, wait_until

START_WITHIN = 60.0
STOP_WITHIN = 60.0

CONTAINERD_CONFIG = """\
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]

[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
"""


@dataclass(kw_only=True)
class Engine:
    """The engine of one edge host. Its containers end with the lab."""

    ns: str
    dir: Path
    containerd: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    dockerd: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def socket(self) -> Path:
        return self.dir / "docker.sock"

    @property
    def docker_host(self) -> str:
        """For DOCKER_HOST and for `base_url`."""
        return f"unix://{self.socket}"

    @property
    def log(self) -> Path:
        return self.dir / "dockerd.log"

    def client(self, timeout: float = 60.0) -> docker.DockerClient:
        """A new client for the calling thread, which closes it."""
        return docker.DockerClient(base_url=self.docker_host, timeout=int(timeout))

    def answers(self) -> bool:
        """Does the engine answer within a second?"""
        return answers(self.socket)

    def start(self, *extra: str) -> None:
        """Start dockerd with the `extra` options, containerd before it when it does not run; returns when
        the engine answers. Raises RuntimeError with the end of the log when it does not."""
        if self.dockerd is not None:
            raise RuntimeError("the engine runs already: stop it first")
        if self.containerd is None or self.containerd.poll() is not None:
            self._start_containerd()
        # A killed dockerd leaves both; its pid may be another program's by now.
        self.socket.unlink(missing_ok=True)
        (self.dir / "docker.pid").unlink(missing_ok=True)
        command: list[str | Path] = ["dockerd", "--host", self.docker_host, "--log-level", "warn"]
        command += ["--containerd", self._containerd_socket, "--pidfile", self.dir / "docker.pid"]
        command += ["--data-root", self.dir / "data", "--exec-root", self.dir / "exec"]
        self.dockerd = self._spawn(self.log, [*command, *extra])
        wait_until(self._is_up, START_WITHIN, f"an engine at {self.docker_host}", every=0.05)

    def stop(self) -> None:
        """SIGTERM: containers end too, unless the engine runs with --live-restore."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: containers live on without their engine."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """The engine takes connections and never answers. Returns when its last thread stands still."""
        program = self._running()
        program.send_signal(signal.SIGSTOP)
        wait_until(lambda: _stands_still(program.pid), STOP_WITHIN, "every thread of the engine is stopped")

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill and reap both programs; the containers are left to `cleanup.clear`."""
        for program in (self.dockerd, self.containerd):
            if program is not None:
                program.kill()
                program.wait(STOP_WITHIN)
        self.dockerd = self.containerd = None

    def _end(self, how: signal.Signals) -> None:
        program = self._running()
        program.send_signal(how)
        program.send_signal(signal.SIGCONT)  # it may be frozen, and would never hear the first one
        program.wait(STOP_WITHIN)
        self.dockerd = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self.dockerd is None:
            raise RuntimeError("the engine does not run")
        return self.dockerd

    def _is_up(self) -> bool:
        for program in (self.dockerd, self.containerd):
            if program is not None and program.poll() is not None:
                self.close()
                raise RuntimeError(f"the engine did not start:\n{tail(self.log)}\n{tail(self.dir / 'containerd.log')}")
        return self.answers()

    @property
    def _containerd_socket(self) -> Path:
        return self.dir / "containerd.sock"

    def _start_containerd(self) -> None:
        config = self.dir / "containerd.toml"
        config.write_text(CONTAINERD_CONFIG.format(dir=self.dir))
        self._containerd_socket.unlink(missing_ok=True)
        command: list[str | Path] = ["containerd", "--config", config, "--log-level", "warn"]
        command += ["--address", self._containerd_socket]
        command += ["--root", self.dir / "images", "--state", self.dir / "state"]
        self.containerd = self._spawn(self.dir / "containerd.log", command)

    def _spawn(self, log: Path, argv: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                netns.command_in(self.ns, argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C at the terminal is for pytest, which then stops the engine
            )


def answers(engine: Path) -> bool:
    """Does the engine at this socket answer within a second?"""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(engine))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def _stands_still(pid: int) -> bool:
    """Are all threads stopped? A signal reaches them one by one."""
    try:
        return all("\nState:\tT" in task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/status"))
    except FileNotFoundError:
        return False  # a thread ended while we looked
