"""What the engine shows: whether it answers, and the last look at each device. Status is told from here.

Docker's events only say that a device is worth a look. They are lost now and then, so every new stream begins with a
look at all (subscribe first, then list: nothing falls between), and there is one every minute besides.
"""

import logging
import threading
from collections.abc import Callable

import msgspec

from services.docker_worker.container import Container
from services.docker_worker.engine import Engine
from services.docker_worker.errors import EngineError

log = logging.getLogger(__name__)

STREAM_SECONDS = 600  # by the wall clock, which may jump: nothing but a fresh start depends on it
LOOK_AGAIN = 1.0  # seconds between looks for an engine that is away


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the engine answers; `reason` is a sentence when it does not."""

    reachable: bool
    version: str = ""
    api_version: str = ""
    reason: str = ""


class Observed:
    """The last look at each device's container. Replacing whole records makes it safe to read from any thread."""

    def __init__(self) -> None:
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self.health = Health(reachable=False, reason="the Docker engine has not been asked yet")
        self.complete = threading.Event()  # every device of ours on the engine has been listed once

    def get(self, name: str) -> Container | None:
        return self._containers.get(name)

    def name_of(self, identity: str) -> str | None:
        """The device whose container has this full id."""
        return self._names.get(identity)

    def put(self, name: str, container: Container) -> None:
        before = self._containers.get(name)
        self._names[container.id] = name
        self._containers[name] = container  # in one go: a status in between must not miss it
        if before is not None and before.id != container.id:
            self._names.pop(before.id, None)

    def forget(self, name: str) -> None:
        before = self._containers.pop(name, None)
        if before is not None:
            self._names.pop(before.id, None)


class EngineWatch:
    """Follows the engine. `on_health` hears every change of health; `resync` and then `sweep` are called on every
    new stream and may raise EngineError; `on_container` hears the id of a container that something has happened to,
    with its labels."""

    def __init__(
        self,
        engine: Engine,
        observed: Observed,
        stopping: threading.Event,
        *,
        on_health: Callable[[Health], None],
        resync: Callable[[], None],
        sweep: Callable[[], None],
        on_container: Callable[[str, dict[str, str]], None],
    ) -> None:
        self._engine, self._observed, self._stopping = engine, observed, stopping
        self._on_health, self._on_container = on_health, on_container
        self._resync, self._sweep = resync, sweep
        self._lock = threading.Lock()

    def run(self) -> None:
        """Until the end of the process."""
        while not self._stopping.is_set():
            try:
                version, api_version = self._engine.negotiate()
                stream = self._engine.events(STREAM_SECONDS)
                self._tell(Health(reachable=True, version=version, api_version=api_version))
                self._resync()
                self._sweep()
                for event in stream:
                    self._hear(event)
            except EngineError as problem:
                self._lost(problem)
                self._stopping.wait(LOOK_AGAIN)

    def check(self) -> None:
        """A frozen engine ends no stream: ask it. To be called every few seconds."""
        try:
            self._engine.ping()
        except EngineError as problem:
            self._lost(problem)
        else:
            seen = self._observed.health
            if not seen.reachable and seen.version:
                self._tell(msgspec.structs.replace(seen, reachable=True, reason=""))

    def look_at_all(self) -> None:
        """The look at all without a new stream. To be called every minute."""
        if not self._observed.health.reachable:
            return
        try:
            self._resync()
        except EngineError as problem:
            log.warning("the devices cannot be listed: %s", problem)

    def _lost(self, problem: EngineError) -> None:
        if problem.kind == "timeout":
            reason = "the Docker engine takes connections but does not answer"
        elif problem.kind == "unreachable":
            reason = f"the Docker engine does not answer ({problem.text}); is docker.service running?"
        else:
            reason = f"the Docker engine answers with an error: {problem.text}"
        self._tell(msgspec.structs.replace(self._observed.health, reachable=False, reason=reason))

    def _tell(self, health: Health) -> None:
        with self._lock:
            if health == self._observed.health:
                return
            self._observed.health = health
            self._on_health(health)

    def _hear(self, event: dict[str, object]) -> None:
        actor = event.get("Actor")
        attributes = actor.get("Attributes") if isinstance(actor, dict) else None
        if not isinstance(actor, dict) or not isinstance(attributes, dict):
            return
        identity = attributes.get("container") if event.get("Type") == "network" else actor.get("ID")
        if isinstance(identity, str):
            self._on_container(identity, attributes)
