"""One queue of device names: each name in one thread at a time, several names at once, failures tried again later.

A name that is added while it is being worked on is worked on once more afterwards: nothing that happened is missed,
and ten reasons cost one look.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from common import threads
from common.backoff import doubling

BASE = 0.5  # seconds before the first retry
CAP = 60.0


class WorkQueue:
    """`work(name)` returns None when the device is settled, else a sentence: try again, each time later.

    A number of seconds instead of a sentence means: look again then, this was no failure.
    """

    def __init__(self, work: Callable[[str], "str | float | None"], workers: int = 4) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, str]] = []
        self._when: dict[str, float] = {}
        self._busy: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._fresh: set[str] = set()
        self._order = itertools.count()
        self._workers = workers

    def start(self) -> None:
        for number in range(self._workers):
            threads.spawn(f"reconcile-{number}", self._serve)

    def add(self, name: str, *, fresh: bool = False) -> None:
        """Look at the device as soon as possible. `fresh`: a command came, forget that it failed before.

        Without `fresh` a device that is waiting for its next try goes on waiting.
        """
        with self._changed:
            if fresh:
                self._attempts.pop(name, None)
                self._fresh.add(name)
            elif self._attempts.get(name) and name in self._when:
                return
            self._schedule(name, time.monotonic())

    def retry_in(self, name: str) -> float | None:
        """Seconds until the next try of a device that failed, None when it did not."""
        with self._changed:
            if not self._attempts.get(name) or name not in self._when:
                return None
            return max(0.0, self._when[name] - time.monotonic())

    def _schedule(self, name: str, moment: float) -> None:
        if self._when.get(name, moment + 1) > moment:
            self._when[name] = moment
            heapq.heappush(self._due, (moment, next(self._order), name))
            self._changed.notify()

    def _serve(self) -> None:
        while True:
            name = self._take()
            self._settle(name, self._work(name))

    def _settle(self, name: str, outcome: "str | float | None") -> None:
        with self._changed:
            self._busy.discard(name)
            if isinstance(outcome, str) and name not in self._fresh:
                attempt = self._attempts.get(name, 0)
                self._attempts[name] = attempt + 1
                # What happened meanwhile, our own doing most of all, must not make a failing device spin.
                self._when.pop(name, None)
                self._schedule(name, time.monotonic() + doubling(attempt, base=BASE, cap=CAP))
            elif outcome is None:
                self._attempts.pop(name, None)
            elif isinstance(outcome, float):
                self._schedule(name, time.monotonic() + outcome)
            self._changed.notify_all()

    def _take(self) -> str:
        with self._changed:
            while True:
                name, waiting = self._next()
                if name is not None:
                    del self._when[name]
                    self._busy.add(name)
                    self._fresh.discard(name)
                    return name
                self._changed.wait(waiting)

    def _next(self) -> tuple[str | None, float]:
        """A name that is due and free, or the seconds until one may be."""
        now = time.monotonic()
        busy = []
        try:
            while self._due:
                moment, _, name = self._due[0]
                if self._when.get(name) != moment:  # another moment was chosen since
                    heapq.heappop(self._due)
                elif moment > now:
                    return None, moment - now
                elif name in self._busy:
                    busy.append(heapq.heappop(self._due))
                else:
                    heapq.heappop(self._due)
                    return name, 0.0
            return None, CAP
        finally:
            for entry in busy:
                heapq.heappush(self._due, entry)
