"""One HTTPS exchange with a vPLC: a new connection, every step under a deadline, always closed.

The runtime's web server does the TLS handshake in its accept loop, so one silent connection of ours would freeze
it for everybody: no probes without TLS, no connection kept.

The certificate is not verified. The runtime makes it itself, for the name localhost, anew with every container, so
there is no name and no issuer to check; a fingerprint could only be trusted on first use over the very path it is
to protect. That path is the vPLC's own internal bridge, which has two ends: the vPLC and this host. Never use this
module for an address on a plant's network.
"""

import functools
import http.client
import io
import ipaddress
import socket
import ssl
import time
from typing import Any, NoReturn

import msgspec

from bus.errors import CommandError
from services.docker_worker.proxy_request import HttpRequest

CONNECT_SECONDS = 2.0
HANDSHAKE_SECONDS = 5.0
BODY_LIMIT = 512 * 1024
HEAD_LIMIT = 64 * 1024


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, as bytes."""

    status_code: int
    headers: list[tuple[str, str]]
    body: bytes


def exchange(device_id: str, address: str, request: HttpRequest, timeout_s: float) -> Answer:
    """Send `request` to `https://address:port` and read the whole answer within `timeout_s`. Never retried.

    Raises `CommandError`: `unavailable` (it surely did not run), `timeout` (no TLS handshake, or it was sent and no
    whole answer came: unknown whether it ran), `refused` (the answer is too long).
    """
    deadline = time.monotonic() + timeout_s
    where = f"{device_id} ({ipaddress.ip_address(address)}:{request.port})"
    with _connect(where, address, request.port, deadline) as plain, _handshake(where, plain, deadline) as secure:
        try:
            return _converse(where, address, request, _Channel(secure, deadline))
        except TimeoutError:
            _unknown(where, f"gave no whole answer within {timeout_s:g} s")
        except (OSError, http.client.HTTPException) as problem:
            _unknown(where, f"broke off before its answer was whole ({type(problem).__name__}: {problem})")


def _unknown(where: str, what: str) -> NoReturn:
    raise CommandError("timeout", f"{where} {what}; whether it acted on the request is unknown") from None


def _connect(where: str, address: str, port: int, deadline: float) -> socket.socket:
    try:
        plain = socket.create_connection((address, port), timeout=min(CONNECT_SECONDS, _left(deadline)))
    except TimeoutError:
        raise CommandError("unavailable", f"{where} cannot be reached: no answer to a TCP connect") from None
    except ConnectionRefusedError:
        raise CommandError(
            "unavailable", f"{where} does not serve its API: connection refused; it may still be starting"
        ) from None
    except OSError as problem:
        raise CommandError("unavailable", f"{where} cannot be reached: {problem.strerror}") from None
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def _handshake(where: str, plain: socket.socket, deadline: float) -> ssl.SSLSocket:
    try:
        plain.settimeout(min(HANDSHAKE_SECONDS, _left(deadline)))
        return _tls().wrap_socket(plain)
    except TimeoutError:
        raise CommandError(
            "timeout",
            f"{where} accepts no TLS handshake: its API is wedged (a silent connection holds it, or it is overloaded); "
            "restart the device if this lasts",
        ) from None
    except OSError as problem:
        raise CommandError("unavailable", f"{where} does not speak TLS: {problem}") from None


@functools.cache
def _tls() -> ssl.SSLContext:
    """One context for all calls, with no trust store in it: loading one costs ten times the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _converse(where: str, address: str, request: HttpRequest, channel: "_Channel") -> Answer:
    connection = http.client.HTTPConnection(address, request.port)
    connection.sock = channel
    connection.request(
        request.method, request.target, body=request.body, headers=request.headers | {"Connection": "close"}
    )
    with connection.getresponse() as response:
        body = _read(where, response)
        return Answer(status_code=response.status, headers=response.getheaders(), body=body)


def _read(where: str, response: http.client.HTTPResponse) -> bytes:
    announced = response.length or 0
    body = bytearray()
    while announced <= BODY_LIMIT and len(body) <= BODY_LIMIT:
        piece = response.read(64 * 1024)
        if not piece:
            break
        body += piece
    else:
        size = f"{announced} bytes" if announced > BODY_LIMIT else f"more than {BODY_LIMIT} bytes"
        raise CommandError("refused", f"the answer of {where} is {size} long, at most {BODY_LIMIT} are passed on")
    if response.length:  # what Content-Length still owes; http.client tells only readers of the whole
        raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Channel:
    """The socket as http.client wants it, with one deadline over all reads and writes together: a socket's own
    time-out starts afresh with every byte that drips in."""

    def __init__(self, connection: ssl.SSLSocket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._connection.settimeout(_left(self._deadline))
            view = view[self._connection.send(view[: 64 * 1024]) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connection, self._deadline))

    def close(self) -> None:
        """Nothing: http.client lets go of it before the body is read; `exchange` closes the connection."""


class _Reader(io.RawIOBase):
    def __init__(self, connection: ssl.SSLSocket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline
        self._budget = HEAD_LIMIT + 2 * BODY_LIMIT  # the framing of chunks may double what is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._deadline))
        count = self._connection.recv_into(buffer)
        self._budget -= count
        if self._budget < 0:
            raise http.client.HTTPException("too many headers or too small chunks")
        return count
