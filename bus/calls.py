"""The asking side for plain threads: one DEALER per thread and endpoint, replies matched by id.

A late reply to a request that was given up is dropped by its id; there is no lock-step to get out of.
"""

import math
import threading
import time
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import zmq

from bus import endpoints
from bus.envelope import Envelope, MalformedError, decode, encode, new_id, seal, to_body
from bus.errors import CommandError, Timeout, Unavailable
from bus.messages.base import Request, full_name, request_declaration
from bus.sockets import limit
from common import trace

R = TypeVar("R", bound=msgspec.Struct)

PATIENCE = 1.0  # seconds to wait for a service that is not connected before saying that nobody is there


def open_dealer(context: "zmq.Context[Any]", run_dir: Path, owner: str) -> "zmq.Socket[bytes]":
    """A socket for requests to `owner`: messages wait for a live connection, never for a dead peer."""
    socket = limit(context.socket(zmq.DEALER))
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
    socket.connect(endpoints.requests(run_dir, owner))
    return socket


def pack(
    request: Request[Any], *, src: str, run: str, owner: str, ttl: float, carried: str | None
) -> tuple[str, bytes]:
    """The id and the wire form of a request. Raises `CommandError` when it cannot be sent at all."""
    declaration = request_declaration(type(request))
    envelope = seal(
        kind="request",
        name=full_name(declaration, owner),
        src=src,
        run=run,
        seq=0,
        body=to_body(request),
        trace=carried or trace.current(),
        ttl=ttl,
    )
    try:
        return envelope.id, encode(envelope)
    except MalformedError as problem:
        raise CommandError("invalid", str(problem)) from None


def unpack(request: Request[R], reply: Envelope) -> R:
    """The typed body of a reply. Raises `CommandError` for a "no", and for a body that is not as declared."""
    if reply.error is not None:
        raise CommandError(reply.error.code, reply.error.message)
    declaration = request_declaration(type(request))
    try:
        typed = msgspec.convert(reply.body or {}, declaration.reply)
    except msgspec.ValidationError as problem:
        raise CommandError("internal", f"{reply.name}: the answer is not as declared: {problem}") from None
    return cast(R, typed)


def owner_of(request: Request[Any], owner: str | None) -> str:
    """Who answers `request`. Raises ValueError for a request of every service without an `owner`."""
    found = owner or request_declaration(type(request)).name.rpartition(".")[0]
    if not found:
        raise ValueError(f"say which service is asked: {type(request).__name__} is answered by all")
    return found


def deadline_of(request: Request[Any], deadline: float | None) -> float:
    """Seconds to wait for the reply."""
    return request_declaration(type(request)).deadline if deadline is None else deadline


class Caller:
    """Asks other services. May be shared by threads: each gets its own sockets."""

    def __init__(self, context: "zmq.Context[Any]", run_dir: Path, src: str, run: str | None = None) -> None:
        self._context, self._run_dir, self._src, self._run = context, run_dir, src, run or new_id()
        self._mine = threading.local()

    def call(
        self,
        request: Request[R],
        *,
        deadline: float | None = None,
        owner: str | None = None,
        patience: float = PATIENCE,
    ) -> R:
        """Ask and wait. Raises `CommandError`, `Unavailable` or `Timeout` (see `bus.errors`)."""
        owner, seconds = owner_of(request, owner), deadline_of(request, deadline)
        end = time.monotonic() + seconds
        request_id, packed = pack(request, src=self._src, run=self._run, owner=owner, ttl=seconds, carried=None)
        dealer = self._dealer(owner)
        if not dealer.poll(math.ceil(1000 * min(patience, seconds)), zmq.POLLOUT):
            raise Unavailable(f"{owner} does not answer: is it running?")
        try:
            dealer.send(packed, zmq.NOBLOCK)
        except zmq.Again:
            raise Unavailable(f"{owner} does not answer: is it running?") from None
        while (left := end - time.monotonic()) > 0:
            if not dealer.poll(math.ceil(1000 * left), zmq.POLLIN):
                break
            reply = decode(dealer.recv())
            if reply.re == request_id:
                return unpack(request, reply)
        raise Timeout(f"{owner} has not answered {request_declaration(type(request)).name} within {seconds:g} s")

    def _dealer(self, owner: str) -> "zmq.Socket[bytes]":
        dealers: dict[str, zmq.Socket[bytes]] = self._mine.__dict__.setdefault("dealers", {})
        if owner not in dealers:
            dealers[owner] = open_dealer(self._context, self._run_dir, owner)
        return dealers[owner]
