"""What the cloud may say in a `run_command`, and what it may not."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import CommandError
from bus.messages.docker_worker import RunCommand, UploadedFile
from services.docker_worker.proxy import RUNTIME_PORTS
from services.docker_worker.proxy_request import BODY_LIMIT, HttpRequest, prepare


def prepared(api: str = "api/status", **fields: Any) -> HttpRequest:
    return prepare(RunCommand(device_id="plc1", method=fields.pop("method", "GET"), api=api, **fields), RUNTIME_PORTS)


def refusal(api: str = "api/status", **fields: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        prepared(api, **fields)
    return caught.value


@pytest.mark.parametrize("api", ["api/login", "/api/login"])
def test_a_path_gets_exactly_one_leading_slash(api: str) -> None:
    assert prepared(api).target == "/api/login"


@pytest.mark.parametrize("api", ["/", "/api/status/", "api/user-info_2.x"])
def test_plain_paths_pass_unchanged(api: str) -> None:
    assert prepared(api).target == "/" + api.removeprefix("/")


@pytest.mark.parametrize(
    "api",
    [
        "",
        "@evil.example/x",
        "//evil.example/x",
        "///x",
        "/api/../admin",
        "..",
        "/api/./x",
        "/%2e%2e/admin",
        "/api//x",
        "/api\\x",
        "/api?x=1",
        "/api#x",
        "/api/x y",
        "/api/x\r\nHost: evil",
        "/api/x\n",
        "https://evil.example/",
        "/api/\u00e9",
        "/" + "a" * 201,
    ],
)
def test_a_path_that_could_mean_something_else_is_invalid_and_named(api: str) -> None:
    problem = refusal(api)
    assert problem.code == "invalid"
    assert problem.message.startswith("api: ")


@given(st.text())
def test_no_path_reaches_the_wire_but_plain_segments(api: str) -> None:
    try:
        target = prepared(api).target
    except CommandError as problem:
        assert problem.code == "invalid"
    else:
        assert re.fullmatch(r"/([A-Za-z0-9_.-]+/)*[A-Za-z0-9_.-]*", target)
        assert not {".", ".."} & set(target.split("/"))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_impossible_port_is_invalid(port: int) -> None:
    assert refusal(port=port).code == "invalid"


@pytest.mark.parametrize("port", [22, 502, 2375, 8080])
def test_another_port_is_refused(port: int) -> None:
    problem = refusal(port=port)
    assert problem.code == "refused"
    assert str(port) in problem.message


@pytest.mark.parametrize("seconds", [0, -1, 301, float("nan"), float("inf")])
def test_a_deadline_that_is_none_is_invalid(seconds: float) -> None:
    assert refusal(timeout_s=seconds).message.startswith("timeout_s: ")


def test_a_query_comes_from_params_only() -> None:
    params = {"include_stats": True, "id": 7, "level": ["ERROR", "WARN"], "none": None, "text": "a&b=c/../@x#"}
    target = prepared(params=params).target
    assert target == "/api/status?include_stats=true&id=7&level=ERROR&level=WARN&text=a%26b%3Dc%2F..%2F%40x%23"


@pytest.mark.parametrize(("params", "field"), [({"a": {"b": 1}}, "params.a"), ({"a": [b"x"]}, "params.a")])
def test_params_are_flat(params: dict[str, Any], field: str) -> None:
    problem = refusal(params=params)
    assert problem.code == "invalid"
    assert field in problem.message


def test_a_long_query_is_refused_with_its_size() -> None:
    problem = refusal(params={"a": "x" * 9000})
    assert problem.code == "refused"
    assert "9002" in problem.message


def test_only_harmless_headers_are_relayed_and_the_others_are_told() -> None:
    ours = {"Authorization": "Bearer x", "Accept": "application/json"}
    foreign = {
        "Host": "evil",
        "cookie": "a=b",
        "Proxy-Authorization": "x",
        "Connection": "keep-alive",
        "Transfer-Encoding": "chunked",
        "Content-Length": "3",
        "X-HTTP-Method-Override": "DELETE",
        "Accept-Encoding": "gzip",
    }
    request = prepared(headers=ours | foreign)
    assert request.headers == ours
    assert request.dropped == tuple(foreign)


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "a\r\nHost: evil"},
        {"Accept": "a\n b"},
        {"Accept": "\x00"},
        {"Accept": "\u20ac"},
        {"a b": "c"},
        {"": "c"},
    ],
)
def test_a_header_that_could_smuggle_is_invalid(headers: dict[str, str]) -> None:
    problem = refusal(headers=headers)
    assert problem.code == "invalid"
    assert problem.message.startswith("headers")


@pytest.mark.parametrize("data", [{"username": "admin"}, "a string", [1, None], False, 0])
def test_data_is_json(data: Any) -> None:
    request = prepared(method="POST", data=data)
    assert request.body is not None
    assert json.loads(request.body) == data
    assert request.headers == {"Content-Type": "application/json"}


def test_data_is_a_form_when_the_content_type_says_so() -> None:
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = prepared(method="POST", data={"a": "1 2", "b": True}, headers=headers)
    assert request.body == b"a=1+2&b=true"
    assert request.headers == {"Content-Type": headers["content-type"]}


def test_text_goes_as_it_is_under_its_own_content_type() -> None:
    assert prepared(method="PUT", data="PLC", headers={"Content-Type": "text/plain"}).body == b"PLC"


def test_files_are_multipart_and_the_callers_content_type_without_boundary_is_dropped() -> None:
    file = UploadedFile(filename='a"b\r\n.zip', content=b"PK\x00\xff", content_type="application/zip")
    headers = {"Content-Type": "multipart/form-data", "Authorization": "Bearer x"}
    request = prepared(method="POST", data={"clean": 1}, files={"file": file}, headers=headers)
    assert request.body is not None
    boundary = request.headers["Content-Type"].removeprefix("multipart/form-data; boundary=")
    parts = request.body.split(b"--" + boundary.encode())
    assert parts[1].endswith(b"\r\n\r\n1\r\n")
    assert b'name="file"; filename="a%22b%0D%0A.zip"\r\nContent-Type: application/zip\r\n\r\nPK\x00\xff\r\n' in parts[2]


@pytest.mark.parametrize(
    "fields",
    [
        {"files": {"f": UploadedFile(filename="x", content=b"", content_type="a/b\r\nX: y")}},
        {"files": {"f": UploadedFile(filename="x", content=b"")}, "data": "text"},
        {"data": [1], "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"data": {"a": {"b": 1}}, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
    ],
)
def test_a_body_that_cannot_be_written_is_invalid(fields: dict[str, Any]) -> None:
    problem = refusal(method="POST", **fields)
    assert problem.code == "invalid"
    assert problem.message.startswith(("files.f", "data"))


def test_a_body_over_the_cap_is_refused_with_its_size() -> None:
    file = UploadedFile(filename="x", content=bytes(BODY_LIMIT))
    problem = refusal(method="POST", files={"f": file})
    assert problem.code == "refused"
    assert str(BODY_LIMIT) in problem.message
