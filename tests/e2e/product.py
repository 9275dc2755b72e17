"""The whole product on the simulated edge host, started by the very program that `make run` starts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from bus.calls import Caller
from install.runtime_image import SIMULATED
from services.local_cloud.ctl_client import Cloud, Refused, Unreachable
from tests.lab.host import EdgeHost
from tests.lab.process import run, tail, wait_until

ROOT = Path(__file__).resolve().parents[2]

OWNERS = {"cloud-link": "cloud_link", "docker-worker": "docker_worker", "metrics": "metrics", "netmon": "netmon"}


@dataclass(kw_only=True)
class Product:
    """A running agent with its local cloud. Paths are outside every namespace: sockets are reached by name."""

    edge: EdgeHost
    dir: Path
    environment: dict[str, str]
    process: subprocess.Popen[str]
    agent_id: str = ""
    context: "zmq.Context[zmq.Socket[bytes]]" = field(default_factory=zmq.Context)

    @property
    def run_dir(self) -> Path:
        return self.dir / "run"

    @property
    def state_dir(self) -> Path:
        return self.dir / "state"

    @property
    def cloud(self) -> Cloud:
        return Cloud(self.dir / "local-cloud" / "api.sock")

    def send(self, topic: str, payload: Any = None, *, timeout: float = 60.0, raw: bool = False) -> dict[str, Any]:
        """The agent's acknowledgement of a command that the local cloud sends."""
        answer = self.cloud.send(self.agent_id, topic, {} if payload is None else payload, timeout, raw=raw)
        assert isinstance(answer, dict), answer
        return answer

    def agent(self) -> dict[str, Any]:
        """The local cloud's view of the agent."""
        found: dict[str, Any] = self.cloud.get(f"/api/agents/{self.agent_id}")
        return found

    def online(self) -> bool:
        """Whether the local cloud has a live session of the agent."""
        try:
            return bool(self.agent()["online"])
        except (Refused, Unreachable):
            return False

    def status(self, device: str) -> dict[str, Any]:
        return self.send("get_device_status", {"device_id": device})

    def wait_for_status(self, device: str, within: float = 40.0, **wanted: Any) -> dict[str, Any]:
        """Poll get_device_status until its fields are as wanted."""
        last: dict[str, Any] = {}

        def reached() -> dict[str, Any] | None:
            last.clear()
            last.update(self.status(device))
            return dict(last) if all(last.get(key) == value for key, value in wanted.items()) else None

        try:
            return wait_until(reached, within, f"{device} as {wanted}", every=0.1)
        except TimeoutError:
            raise AssertionError(
                f"{device} is not {wanted} but {json.dumps(last, indent=1)}\n{self.log_tail()}"
            ) from None

    def create(self, device: str, *, ip: str = "", parent: str = "ens37", **vnic: Any) -> dict[str, Any]:
        """Create a vPLC (with one manual vNIC when `ip` is given) and wait until it runs."""
        vnics = [{"name": "eth0", "parent_interface": parent, "network_mode": "manual", "ip_address": ip} | vnic]
        answer = self.send("create_new_runtime", {"container_name": device, "vnic_configs": vnics if ip else []})
        assert answer["status"] == "creating", answer
        return self.wait_for_status(device, status="success", is_running=True)

    def delete(self, device: str) -> None:
        """Delete a vPLC and wait until nothing is known of it."""
        answer = self.send("delete_device", {"device_id": device})
        assert answer["status"] == "deleting", answer
        self.wait_for_status(device, status="not_found")

    def caller(self) -> Caller:
        """A way to ask the services over the bus."""
        return Caller(self.context, self.run_dir, "test")

    def supervisorctl(self, *words: str, check: bool = True) -> str:
        """What supervisorctl prints."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", self.dir / "supervisord.conf", *words]
        return run(command, env=self.environment, check=check, cwd=ROOT).stdout

    def pid(self, program: str) -> int:
        """The pid of a program under supervisord; 0 while it does not run."""
        told = self.supervisorctl("pid", program, check=False).strip()
        return int(told) if told.isdigit() else 0

    def kill(self, program: str) -> int:
        """kill -9 a program; its pid."""
        pid = self.pid(program)
        os.kill(pid, signal.SIGKILL)
        return pid

    def logs(self) -> str:
        """The operational log of all services."""
        return "".join(path.read_text(errors="replace") for path in sorted((self.state_dir / "logs").glob("*.log")))

    def log_tail(self) -> str:
        """The end of every program's output, for failures."""
        return "\n".join(f"--- {path.name}\n{tail(path, 25)}" for path in sorted(self.run_dir.glob("*.log")))

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(40)


@contextmanager
def product(edge: EdgeHost, directory: Path, **environment: str) -> Iterator[Product]:
    """Start the product on `edge` and wait until it is online; everything lies in `directory` (short: sockets)."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
    ours = {
        "DOCKER_HOST": edge.engine.docker_host,
        "ORCHESTRATOR_TRIAL_DIR": str(directory),
        "ORCHESTRATOR_RUN_DIR": str(directory / "run"),
        "ORCHESTRATOR_STATE_DIR": str(directory / "state"),
        "ORCHESTRATOR_MTLS_DIR": str(directory / "mtls"),
        "ORCHESTRATOR_LOCAL_CLOUD_DIR": str(directory / "local-cloud"),
        "ORCHESTRATOR_RUNTIME_IMAGE": SIMULATED,
        "ORCHESTRATOR_SERVER_URL": "https://localhost:7443",
        "ORCHESTRATOR_CA_FILE": str(directory / "local-cloud" / "ca.crt"),
        "ORCHESTRATOR_INTERFACES": "ens*",
    }
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-u", "-m", "install.run"]
    told = directory / "told"
    told.unlink(missing_ok=True)  # of an earlier start
    process = edge.popen(command, env=clean | ours | environment, cwd=ROOT, log=told)
    running = Product(edge=edge, dir=directory, environment=clean | ours | environment, process=process)
    try:
        running.agent_id = wait_until(lambda: _announced(process, told), 120.0, "the agent is ready")
        yield running
    except TimeoutError:
        raise AssertionError(f"{told.read_text()}\n{running.log_tail()}") from None
    finally:
        if process.poll() is None:
            running.stop()
        running.context.destroy(linger=0)


def _announced(process: "subprocess.Popen[str]", told: Path) -> str:
    text = told.read_text()
    assert process.poll() is None, f"the start failed:\n{text}"
    for line in text.splitlines():
        if line.startswith("Agent ") and line.split()[2:4] == ["is", "ready."]:
            return line.split()[1]
    return ""
