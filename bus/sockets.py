"""The one thread that owns a service's two sockets; everybody else hands it frames.

ZeroMQ sockets belong to the thread that made them. Other threads append to a queue and ring an eventfd.
"""

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import zmq

from bus import endpoints
from bus.envelope import MAX_MESSAGE
from bus.publishing import Frames

log = logging.getLogger(__name__)

# Messages kept for one slow subscriber on each side of the socket. Beyond it that subscriber, and only that
# one, loses messages and sees it by their sequence numbers.
HIGH_WATER = 10_000
# A subscriber adds a topic of its own under this prefix, and the publisher says it back: then the subscriptions are in
# force. They are sent in the order of their bytes, so this one, beyond any text, comes last.
WELCOME = b"\xffwelcome"

_LISTENERS_ONLY = 0o007  # umask while binding: the run directory's group may connect, others may not


def limit(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """The options every socket of the house has, set before bind or connect: bounded sizes, no waiting at exit."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE + 1024)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
    return socket


def has_message(socket: zmq.Socket[bytes]) -> bool:
    """Whether a receive would return one at once. The exception of a receive in vain costs more than a message."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


class Sockets:
    """`events` (XPUB) and `requests` (ROUTER) of one service. Bind, then let `serve` run in its own thread."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", run_dir: Path, owner: str) -> None:
        self._context, self._run_dir, self._owner = context, run_dir, owner
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._events: deque[Frames] = deque()
        self._replies: deque[Frames] = deque()
        self._thread: int | None = None
        self.dropped: Counter[str] = Counter()

    def send_event(self, frames: Frames) -> None:
        """Publish frames; from any thread, never blocks."""
        self._events.append(frames)
        self._ring()

    def send_reply(self, frames: Frames) -> None:
        """Answer a peer; from any thread, never blocks."""
        self._replies.append(frames)
        self._ring()

    def _ring(self) -> None:
        if threading.get_ident() != self._thread:  # that thread looks at the queues anyway before it waits
            os.eventfd_write(self._bell, 1)

    def serve(
        self,
        bound: Callable[[], None],
        take: Callable[[Frames], None],
        subscribed: Callable[[bytes], None],
        unsubscribed: Callable[[bytes], None],
    ) -> None:
        """Own the sockets until the process ends. Raises `zmq.ZMQError` when an endpoint cannot be bound."""
        self._thread = threading.get_ident()
        events, requests = self._bind()
        bound()
        poller = zmq.Poller()
        for source in (events, requests, self._bell):
            poller.register(source, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if requests in ready:
                self._receive(requests, take)
            if events in ready:
                self._receive(events, lambda frames: self._hear(frames[0], subscribed, unsubscribed))
            if self._bell in ready:
                os.eventfd_read(self._bell)
            self._flush(self._replies, requests, "reply")
            self._flush(self._events, events, "event")

    def _bind(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        events, requests = limit(self._context.socket(zmq.XPUB)), limit(self._context.socket(zmq.ROUTER))
        events.setsockopt(zmq.XPUB_VERBOSE, 1)  # every subscription is told, so that every newcomer gets its replay
        requests.setsockopt(zmq.ROUTER_MANDATORY, 1)
        before = os.umask(_LISTENERS_ONLY)
        try:
            events.bind(endpoints.events(self._run_dir, self._owner))
            requests.bind(endpoints.requests(self._run_dir, self._owner))
        finally:
            os.umask(before)
        return events, requests

    def _hear(self, message: bytes, subscribed: Callable[[bytes], None], unsubscribed: Callable[[bytes], None]) -> None:
        prefix = message[1:]
        if prefix.startswith(WELCOME):
            if message[:1] == b"\x01":
                self.send_event([prefix])
        elif message[:1] == b"\x01":
            subscribed(prefix)
        elif message[:1] == b"\x00":
            unsubscribed(prefix)

    @staticmethod
    def _receive(socket: zmq.Socket[bytes], handle: Callable[[Frames], None]) -> None:
        for _ in range(100):  # then look at the other socket too
            if not has_message(socket):
                return
            handle(socket.recv_multipart(zmq.NOBLOCK))

    def _flush(self, waiting: deque[Frames], socket: zmq.Socket[bytes], what: str) -> None:
        while waiting:
            frames = waiting.popleft()
            try:
                socket.send_multipart(frames, zmq.NOBLOCK)
            except zmq.Again:
                self.dropped[f"{what}: peer too slow"] += 1
            except zmq.ZMQError as problem:
                self.dropped[f"{what}: peer gone"] += 1
                log.debug("%s not delivered: %s", what, problem)
