"""HTTPS the way the real runtime serves it: the TLS handshake happens in the accept loop.

So one TCP client that connects and says nothing freezes the device for everybody until it goes away. That
is kept on purpose, without a deadline: it is the behaviour a manager must survive. (The real one is a
Werkzeug development server; see werkzeug issue 2530.) After the handshake each request has its thread.
"""

import socket
import ssl
import sys
import traceback
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import cast
from urllib.parse import parse_qsl, urlsplit

from .http_types import Request, Response, html_response
from .routes import Device, respond
from .settings import VERSION

BODY_BYTES = 64 * 1024 * 1024
IDLE_SECONDS = 60.0


class RuntimeServer(ThreadingTCPServer):
    """Serves `device` on HTTPS with the given certificate and key files."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], certificate: Path, key: Path, device: Device) -> None:
        self.device = device
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        super().__init__(address, RequestHandler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept and shake hands; socketserver drops the client when this raises OSError."""
        client, address = self.socket.accept()
        try:
            return self._tls.wrap_socket(client, server_side=True), address
        except OSError as error:
            client.close()
            print(f"{address[0]} - - TLS handshake failed: {error}", file=sys.stderr, flush=True)
            raise

    def handle_error(self, request: object, client_address: tuple[str, int]) -> None:
        """One line for a client that went away, a traceback for a mistake of ours."""
        error = sys.exception()
        if isinstance(error, OSError):
            print(f"{client_address[0]} - - client lost: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exception(error)


class RequestHandler(BaseHTTPRequestHandler):
    """Reads one request, answers it, closes."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def version_string(self) -> str:
        return f"OpenPLC-Runtime/{VERSION}"

    def answer(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = -1
        if length < 0:
            response = html_response(400)
        elif length > BODY_BYTES:
            response = html_response(413)
        elif self.headers.get("Transfer-Encoding"):
            response = html_response(411)
        else:
            response = respond(cast(RuntimeServer, self.server).device, self._request(self.rfile.read(length)))
        self._send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def _request(self, body: bytes) -> Request:
        url = urlsplit(self.path)
        return Request(
            method=self.command,
            path=url.path,
            query=dict(parse_qsl(url.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
        )

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        if self.path.startswith("/api/"):
            self.send_header("X-OpenPLC-Runtime-Version", VERSION)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
