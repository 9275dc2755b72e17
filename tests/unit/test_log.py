"""Log files as technicians know them: daily, bounded, one line a record, shared by four processes, without secrets."""

import logging
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from common import trace
from common.log import DailyFile

ROOT = Path(__file__).parents[2]

WRITER = """
import logging, sys
from pathlib import Path
from common import log
from common.settings import Settings

log.configure(sys.argv[2], Settings(state_dir=Path(sys.argv[1])))
for number in range(500):
    logging.getLogger("writer").info("%s number %d %s", sys.argv[2], number, "x" * 300)
logging.getLogger("writer").debug("only in the details")
logging.getLogger("writer").warning("login with password=c4n4ry")
"""


def test_four_processes_append_whole_lines_without_secrets(tmp_path: Path) -> None:
    names = ["cloud_link", "docker_worker", "metrics", "netmon"]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], cwd=ROOT, stderr=subprocess.DEVNULL)
        for name in names
    ]
    assert [writer.wait(30) for writer in writers] == [0, 0, 0, 0]
    (operational,) = (tmp_path / "logs").glob("orchestrator-logs-????-??-??.log")
    (detailed,) = (tmp_path / "debug").glob("orchestrator-debug-????-??-??.log")
    lines = operational.read_text().splitlines()
    for name in names:
        mine = [line for line in lines if f"INFO     {name} writer trace=- {name} number" in line]
        assert [int(line.split()[-2]) for line in mine] == list(range(500))
    assert "c4n4ry" not in operational.read_text() + detailed.read_text()
    assert "only in the details" not in operational.read_text()
    assert detailed.read_text().count("only in the details") == 4


def test_a_new_day_is_a_new_file_and_old_days_go(tmp_path: Path) -> None:
    days = iter([date(2026, 11, number) for number in range(1, 6) for _ in range(2)])
    handler = DailyFile(tmp_path, "orchestrator-logs", 3, today=lambda: next(days))
    for number in range(5):
        handler.emit(logging.makeLogRecord({"msg": f"day {number}"}))
    handler.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"orchestrator-logs-2026-11-0{number}.log" for number in (3, 4, 5)
    ]


def test_a_full_disk_stops_nobody_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "logs"
    blocked.write_text("a file where the directory should be")
    handler = DailyFile(blocked, "orchestrator-logs", 3)
    for _ in range(3):
        handler.emit(logging.makeLogRecord({"msg": "lost"}))
    blocked.unlink()
    handler.emit(logging.makeLogRecord({"msg": "kept"}))
    handler.close()
    told = capsys.readouterr().err
    assert told.count("cannot write logs") == 1
    assert "work again; 3 lines were lost" in told


def test_a_trace_is_carried_by_the_work_and_not_beyond() -> None:
    with trace.use("1234"):
        assert trace.current() == "1234"
    assert trace.current() is None
