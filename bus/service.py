"""A service of the house: its endpoints, its pulse, its handlers and its end. Used, not subclassed.

service = Service("netmon", start("netmon"), HANDLERS, context)
service.spawn("watcher", watch)
service.run()
"""

import argparse
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import zmq

from bus import endpoints
from bus.answering import Answerer, Handlers
from bus.calls import Caller
from bus.envelope import Envelope, new_id
from bus.events import Subscriber
from bus.messages.base import Event, Request
from bus.messages.common import Alive, Health, Info, Ping, Pong, ServiceInfo, ServiceStats, Stats
from bus.publishing import Publisher
from bus.sockets import Sockets
from common import log as logs
from common import settings as all_settings
from common import threads
from common.settings import LogLevel, Settings
from common.version import VERSION

log = logging.getLogger(__name__)

R = TypeVar("R", bound=msgspec.Struct)

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
_LAST_WORDS = 4.0  # seconds that all on_stop functions together may take


def start(owner: str, arguments: list[str] | None = None) -> Settings:
    """Read `--log-level` and the settings, and open the logs; ends the process with code 2 and one line if wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{owner}", description=f"The service {owner}.")
    parser.add_argument("--log-level", choices=get_args(LogLevel), help="instead of ORCHESTRATOR_LOG_LEVEL")
    options = parser.parse_args(arguments)
    try:
        settings = all_settings.load()
    except all_settings.SettingsError as problem:
        print(f"{owner}: {problem}", file=sys.stderr)  # noqa: T201 - there is no log yet
        sys.exit(2)
    logs.configure(owner, settings, options.log_level)
    return settings


class Service:
    """One process of the house. `context` is the first argument of every handler."""

    def __init__(self, owner: str, settings: Settings, handlers: Handlers, context: Any, *, workers: int = 8) -> None:
        self.owner, self.settings, self.run_id = owner, settings, new_id()
        self.stopping = threading.Event()
        self._started_at, self._started = time.time(), time.monotonic()
        self._zmq: zmq.Context[Any] = zmq.Context()
        self._ready = False
        self._reasons: dict[str, str] = {}
        self._details: list[Callable[[], dict[str, Any]]] = []
        self._farewells: list[Callable[[], None]] = []
        self._claim = self._claim_endpoints()
        # Before any thread exists: all of them inherit the mask, and run() alone takes the signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        self._sockets = Sockets(self._zmq, settings.run_dir, owner)
        self._publisher = Publisher(owner, self.run_id, self._sockets.send_event)
        own: Handlers = {Ping: self._pong, Info: self._info, Stats: self._stats}
        self._answerer = Answerer(
            {**own, **handlers}, context, self._publisher, self._sockets.send_reply, workers if handlers else 1
        )
        self._caller = Caller(self._zmq, settings.run_dir, owner, self.run_id)

    # ---- what a service does with it

    def publish(self, record: Event) -> None:
        """Tell whoever listens; from any thread, never blocks."""
        self._publisher.publish(record)

    def forget_state(self, record: type[Event], key: Any) -> None:
        """Stop replaying a state whose subject is gone."""
        self._publisher.forget_state(record, key)

    def call(self, request: Request[R], *, deadline: float | None = None, owner: str | None = None) -> R:
        """Ask another service; from any thread. Raises `CommandError`, `Unavailable` or `Timeout`."""
        return self._caller.call(request, deadline=deadline, owner=owner)

    def subscribe(self, prefixes: tuple[str, ...], hear: Callable[[Event, Envelope], None]) -> None:
        """Call `hear` in a thread of its own with every typed event under `prefixes`; states are replayed."""

        def listen() -> None:
            subscriber = Subscriber(self._zmq, self.settings.run_dir, prefixes)
            while True:
                heard = subscriber.receive(60.0)
                if heard is not None and heard.record is not None:
                    hear(heard.record, heard.envelope)

        self.spawn(f"listen {','.join(prefixes)}", listen)

    def spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run `work` in a daemon thread; an exception in it ends the process, which supervisord restarts."""
        return threads.spawn(name, work)

    def every(self, seconds: float, task: Callable[[], None], name: str) -> None:
        """Run `task` now and then every `seconds` on a fixed monotonic schedule; missed turns are left out."""

        def tick() -> None:
            due = time.monotonic()
            while not self.stopping.wait(max(0.0, due - time.monotonic())):
                task()
                due = max(due + seconds, time.monotonic() - (time.monotonic() - due) % seconds)

        self.spawn(name, tick)

    def report(self, key: str, reason: str | None) -> None:
        """Say why the service is degraded (a sentence), or that this reason is gone (None). From any thread."""
        before = self._reasons.get(key)
        if reason is None:
            self._reasons.pop(key, None)
        else:
            self._reasons[key] = reason
        if before != reason:
            log.log(logging.INFO if reason is None else logging.WARNING, "%s: %s", key, reason or "well again")
            self._pulse()

    def ready(self) -> None:
        """Start-up is complete."""
        self._ready = True
        self._pulse()

    def detail(self, tell: Callable[[], dict[str, Any]]) -> None:
        """Add what `tell` returns to `info`; it must answer from memory."""
        self._details.append(tell)

    def on_stop(self, farewell: Callable[[], None]) -> None:
        """Run `farewell` at the end; all of them together have 4 seconds."""
        self._farewells.append(farewell)

    def run(self) -> None:
        """Open the endpoints, serve until SIGTERM or SIGINT, then say farewell and return."""
        # What was made until here lives as long as the process: the garbage collector need not look at it again.
        gc.collect()
        gc.freeze()
        self._serve()
        log.info("%s %s started, pid %d", self.owner, VERSION, os.getpid())
        self.every(2.0, self._pulse, "pulse")
        received = signal.sigwait(_ENDING)
        log.info("%s ends on %s", self.owner, signal.Signals(received).name)
        self.stopping.set()
        last = threads.spawn("farewell", self._say_farewell)
        last.join(_LAST_WORDS)
        if last.is_alive():
            log.warning("%s did not finish its work within %g s of the request to stop", self.owner, _LAST_WORDS)
        logging.shutdown()

    # ---- inside

    def _claim_endpoints(self) -> int:
        try:
            return endpoints.claim(self.settings.run_dir, self.owner)
        except (endpoints.AlreadyRunningError, OSError, ValueError) as problem:
            log.critical("cannot start: %s", problem)
            sys.exit(3)

    def _serve(self) -> None:
        bound = threading.Event()
        threads.spawn(
            "bus",
            lambda: self._sockets.serve(
                bound.set, self._answerer.take, self._publisher.subscribed, self._publisher.unsubscribed
            ),
        )
        bound.wait(5.0)

    def _say_farewell(self) -> None:
        for farewell in self._farewells:
            farewell()

    def _health(self) -> Health:
        if not self._ready:
            return "starting"
        return "degraded" if self._reasons else "ready"

    def _why(self) -> list[str]:
        return list(self._reasons.copy().values())

    def _pulse(self) -> None:
        self.publish(Alive(owner=self.owner, pid=os.getpid(), health=self._health(), reasons=self._why()))

    def _pong(self, _context: Any, _request: Ping) -> Pong:
        return Pong(owner=self.owner, run=self.run_id)

    def _info(self, _context: Any, _request: Info) -> ServiceInfo:
        detail: dict[str, Any] = {}
        for tell in self._details:
            detail |= tell()
        return ServiceInfo(
            owner=self.owner,
            run=self.run_id,
            pid=os.getpid(),
            version=VERSION,
            started_at=self._started_at,
            uptime=time.monotonic() - self._started,
            health=self._health(),
            reasons=self._why(),
            requests=self._answerer.names,
            detail=detail,
        )

    def _stats(self, _context: Any, _request: Stats) -> ServiceStats:
        return ServiceStats(
            owner=self.owner,
            run=self.run_id,
            uptime=time.monotonic() - self._started,
            answered=dict(self._answerer.answered),
            errors=dict(self._answerer.errors),
            published=dict(self._publisher.published),
            dropped=dict(Counter(self._answerer.dropped) + Counter(self._sockets.dropped)),
            queue=self._answerer.waiting,
            workers_busy=self._answerer.busy,
            threads=threading.active_count(),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            rss=_resident_bytes(),
        )


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
