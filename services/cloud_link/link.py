"""Keeps a session with the cloud up: attempt, watch, tear down, wait, attempt again.

The library's own reconnection ends for good on ordinary faults, so it is off. Here every attempt has a fresh session
and a fresh HTTP session, one deadline around everything and a hard end; every end of a session, polite or not, leads
to the next attempt. Silence of the server beyond a limit counts as an end too, whatever the library believes.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from bus.messages.cloud_link import SessionChanged, SessionState
from common import identity
from common.backoff import full_jitter
from common.identity import IdentityProblem
from services.cloud_link.failures import explain
from services.cloud_link.session import Receipt, Session
from services.cloud_link.transport import http_session, tls_context

log = logging.getLogger(__name__)

Answer = Callable[..., Awaitable[bytes]]

CONNECT_WITHIN = 20.0  # seconds for TCP, TLS, upgrade and namespace together
STABLE = 60.0  # seconds after which a session counts as proof that all is well
SILENCE = (5.0, 60.0)  # seconds: the least and the most that a server's own ping figures are believed
SILENCE_WITH_ACKS = 15.0  # seconds, once the server has shown that it acknowledges heartbeats every 5 s
MOST_UNSENT = 16 * 1024 * 1024  # bytes waiting for a server that reads nothing, though it still talks
_LARGEST_MESSAGE = 16 * 1024 * 1024  # bytes of one message of the server: uploads come in commands
_TICK = 0.5
_TEARDOWN = 2.0
_IDENTITY_RETRY = 10.0  # seconds at most: whoever has just repaired the certificate is standing there waiting


def reconnect_delay(attempt: int) -> float:
    """Seconds to wait after `attempt` failures in a row before this one: within a second at first, then 1-5 s, up to a
    minute in a long outage; jittered in full so that a fleet does not come back in lock-step."""
    return max(0.1, full_jitter(attempt, base=1.0, cap=60.0))


class Link:
    """Keeps a session up for as long as `keep` runs. Everything but `now` belongs to its event loop."""

    def __init__(
        self,
        *,
        server_url: str,
        ca_file: Path | None,
        mtls_dir: Path,
        answer: Answer,
        tell: Callable[[SessionChanged], None],
        delay: Callable[[int], float] = reconnect_delay,
        connect_within: float = CONNECT_WITHIN,
    ) -> None:
        """`answer(topic, *arguments)`: the answer to a command, in JSON. `tell` hears of every change of state."""
        self._server_url, self._ca_file, self._mtls_dir = server_url, ca_file, mtls_dir
        self._answer, self._tell, self._delay, self._connect_within = answer, tell, delay, connect_within
        self._session: Session | None = None
        self._attempt = 0
        self._last_ack = 0.0
        self.online = asyncio.Event()
        self.now = SessionChanged(
            state="starting",
            reason="not connected yet",
            server_url=server_url,
            agent_id=None,
            session_id=None,
            since=time.time(),
            attempt=0,
        )

    async def keep(self) -> None:
        """Connect, and connect again whenever the session ends. Returns only by being cancelled."""
        while True:
            most = math.inf
            try:
                mine = identity.load(self._mtls_dir)
            except IdentityProblem as problem:
                self._attempt += 1
                most = _IDENTITY_RETRY
                self._change("identity_problem", problem.message)
            else:
                await self._attempt_with(mine)
            delay = min(self._delay(max(0, self._attempt - 1)), most)
            log.debug("attempt %d in %.1f s", self._attempt + 1, delay)
            await asyncio.sleep(delay)

    async def send(self, event: str, data: dict[str, Any]) -> Receipt | None:
        """Hand an event to the session; None when there is no session."""
        if self._session is None or not self.online.is_set():
            return None
        return await self._session.send_event(event, data)

    async def leave(self) -> None:
        """End the session politely, in at most a second."""
        if self._session is not None:
            try:
                async with asyncio.timeout(1.0):
                    await self._session.close()
            except Exception:  # the libraries raise anything here, and the session ends in any case
                log.debug("no polite end", exc_info=True)

    # ---- one attempt

    async def _attempt_with(self, mine: identity.Identity) -> None:
        if self.now.state == "starting":
            self._change("connecting", f"connecting to {self._server_url}", agent_id=mine.agent_id)
        begun: float | None = None
        http: aiohttp.ClientSession | None = None
        try:
            context = tls_context(mine, self._ca_file)
            http = http_session(context, self._connect_within)
            self._session = Session(http, self._hear, largest_message=_LARGEST_MESSAGE)
            async with asyncio.timeout(self._connect_within):
                await self._session.open(self._server_url, self._connect_within)
            begun = time.monotonic()
            self._change("online", "", agent_id=mine.agent_id, session_id=self._session.session_id)
            reason = await self._until_it_ends(self._session)
        except Exception as problem:  # the libraries raise anything here; all of it means "no session"
            trusted = str(self._ca_file or "the system's trust store")
            reason = explain(problem, self._server_url, trusted)
            log.debug("attempt %d failed", self._attempt + 1, exc_info=True)
        finally:
            self.online.clear()
            session, self._session = self._session, None
            await _tear_down(session, http)
        self._count(begun)
        self._change("offline", reason, agent_id=mine.agent_id)

    def _count(self, begun: float | None) -> None:
        """Failed attempts lead to longer and longer pauses, a stable minute to none. A server that accepts and soon
        ends the session is there: then the pauses stay short, but are pauses."""
        if begun is None:
            self._attempt += 1
        else:
            self._attempt = 0 if time.monotonic() - begun >= STABLE else min(self._attempt, 2) + 1

    async def _until_it_ends(self, session: Session) -> str:
        least, most = SILENCE
        limit = min(max(session.ping_budget, least), most)
        self._last_ack = 0.0
        self.online.set()
        while True:
            ended = await session.ended(_TICK)
            silent = time.monotonic() - session.last_inbound
            if ended is not None and silent < session.ping_budget:
                return ended
            if ended is not None or silent > (min(limit, SILENCE_WITH_ACKS) if self._last_ack else limit):
                return f"the server has been silent for {silent:.0f} s"
            if session.unsent_bytes > MOST_UNSENT:
                return f"the server has not read {session.unsent_bytes} bytes of answers"

    async def _hear(self, topic: object, arguments: list[object]) -> bytes:
        if topic == "heartbeat_ack":
            self._last_ack = time.monotonic()
            return b'{"action":"heartbeat_ack","correlation_id":null,"status":"success"}'
        return await self._answer(topic, *arguments)

    def _change(
        self, state: SessionState, reason: str, *, agent_id: str | None = None, session_id: str | None = None
    ) -> None:
        before = self.now
        self.now = SessionChanged(
            state=state,
            reason=reason,
            server_url=self._server_url,
            agent_id=agent_id or before.agent_id,
            session_id=session_id,
            since=before.since if before.state == state else time.time(),
            attempt=self._attempt,
        )
        if state == "online":
            log.info("online with %s as %s, session %s", self._server_url, agent_id, session_id)
        self._tell(self.now)


async def _tear_down(session: Session | None, http: aiohttp.ClientSession | None) -> None:
    """End everything of one attempt, within a time limit, whatever state it is in."""
    if session is not None:
        await session.abandon(_TEARDOWN)
    if http is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TEARDOWN):
                await http.close()
