"""How the tap prints: one line a message, colours on a terminal only, or one JSON object a line."""

import json
import os
import sys
import time
from typing import Any, TextIO

import msgspec

from bus.envelope import Envelope

_COLOURS = {"event": "36", "request": "33", "reply": "32", "error": "31", "faint": "2"}


class Printer:
    """Prints to `stream`; `plain` is machine-readable JSON lines."""

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.as_json = as_json
        self._colours = not as_json and self._stream.isatty() and "NO_COLOR" not in os.environ

    def message(self, envelope: Envelope) -> None:
        """A message that went over the bus."""
        if self.as_json:
            self.record(msgspec.to_builtins(envelope))
            return
        clock = time.strftime("%H:%M:%S", time.localtime(envelope.ts)) + f".{int(envelope.ts % 1 * 1000):03d}"
        tint = "error" if envelope.error else envelope.kind
        again = self.paint("faint", " (replayed)") if envelope.replay else ""
        trace = self.paint("faint", f" trace={envelope.trace}") if envelope.trace else ""
        told = f"{envelope.error.code}: {envelope.error.message}" if envelope.error else compact(envelope.body)
        self.line(f"{self.paint('faint', clock)} {self.paint(tint, envelope.name)}{again}{trace} {told}")

    def record(self, record: Any) -> None:
        """A result as one JSON object on a line."""
        self.line(compact(record))

    def line(self, text: str) -> None:
        """A line of text, at once."""
        print(text, file=self._stream, flush=True)

    def paint(self, what: str, text: str) -> str:
        """`text` in the colour of `what`, on a terminal."""
        return f"\x1b[{_COLOURS[what]}m{text}\x1b[0m" if self._colours else text


def compact(value: Any) -> str:
    """JSON on one line; bytes as their length."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_told)


def _told(value: Any) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
