"""What is going on with each device: the running operation with its step, or how the last one failed.

Lives in memory only: after a restart the desired state starts the work, and with it the operation, again.
"""

import threading
import time
from datetime import UTC, datetime

import msgspec

from bus.errors import Code
from bus.messages.docker_worker import Operation


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. `error` and `code` are set when its last try has failed; then `retry` says whether there will
    be another. `told`: the last error that was told, whatever came after. `trace`: of the command that asked."""

    operation: Operation
    step: str
    started_at: str
    updated_at: str
    trace: str | None
    percent: int | None = None
    message: str = ""
    error: str | None = None
    code: Code = "internal"
    retry: bool = True
    told: str | None = None


class Operations:
    """The operation of each device, and a way to wait for the end of one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[str, Progress] = {}
        self._settled: dict[str, int] = {}

    def get(self, name: str) -> Progress | None:
        return self._running.get(name)

    def begin(self, name: str, operation: Operation, trace: str | None, step: str = "waiting for its turn") -> None:
        now = _now()
        with self._changed:
            self._running[name] = Progress(operation=operation, step=step, started_at=now, updated_at=now, trace=trace)

    def step(self, name: str, step: str, percent: int | None = None, message: str = "") -> None:
        """The next step begins; an error of the last try is history now."""
        with self._changed:
            if name in self._running:
                self._running[name] = msgspec.structs.replace(
                    self._running[name], step=step, percent=percent, message=message, error=None, updated_at=_now()
                )

    def fail(self, name: str, revision: int, code: Code, sentence: str, *, retry: bool) -> bool:
        """The try for this revision has failed; True when that is news, and not the same failure again."""
        with self._changed:
            before = self._running.get(name)
            if before is not None:
                self._running[name] = msgspec.structs.replace(
                    before, error=sentence, told=sentence, code=code, retry=retry, updated_at=_now()
                )
            self._settle(name, revision)
            return before is None or before.told != sentence

    def end(self, name: str, revision: int) -> None:
        """The device is as this revision wants it."""
        with self._changed:
            self._running.pop(name, None)
            self._settle(name, revision)

    def wait(self, name: str, revision: int, seconds: float) -> bool:
        """Wait until the work on `revision` or a later one has ended, or failed once; False when it takes longer."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._settled.get(name, 0) < revision:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _settle(self, name: str, revision: int) -> None:
        self._settled[name] = max(revision, self._settled.get(name, 0))
        self._changed.notify_all()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
