"""Logs: one line a record, the same in the files, in `supervisorctl tail` and in `docker logs`.

Files as technicians know them: `logs/orchestrator-logs-YYYY-MM-DD.log` at the configured level and
`debug/orchestrator-debug-YYYY-MM-DD.log` at DEBUG. Four processes append to the same files: every record
is one `write` on a descriptor opened with O_APPEND, which the kernel keeps whole.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from common import redact, trace
from common.settings import Settings

_QUIET = ("docker", "urllib3", "socketio", "engineio", "aiohttp", "pyroute2", "asyncio", "requests")


class _LineFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = record.__dict__.get("line")  # the three handlers share the work
        if line is None:
            line = record.__dict__["line"] = self._line(record)
        return line

    def _line(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        where = record.name.rsplit(".", 1)[-1]
        carried = getattr(record, "trace", None) or trace.current() or "-"
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        message = redact.text(message).replace("\n", "\n    ")
        milliseconds = int(record.msecs)
        return f"{moment}.{milliseconds:03d} {record.levelname:<8} {self._service} {where} trace={carried} {message}"


class DailyFile(logging.Handler):
    """Appends to `<directory>/<stem>-YYYY-MM-DD.log`; drops files older than `days`.

    A full disk must not stop a service: the loss is told once on stderr, and again when writing works.
    """

    def __init__(self, directory: Path, stem: str, days: int, today: Callable[[], date] = date.today) -> None:
        super().__init__()
        self._directory, self._stem, self._days, self._today = directory, stem, days, today
        self._day: date | None = None
        self._descriptor = -1
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        line = (self.format(record) + "\n").encode("utf-8", "replace")
        try:
            if self._day != self._today() or self._descriptor < 0:
                self._open()
            os.write(self._descriptor, line)
        except OSError as problem:
            if self._lost == 0:
                print(f"cannot write logs in {self._directory}: {problem}", file=sys.stderr)  # noqa: T201
            self._lost += 1
            return
        if self._lost:
            print(f"logs in {self._directory} work again; {self._lost} lines were lost", file=sys.stderr)  # noqa: T201
            self._lost = 0

    def _open(self) -> None:
        self.close_file()
        day = self._today()
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{self._stem}-{day.isoformat()}.log"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._day = day
        for old in sorted(self._directory.glob(f"{self._stem}-*.log"))[: -self._days]:
            old.unlink(missing_ok=True)

    def close_file(self) -> None:
        """Let go of the file; the next record opens today's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        self.close_file()
        super().close()


def configure(service: str, settings: Settings, level: str | None = None) -> None:
    """Send this process's log to stderr and to the daily files under `settings.state_dir`."""
    chosen = level or settings.log_level
    formatter = _LineFormatter(service)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(chosen)
    operational = DailyFile(settings.state_dir / "logs", "orchestrator-logs", settings.log_days)
    operational.setLevel(chosen)
    detailed = DailyFile(settings.state_dir / "debug", "orchestrator-debug", settings.log_days)
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in (console, operational, detailed):
        handler.setFormatter(formatter)
        root.addHandler(handler)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
