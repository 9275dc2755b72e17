"""A request has one of four outcomes, and a caller can tell them apart."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
import zmq

from bus import endpoints
from bus.async_calls import AsyncCaller
from bus.calls import Caller
from bus.envelope import MAX_MESSAGE
from bus.errors import CommandError, Timeout, Unavailable
from bus.messages.common import Info, Ping, Stats
from tests.bus.conftest import Context, Launch, wait_for
from tests.bus.programs.messages import NobodyHome, Said, Say, SayQuickly


@pytest.fixture
def caller(context: Context, run_dir: Path) -> Caller:
    return Caller(context, run_dir, "test")


def test_an_answer_is_typed(launch: Launch, caller: Caller) -> None:
    launch()
    assert caller.call(Say(text="good morning")) == Said(text="good morning", times=1)
    assert caller.call(SayQuickly(text="hi")) == Said(text="hi", times=1)


def test_a_no_carries_code_and_sentence(launch: Launch, caller: Caller) -> None:
    launch()
    with pytest.raises(CommandError) as refused:
        caller.call(Say(text="boo", how="refuse"))
    assert (refused.value.code, refused.value.message) == ("conflict", "will not say boo")


def test_a_bug_is_answered_without_its_traceback_and_logged_without_secrets(launch: Launch, caller: Caller) -> None:
    program = launch()
    with pytest.raises(CommandError) as failed:
        caller.call(Say(text="boo", how="bug", password="eyJcanary.canarycanary.x"))
    assert failed.value.code == "internal"
    assert "canary" not in failed.value.message and "Traceback" not in failed.value.message
    wait_for(lambda: "RuntimeError" in program.log.read_text(), what="the traceback in the log")
    assert "canary" not in program.log.read_text()
    assert caller.call(Say(text="still here")).text == "still here"


def test_a_request_without_handler_is_unknown(launch: Launch, caller: Caller) -> None:
    launch()
    with pytest.raises(CommandError) as unknown:
        caller.call(NobodyHome())
    assert unknown.value.code == "unknown_command"
    assert "echo.say_text" in unknown.value.message


def test_a_wrong_body_names_the_field(launch: Launch, caller: Caller) -> None:
    launch()
    with pytest.raises(CommandError) as wrong:
        caller.call(Say(text=7))  # type: ignore[arg-type]
    assert wrong.value.code == "invalid"
    assert "$.text" in wrong.value.message and "str" in wrong.value.message


def test_too_large_is_refused_on_both_sides(launch: Launch, caller: Caller) -> None:
    launch()
    with pytest.raises(CommandError) as request:
        caller.call(Say(text="x" * (MAX_MESSAGE + 1)))
    assert request.value.code == "invalid" and str(MAX_MESSAGE) in request.value.message
    with pytest.raises(CommandError) as reply:
        caller.call(Say(text="x", how="huge"))
    assert reply.value.code == "internal" and str(MAX_MESSAGE) in reply.value.message


def test_nobody_there_is_told_quickly(caller: Caller) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        caller.call(Say(text="hello"))
    assert time.monotonic() - began < 2.0


def test_no_answer_in_time_is_a_timeout_and_the_late_reply_is_not_mistaken(launch: Launch, caller: Caller) -> None:
    launch()
    with pytest.raises(Timeout):
        caller.call(Say(text="slow", delay=0.5), deadline=0.1)
    assert caller.call(Say(text="next")) == Said(text="next", times=2)


def test_overload_is_answered_busy_at_once_and_what_expired_is_not_run(
    launch: Launch, caller: Caller, run_dir: Path
) -> None:
    launch()

    async def flood() -> list[object]:
        client = AsyncCaller(run_dir, "flood")
        try:
            asked = [client.call(Say(text=str(n), delay=1.0), deadline=0.8) for n in range(300)]
            return list(await asyncio.gather(*asked, return_exceptions=True))
        finally:
            client.close()

    outcomes = asyncio.run(flood())
    busy = [found for found in outcomes if isinstance(found, CommandError) and found.code == "unavailable"]
    assert len(busy) == 300 - 256 - 2
    assert all(found.message.startswith("busy") for found in busy)
    assert sum(isinstance(found, Timeout) for found in outcomes) == 258
    wait_for(lambda: caller.call(Stats(), owner="echo").queue == 0, what="the queue to empty")
    assert caller.call(Stats(), owner="echo").dropped["expired"] == 256
    assert caller.call(SayQuickly(text="count")).times == 2


def test_threads_share_a_caller(launch: Launch, caller: Caller) -> None:
    launch()
    answers: list[str] = []

    def ask(name: str) -> None:
        answers.extend(caller.call(SayQuickly(text=f"{name}{n}")).text for n in range(100))

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(f"{name}{n}" for name in "abcd" for n in range(100))


def test_a_service_that_dies_in_mid_request_is_noticed_at_once(launch: Launch, run_dir: Path) -> None:
    program = launch()

    async def ask() -> float:
        client = AsyncCaller(run_dir, "test")
        await client.call(Ping(), owner="echo")
        asked = asyncio.ensure_future(client.call(Say(text="slow", delay=30.0), deadline=30.0))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        program.kill()
        with pytest.raises(Timeout, match="ended with the request in hand"):
            await asked
        client.close()
        return time.monotonic() - began

    assert asyncio.run(ask()) < 1.0


def test_a_frozen_service_is_given_up_within_five_seconds(launch: Launch, run_dir: Path) -> None:
    program = launch()

    async def ask() -> float:
        client = AsyncCaller(run_dir, "test")
        await client.call(Ping(), owner="echo")
        program.freeze()
        began = time.monotonic()
        with pytest.raises(Timeout, match="does not react"):
            await client.call(Say(text="slow"), deadline=30.0)
        client.close()
        return time.monotonic() - began

    assert asyncio.run(ask()) < 5.0


def test_a_service_that_is_being_restarted_is_waited_for(launch: Launch, run_dir: Path) -> None:
    async def ask() -> str:
        client = AsyncCaller(run_dir, "test")
        with pytest.raises(Unavailable):
            await client.call(Say(text="too early"), patience=0.1)
        launch(wait=False)
        answer = await client.call(Say(text="patient"), patience=10.0, deadline=10.0)
        client.close()
        return answer.text

    assert asyncio.run(ask()) == "patient"


def test_info_says_who_and_how(launch: Launch, caller: Caller) -> None:
    program = launch()
    info = caller.call(Info(), owner="echo")
    assert (info.owner, info.pid, info.health, info.reasons) == ("echo", program.process.pid, "ready", [])
    assert "echo.say_text" in info.requests and "echo.ping" in info.requests


def test_garbage_on_the_request_socket_harms_nobody(
    launch: Launch, caller: Caller, context: Context, run_dir: Path
) -> None:
    launch()
    stranger = context.socket(zmq.DEALER)
    stranger.connect(endpoints.requests(run_dir, "echo"))
    for frames in ([b""], [b"\xc1"], [b"\x91" * 5000], [b"a", b"b", b"c"], [b"\x80"], [b"\xdd\xff\xff\xff\xff"]):
        stranger.send_multipart(frames)
    wait_for(lambda: caller.call(Stats(), owner="echo").dropped.get("malformed") == 6, what="six dropped messages")
    assert caller.call(Say(text="unharmed")).text == "unharmed"
