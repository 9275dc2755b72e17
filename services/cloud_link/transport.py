"""The way to the server: TLS settings and a TCP socket that notices a dead peer."""

import os
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp

from common.identity import Identity

# The kernel gives the connection up when sent data stays unacknowledged for so long. Without it a frozen or
# unreachable peer keeps the writer waiting for many minutes (tcp(7), TCP_USER_TIMEOUT).
USER_TIMEOUT = 15.0
_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_PROBES = 20, 5, 3  # seconds, seconds, number

# From the environment, libraries take where to write session keys, which CAs to trust and whom to go through.
_UNWANTED = ("SSLKEYLOGFILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def forget_environment() -> None:
    """Take away variables by which the environment could weaken or spy on the session."""
    for name in _UNWANTED:
        os.environ.pop(name, None)


def tls_context(identity: Identity, ca_file: Path | None) -> ssl.SSLContext:
    """TLS as the protocol asks: 1.2 or newer, the server's certificate and name checked, ours shown.

    Only `ca_file` is trusted when it is given, else the system's store. Raises OSError or `ssl.SSLError` for
    files that cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def http_session(context: ssl.SSLContext, connect_within: float) -> aiohttp.ClientSession:
    """A session for one attempt. `trust_env` stays off: no proxy and no .netrc from the environment."""
    connector = aiohttp.TCPConnector(ssl=context, socket_factory=_watchful_socket, force_close=True)
    return aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_within), trust_env=False
    )


def _watchful_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(USER_TIMEOUT * 1000))
    return made
