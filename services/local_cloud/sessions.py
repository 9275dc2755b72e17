"""The Socket.IO side: agents' sessions over mutual TLS, and commands that wait for their acknowledgement.

Who an agent is comes from the certificate of its TLS connection and from nothing it says. Every acknowledgement
is matched by Socket.IO; a command whose agent disconnects fails at that moment.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from typing import Any

import socketio
from aiohttp import web

from services.local_cloud.agents import Agents, Session
from services.local_cloud.clients import ClientRegister
from services.local_cloud.clock import now_iso
from services.local_cloud.identity import IdentityRefused
from services.local_cloud.inventory import Command, Inventory, Outcome
from services.local_cloud.quiet import library_log
from services.local_cloud.web import ApiError, Handler, refusal

log = logging.getLogger(__name__)

MOST_MESSAGE_BYTES = 16 * 1024 * 1024
MOST_WAITING_COMMANDS = 4096
PING_INTERVAL_SECONDS = 10
PING_TIMEOUT_SECONDS = 10
_FAREWELL_SECONDS = 1.0
_DETAIL_CHARACTERS = 300


class CommandFailed(Exception):
    """A command got no acknowledgement. `outcome` says how far it came, the text why."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome, self.message = outcome, message


class Sessions:
    """The live sessions and the way to send commands through them."""

    def __init__(self, agents: Agents, register: ClientRegister, inventory: Inventory) -> None:
        self._agents, self._register, self._inventory = agents, register, inventory
        self._farewells: set[asyncio.Task[None]] = set()
        self._sio = socketio.AsyncServer(
            async_mode="aiohttp",
            transports=["websocket", "polling"],
            max_http_buffer_size=MOST_MESSAGE_BYTES,
            ping_interval=PING_INTERVAL_SECONDS,
            ping_timeout=PING_TIMEOUT_SECONDS,
            # In the order of arrival, in the reading task: the handlers are quick, and a task each is not free.
            async_handlers=False,
            logger=library_log(),
            engineio_logger=library_log(),
            # No browser speaks here; certificates decide, not origins.
            cors_allowed_origins=[],
        )
        self._sio.on("connect", self._connect)
        self._sio.on("disconnect", self._disconnect)
        self._sio.on("heartbeat", self._heartbeat)
        self._sio.on("device_event", self._device_event)
        self._sio.on("*", self._unknown)

    def application(self) -> web.Application:
        """The web application of the agents' port."""
        application = web.Application(middlewares=[self._identify], client_max_size=MOST_MESSAGE_BYTES)
        self._sio.attach(application)
        return application

    async def send_command(
        self, agent_id: str, topic: str, payload: Any, timeout_s: float, *, raw: bool = False
    ) -> tuple[Command, Any]:
        """Send one command and wait for its acknowledgement: (the record in the log, the answer as it came).

        Unless `raw`, `payload` is an object and gets the base fields it does not have. Raises `CommandFailed`.
        """
        correlation_id = self._inventory.next_correlation_id()
        sent_at, started = now_iso(), time.monotonic()
        if not raw:
            payload = {"correlation_id": correlation_id, "action": topic, "requested_at": sent_at, **payload}

        def record(outcome: Outcome, status: str | None, detail: str | None) -> Command:
            command = Command(
                correlation_id=correlation_id,
                agent_id=agent_id,
                topic=topic,
                sent_at=sent_at,
                outcome=outcome,
                status=status,
                detail=detail,
                duration_ms=round((time.monotonic() - started) * 1000, 3),
            )
            self._inventory.command(command)
            return command

        try:
            answer = await self._call(agent_id, topic, payload, timeout_s)
        except CommandFailed as problem:
            record(problem.outcome, None, problem.message)
            raise
        return record("answered", *_summary(answer)), answer

    async def kick(self, session: Session) -> None:
        """End a session politely, and hard when the agent does not hang up."""
        await self._sio.disconnect(session.sid)
        task = asyncio.get_running_loop().create_task(self._hang_up(session))
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def stop(self) -> None:
        """Fail what waits. The connections themselves are closed by who owns the port."""
        for session in self._agents.live():
            _fail_waiting(session, "the local cloud is stopping")
        await self._sio.shutdown()

    async def _call(self, agent_id: str, topic: str, payload: Any, timeout_s: float) -> Any:
        agent = self._agents.get(agent_id)
        session = agent.session if agent else None
        if session is None:
            raise CommandFailed("offline", f"agent {agent_id} is not connected")
        if len(session.waiting) >= MOST_WAITING_COMMANDS:
            raise CommandFailed("busy", f"{len(session.waiting)} commands already wait for agent {agent_id}")
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def settle(*arguments: Any) -> None:
            if not answered.done():
                answered.set_result(arguments[0] if len(arguments) == 1 else list(arguments) or None)

        session.waiting.add(answered)
        try:
            async with asyncio.timeout(timeout_s):
                # A tuple is "these arguments": so null and a list travel as one argument too.
                await self._sio.emit(topic, (payload,), to=session.sid, callback=settle)
                return await answered
        except TimeoutError:
            raise CommandFailed(
                "no_answer",
                f"agent {agent_id} did not answer {topic} within {timeout_s:g} s; whether it ran is unknown",
            ) from None
        except RecursionError:
            raise CommandFailed("failed", "payload: nested too deeply to be sent") from None
        finally:
            session.waiting.discard(answered)

    async def _connect(self, sid: str, environ: dict[str, Any], _auth: Any = None) -> None:
        request: web.Request = environ["aiohttp.request"]
        session = Session(request["agent_id"], sid, request.remote or "?", environ)
        older = self._agents.connect(session)
        self._inventory.connected(session.agent_id, session.connected_at, session.address)
        log.info("agent %s connected from %s", session.agent_id, session.address)
        if older is not None:
            log.warning("agent %s connected again; its older session (from %s) ends", older.agent_id, older.address)
            _fail_waiting(older, "the agent connected anew before it answered; whether the command ran is unknown")
            await self.kick(older)

    async def _disconnect(self, sid: str, reason: str) -> None:
        session = self._agents.disconnect(sid)
        if session is None:
            return
        _fail_waiting(session, "the agent disconnected before it answered; whether the command ran is unknown")
        self._inventory.disconnected(session.agent_id, now_iso())
        log.info("agent %s disconnected (%s)", session.agent_id, reason)

    async def _heartbeat(self, sid: str, *arguments: Any) -> None:
        if self._agents.heartbeat(sid, arguments[0] if len(arguments) == 1 else None):
            await self._sio.emit("heartbeat_ack", {"timestamp": now_iso()}, to=sid)

    async def _device_event(self, sid: str, *arguments: Any) -> None:
        self._agents.device_event(sid, arguments[0] if len(arguments) == 1 else None)

    async def _unknown(self, event: Any, sid: str, *_arguments: Any) -> None:
        self._agents.unknown_event(sid, str(event))

    @web.middleware
    async def _identify(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Before anything else: whose TLS connection is this, and is the Engine.IO session it names its own."""
        try:
            request["agent_id"] = self._register.identify(_peer_certificate(request))
        except IdentityRefused as problem:
            log.warning("refused a connection from %s: %s", request.remote, problem)
            return refusal(ApiError(403, "refused", str(problem)))
        named: Mapping[str, Any] | None = self._sio.environ.get(request.query.get("sid", ""))
        if named is not None:
            if named["aiohttp.request"]["agent_id"] != request["agent_id"]:
                log.warning("agent %s named another agent's session; refused", request["agent_id"])
                return refusal(ApiError(403, "refused", "this session belongs to another agent"))
            if request.query.get("transport") == "websocket":
                # After an upgrade this is the connection that carries the session.
                self._sio.environ[request.query["sid"]]["aiohttp.request"] = request
        try:
            return await handler(request)
        except (ValueError, TypeError, IndexError, KeyError) as problem:
            log.warning("agent %s sent what is no Engine.IO (%r); its connection ends", request["agent_id"], problem)
            await self._forget(request)
            return refusal(ApiError(400, "invalid", "expected Engine.IO packets"))

    async def _forget(self, request: web.Request) -> None:
        """End the Engine.IO session of a request at once; the library itself would wait for its ping timeout."""
        for eio_sid, environ in list(self._sio.environ.items()):
            if environ["aiohttp.request"] is request and (socket := self._sio.eio.sockets.get(eio_sid)):
                await socket.close(wait=False, abort=True)

    async def _hang_up(self, session: Session) -> None:
        await asyncio.sleep(_FAREWELL_SECONDS)
        transport = session.environ["aiohttp.request"].transport
        if transport is not None:
            transport.abort()


def _peer_certificate(request: web.Request) -> bytes:
    connection = request.transport.get_extra_info("ssl_object") if request.transport else None
    peer = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLObject) else None
    if peer is None:
        raise IdentityRefused("no client certificate")
    return peer


def _fail_waiting(session: Session, why: str) -> None:
    for future in session.waiting:
        if not future.done():
            future.set_exception(CommandFailed("disconnected", f"agent {session.agent_id}: {why}"))


def _summary(answer: Any) -> tuple[str | None, str | None]:
    """What the command log keeps of an answer: its status, and its error shortened."""
    if not isinstance(answer, dict):
        return None, None
    status, error = answer.get("status"), answer.get("error")
    return (
        status if isinstance(status, str) else None,
        error[:_DETAIL_CHARACTERS] if isinstance(error, str) else None,
    )
