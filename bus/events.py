"""The listening side: events of one or several services, typed, with losses counted."""

import math
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zmq

from bus import endpoints
from bus.envelope import Envelope, MalformedError, decode, new_id
from bus.messages.base import Event, find_event
from bus.sockets import WELCOME, limit


class Heard(NamedTuple):
    """An event: its envelope, and its record when the declaration is known and fits."""

    envelope: Envelope
    record: Event | None


class Subscriber:
    """Hears what `owners` publish under `prefixes` ("" is everything). Stays in the thread that made it."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        run_dir: Path,
        prefixes: tuple[str, ...],
        owners: tuple[str, ...] | None = None,
    ) -> None:
        self._socket = limit(context.socket(zmq.SUB))
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        self._welcome = WELCOME + new_id().encode()
        for topic in (*(prefix.encode() for prefix in prefixes), self._welcome):
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        for owner in owners or _owners_of(prefixes):
            self._socket.connect(endpoints.events(run_dir, owner))
        self._last: dict[tuple[str, str], int] = {}
        self._replayed: dict[tuple[str, str], set[int]] = {}
        self._early: deque[list[bytes]] = deque()
        self.welcomes = 0
        self.lost = 0
        self.malformed = 0

    def receive(self, timeout: float) -> Heard | None:
        """The next event, or None after `timeout` seconds without one."""
        end = time.monotonic() + timeout
        while (frames := self._next(end)) is not None:
            if frames[0].startswith(WELCOME):
                self.welcomes += frames[0] == self._welcome
                continue
            try:
                envelope = decode(frames[-1])
            except MalformedError:
                self.malformed += 1
                continue
            if self._is_news(envelope):
                return Heard(envelope, _typed(envelope))
        return None

    def wait_connected(self, services: int, timeout: float) -> bool:
        """Whether that many services have welcomed us within `timeout` seconds; what they send after it is heard."""
        end = time.monotonic() + timeout
        early: list[list[bytes]] = []
        while self.welcomes < services and (frames := self._next(end)) is not None:
            if frames[0].startswith(WELCOME):
                self.welcomes += frames[0] == self._welcome
            else:
                early.append(frames)
        self._early.extend(early)
        return self.welcomes >= services

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def _next(self, end: float) -> list[bytes] | None:
        if self._early:
            return self._early.popleft()
        left = max(0.0, end - time.monotonic())
        return self._socket.recv_multipart() if self._socket.poll(math.ceil(1000 * left), zmq.POLLIN) else None

    def _is_news(self, envelope: Envelope) -> bool:
        source = (envelope.run, envelope.name)
        last = self._last.get(source)
        if envelope.replay:
            seen = self._replayed.setdefault(source, set())
            if envelope.seq in seen or (last is not None and envelope.seq <= last):
                return False  # sent again for another newcomer
            seen.add(envelope.seq)
            return True
        if last is not None and envelope.seq > last + 1:
            self.lost += envelope.seq - last - 1
        self._last[source] = envelope.seq
        return True


def _typed(envelope: Envelope) -> Event | None:
    declaration = find_event(envelope.name) if envelope.kind == "event" else None
    if declaration is None:
        return None
    try:
        return msgspec.convert(envelope.body or {}, declaration.record)
    except msgspec.ValidationError:
        return None


def _owners_of(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    found: set[str] = set()
    for prefix in prefixes:
        words = prefix.split(".")
        owner = words[1] if words[0] == "rpc" and len(words) > 1 else words[0]
        found |= {owner} if owner in endpoints.OWNERS else set(endpoints.OWNERS)
    return tuple(sorted(found))
