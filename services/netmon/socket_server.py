"""`netmon.sock`: a Unix stream socket that tells every client the network, line by line, and listens to none.

Lives in one event loop. A client that does not read is dropped when its backlog is full; nobody waits for it.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from common.files import make_private_directory

log = logging.getLogger(__name__)

NAME = "netmon.sock"
BACKLOG = 256 * 1024  # bytes that wait for one client, beside what the kernel holds
CLIENTS = 64
RETRY = 10.0

Report = Callable[[str, str | None], None]


class SocketServer:
    """The clients of the socket. `greeting` gives the first line for a new one, None if there is none yet."""

    def __init__(self, greeting: Callable[[], bytes | None]) -> None:
        self._greeting = greeting
        self._clients: set[asyncio.WriteTransport] = set()
        self.dropped = 0

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    async def serve(self, path: Path, mode: int, report: Report) -> None:
        """Serve at `path` with `mode` until cancelled; trouble is reported and tried again."""
        while True:
            try:
                server = await self._open(path, mode)
            except OSError as problem:
                report(NAME, f"{path} cannot be served: {problem}")
                await asyncio.sleep(RETRY)
            else:
                report(NAME, None)
                await server.serve_forever()

    async def _open(self, path: Path, mode: int) -> asyncio.Server:
        """Bind beside the path and rename over what is there: no moment without a socket or with a wrong mode."""
        make_private_directory(path.parent)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Client(self), str(beside))
        beside.chmod(mode)
        beside.replace(path)
        return server

    def send(self, line: bytes) -> None:
        """Give `line` to every client; from the loop's thread."""
        for client in tuple(self._clients):
            self._write(client, line)

    def joined(self, client: asyncio.WriteTransport) -> None:
        """Greet a new client, or turn it away when there are too many."""
        if len(self._clients) >= CLIENTS:
            log.warning("%s has %d clients already; one more is turned away", NAME, CLIENTS)
            self.dropped += 1
            client.abort()
            return
        self._clients.add(client)
        line = self._greeting()
        if line is not None:
            self._write(client, line)

    def left(self, client: asyncio.WriteTransport) -> None:
        """Forget a client that has gone."""
        self._clients.discard(client)

    def _write(self, client: asyncio.WriteTransport, line: bytes) -> None:
        if client.get_write_buffer_size() + len(line) > BACKLOG:
            log.warning("a client of %s does not read; it is dropped with %d bytes waiting", NAME, BACKLOG)
            self.dropped += 1
            self._clients.discard(client)
            client.abort()
        else:
            client.write(line)


class _Client(asyncio.Protocol):
    """One connection; what it sends is read and thrown away, so that its end is noticed."""

    def __init__(self, server: SocketServer) -> None:
        self._server = server
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._server.joined(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._server.left(self._transport)
