"""What the device says about itself: lines on standard output, kept in memory for /api/runtime-logs."""

import itertools
import time
from collections import deque
from dataclasses import asdict, dataclass

KEPT_LINES = 1000


@dataclass(frozen=True)
class Line:
    """One record; ids restart with the process, as in the real runtime. `timestamp` is ISO 8601, UTC."""

    id: int
    level: str
    message: str
    timestamp: str


class Journal:
    """The last KEPT_LINES records; safe to write from any thread."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)

    def write(self, level: str, message: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        line = Line(next(self._ids), level, message, stamp)
        self._lines.append(line)
        print(f"[{stamp}] [{level}] {message}", flush=True)

    def since(self, first_id: int, level: str | None) -> list[dict[str, object]]:
        """Records with an id of at least `first_id`, of one level if given, as JSON-ready maps."""
        kept = tuple(self._lines)
        return [asdict(line) for line in kept if line.id >= first_id and level in (None, line.level)]
