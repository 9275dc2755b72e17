"""The proxy against the simulated runtime: a technician's first hour with a fresh vPLC, by `run_command` only."""

import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bus.messages.docker_worker import HttpResponse, RunCommand, UploadedFile
from services.docker_worker.proxy import Uploads, run_command

INSTALL = Path(__file__).parents[2] / "install"


@dataclass
class Runtime:
    """A simulated runtime on loopback, and the house around it."""

    port: int
    uploads: Uploads = field(default_factory=Uploads)

    def internal_address(self, device_id: str) -> str:
        assert device_id == "plc1"
        return "127.0.0.1"

    def call(self, method: str, api: str, **fields: Any) -> HttpResponse:
        request = RunCommand(device_id="plc1", method=method, api=api, port=self.port, **fields)  # type: ignore[arg-type]
        return run_command(self, request, ports=frozenset({self.port}))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    state, work = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("work")
    settings = {
        "SIM_ADDRESS": "127.0.0.1",
        "SIM_PORT": "0",
        "SIM_DISCOVERY_PORT": "0",
        "SIM_STATE_DIR": str(state),
        "SIM_WORK_DIR": str(work),
        "SIM_PASSWORD_ROUNDS": "10",
        "SIM_BUILD_SECONDS": "0",
    }
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "simulated_runtime.runtime"],
        cwd=INSTALL,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            found = next(m for line in lines if (m := re.search(r"listening on https://127\.0\.0\.1:(\d+)", line)))
            yield Runtime(int(found[1]))
        finally:
            process.kill()


def program() -> UploadedFile:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("program.st", "PROGRAM main END_PROGRAM")
    return UploadedFile(filename="program.zip", content=archive.getvalue(), content_type="application/zip")


def test_from_the_fresh_device_to_a_program_on_it(runtime: Runtime) -> None:
    fresh = runtime.call("GET", "api/get-users-info")
    assert (fresh.status_code, fresh.body) == (404, {"msg": "No users found"})

    account = {"username": "admin", "password": "a secret"}
    assert runtime.call("POST", "api/create-user", data=account).status_code == 201
    wrong = runtime.call("POST", "api/login", data=account | {"password": "x"})
    assert (wrong.status_code, wrong.body, wrong.ok) == (401, "Wrong username or password", False)
    login = runtime.call("POST", "/api/login", data=account)
    token = {"Authorization": f"Bearer {login.body['access_token']}"}

    assert runtime.call("GET", "api/ping").status_code == 401
    ping = runtime.call("GET", "api/ping", headers=token)
    assert (ping.status_code, ping.body, ping.ok) == (200, {"status": "PING:OK"}, True)
    assert ping.headers["X-OpenPLC-Runtime-Version"].startswith("v4")
    assert runtime.call("GET", "api/status", headers=token, params={"include_stats": True}).ok

    stale = token | {"Content-Type": "multipart/form-data"}
    upload = runtime.call("POST", "api/upload-file", headers=stale, files={"file": program()})
    assert upload.body == {"UploadFileFail": "", "CompilationStatus": "COMPILING"}


def test_a_page_of_the_web_server_is_text(runtime: Runtime) -> None:
    page = runtime.call("GET", "/")
    assert page.status_code == 404
    assert page.content_type.startswith("text/html")
    assert "<" in page.body
