"""The state machine of the PLC: EMPTY, STOPPED, RUNNING, and TRANSITIONING in between.

Nothing about run or stop is stored: a start of the process with a program on disk is RUNNING, whatever
an operator commanded before. A program is loaded by start, so a device fresh from its first upload is
still EMPTY until then.
"""

import threading
import time
from pathlib import Path

from .journal import Journal

SCAN_SECONDS = 0.02


class Plc:
    """One PLC whose program is the file `libplc_*.so` in `build_dir`; times in seconds."""

    def __init__(self, build_dir: Path, journal: Journal, start_seconds: float, stop_seconds: float) -> None:
        self._build_dir = build_dir
        self._journal = journal
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._lock = threading.Lock()
        self._state = "RUNNING" if self._has_program() else "EMPTY"
        self._settles_as = self._state
        self._settles_at = self._running_since = time.monotonic()
        journal.write("INFO", f"PLC is {self._state}")

    def state(self) -> str:
        with self._lock:
            return self._settled()

    def start(self) -> str:
        """Answers START:OK at once even without a program (then the state tells), or COMMAND:BUSY."""
        with self._lock:
            if self._settled() == "TRANSITIONING":
                return "COMMAND:BUSY"
            if self._state == "RUNNING":
                return "START:OK"
            if self._has_program():
                self._move("RUNNING", self._start_seconds)
            else:
                self._state = "EMPTY"
                self._journal.write("ERROR", "no PLC program to start")
            return "START:OK"

    def stop(self) -> str:
        """Answers STOP:OK at once and is STOPPED after `stop_seconds`; STOP:ERROR when not running."""
        with self._lock:
            if self._settled() == "TRANSITIONING":
                return "COMMAND:BUSY"
            if self._state != "RUNNING":
                return "STOP:ERROR"
            self._move("STOPPED", self._stop_seconds)
            return "STOP:OK"

    def halt(self) -> None:
        """Stop without delay, for a build or the end of the process."""
        with self._lock:
            if self._settled() in ("RUNNING", "TRANSITIONING"):
                self._state = "STOPPED"
                self._journal.write("INFO", "PLC program unloaded")

    def statistics(self) -> dict[str, object]:
        """Scan figures in the shape of 4.1 (microseconds); no task when no program runs."""
        with self._lock:
            if self._settled() != "RUNNING":
                return {"tasks": []}
            scans = int((time.monotonic() - self._running_since) / SCAN_SECONDS)
        period = int(SCAN_SECONDS * 1e6)
        return {"tasks": [{"name": "task0", "scan_count": scans, "cycle_time_avg": period, "overruns": 0}]}

    def _has_program(self) -> bool:
        return any(self._build_dir.glob("libplc_*.so"))

    def _move(self, state: str, seconds: float) -> None:
        self._state, self._settles_as = "TRANSITIONING", state
        self._settles_at = time.monotonic() + seconds
        self._journal.write("INFO", f"PLC is on its way to {state}")

    def _settled(self) -> str:
        if self._state == "TRANSITIONING" and time.monotonic() >= self._settles_at:
            self._state = self._settles_as
            self._running_since = self._settles_at
        return self._state
