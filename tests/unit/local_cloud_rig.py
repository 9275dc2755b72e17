"""A local cloud as a child process on loopback, and agents with real certificates that connect to it."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import requests
import socketio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PROJECT = Path(__file__).resolve().parents[2]
PEM = serialization.Encoding.PEM


@dataclass
class LocalCloud:
    directory: Path
    process: "subprocess.Popen[bytes]"
    agents_url: str = ""
    api_url: str = ""

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def log(self) -> str:
        return (self.directory / "server.log").read_text()

    def token(self, name: str) -> str:
        return (self.directory / f"{name}.token").read_text().strip()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Over the unix socket: (status, JSON). `body` bytes travel as they are."""
        connection = http.client.HTTPConnection("local", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(str(self.directory / "api.sock"))
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, content)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def agent(self, agent_id: str) -> Any:
        return self.ask("GET", f"/api/agents/{agent_id}")[1]

    def command(self, agent_id: str, topic: str, payload: Any = None, **more: Any) -> tuple[int, Any]:
        return self.ask("POST", f"/api/agents/{agent_id}/commands", {"topic": topic, "payload": payload or {}, **more})

    def provision(self, method: str, path: str, token: str | None = None, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token('enrol') if token is None else token}"}
        url = f"{self.api_url}/orchestrators/{path}"
        return requests.request(method, url, headers=headers, verify=str(self.ca), timeout=10, **more)

    def new_id(self) -> str:
        return str(self.provision("GET", "id").json()["data"]["id"])

    def enrol(self, directory: Path) -> str:
        """A new agent: its id; `client.key` and `client.crt` are in `directory`."""
        key, agent_id = ec.generate_private_key(ec.SECP256R1()), self.new_id()
        answer = self.provision("POST", "enroll", files={"csr": request_for(key, agent_id)})
        write_pair(directory, key, answer.json()["data"]["certificate"].encode())
        return agent_id

    def stop(self) -> float:
        """SIGTERM; the seconds until the process was gone."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=10)
        return time.monotonic() - started


def environment(directory: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
    ours = {"DIR": str(directory), "PORT": "0", "API_PORT": "0"} | more
    settings = {f"ORCHESTRATOR_LOCAL_CLOUD_{key}": value for key, value in ours.items()}
    return kept | settings | {"ORCHESTRATOR_STATE_DIR": str(directory / "state")}


@contextmanager
def local_cloud(directory: Path) -> Iterator[LocalCloud]:
    directory.mkdir(exist_ok=True)
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.local_cloud"], cwd=PROJECT, env=environment(directory), stderr=log
        )
    cloud = LocalCloud(directory, process)
    try:
        listening = wait_for(lambda: _listening(cloud), 15)
        cloud.agents_url, cloud.api_url = listening["agents"], listening["api"]
        yield cloud
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _listening(cloud: LocalCloud) -> dict[str, str] | None:
    assert cloud.process.poll() is None, cloud.log
    try:
        return dict(cloud.ask("GET", "/api/health")[1]["listening"])
    except OSError:
        return None


def wait_for(condition: Callable[[], Any], seconds: float = 5) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


async def soon(condition: Callable[[], Any], seconds: float = 5) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)
    return value


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def request_for(key: Any, name: str) -> bytes:
    return (
        x509.CertificateSigningRequestBuilder().subject_name(subject(name)).sign(key, hashes.SHA256()).public_bytes(PEM)
    )


def certificate(
    name: str, key: Any, *, issuer: str | None = None, signer: Any = None, ca: bool = False, days: int = 30
) -> bytes:
    """A client certificate made outside of the local cloud: self-signed unless `issuer` and `signer` are given."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject(issuer or name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer or key, hashes.SHA256())
        .public_bytes(PEM)
    )


def write_pair(directory: Path, key: Any, certificate_pem: bytes) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    plain = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "client.key").write_bytes(plain)
    (directory / "client.crt").write_bytes(certificate_pem)


def tls(cloud: LocalCloud, mtls: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(cloud.ca))
    if mtls is not None:
        context.load_cert_chain(mtls / "client.crt", mtls / "client.key")
    return context


Answerer = Callable[[str, list[Any]], Awaitable[Any]]


async def echo(topic: str, arguments: list[Any]) -> Any:
    return {"action": topic, "status": "success", "got": arguments}


@dataclass
class Agent:
    client: socketio.AsyncClient
    loop: asyncio.AbstractEventLoop
    heard: list[tuple[str, list[Any]]] = field(default_factory=list)


@asynccontextmanager
async def connected(
    cloud: LocalCloud, mtls: Path | None, answerer: Answerer = echo, transport: str = "websocket"
) -> Any:
    """An agent with a live session; every event it gets is answered by `answerer`."""
    connector = aiohttp.TCPConnector(ssl=tls(cloud, mtls))
    async with aiohttp.ClientSession(connector=connector) as http_session:
        client = socketio.AsyncClient(reconnection=False, http_session=http_session, handle_sigint=False)
        agent = Agent(client, asyncio.get_running_loop())

        async def on_any(event: str, *arguments: Any) -> Any:
            agent.heard.append((event, list(arguments)))
            return await answerer(event, list(arguments))

        client.on("*", on_any)
        await client.connect(cloud.agents_url, transports=[transport], wait_timeout=5)
        try:
            yield agent
        finally:
            # A long poll of the client's own would hold it up for the rest of a ping interval.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.shutdown(), 1)


@contextmanager
def agent_in_background(cloud: LocalCloud, mtls: Path, answerer: Answerer) -> Iterator[Agent]:
    """An agent that lives in a thread of its own, for tests of programs that block."""
    loop, ready, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[Agent] = []

    async def live() -> None:
        async with connected(cloud, mtls, answerer) as agent:
            found.append(agent)
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),), daemon=True)
    thread.start()
    assert ready.wait(10), "the agent did not connect"
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()
