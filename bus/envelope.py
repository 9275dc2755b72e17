"""The envelope around every message: one msgpack map, so that anybody can read a tap from any language.

`{v, id, kind, name, ts, src, run, seq, re?, trace?, ttl?, replay?, body, error?}`; readers ignore unknown keys.
"""

import itertools
import secrets
import time
from typing import Any, Literal

import msgspec

from bus.errors import Code

VERSION = 1
MAX_MESSAGE = 4 * 1024 * 1024  # bytes of one encoded envelope, checked by both sides

Kind = Literal["event", "request", "reply"]


class MalformedError(Exception):
    """What came over the wire is no envelope of ours; the text says why."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request did not succeed: a code of the closed list and a sentence."""

    code: Code
    message: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message. `ts`: unix seconds, data only. `run`: random per process life. `seq`: counts per (run, name), so
    that drops show. `re`: id of the request that a reply answers. `ttl`: seconds for which a request is worth doing.
    `replay`: an earlier state, sent again because somebody has just subscribed."""

    id: str
    kind: Kind
    name: str
    ts: float
    src: str
    run: str
    seq: int
    v: int = 0
    re: str | None = None
    trace: str | None = None
    ttl: float | None = None
    replay: bool = False
    body: dict[str, Any] | None = None
    error: Failure | None = None


_LIFE = secrets.token_hex(6)
_COUNT = itertools.count(1)


def new_id() -> str:
    """A name for one message, one process life or one trace: unique by the process's random part and a count."""
    return f"{_LIFE}{next(_COUNT):x}"


def seal(
    *,
    kind: Kind,
    name: str,
    src: str,
    run: str,
    seq: int,
    body: dict[str, Any] | None,
    re: str | None = None,
    trace: str | None = None,
    ttl: float | None = None,
    error: Failure | None = None,
) -> Envelope:
    """Put a body into a fresh envelope."""
    return Envelope(
        v=VERSION,
        id=new_id(),
        kind=kind,
        name=name,
        ts=time.time(),
        src=src,
        run=run,
        seq=seq,
        re=re,
        trace=trace,
        ttl=ttl,
        body=body,
        error=error,
    )


def to_body(record: msgspec.Struct) -> dict[str, Any]:
    """A typed record as the plain map that travels."""
    plain: dict[str, Any] = msgspec.to_builtins(record, builtin_types=(bytes,))
    return plain


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Envelope)


def encode(envelope: Envelope) -> bytes:
    """The wire form. Raises `MalformedError` when the message is larger than `MAX_MESSAGE`, or holds what msgpack
    cannot carry (an integer beyond 64 bits, for example)."""
    try:
        packed = _ENCODER.encode(envelope)
    except (ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise MalformedError(f"{envelope.name}: cannot be encoded: {problem}") from None
    if len(packed) > MAX_MESSAGE:
        raise MalformedError(f"{envelope.name}: {len(packed)} bytes, at most {MAX_MESSAGE} can be sent")
    return packed


def decode(packed: bytes) -> Envelope:
    """Raises `MalformedError` for anything that is no envelope."""
    if len(packed) > MAX_MESSAGE:
        raise MalformedError(f"{len(packed)} bytes, at most {MAX_MESSAGE} are read")
    try:
        envelope = _DECODER.decode(packed)
    except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
        raise MalformedError(f"no envelope: {problem}") from None
    if envelope.v != VERSION:
        raise MalformedError(f"envelope version {envelope.v}, expected {VERSION}")
    return envelope
