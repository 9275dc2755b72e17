"""A simulated runtime as a child process on loopback, and a client that speaks to it."""

import http.client
import io
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-u", "-m", "install.simulated_runtime.runtime"]
READY = re.compile(r"listening on https://127\.0\.0\.1:(\d+), discovery on UDP (\d+)")
ADMIN = {"username": "admin", "password": "secret"}
FAST = {"SIM_PASSWORD_ROUNDS": "100", "SIM_BUILD_SECONDS": "0.1", "SIM_START_SECONDS": "0", "SIM_STOP_SECONDS": "0.5"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Running:
    """A simulated runtime that has said it listens."""

    process: subprocess.Popen[str]
    port: int
    discovery_port: int
    output: list[str]

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        data: object = None,
        body: bytes | None = None,
        content_type: str | None = None,
        timeout: float = 5,
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if data is not None:
            body, content_type = json.dumps(data).encode(), "application/json"
        if content_type:
            headers["Content-Type"] = content_type
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=anybody(), timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def log_in(self) -> str:
        token = self.call("POST", "/api/login", data=ADMIN).json["access_token"]
        assert isinstance(token, str)
        return token

    def new_admin(self) -> str:
        assert self.call("POST", "/api/create-user", data=ADMIN).status == 201
        return self.log_in()

    def plc_state(self, token: str) -> str:
        return str(self.call("GET", "/api/status", token=token).json["status"])

    def upload(self, token: str, archive: bytes) -> Any:
        head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="p.zip"\r\n\r\n'
        return self.call(
            "POST",
            "/api/upload-file",
            token=token,
            body=head + archive + b"\r\n--edge--\r\n",
            content_type="multipart/form-data; boundary=edge",
        ).json

    def build(self, token: str, archive: bytes) -> Any:
        """Upload and wait for the end of the build; its report."""
        assert self.upload(token, archive) == {"UploadFileFail": "", "CompilationStatus": "COMPILING"}

        def report() -> Any:
            return self.call("GET", "/api/compilation-status", token=token).json

        wait_until(lambda: report()["status"] in ("SUCCESS", "FAILED"))
        return report()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(5)


def anybody() -> ssl.SSLContext:
    """TLS towards a certificate nobody signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "condition not met in time"
        time.sleep(0.02)


def make_zip(*names: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for name in names:
            members.writestr(name, "PROGRAM main END_PROGRAM")
    return archive.getvalue()


def environment(folder: Path, **extra: str) -> dict[str, str]:
    places = {"SIM_STATE_DIR": str(folder / "state"), "SIM_WORK_DIR": str(folder / "work")}
    listen = {"SIM_ADDRESS": "127.0.0.1", "SIM_PORT": "0", "SIM_DISCOVERY_PORT": "0"}
    return {**os.environ, **listen, **places, **FAST, **extra}


@contextmanager
def runtime(folder: Path, **extra: str) -> Iterator[Running]:
    """A simulated runtime that lives in `folder`; killed at the end unless the test ended it."""
    process = subprocess.Popen(
        COMMAND,
        cwd=PROJECT,
        env=environment(folder, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output: list[str] = []
    reader = threading.Thread(target=output.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:

        def ports() -> re.Match[str] | None:
            return next((found for line in tuple(output) if (found := READY.search(line))), None)

        wait_until(lambda: ports() is not None or process.poll() is not None, 20)
        found = ports()
        assert found, f"it ended with code {process.poll()}: {output}"
        yield Running(process, int(found[1]), int(found[2]), output)
    finally:
        process.kill()
        process.wait(5)
        reader.join(5)
        process.stdout.close()


def ended(folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to end by itself."""
    return subprocess.run(
        COMMAND, cwd=PROJECT, env=environment(folder, **extra), capture_output=True, text=True, timeout=10
    )
