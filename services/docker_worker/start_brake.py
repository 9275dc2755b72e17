"""A brake for devices that end again and again: each start of ours within ten minutes makes the next one wait."""

import threading
import time
from collections.abc import Callable

from common.backoff import doubling

FREE_STARTS = 2  # without delay
WINDOW = 600.0  # seconds
BASE = 2.0
CAP = 300.0


class StartBrake:
    """Remembers our own starts; those by the engine's restart policy it slows down itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._starts: dict[str, list[float]] = {}

    def started(self, name: str) -> None:
        with self._lock:
            self._starts[name] = [*self._recent(name), self._clock()]

    def release(self, name: str) -> None:
        """A command of a person starts afresh."""
        with self._lock:
            self._starts.pop(name, None)

    def wait(self, name: str) -> float:
        """Seconds until the next start may be tried; 0.0 for now."""
        with self._lock:
            recent = self._recent(name)
            if len(recent) < FREE_STARTS:
                return 0.0
            delay = doubling(len(recent) - FREE_STARTS, base=BASE, cap=CAP)
            return max(0.0, recent[-1] + delay - self._clock())

    def sentence(self, name: str) -> str | None:
        """For the status of a device that is held back."""
        wait = self.wait(name)
        with self._lock:
            count = len(self._recent(name))
        return f"started {count} times within ten minutes and ended again; next try in {wait:.0f} s" if wait else None

    def _recent(self, name: str) -> list[float]:
        return [moment for moment in self._starts.get(name, []) if self._clock() - moment < WINDOW]
