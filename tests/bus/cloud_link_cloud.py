"""A small cloud for cloud_link's tests: a real Socket.IO server with mutual TLS on loopback, and its CA.

Run as a program (`python tests/bus/cloud_link_cloud.py <directory> <port>`) it is a child process that can be frozen.
"""

import asyncio
import shutil
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import socketio
import trustme
from aiohttp import web


class Authority:
    """A CA that signs the server's and the agents' certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    def agent(self, name: str = "07048933", lifetime: timedelta = timedelta(days=365)) -> Path:
        """An mTLS directory of agent `name`; a negative lifetime is an expired certificate."""
        mtls = self.directory / f"mtls-{name}"
        shutil.rmtree(mtls, ignore_errors=True)
        mtls.mkdir(mode=0o700)
        now = datetime.now(UTC)
        begin, end = (now + lifetime * 2, now + lifetime) if lifetime < timedelta(0) else (None, now + lifetime)
        issued = self._ca.issue_cert(f"{name}.agents.test", common_name=name, not_before=begin, not_after=end)
        (mtls / "client.crt").write_bytes(issued.cert_chain_pems[0].bytes())
        (mtls / "client.key").write_bytes(issued.private_key_pem.bytes())
        (mtls / "client.key").chmod(0o600)
        return mtls

    def server(self, *names: str) -> Path:
        """A PEM file with the certificate chain and the key of a server called `names`."""
        path = self.directory / f"server-{names[0]}.pem"
        issued = self._ca.issue_cert(*names)
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path


def server_tls(ca_file: Path, server_pem: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(server_pem)
    return context


class Cloud:
    """The server in a thread of its own. `accept_after`: seconds until a namespace is accepted."""

    def __init__(self, tls: ssl.SSLContext, port: int = 0, **options: Any) -> None:
        self._tls, self.port = tls, port
        self.accept_after = 0.0
        self.sessions: list[str] = []
        self.heard: list[tuple[str, Any]] = []
        self.acknowledge_heartbeats = False
        self._options = {"ping_interval": 1, "ping_timeout": 1} | options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cloud", daemon=True)
        self._thread.start()
        self.do(self._open())

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def do(self, work: Coroutine[Any, Any, Any], within: float = 15.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within)

    def command(self, topic: Any, *payload: Any, within: float = 10.0) -> Any:
        """Send a command to the newest session and return its acknowledgement."""
        data = payload if len(payload) != 1 else payload[0]
        return self.do(self._server.call(topic, data, to=self.sessions[-1], timeout=within), within + 1)

    def kick(self) -> None:
        self.do(self._server.disconnect(self.sessions[-1]))

    def send_raw(self, text: str) -> None:
        """Send text below Socket.IO."""

        async def send() -> None:
            await self._server.eio.send(self._server.manager.eio_sid_from_sid(self.sessions[-1], "/"), text)

        self.do(send())

    def close(self) -> None:
        if self._loop.is_running():
            self.do(self._runner.cleanup())
            self.do(_end_all_tasks())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()

    async def _open(self) -> None:
        self._server = socketio.AsyncServer(async_mode="aiohttp", **self._options)
        self._server.on("connect", self._on_connect)
        self._server.on("*", self._on_event)
        application = web.Application()
        self._server.attach(application)
        self._runner = web.AppRunner(application, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _on_connect(self, session: str, _environment: Any) -> None:
        if self.accept_after:
            await asyncio.sleep(self.accept_after)
        self.sessions.append(session)

    async def _on_event(self, event: str, session: str, data: Any = None) -> None:
        self.heard.append((event, data))
        if event == "heartbeat" and self.acknowledge_heartbeats:
            await self._server.emit("heartbeat_ack", {"timestamp": data["timestamp"]}, to=session)


class Wire:
    """A TLS server that speaks whatever `talk(reader, writer)` speaks, in a thread of its own."""

    def __init__(self, tls: ssl.SSLContext, talk: Callable[..., Coroutine[Any, Any, None]], port: int = 0) -> None:
        self.calls = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._thread.start()

        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.calls += 1
            try:
                await talk(reader, writer)
            finally:
                writer.close()

        async def listen() -> asyncio.Server:
            return await asyncio.start_server(one, "127.0.0.1", port, ssl=tls)

        self._server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(5)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._server.close)
            asyncio.run_coroutine_threadsafe(_end_all_tasks(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)


async def _end_all_tasks() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=2.0)


def main() -> None:
    directory, port = Path(sys.argv[1]), int(sys.argv[2])
    cloud = Cloud(server_tls(directory / "ca.pem", directory / "server-localhost.pem"), port)
    print(cloud.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
