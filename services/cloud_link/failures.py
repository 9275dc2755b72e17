"""Why there is no session, in a sentence for a technician.

The libraries flatten every failure to "Connection error"; the cause is further down the chain of exceptions.
"""

import socket
import ssl
from collections.abc import Iterator

import aiohttp

# OpenSSL's X509_V_ERR_*, openssl/x509_vfy.h
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64

_OF_OUR_CERTIFICATE = ("ALERT_", "CERTIFICATE_REQUIRED")


def explain(problem: BaseException, server_url: str, trusted: str) -> str:
    """A sentence for `problem`. `trusted` names the CAs that are trusted."""
    for one in _chain(problem):
        if sentence := _known(one, server_url, trusted):
            return sentence
    return f"{server_url}: {type(problem).__name__}: {problem}"


def _known(problem: BaseException, url: str, trusted: str) -> str | None:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return _unproven_server(problem, url, trusted)
    if isinstance(problem, ssl.SSLError):
        return _tls(problem, url)
    if isinstance(problem, socket.gaierror):
        return f"the name of {url} cannot be resolved: {problem.strerror}"
    if isinstance(problem, ConnectionRefusedError):
        return f"{url} refuses connections: no server listens there"
    if isinstance(problem, aiohttp.WSServerHandshakeError):
        return f"{url} answered HTTP {problem.status} instead of opening the WebSocket: is it a Socket.IO server?"
    if isinstance(problem, aiohttp.ServerDisconnectedError | ConnectionResetError | BrokenPipeError):
        return (
            f"{url} closed the connection without an answer: it does not accept our client certificate"
            " (TLS 1.3 tells no more), or it is just restarting"
        )
    if isinstance(problem, TimeoutError):
        return f"{url} did not answer in time"
    if isinstance(problem, OSError) and problem.strerror:
        return f"{url} cannot be reached: {problem.strerror}"
    if (
        isinstance(problem, TypeError) or str(problem) == "no OPEN packet"
    ):  # engineio, about an end where a packet was due
        return f"{url} closed the connection before its first packet"
    return None


def _unproven_server(problem: ssl.SSLCertVerificationError, url: str, trusted: str) -> str:
    if problem.verify_code in (_WRONG_NAME, _WRONG_ADDRESS):
        return f"the server's certificate is for another host name than that of {url}: {problem.verify_message}"
    if problem.verify_code == _EXPIRED:
        return f"the server's certificate at {url} has expired (or this host's clock is wrong)"
    if problem.verify_code == _NOT_YET_VALID:
        return f"the server's certificate at {url} is not yet valid: is this host's clock right?"
    return (
        f"the server's certificate at {url} is not signed by a CA that is trusted here ({trusted}):"
        f" {problem.verify_message}"
    )


def _tls(problem: ssl.SSLError, url: str) -> str:
    reason = problem.reason or str(problem)
    if any(word in reason for word in _OF_OUR_CERTIFICATE) and "PROTOCOL_VERSION" not in reason:
        return f"{url} refused our client certificate: {reason.lower().replace('_', ' ')}"
    if reason == "WRONG_VERSION_NUMBER":
        return f"{url} does not speak TLS"
    return f"TLS with {url} failed: {reason.lower().replace('_', ' ')}"


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """`problem` and what it was raised from, the innermost cause of each wrapper first."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [problem]
    while waiting:
        one = waiting.pop(0)
        if one is None or one in found:
            continue
        found.append(one)
        waiting += [one.__cause__, one.__context__, getattr(one, "certificate_error", None)]
        waiting.append(getattr(one, "os_error", None))
    return reversed(found)
