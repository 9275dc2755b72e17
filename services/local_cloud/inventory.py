"""The inventory in SQLite: which agents there are, and the log of commands with their outcome.

Everything is written behind the event loop's back: rows are collected and committed together by one thread, so
that an acknowledgement never waits for a disk. Reads go through the same thread, after what was collected.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from services.local_cloud.clock import now_iso

log = logging.getLogger(__name__)

COMMIT_EVERY_SECONDS = 0.25
MOST_COMMANDS = 100_000
_MOST_WAITING = 50_000
_RESERVED_IDS = 10_000

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS agents (
    agent_id TEXT PRIMARY KEY, enrolled_at TEXT, last_connected_at TEXT, last_disconnected_at TEXT, address TEXT
);
CREATE TABLE IF NOT EXISTS commands (
    correlation_id INTEGER PRIMARY KEY, agent_id TEXT NOT NULL, topic TEXT NOT NULL, sent_at TEXT NOT NULL,
    outcome TEXT NOT NULL, status TEXT, detail TEXT, duration_ms REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS commands_by_agent ON commands (agent_id, correlation_id);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""

T = TypeVar("T")
_Row = tuple[str, tuple[Any, ...]]

Outcome = Literal["answered", "no_answer", "disconnected", "offline", "busy", "failed"]


class InventoryBroken(Exception):
    """The inventory's file cannot be used; the text tells the operator what to do."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command in the log. `status` and `detail` are the answer's `status` and `error`, when it had them."""

    correlation_id: int
    agent_id: str
    topic: str
    sent_at: str
    outcome: Outcome
    status: str | None = None
    detail: str | None = None
    duration_ms: float


class KnownAgent(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a session. Times ISO 8601 UTC, `address` the last one it came from."""

    agent_id: str
    enrolled_at: str | None = None
    last_connected_at: str | None = None
    last_disconnected_at: str | None = None
    address: str | None = None


class Inventory:
    """The open inventory. Make it inside the running event loop; `close` commits what waits."""

    def __init__(self, path: Path) -> None:
        """Raises `InventoryBroken` when the file cannot be opened or is no database of ours."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inventory")
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
            self._database.executescript(_SCHEMA)
            row = self._database.execute("SELECT value FROM meta WHERE name = 'next_correlation_id'").fetchone()
        except sqlite3.Error as problem:
            raise InventoryBroken(f"{path}: {problem}; move it away to begin a new inventory") from None
        self._waiting: list[_Row] = []
        self._timer: asyncio.TimerHandle | None = None
        self.lost_rows = 0
        self._next_id: int = row[0] if row else 1
        self._reserved_up_to = self._next_id
        self._reserve()
        self._commit(self._take())

    def next_correlation_id(self) -> int:
        """Increasing for ever: numbers are reserved on disk ahead of use, a crash skips some and repeats none."""
        correlation_id, self._next_id = self._next_id, self._next_id + 1
        if self._reserved_up_to - self._next_id < _RESERVED_IDS // 2:
            self._reserve()
        return correlation_id

    def enrolled(self, agent_id: str) -> None:
        """An agent got a certificate."""
        self._agent(agent_id, "enrolled_at", now_iso())

    def connected(self, agent_id: str, moment: str, address: str) -> None:
        """An agent's session began."""
        self._agent(agent_id, "last_connected_at", moment)
        self._agent(agent_id, "address", address)

    def disconnected(self, agent_id: str, moment: str) -> None:
        """An agent's session ended."""
        self._agent(agent_id, "last_disconnected_at", moment)

    def command(self, command: Command) -> None:
        """Write one finished command down."""
        self._write("INSERT OR REPLACE INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(command))

    async def commands(self, limit: int, agent_id: str | None = None) -> list[Command]:
        """The newest `limit` commands, newest first. Raises `sqlite3.Error`."""
        where, values = ("WHERE agent_id = ?", (agent_id,)) if agent_id is not None else ("", ())
        query = f"SELECT * FROM commands {where} ORDER BY correlation_id DESC LIMIT ?"  # noqa: S608
        rows = await self._read(query, (*values, limit))
        return [Command(**dict(zip(Command.__struct_fields__, row, strict=True))) for row in rows]

    async def agents(self) -> list[KnownAgent]:
        """Every agent ever seen. Raises `sqlite3.Error`."""
        rows = await self._read("SELECT * FROM agents", ())
        return [KnownAgent(**dict(zip(KnownAgent.__struct_fields__, row, strict=True))) for row in rows]

    async def close(self) -> None:
        """Commit what waits and let go of the file."""
        self._write("UPDATE meta SET value = ? WHERE name = 'next_correlation_id'", (self._next_id,))
        if self._timer is not None:
            self._timer.cancel()
        rows = self._take()
        await self._in_thread(lambda: self._commit(rows))
        await self._in_thread(self._database.close)
        self._thread.shutdown(wait=False)

    def _reserve(self) -> None:
        self._reserved_up_to = self._next_id + _RESERVED_IDS
        self._write("INSERT OR REPLACE INTO meta VALUES ('next_correlation_id', ?)", (self._reserved_up_to,))

    def _agent(self, agent_id: str, column: str, value: str) -> None:
        self._write(
            f"INSERT INTO agents (agent_id, {column}) VALUES (?, ?)"  # noqa: S608 - columns are ours
            f" ON CONFLICT (agent_id) DO UPDATE SET {column} = excluded.{column}",
            (agent_id, value),
        )

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self.lost_rows += 1
            return
        self._waiting.append((sql, values))
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(COMMIT_EVERY_SECONDS, self._commit_soon)

    def _commit_soon(self) -> None:
        self._timer = None
        self._thread.submit(self._commit, self._take())

    def _take(self) -> list[_Row]:
        """On the event loop only: the thread never touches the list that rows are added to."""
        rows, self._waiting = self._waiting, []
        return rows

    def _commit(self, rows: list[_Row]) -> None:
        """In the inventory's thread. A failure is told and counted; the sessions go on."""
        try:
            with self._database:
                for sql, values in rows:
                    self._database.execute(sql, values)
                self._database.execute(
                    "DELETE FROM commands WHERE correlation_id <= (SELECT max(correlation_id) FROM commands) - ?",
                    (MOST_COMMANDS,),
                )
        except sqlite3.Error as problem:
            self.lost_rows += len(rows)
            log.error("inventory: %d rows lost (%s); check the disk", len(rows), problem)

    async def _read(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        rows = self._take()

        def read() -> list[tuple[Any, ...]]:
            self._commit(rows)
            return self._database.execute(query, values).fetchall()

        return await self._in_thread(read)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
