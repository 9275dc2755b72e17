"""The answering side: from a request's bytes to a handler and back to a reply's bytes, whatever goes wrong.

Requests declared `inline` are answered in the socket's thread; the others wait in one bounded queue for a worker.
"""

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from bus.envelope import Envelope, Failure, MalformedError, decode, encode, seal, to_body
from bus.errors import CallFailed, Code
from bus.messages.base import Request, RequestDeclaration, full_name, request_declaration
from bus.publishing import Frames, Publisher
from common import trace
from common.threads import spawn

log = logging.getLogger(__name__)

Handler = Callable[[Any, Any], msgspec.Struct]
Handlers = Mapping[type[Request[Any]], Handler]

WAITING_REQUESTS = 256  # beyond this many a request is refused at once as busy


class _Route(NamedTuple):
    declaration: RequestDeclaration
    handler: Handler


class _Job(NamedTuple):
    peer: bytes
    request: Envelope
    route: _Route
    arrived: float


class Answerer:
    """Answers what `handlers` declares, with `context` as their first argument. `send` is thread-safe."""

    def __init__(
        self, handlers: Handlers, context: Any, publisher: Publisher, send: Callable[[Frames], None], workers: int
    ) -> None:
        self._context, self._publisher, self._send = context, publisher, send
        self._routes = {
            full_name(declaration, publisher.owner): _Route(declaration, handler)
            for declaration, handler in ((request_declaration(record), handler) for record, handler in handlers.items())
        }
        self._jobs: queue.Queue[_Job] = queue.Queue(WAITING_REQUESTS)
        self._sequence: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.busy = 0
        for number in range(workers):
            spawn(f"worker-{number}", self._work)

    @property
    def names(self) -> list[str]:
        """The requests that are answered here."""
        return sorted(self._routes)

    @property
    def waiting(self) -> int:
        """How many requests wait for a worker."""
        return self._jobs.qsize()

    def take(self, frames: Frames) -> None:
        """A message has come in on the socket; called by the socket's thread, returns at once."""
        peer = frames[0]
        try:
            request = decode(frames[-1])
            if request.kind != "request" or len(frames) != 2:
                raise MalformedError(f"expected one request envelope, got a {request.kind} in {len(frames)} frames")
        except MalformedError as problem:
            self.dropped["malformed"] += 1
            log.warning("dropped a message that is no request: %s", problem)
            return
        self._publisher.mirror("request", request)
        route = self._routes.get(request.name)
        if route is None:
            known = ", ".join(self.names)
            self._refuse(peer, request, "unknown_command", f"no request {request.name!r} here; known are {known}")
            return
        job = _Job(peer, request, route, time.monotonic())
        if route.declaration.inline:
            self._answer(job)
            return
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            sentence = f"busy: {WAITING_REQUESTS} requests already wait for {self._publisher.owner}; try again"
            self._refuse(peer, request, "unavailable", sentence)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job.request.ttl is not None and time.monotonic() - job.arrived > job.request.ttl:
                self.dropped["expired"] += 1
                log.warning("did not run %s: its caller has given up waiting", job.request.name)
                continue
            self.busy += 1
            self._answer(job)
            self.busy -= 1

    def _answer(self, job: _Job) -> None:
        trace.begin(job.request.trace)
        try:
            body = to_body(job.route.handler(self._context, self._typed(job)))
        except CallFailed as refusal:
            self._refuse(job.peer, job.request, refusal.code, refusal.message)
        except msgspec.ValidationError as problem:
            self._refuse(job.peer, job.request, "invalid", str(problem))
        except Exception as bug:
            log.exception("the handler of %s failed", job.request.name)
            sentence = f"{type(bug).__name__} in {job.request.name}; its log tells more"
            self._refuse(job.peer, job.request, "internal", sentence)
        else:
            self.answered[job.request.name] += 1
            self._reply(job.peer, job.request, body, None)

    @staticmethod
    def _typed(job: _Job) -> Request[Any]:
        request: Request[Any] = msgspec.convert(job.request.body or {}, job.route.declaration.record)
        return request

    def _refuse(self, peer: bytes, request: Envelope, code: Code, sentence: str) -> None:
        self.errors[code] += 1
        self._reply(peer, request, None, Failure(code=code, message=sentence))

    def _reply(self, peer: bytes, request: Envelope, body: dict[str, Any] | None, error: Failure | None) -> None:
        self._sequence[request.name] += 1
        reply = seal(
            kind="reply",
            name=request.name,
            src=self._publisher.owner,
            run=self._publisher.run,
            seq=self._sequence[request.name],
            re=request.id,
            trace=request.trace,
            body=body,
            error=error,
        )
        try:
            packed = encode(reply)
        except MalformedError as problem:
            self.errors["internal"] += 1
            reply = msgspec.structs.replace(
                reply, body=None, error=Failure(code="internal", message=f"the answer cannot be sent: {problem}")
            )
            packed = encode(reply)
        self._send([peer, packed])
        self._publisher.mirror("reply", reply)
