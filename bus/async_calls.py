"""The asking side inside an asyncio loop: no thread hop, and a service that dies is noticed at once.

The DEALER's descriptor is watched by the loop. It is edge-triggered (see zmq_getsockopt, ZMQ_FD): after every
look and every send the socket must be drained, or a reply that came in between would wait for the next one.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from bus.calls import deadline_of, open_dealer, owner_of, pack, unpack
from bus.envelope import Envelope, MalformedError, decode, new_id
from bus.errors import CommandError, Timeout, Unavailable
from bus.messages.base import Request, request_declaration
from bus.messages.common import Ping
from bus.sockets import has_message

R = TypeVar("R", bound=msgspec.Struct)

PATIENCE = 3.0  # seconds: supervisord has a killed service back within two
_PULSE = 2.0  # seconds between the questions "are you still there?" during a long request


class AsyncCaller:
    """Asks other services from one asyncio loop; make, use and close it inside that loop."""

    def __init__(self, run_dir: Path, owner: str, context: "zmq.Context[Any] | None" = None) -> None:
        self._run_dir, self._src, self._run = run_dir, owner, new_id()
        self._own_context = context is None
        self._context: zmq.Context[Any] = context or zmq.Context()
        self._loop = asyncio.get_running_loop()
        self._peers: dict[str, _Peer] = {}

    async def call(
        self,
        request: Request[R],
        *,
        deadline: float | None = None,
        owner: str | None = None,
        trace: str | None = None,
        patience: float = PATIENCE,
    ) -> R:
        """Ask and wait, `deadline` seconds in all.

        Raises `CommandError`, `Unavailable` (it surely did not run) or `Timeout` (unknown): the latter at once when
        the service dies with the request in hand, and within 4 s when it freezes.
        """
        owner, seconds, begun = owner_of(request, owner), deadline_of(request, deadline), time.monotonic()
        request_id, packed = pack(request, src=self._src, run=self._run, owner=owner, ttl=seconds, carried=trace)
        peer = self._peers.get(owner) or self._connect(owner)
        answer = await peer.send(request_id, packed, min(patience, seconds))
        name = request_declaration(type(request)).name
        expiry = self._loop.call_later(
            max(0.0, begun + seconds - time.monotonic()), _expire, answer, owner, name, seconds
        )
        try:
            if seconds > 2 * _PULSE:
                await self._watch(peer, answer, name)
            return unpack(request, await answer)
        finally:
            expiry.cancel()
            peer.waiting.pop(request_id, None)

    async def _watch(self, peer: "_Peer", answer: "asyncio.Future[Envelope]", name: str) -> None:
        """Return when the answer is there; give it up when the service stops answering pings."""
        while not (await asyncio.wait({answer}, timeout=_PULSE))[0]:
            request_id, packed = pack(Ping(), src=self._src, run=self._run, owner=peer.owner, ttl=_PULSE, carried=None)
            try:
                pong = await peer.send(request_id, packed, _PULSE)
                await asyncio.wait({pong, answer}, timeout=_PULSE, return_when=asyncio.FIRST_COMPLETED)
            finally:
                peer.waiting.pop(request_id, None)
            if not pong.done() and not answer.done():
                raise Timeout(f"{peer.owner} does not react (frozen?) while it does {name}; it may still be done")

    def _connect(self, owner: str) -> "_Peer":
        peer = self._peers[owner] = _Peer(owner, open_dealer(self._context, self._run_dir, owner), self._loop)
        return peer

    def close(self) -> None:
        """Give up what is still waited for and close the sockets."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        if self._own_context:
            self._context.destroy(linger=0)


def _expire(answer: "asyncio.Future[Envelope]", owner: str, name: str, seconds: float) -> None:
    if not answer.done():
        answer.set_exception(Timeout(f"{owner} has not answered {name} within {seconds:g} s; it may still be done"))


class _Peer:
    """One service: its DEALER, the monitor that tells of its death, and who waits for which reply."""

    def __init__(self, owner: str, dealer: "zmq.Socket[bytes]", loop: asyncio.AbstractEventLoop) -> None:
        self.owner, self._dealer, self._loop = owner, dealer, loop
        self.waiting: dict[str, asyncio.Future[Envelope]] = {}
        self._monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        loop.add_reader(dealer.fileno(), self._drain)
        loop.add_reader(self._monitor.fileno(), self._notice_death)
        self._drain()
        self._notice_death()

    async def send(self, request_id: str, packed: bytes, patience: float) -> "asyncio.Future[Envelope]":
        """Hand over a request, waiting up to `patience` seconds for the service to be there."""
        end = time.monotonic() + patience
        while True:
            try:
                self._dealer.send(packed, zmq.NOBLOCK)
                break
            except zmq.Again:
                if time.monotonic() >= end:
                    raise Unavailable(f"{self.owner} does not answer: it is not running") from None
            await asyncio.sleep(0.02)  # only while the service is down
        answer = self.waiting[request_id] = self._loop.create_future()
        self._drain()
        return answer

    def _drain(self) -> None:
        for reply in _all(self._dealer):
            try:
                envelope = decode(reply)
            except MalformedError:
                continue  # the request it answers runs into its deadline, which is told
            future = self.waiting.get(envelope.re or "")
            if future is not None and not future.done():
                future.set_result(envelope)

    def _notice_death(self) -> None:
        while has_message(self._monitor):
            if parse_monitor_message(self._monitor.recv_multipart())["event"] == zmq.EVENT_DISCONNECTED:
                self._drain()
                self._fail(lambda: Timeout(f"{self.owner} ended with the request in hand; it may have been done"))

    def _fail(self, reason: Callable[[], Exception]) -> None:
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(reason())
        self.waiting.clear()

    def close(self) -> None:
        self._fail(lambda: CommandError("unavailable", f"stopped while waiting for {self.owner}"))
        self._loop.remove_reader(self._dealer.fileno())
        self._loop.remove_reader(self._monitor.fileno())
        self._dealer.disable_monitor()
        for socket in (self._monitor, self._dealer):
            with contextlib.suppress(zmq.ZMQError):
                socket.close(linger=0)


def _all(socket: "zmq.Socket[bytes]") -> Iterator[bytes]:
    """The last frames of all messages that wait."""
    while has_message(socket):
        yield socket.recv_multipart(zmq.NOBLOCK)[-1]
