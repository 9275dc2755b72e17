"""Where the local cloud listens: two TLS ports and a unix socket, opened and closed without surprises."""

import asyncio
import fcntl
import os
import socket
import ssl
from pathlib import Path

from aiohttp import web

_HANDSHAKE_SECONDS = 10.0
_SHUTDOWN_SECONDS = 0.3
_LONGEST_SOCKET_PATH = 107


class StartFailed(Exception):
    """The local cloud cannot start; the text is for the operator."""


def open_directory(directory: Path) -> int:
    """Make the directory (0700) and lock it; the lock ends with the process. Raises `StartFailed`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise StartFailed(f"cannot use the directory {directory}: {problem}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StartFailed(f"another local cloud already serves {directory}") from None
    return lock


class Ports:
    """The listening sockets and the applications behind them."""

    def __init__(self) -> None:
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._cut: list[web.AppRunner] = []

    async def tcp(
        self, application: web.Application, address: str, port: int, context: ssl.SSLContext, *, cut: bool = False
    ) -> int:
        """Serve `application` over TLS; the port that was bound (0 asks for a free one). Raises `StartFailed`.

        `cut` says how its connections end: at once, not when their handlers are done.
        """
        runner = await self._runner(application)
        if cut:
            self._cut.append(runner)
        try:
            server = await asyncio.get_running_loop().create_server(
                _factory(runner),
                address,
                port,
                ssl=context,
                backlog=1024,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=1.0,
            )
        except (OSError, OverflowError) as problem:
            why = getattr(problem, "strerror", None) or problem
            raise StartFailed(f"cannot listen on {address} port {port}: {why}") from None
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def unix(self, application: web.Application, path: Path) -> None:
        """Serve `application` on a unix socket of mode 0600. Raises `StartFailed`."""
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise StartFailed(f"{path}: a unix socket's path has at most {_LONGEST_SOCKET_PATH} bytes")
        runner = await self._runner(application)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind_private(listener, path)
            server = await asyncio.get_running_loop().create_unix_server(_factory(runner), sock=listener)
        except OSError as problem:
            listener.close()
            raise StartFailed(f"cannot listen on {path}: {problem.strerror or problem}") from None
        self._servers.append(server)
        self._paths.append(path)

    async def close(self) -> None:
        """Stop listening and end every connection; requests get a moment to be answered.

        Agents' connections are cut: Engine.IO's handlers would wait for their peers for many seconds, and an agent
        shall see nothing but a closed connection.
        """
        for server in self._servers:
            server.close()
        for path in self._paths:
            _remove(path)
        for runner in self._cut:
            for connection in runner.server.connections if runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))

    async def _runner(self, application: web.Application) -> web.AppRunner:
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        self._runners.append(runner)
        return runner


def _factory(runner: web.AppRunner) -> web.Server:
    assert runner.server is not None, "setup() makes it"
    return runner.server


def _bind_private(listener: socket.socket, path: Path) -> None:
    # The directory is ours alone (0700, locked), so what is left there is from a life that ended.
    path.unlink(missing_ok=True)
    listener.bind(os.fspath(path))
    path.chmod(0o600)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
