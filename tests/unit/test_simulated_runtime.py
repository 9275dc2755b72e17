"""The simulated runtime behaves like the real one, awkward behaviours included.

It runs here as a child process on loopback, with folders of its own.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.simulated_device import ADMIN, Running, ended, make_zip, runtime, wait_until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose certificate was made once, so that most devices here start without making a key."""
    folder = tmp_path_factory.mktemp("made-once")
    with runtime(folder):
        return folder / "work" / "webserver"


@pytest.fixture
def folder(tmp_path: Path, certificate: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "webserver").symlink_to(certificate)
    return tmp_path


@pytest.fixture
def device(folder: Path) -> Iterator[Running]:
    with runtime(folder) as running:
        yield running


def test_every_api_answer_names_the_simulated_version_and_closes(device: Running) -> None:
    answer = device.call("GET", "/api/version")
    assert (answer.status, answer.json) == (200, {"version": "v4.1.4-simulated"})
    assert answer.headers["X-OpenPLC-Runtime-Version"] == "v4.1.4-simulated"
    assert answer.headers["Connection"] == "close"
    assert "simulated" in answer.headers["Server"]
    assert device.call("GET", "/api/status").headers["X-OpenPLC-Runtime-Version"] == "v4.1.4-simulated"


def test_a_fresh_device_answers_404_and_belongs_to_the_first_caller(device: Running) -> None:
    answer = device.call("GET", "/api/get-users-info")
    assert (answer.status, answer.json) == (404, {"msg": "No users found"})
    assert device.call("POST", "/api/create-user", data={"username": "x"}).status == 400

    answer = device.call("POST", "/api/create-user", data=ADMIN)
    assert (answer.status, answer.json) == (201, {"msg": "User created", "id": 1})
    answer = device.call("GET", "/api/get-users-info")
    assert (answer.status, answer.json) == (200, {"msg": "Users found"})

    answer = device.call("POST", "/api/create-user", data=ADMIN)
    assert (answer.status, answer.json) == (401, {"msg": "User already created!"})
    token = device.log_in()
    answer = device.call("POST", "/api/create-user", token=token, data=ADMIN)
    assert (answer.status, answer.json) == (409, {"msg": "Username already exists"})
    assert device.call("GET", "/api/get-users-info", token=token).json == [{"id": 1, "username": "admin"}]


def test_login_fails_in_three_shapes(device: Running) -> None:
    device.new_admin()
    wrong = device.call("POST", "/api/login", data={"username": "admin", "password": "no"})
    assert (wrong.status, wrong.json) == (401, "Wrong username or password")
    untyped = device.call("POST", "/api/login", body=b"username=admin")
    assert untyped.status == 415 and untyped.text.startswith("<!doctype html>")
    missing = device.call("POST", "/api/login", data={"username": "admin"})
    assert missing.status == 500 and missing.text.startswith("<!doctype html>")


def test_tokens_are_refused_in_the_words_of_the_real_runtime(device: Running) -> None:
    token = device.new_admin()

    def refusal(token: str | None) -> tuple[int, str]:
        answer = device.call("GET", "/api/ping", token=token)
        return answer.status, answer.json["msg"]

    assert device.call("GET", "/api/ping", token=token).json == {"status": "PING:OK"}
    assert refusal(None) == (401, "Missing Authorization Header")
    assert refusal("garbage") == (422, "Not enough segments")
    assert refusal(token[:-4] + "AAAA") == (422, "Signature verification failed")

    other = {"username": "second", "password": "x"}
    assert device.call("POST", "/api/create-user", token=token, data=other).json["id"] == 2
    others_token = device.call("POST", "/api/login", data=other).json["access_token"]
    assert device.call("DELETE", "/api/delete-user/2", token=token).status == 200
    assert refusal(others_token) == (401, "Error loading the user 2")
    assert refusal(token) == (401, "Token has been revoked")  # deleting anybody ends the caller's own token

    token = device.log_in()
    assert device.call("POST", "/api/logout", token=token).status == 200
    assert refusal(token) == (401, "Token has been revoked")


def test_a_token_expires(folder: Path) -> None:
    with runtime(folder, SIM_TOKEN_SECONDS="1") as device:
        token = device.new_admin()
        wait_until(lambda: device.call("GET", "/api/ping", token=token).status == 401)
        assert device.call("GET", "/api/ping", token=token).json == {"msg": "Token has expired"}


def test_accounts_are_read_and_passwords_changed(device: Running) -> None:
    token = device.new_admin()
    assert device.call("GET", "/api/get-user-info/1", token=token).json == {"id": 1, "username": "admin"}
    assert device.call("GET", "/api/get-user-info/7", token=token).status == 404

    def change(user_id: int, **data: str) -> int:
        return device.call("PUT", f"/api/password-change/{user_id}", token=token, data=data).status

    assert change(1, old_password="secret") == 400
    assert change(1, old_password="wrong", new_password="n") == 403
    assert change(7, old_password="secret", new_password="n") == 404
    assert change(1, old_password="secret", new_password="n") == 200
    assert device.call("POST", "/api/login", data=ADMIN).status == 401
    assert device.call("GET", "/api/ping", token=token).status == 200  # older tokens stay valid


def test_unknown_paths_are_answered_as_oddly_as_upstream(device: Running) -> None:
    token = device.new_admin()
    answer = device.call("GET", "/api/nonsense", token=token)
    assert (answer.status, answer.json) == (200, {"error": "Unknown argument"})
    answer = device.call("POST", "/api/nonsense", token=token)
    assert (answer.status, answer.json) == (200, {"PostRequestError": "Unknown argument"})
    assert device.call("GET", "/api/nonsense").status == 401
    for method, path, status in [("PUT", "/api/status", 405), ("GET", "/api/status/", 404), ("GET", "/", 404)]:
        answer = device.call(method, path, token=token)
        assert (answer.status, answer.text[:15]) == (status, "<!doctype html>")


def test_start_and_stop_answer_before_they_are_done(device: Running) -> None:
    token = device.new_admin()

    def command(name: str) -> Any:
        return device.call("GET", f"/api/{name}", token=token).json

    assert device.plc_state(token) == "STATUS:EMPTY"
    assert command("start-plc") == {"status": "START:OK"}  # even with nothing to start
    assert device.plc_state(token) == "STATUS:EMPTY"
    assert command("stop-plc") == {"status": "STOP:ERROR"}

    report = device.build(token, make_zip("main.st"))
    assert (report["status"], report["exit_code"]) == ("SUCCESS", 0)
    assert device.plc_state(token) != "STATUS:RUNNING"  # a good build does not start
    assert command("start-plc") == {"status": "START:OK"}
    wait_until(lambda: device.plc_state(token) == "STATUS:RUNNING")
    assert command("status?include_stats=true")["stats"]["tasks"][0]["name"] == "task0"

    assert command("stop-plc") == {"status": "STOP:OK"}
    assert device.plc_state(token) == "STATUS:TRANSITIONING"
    assert command("start-plc") == {"status": "COMMAND:BUSY"}
    wait_until(lambda: device.plc_state(token) == "STATUS:STOPPED")


def test_a_failed_build_destroys_the_running_program(device: Running) -> None:
    token = device.new_admin()
    device.build(token, make_zip("main.st"))
    device.call("GET", "/api/start-plc", token=token)
    wait_until(lambda: device.plc_state(token) == "STATUS:RUNNING")

    report = device.build(token, make_zip("main.st", "src/broken"))
    assert (report["status"], report["exit_code"]) == ("FAILED", 1)
    assert device.plc_state(token) == "STATUS:STOPPED"
    device.call("GET", "/api/start-plc", token=token)
    assert device.plc_state(token) == "STATUS:EMPTY"


def test_an_upload_that_is_refused_leaves_the_plc_running(device: Running) -> None:
    token = device.new_admin()
    device.build(token, make_zip("main.st"))
    device.call("GET", "/api/start-plc", token=token)
    wait_until(lambda: device.plc_state(token) == "STATUS:RUNNING")

    for bad in (b"no zip at all", make_zip("../outside")):
        assert device.upload(token, bad)["UploadFileFail"] == "Uploaded ZIP file failed safety checks"
    assert device.plc_state(token) == "STATUS:RUNNING"

    # A multipart type without its boundary hides the file and spoils the build state.
    answer = device.call("POST", "/api/upload-file", token=token, body=b"x", content_type="multipart/form-data")
    assert (answer.status, answer.json["UploadFileFail"]) == (200, "No file part in the request")
    assert device.call("GET", "/api/compilation-status", token=token).json["status"] == "FAILED"


def test_a_second_upload_during_a_build_is_refused(folder: Path) -> None:
    with runtime(folder, SIM_BUILD_SECONDS="5") as device:
        token = device.new_admin()
        assert device.upload(token, make_zip("main.st"))["UploadFileFail"] == ""
        second = device.upload(token, make_zip("main.st"))
        assert second["UploadFileFail"] == "Runtime is compiling another program, please wait"


def test_one_silent_client_freezes_the_api_until_it_leaves(device: Running) -> None:
    with socket.create_connection(("127.0.0.1", device.port)), pytest.raises(TimeoutError):
        device.call("GET", "/api/version", timeout=0.5)
    assert device.call("GET", "/api/version").status == 200


def test_a_client_that_connects_and_leaves_does_no_harm(device: Running) -> None:
    for _ in range(20):
        socket.create_connection(("127.0.0.1", device.port)).close()
    assert device.call("GET", "/api/version").status == 200


def test_sigint_ends_it_gracefully_with_code_0(device: Running) -> None:
    token = device.new_admin()
    device.build(token, make_zip("main.st"))
    device.call("GET", "/api/start-plc", token=token)
    wait_until(lambda: device.plc_state(token) == "STATUS:RUNNING")
    assert device.stop() == 0
    wait_until(lambda: "shutdown complete" in "".join(device.output))
    assert "PLC program unloaded" in "".join(device.output)
    assert '"GET /api/start-plc HTTP/1.1" 200' in "".join(device.output)


def test_sigint_is_obeyed_even_while_frozen(device: Running) -> None:
    with socket.create_connection(("127.0.0.1", device.port)):
        with pytest.raises(TimeoutError):
            device.call("GET", "/api/version", timeout=0.2)
        assert device.stop() == 0


def test_a_restart_forgets_the_stop_and_the_logout_but_no_account(folder: Path) -> None:
    with runtime(folder) as device:
        token = device.new_admin()
        device.build(token, make_zip("main.st"))
        device.call("GET", "/api/start-plc", token=token)
        wait_until(lambda: device.plc_state(token) == "STATUS:RUNNING")
        device.call("GET", "/api/stop-plc", token=token)
        wait_until(lambda: device.plc_state(token) == "STATUS:STOPPED")
        device.call("POST", "/api/logout", token=token)
        assert device.stop() == 0
    with runtime(folder) as device:
        assert device.plc_state(token) == "STATUS:RUNNING"


def test_logs_are_listed_from_an_id_on(device: Running) -> None:
    token = device.new_admin()
    device.call("GET", "/api/start-plc", token=token)
    errors = device.call("GET", "/api/runtime-logs?level=ERROR", token=token).json["runtime-logs"]
    assert [line["message"] for line in errors] == ["no PLC program to start"]
    assert set(errors[0]) == {"id", "level", "message", "timestamp"}
    later = device.call("GET", f"/api/runtime-logs?id={errors[0]['id'] + 1}", token=token).json
    assert later == {"runtime-logs": []}
    assert device.call("GET", "/api/runtime-logs?id=abc", token=token).status == 500
    assert isinstance(device.call("GET", "/api/serial-ports", token=token).json["ports"], list)


def test_discovery_tells_anybody_where_the_api_is(device: Running) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        asker.sendto(b"OPENPLC_DISCOVER_V1", ("127.0.0.1", device.discovery_port))
        answer = json.loads(asker.recv(2048))
    assert answer == {
        "service": "openplc-runtime",
        "protocol_version": 1,
        "runtime_version": "v4.1.4-simulated",
        "hostname": socket.gethostname(),
        "api_port": device.port,
    }


def test_spoilt_state_ends_or_cripples_it_as_it_does_the_real_one(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "restapi.db").write_text("this was a database" * 100)
    with runtime(folder) as device:
        assert device.call("GET", "/api/get-users-info").status == 500
        assert device.call("POST", "/api/login", data=ADMIN).status == 500
        assert device.call("POST", "/api/create-user", data=ADMIN).status == 401

    (folder / "state" / ".env").write_text("")
    assert ended(folder).returncode == 1

    (folder / "state" / ".env").unlink()
    (folder / "work" / "webserver").unlink()
    (folder / "work" / "webserver").mkdir()
    for name in ("certOPENPLC.pem", "keyOPENPLC.pem"):
        (folder / "work" / "webserver" / name).touch()
    assert ended(folder).returncode == 0


def test_a_bad_setting_is_named(folder: Path) -> None:
    result = ended(folder, SIM_KEY_BITS="many")
    assert result.returncode == 2
    assert "SIM_KEY_BITS=many" in result.stdout
