"""The wire is plain msgpack: another implementation reads what we write, and is understood when it writes."""

from pathlib import Path

import msgpack
import pytest
import zmq

from bus import endpoints
from bus.envelope import MAX_MESSAGE, MalformedError, decode, encode, seal
from tests.bus.conftest import Context, Launch


def test_another_implementation_asks_and_reads_the_answer(launch: Launch, context: Context, run_dir: Path) -> None:
    launch()
    stranger = context.socket(zmq.DEALER)
    stranger.connect(endpoints.requests(run_dir, "echo"))
    request = {"v": 1, "id": "abc", "kind": "request", "name": "echo.say_text", "ts": 0.0, "src": "other", "run": "r"}
    stranger.send(msgpack.packb(request | {"seq": 1, "body": {"text": "hello"}, "a_key_of_tomorrow": [1, 2]}))
    assert stranger.poll(5000)
    reply = msgpack.unpackb(stranger.recv())
    assert (reply["kind"], reply["re"], reply["name"]) == ("reply", "abc", "echo.say_text")
    assert reply["body"] == {"text": "hello", "times": 1}


def test_bytes_and_nesting_survive() -> None:
    body = {"content": b"\x00\xff", "nested": {"list": [1, 2.5, None, True, "text"]}}
    envelope = seal(kind="event", name="a.b.c", src="a", run="r", seq=1, body=body)
    assert msgpack.unpackb(encode(envelope))["body"] == body
    assert decode(encode(envelope)).body == body


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\x80",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        msgpack.packb({"v": 1}),
        msgpack.packb([1, 2]),
        b"x" * (MAX_MESSAGE + 1),
    ],
    ids=["empty", "never used", "no fields", "deep", "bomb", "most missing", "no map", "too large"],
)
def test_what_is_no_envelope_is_refused(packed: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(packed)


def test_a_number_beyond_64_bits_is_told() -> None:
    with pytest.raises(MalformedError, match=r"a\.b\.c: cannot be encoded"):
        encode(seal(kind="event", name="a.b.c", src="a", run="r", seq=1, body={"n": 2**70}))


def test_another_version_is_refused() -> None:
    packed = msgpack.packb(
        msgpack.unpackb(encode(seal(kind="event", name="a", src="a", run="r", seq=1, body=None))) | {"v": 2}
    )
    with pytest.raises(MalformedError, match="version 2"):
        decode(packed)
