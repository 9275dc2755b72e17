"""One Socket.IO session, from its opening to its end, and the only place that knows the library.

The library is used below its surface where the surface loses something: events of any shape must be answered, the
last inbound packet and the unsent bytes must be known, and an end must be an end. So versions are pinned exactly.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import engineio
import socketio

from services.cloud_link.sparingly import Sparingly

log = logging.getLogger(__name__)
_tell = Sparingly(log).warning
_library_log = logging.getLogger("socketio")  # given as an object, so that the library adds no handler of its own

Hear = Callable[[object, list[object]], Awaitable[bytes]]

_BROKEN = "the connection broke"
_READABLE = (socketio.packet.EVENT, socketio.packet.BINARY_EVENT)


class Receipt(NamedTuple):
    """One message handed to a session."""

    outgoing: "_Outgoing"
    number: int

    @property
    def is_unsent(self) -> bool:
        """Whether it still waits behind others in a session that is alive."""
        return self.outgoing.written < self.number and not self.outgoing.closed


class Session:
    """One attempt at a session. `hear(topic, arguments)` gives the acknowledgement of an event, in JSON."""

    def __init__(self, http: aiohttp.ClientSession, hear: Hear, *, largest_message: int) -> None:
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._client = _Client(
            hear,
            serializer=_Packet,
            reconnection=False,
            handle_sigint=False,
            logger=_library_log,
            engineio_logger=_library_log,
            http_session=http,
            websocket_extra_options={"max_msg_size": largest_message},
        )
        self._client.on("disconnect", self._on_end)

    async def open(self, url: str, within: float) -> None:
        """Connect and wait for the namespace; raises whatever the libraries raise. The caller sets the deadline."""
        await self._client.connect(url, transports=["websocket"], namespaces=["/"], wait_timeout=within)

    async def ended(self, within: float) -> str | None:
        """How the session ended; None if it has not within `within` seconds."""
        await asyncio.wait({self._ended}, timeout=within)
        if self._ended.done():
            return self._ended.result()
        reader = self._client.eio.read_loop_task
        return _BROKEN if not self._client.connected or reader is None or reader.done() else None

    @property
    def session_id(self) -> str | None:
        """Socket.IO's name for the session."""
        found: str | None = self._client.get_sid("/")
        return found

    @property
    def ping_budget(self) -> float:
        """Seconds within which the server says it will be heard from."""
        return float(self._client.eio.ping_interval + self._client.eio.ping_timeout)

    @property
    def last_inbound(self) -> float:
        """When the last packet came in, by the monotonic clock."""
        return float(self._client.eio.last_inbound)

    @property
    def unsent_bytes(self) -> int:
        """What the server has not taken yet."""
        return int(self._client.eio.queue.unsent_bytes)

    async def send_event(self, event: str, data: dict[str, Any]) -> Receipt | None:
        """Queue an event; None when the session has just ended."""
        try:
            await self._client.emit(event, data)
        except socketio.exceptions.BadNamespaceError:
            return None
        outgoing = self._client.eio.queue
        return Receipt(outgoing, outgoing.handed)

    async def close(self) -> None:
        """End the session politely. May wait for the server: the caller sets the deadline."""
        await self._client.disconnect()

    async def abandon(self, within: float) -> None:
        """End everything that is left of the session, hard, in at most `within` seconds."""
        engine = self._client.eio
        engine.queue.closed = True
        wire = engine.ws.get_extra_info("socket") if engine.ws is not None else None
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
        tasks = [task for task in (engine.read_loop_task, engine.write_loop_task) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=within)
            if stuck:
                log.error("%d tasks of the old session do not end", len(stuck))
        with contextlib.suppress(ValueError):
            engineio.base_client.connected_clients.remove(engine)

    def _on_end(self, reason: str = "") -> None:
        polite = reason == socketio.AsyncClient.reason.SERVER_DISCONNECT
        if not self._ended.done():
            self._ended.set_result("the server ended the session" if polite else _BROKEN)


class _Client(socketio.AsyncClient):  # type: ignore[misc]  # the library is untyped
    """Answers every event in one place, whatever its name and shape; the library answers only what it likes."""

    _binary_packet: Any

    def __init__(self, hear: Hear, **options: Any) -> None:
        super().__init__(**options)
        self._hear = hear

    def _engineio_client_class(self) -> type:
        return _Engine

    async def _handle_eio_message(self, data: Any) -> None:
        if self._binary_packet is not None and isinstance(data, str):
            self._binary_packet = None
            _tell("a message whose binary parts never came was dropped")
        try:
            await super()._handle_eio_message(data)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, RecursionError) as problem:
            _tell("a message that is no Socket.IO packet was dropped: %s: %s", type(problem).__name__, problem)

    async def _handle_event(self, namespace: str | None, id: int | None, data: Any) -> None:
        topic, *arguments = data if isinstance(data, list) and data else [None]
        answer = await self._hear(topic, arguments)
        if id is None:
            return
        if self.eio.state != "connected":
            _tell("the session ended before the answer to %.80r could be delivered", topic)
            return
        where = f"{namespace}," if namespace and namespace != "/" else ""
        await self.eio.send(f"{socketio.packet.ACK}{where}{id}[{answer.decode()}]")


class _Packet(socketio.packet.Packet):  # type: ignore[misc]
    """An event that is no JSON becomes an event without content, so that it can be answered."""

    packet_type: int
    data: Any

    def decode(self, encoded_packet: Any) -> int:
        try:
            attachments: int = super().decode(encoded_packet)
        except (ValueError, RecursionError):
            if self.packet_type not in _READABLE:
                raise
            self.packet_type, self.data = socketio.packet.EVENT, None
            return 0
        return attachments


class _Outgoing(asyncio.Queue[Any]):
    """The library's outgoing queue, counting what has not been written to the socket yet."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self.handed = self.written = self.unsent_bytes = 0
        self.closed = False
        self._sizes: deque[int] = deque()

    def _put(self, item: Any) -> None:
        super()._put(item)
        size = len(item.data or "") if item is not None and isinstance(item.data, str | bytes) else 0
        self.handed += 1
        self.unsent_bytes += size
        self._sizes.append(size)

    def task_done(self) -> None:
        """The oldest of the messages has been written, or thrown away."""
        super().task_done()
        self.written += 1
        self.unsent_bytes -= self._sizes.popleft()


class _Engine(engineio.AsyncClient):  # type: ignore[misc]
    """Notes when the last packet came in, whatever it was."""

    last_inbound = 0.0

    def create_queue(self, *_arguments: Any, **_options: Any) -> _Outgoing:
        return _Outgoing()

    async def _connect_websocket(self, *arguments: Any) -> bool:
        opened: bool = await super()._connect_websocket(*arguments)
        self.last_inbound = time.monotonic()
        return opened

    async def _receive_packet(self, packet: Any) -> None:
        self.last_inbound = time.monotonic()
        await super()._receive_packet(packet)
