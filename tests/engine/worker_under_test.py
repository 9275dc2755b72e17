"""docker_worker as a process on a simulated edge host, with what its tests ask of it and of the engine."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import docker
import docker.errors
import msgspec
import zmq

from bus.calls import Caller
from bus.envelope import new_id
from bus.errors import CallFailed
from bus.events import Subscriber
from bus.messages.base import Event, Request
from bus.messages.common import Info
from bus.messages.docker_worker import CreateRuntime, DeleteDevice, DeviceProgressed, DeviceStatus, GetDeviceStatus
from common.contracts.vnic import Vnic
from tests.lab.host import EdgeHost
from tests.lab.process import wait_until

R = TypeVar("R", bound=msgspec.Struct)

IMAGE = "127.0.0.1:9/test/plc"  # a registry that refuses at once
PROJECT = Path(__file__).parents[2]
WITHIN = 20.0


@dataclass(kw_only=True)
class WorkerUnderTest:
    """One docker_worker with directories of its own; `start`, `kill` and `stop` it as often as the test wants."""

    edge: EdgeHost
    dir: Path
    docker_host: str
    with_netmon: bool = True
    zmq_context: "zmq.Context[Any]" = field(default_factory=zmq.Context)
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    _netmon: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        for name in ("run", "state", "mtls"):
            (self.dir / name).mkdir()
        self.caller = Caller(self.zmq_context, self.dir / "run", "test", new_id())

    @property
    def state_file(self) -> Path:
        return self.dir / "state" / "runtime_vnics.json"

    def start(self) -> None:
        """Start it, netmon beside it; returns when it answers and has looked for the engine."""
        if self._netmon is None and self.with_netmon:
            self.start_netmon()
        self.process = self._popen("services.docker_worker", "--log-level", "DEBUG")
        wait_until(self._is_ready, WITHIN, f"docker_worker to answer; see {self.dir}/log", every=0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def kill_netmon(self) -> None:
        assert self._netmon is not None
        self._netmon.kill()
        self._netmon.wait(10)

    def start_netmon(self) -> None:
        self._netmon = self._popen("services.netmon")

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)

    def close(self) -> None:
        for process in (self.process, self._netmon):
            if process is not None:
                process.kill()
                process.wait(10)
        self.zmq_context.destroy(linger=0)

    # --- asking it

    def call(self, request: Request[R], deadline: float | None = None) -> R:
        return self.caller.call(request, deadline=deadline, owner="docker_worker")

    def status(self, name: str) -> DeviceStatus:
        return self.call(GetDeviceStatus(device_id=name))

    def create(self, name: str, *vnics: Vnic, **fields: Any) -> None:
        self.call(CreateRuntime(container_name=name, vnics=vnics, **fields))

    def created(self, name: str, *vnics: Vnic, **fields: Any) -> DeviceStatus:
        """Create a device and wait until it runs and nothing is left to do."""
        self.create(name, *vnics, **fields)
        return self.settled(name)

    def settled(self, name: str, status: str = "running", within: float = WITHIN) -> DeviceStatus:
        def there() -> bool:
            now = self.status(name)
            return now.status == "success" and now.container_status == status

        self.until(there, name, within)
        return self.status(name)

    def deleted(self, name: str) -> None:
        self.call(DeleteDevice(device_id=name))
        self.until(lambda: self.status(name).status == "not_found", name)

    def failed(self, name: str, within: float = WITHIN) -> DeviceStatus:
        """Wait until the device's status is `error`."""
        self.until(lambda: self.status(name).status == "error", name, within)
        return self.status(name)

    def until(self, condition: Callable[[], bool], name: str, within: float = WITHIN) -> None:
        """Wait for a condition on a device; a failure shows the status it stayed in."""
        try:
            wait_until(condition, within, "the condition", every=0.01)
        except TimeoutError:
            log = (self.dir / "log").read_text()[-3000:]
            raise TimeoutError(f"not within {within:g} s: {name} is {self.status(name)}\n{log}") from None

    @contextmanager
    def listening(self, *prefixes: str) -> Iterator[Callable[[Callable[[Event], bool], float], Event]]:
        """Yields `wait(condition, seconds)`, which returns the first event that fulfils the condition."""
        subscriber = Subscriber(self.zmq_context, self.dir / "run", prefixes)

        def wait(condition: Callable[[Event], bool], seconds: float = WITHIN) -> Event:
            found: list[Event] = []

            def heard() -> bool:
                received = subscriber.receive(0.5)
                if received is not None and received.record is not None and condition(received.record):
                    found.append(received.record)
                return bool(found)

            wait_until(heard, seconds, "the event that was waited for", every=0.0)
            return found[0]

        try:
            assert subscriber.wait_connected(1, 5.0), "docker_worker has no open event endpoint"
            yield wait
        finally:
            subscriber.close()

    # --- asking the engine, behind its back

    def engine(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.docker_host, timeout=60)

    def inspect(self, name: str) -> dict[str, Any]:
        with closing(self.engine()) as engine:
            return dict(engine.api.inspect_container(name))

    def left_behind(self) -> dict[str, list[str]]:
        """Names of what carries an owner label of ours."""
        ours = {"label": "io.autonomy.owner"}
        with closing(self.engine()) as engine:
            return {
                "containers": [one["Names"][0][1:] for one in engine.api.containers(all=True, filters=ours)],
                "networks": [one["Name"] for one in engine.api.networks(filters=ours)],
                "volumes": [one["Name"] for one in engine.api.volumes(filters=ours)["Volumes"] or []],
            }

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.dir / "log").read_text()[-4000:]
        try:
            return self.call(Info()).health in ("ready", "degraded")
        except CallFailed:
            return False

    def _popen(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "HOME": str(self.dir),
            "DOCKER_HOST": self.docker_host,
            "ORCHESTRATOR_RUN_DIR": str(self.dir / "run"),
            "ORCHESTRATOR_STATE_DIR": str(self.dir / "state"),
            "ORCHESTRATOR_MTLS_DIR": str(self.dir / "mtls"),
            "ORCHESTRATOR_RUNTIME_IMAGE": IMAGE,
            "ORCHESTRATOR_INTERFACES": "ens*",  # a veth plays the physical NIC
            **self.settings,
        }
        argv = [sys.executable, "-m", module, *arguments]
        return self.edge.popen(argv, env=environment, cwd=PROJECT, log=self.dir / "log")


@contextmanager
def worker_on(edge: EdgeHost, *, with_netmon: bool = True, **settings: str) -> Iterator[WorkerUnderTest]:
    """A docker_worker on `edge`, not yet started; what it made on the engine is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="dw-"))
    worker = WorkerUnderTest(
        edge=edge, dir=directory, docker_host=edge.engine.docker_host, with_netmon=with_netmon, settings=settings
    )
    try:
        yield worker
    finally:
        worker.close()
        if edge.engine.answers():
            _clear(worker)
        shutil.rmtree(directory)


def _clear(worker: WorkerUnderTest) -> None:
    """A container of an engine that was just restarted may be busy for a moment: then once more."""

    def is_clear() -> bool:
        left = worker.left_behind()
        with closing(worker.engine()) as engine, suppress(docker.errors.APIError):
            for name in left["containers"]:
                engine.api.remove_container(name, force=True)
            for name in left["networks"]:
                engine.api.remove_network(name)
            for name in left["volumes"]:
                engine.api.remove_volume(name)
            return True
        return False

    wait_until(is_clear, WITHIN, "the engine to be as it was before the test", every=0.1)


def load_plc_image(docker_host: str, tag: str = "latest", entry: str = "exec sleep 1000000") -> None:
    """A 2 MB image that does nothing until it is told to end."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(shutil.which("busybox") or "/bin/busybox", "bin/busybox")
        for directory in ("tmp", "proc", "dev", "sys", "etc", "var/run"):
            entry_info = tarfile.TarInfo(directory)
            entry_info.type, entry_info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry_info)
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(link)
    command = json.dumps(["/bin/busybox", "sh", "-c", entry])
    with closing(docker.APIClient(base_url=docker_host, timeout=60)) as engine:
        engine.import_image_from_data(content.getvalue(), repository=IMAGE, tag=tag, changes=[f"CMD {command}"])


def manual(address: str, parent: str = "ens37", name: str = "eth0", **fields: Any) -> Vnic:
    """A vNIC with an address."""
    return Vnic(name=name, parent_interface=parent, mode="manual", ip_address=address, **fields)


def is_step(event: Event, step: str) -> bool:
    return isinstance(event, DeviceProgressed) and event.step.startswith(step)
