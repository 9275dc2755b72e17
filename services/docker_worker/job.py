"""One round of work on one device: steps are announced before they act, and stop when a newer command has come."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bus.messages.docker_worker import DeviceProgressed, Operation
from common import trace
from services.docker_worker.container import Container, parse
from services.docker_worker.desired import Device
from services.docker_worker.engine import Engine
from services.docker_worker.errors import EngineError, StepFailed, Superseded, failed
from services.docker_worker.worker import Worker

log = logging.getLogger(__name__)


@dataclass
class Job:
    """The work on one revision of a device. `device` follows what the work finds out; `acted`: a step was taken;
    `problems`: of vNICs that could not be put where they belong, while all the rest went on;
    `waiting`: for other devices to make room for one."""

    worker: Worker
    device: Device
    revision: int
    operation: Operation
    acted: bool = False
    problems: list[StepFailed] = field(default_factory=list)
    waiting: bool = False

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def engine(self) -> Engine:
        return self.worker.engine

    def announce(self, step: str, percent: int | None = None, message: str = "") -> None:
        """Tell everybody what is done next. Raises `Superseded` instead when it is not wanted any more."""
        self.still_wanted()
        self.acted = True
        if self.worker.operations.get(self.name) is None:
            self.worker.operations.begin(self.name, self.operation, trace.current(), step)
        self.worker.operations.step(self.name, step, percent, message)
        log.log(logging.DEBUG if percent else logging.INFO, "%s: %s", self.name, f"{step} {message}".rstrip())
        self.worker.publish(
            DeviceProgressed(device_id=self.name, operation=self.operation, step=step, percent=percent, message=message)
        )

    def still_wanted(self) -> None:
        if self.worker.desired.revision(self.name) != self.revision:
            raise Superseded

    @contextmanager
    def step(self, step: str) -> Iterator[None]:
        """Announce a step and do it; what the engine says against it becomes `StepFailed`."""
        self.announce(step)
        try:
            yield
        except EngineError as problem:
            raise failed(problem, step) from problem

    def amend(self, **changes: Any) -> None:
        """Keep what was found out, on disk too."""
        device = self.worker.desired.amend(self.name, self.revision, **changes)
        if device is None:
            raise Superseded
        self.device = device

    def find(self) -> Container | None:
        """The device's container as it is now, remembered for the status. Raises `StepFailed` when its name is taken by
        a container that is not ours."""
        known = self.worker.observed.get(self.name)
        identity = known.id if known else None
        for _ in range(2):
            identity = identity or self.engine.find_container(self.name)
            inspected = self.engine.inspect_container(identity) if identity else None
            if inspected is not None:
                return self._see(parse(inspected))
            if known is None:
                break
            known = identity = None  # gone: has another been made under its name?
        self.worker.observed.forget(self.name)
        return None

    def _see(self, container: Container) -> Container | None:
        if self.worker.is_ours(container, self.name):
            self.worker.observed.put(self.name, container)
            return container
        self.worker.observed.forget(self.name)
        if self.device.power == "absent":
            return None
        raise StepFailed(
            "conflict",
            f"a container named {self.name} exists and is not ours ({container.id[:12]}); remove or rename it",
        )
