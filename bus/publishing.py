"""The publishing side: sequence numbers, the last value of every state topic, and who listens to what.

Anything may be published from any thread; the frames travel to the one thread that owns the socket.
"""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from bus.envelope import Envelope, Kind, MalformedError, encode, seal, to_body
from bus.messages.base import Event, event_declaration, full_name
from common import redact, trace

Frames = list[bytes]

MIRRORS = "rpc."

_LARGEST_MIRROR = 64 * 1024  # bytes; a mirror is for eyes, and a stuck tap must not hold uploads in memory


class Publisher:
    """Numbers, keeps and encodes what one service publishes; `send` hands frames to the socket's thread."""

    def __init__(self, owner: str, run: str, send: Callable[[Frames], None]) -> None:
        self.owner, self.run, self._send = owner, run, send
        self._lock = threading.Lock()
        self._known: dict[type[Event], tuple[str, str | None]] = {}
        self._sequence: Counter[str] = Counter()
        self._states: dict[tuple[str, Any], Envelope] = {}
        self._prefixes: tuple[str, ...] = ()
        self._is_watched = False  # somebody may want mirrors
        self.published: Counter[str] = Counter()

    def publish(self, record: Event) -> None:
        """Tell everybody who subscribed; keep the record if it is a state. Never blocks."""
        name, state_key = self._known.get(type(record)) or self._look_up(type(record))
        with self._lock:
            self._sequence[name] += 1
            self.published[name] += 1
            wanted = self._is_wanted(name)
            if state_key is None and not wanted:
                return
            envelope = self._seal("event", name, to_body(record))
            if state_key is not None:
                key = getattr(record, state_key) if state_key else ""
                self._states[name, key] = envelope
            if wanted:
                self._send([name.encode(), encode(envelope)])

    def _look_up(self, record: type[Event]) -> tuple[str, str | None]:
        declaration = event_declaration(record)
        self._known[record] = full_name(declaration, self.owner), declaration.state_key
        return self._known[record]

    def forget_state(self, record: type[Event], key: Any) -> None:
        """Replay the state of `key` no more: what it told of is gone."""
        with self._lock:
            self._states.pop((full_name(event_declaration(record), self.owner), key), None)

    def mirror(self, kind: Kind, original: Envelope) -> None:
        """Show a request or reply to taps, secrets masked; costs nothing while no tap listens."""
        if not self._is_watched:
            return
        name = f"{MIRRORS}{original.name}.{kind}"
        with self._lock:
            self._sequence[name] += 1
            if not self._is_wanted(name):
                return
            shown = msgspec.structs.replace(
                original, name=name, run=self.run, seq=self._sequence[name], body=_for_eyes(original.body)
            )
            try:
                packed = encode(shown)
            except MalformedError:
                packed = b""
            if not packed or len(packed) > _LARGEST_MIRROR:
                packed = encode(msgspec.structs.replace(shown, body={"left_out": f"a body of {len(packed)} bytes"}))
            self._send([name.encode(), packed])

    def subscribed(self, prefix: bytes) -> None:
        """Somebody subscribed: replay the states under `prefix`. Called by the socket's thread."""
        with self._lock:
            self._listen_to({*self._prefixes, prefix.decode("utf-8", "replace")})
            for envelope in self._states.values():
                if envelope.name.encode().startswith(prefix):
                    self._send([envelope.name.encode(), encode(msgspec.structs.replace(envelope, replay=True))])

    def unsubscribed(self, prefix: bytes) -> None:
        """Nobody subscribes to `prefix` any more. Called by the socket's thread."""
        with self._lock:
            self._listen_to({*self._prefixes} - {prefix.decode("utf-8", "replace")})

    def _listen_to(self, prefixes: set[str]) -> None:
        self._prefixes = tuple(prefixes)
        self._is_watched = any(prefix.startswith(MIRRORS) or MIRRORS.startswith(prefix) for prefix in prefixes)

    def _is_wanted(self, name: str) -> bool:
        return name.startswith(self._prefixes)

    def _seal(self, kind: Kind, name: str, body: dict[str, Any]) -> Envelope:
        return seal(
            kind=kind,
            name=name,
            src=self.owner,
            run=self.run,
            seq=self._sequence[name],
            body=body,
            trace=trace.current(),
        )


def _for_eyes(body: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if body is None else redact.tree(_without_bytes(body))


def _without_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {key: _without_bytes(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_bytes(item) for item in value]
    return value
