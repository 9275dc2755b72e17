"""What the cloud is shown of a vPLC's answer."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.messages.docker_worker import HttpResponse
from services.docker_worker.proxy_exchange import Answer
from services.docker_worker.proxy_response import relay


def relayed(body: bytes, content_type: str | None = "application/json", status: int = 200) -> HttpResponse:
    headers = [] if content_type is None else [("Content-Type", content_type)]
    return relay(Answer(status_code=status, headers=headers, body=body))


@pytest.mark.parametrize("content_type", ["application/json", "application/problem+json; charset=utf-8"])
def test_json_is_parsed(content_type: str) -> None:
    answer = relayed(b'{"status": null}', content_type)
    assert answer.body == {"status": None}
    assert answer.body_encoding is None
    assert answer.content_type == content_type


def test_a_bare_json_string_is_a_body_too() -> None:
    answer = relayed(b'"Wrong username or password"', status=401)
    assert (answer.body, answer.ok, answer.status_code) == ("Wrong username or password", False, 401)


@pytest.mark.parametrize("body", [b"{", b"", b"1" * 30, b"[" * 5000 + b"]" * 5000])
def test_json_that_cannot_be_carried_is_text(body: bytes) -> None:
    assert relayed(body).body == body.decode()


def test_text_is_text_in_its_own_charset() -> None:
    assert relayed("<p>Ä</p>".encode("latin-1"), "text/html; charset=latin-1").body == "<p>Ä</p>"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"PK\x03\x04\xff", "application/zip"),
        (b"only ascii", "application/octet-stream"),
        (b"\xff\xfe", "text/plain"),
        (b"x", "text/plain; charset=no-such"),
        (b"\xff", None),
        (b"\xff", "application/json"),
    ],
)
def test_what_is_no_text_is_base64_and_says_so(body: bytes, content_type: str | None) -> None:
    answer = relayed(body, content_type)
    assert answer.body_encoding == "base64"
    assert base64.b64decode(answer.body) == body


def test_repeated_headers_are_joined() -> None:
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-OpenPLC-Runtime-Version", "v4.1.4")]
    answer = relay(Answer(status_code=204, headers=headers, body=b""))
    assert answer.headers == {"Set-Cookie": "a=1, b=2", "X-OpenPLC-Runtime-Version": "v4.1.4"}
    assert answer.body == ""


@pytest.mark.parametrize(("status", "ok"), [(200, True), (302, True), (404, False), (422, False), (500, False)])
def test_ok_is_below_400(status: int, ok: bool) -> None:
    assert relayed(b"{}", status=status).ok is ok


@given(st.binary(), st.sampled_from(["application/json", "text/plain; charset=utf-7", "image/png", ""]))
def test_every_answer_can_be_carried_by_the_bus(body: bytes, content_type: str) -> None:
    msgspec.msgpack.decode(msgspec.msgpack.encode(relayed(body, content_type)), type=HttpResponse)
