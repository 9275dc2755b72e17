"""Events: the present is replayed to newcomers, losses show, and a stuck tap slows nobody."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bus.calls import Caller
from bus.events import Subscriber
from bus.messages.common import Stats
from tests.bus.conftest import ROOT, Context, Launch, wait_for
from tests.bus.programs.messages import Counted, PublishNumbers, Say, SayQuickly, Switched


def collect(subscriber: Subscriber, quiet: float = 0.3, first: float = 5.0) -> list[Switched]:
    """Everything that comes until it has been quiet for a while."""
    found: list[Switched] = []
    heard = subscriber.receive(first)
    while heard is not None:
        assert isinstance(heard.record, Switched)
        found.append(heard.record)
        heard = subscriber.receive(quiet)
    return found


def test_a_newcomer_hears_the_last_value_of_every_state(launch: Launch, context: Context, run_dir: Path) -> None:
    launch()
    subscriber = Subscriber(context, run_dir, ("echo.lamp.",), ("echo",))
    states = collect(subscriber)
    assert sorted((state.lamp, state.on) for state in states) == [("green", False), ("red", False)]


def test_an_old_hand_is_not_told_twice(launch: Launch, context: Context, run_dir: Path) -> None:
    launch()
    first = Subscriber(context, run_dir, ("echo.lamp.",), ("echo",))
    assert len(collect(first)) == 2
    second = Subscriber(context, run_dir, ("echo.lamp.",), ("echo",))
    assert len(collect(second)) == 2
    assert first.receive(0.3) is None


def test_a_restart_shows_as_a_new_run_and_is_found_again(launch: Launch, context: Context, run_dir: Path) -> None:
    program = launch()
    subscriber = Subscriber(context, run_dir, ("echo.lamp.",), ("echo",))
    heard = subscriber.receive(5.0)
    assert heard is not None
    program.kill()
    collect(subscriber, first=0.3)
    launch()
    again = subscriber.receive(5.0)
    assert again is not None and again.envelope.run != heard.envelope.run


def test_requests_and_replies_are_mirrored_with_secrets_masked(launch: Launch, context: Context, run_dir: Path) -> None:
    launch()
    subscriber = Subscriber(context, run_dir, ("rpc.echo.say_text",), ("echo",))
    assert subscriber.wait_connected(1, 5.0)
    Caller(context, run_dir, "test").call(Say(text="Bearer canary123456", password="canary"))
    request, reply = subscriber.receive(2.0), subscriber.receive(2.0)
    assert request is not None and reply is not None
    assert (request.envelope.name, request.envelope.kind) == ("rpc.echo.say_text.request", "request")
    assert (reply.envelope.name, reply.envelope.re) == ("rpc.echo.say_text.reply", request.envelope.id)
    assert "canary" not in repr(request) + repr(reply)


def test_a_stuck_tap_slows_nobody(launch: Launch, context: Context, run_dir: Path, environment: dict[str, str]) -> None:
    launch()
    stuck = subprocess.Popen(
        [sys.executable, "-m", "bus.tap", "tail"], env=environment, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0
    )
    assert stuck.stdout is not None
    assert stuck.stdout.read(1)  # it has heard something: it is connected
    stuck.send_signal(signal.SIGSTOP)
    try:
        heard: list[int] = []
        connected, done = threading.Event(), threading.Event()

        def listen() -> None:
            subscriber = Subscriber(context, run_dir, ("echo.number.",), ("echo",))
            if subscriber.wait_connected(1, 5.0):
                connected.set()
            while len(heard) < 20_000 and (found := subscriber.receive(5.0)) is not None:
                assert isinstance(found.record, Counted)
                heard.append(found.record.number)
            done.set()

        threading.Thread(target=listen, daemon=True).start()
        assert connected.wait(5.0)
        caller = Caller(context, run_dir, "test")
        asked = threading.Thread(
            target=lambda: Caller(context, run_dir, "other").call(PublishNumbers(upto=20_000)), daemon=True
        )
        asked.start()
        slowest = 0.0
        while not done.wait(0.02):
            began = time.monotonic()
            caller.call(SayQuickly(text="how are you?"))
            slowest = max(slowest, time.monotonic() - began)
        assert heard == list(range(20_000))
        assert slowest < 1.0
        asked.join(10.0)
        wait_for(lambda: caller.call(Stats(), owner="echo").published["echo.number.counted"] == 20_000)
    finally:
        stuck.send_signal(signal.SIGCONT)
        stuck.kill()
        stuck.wait(5)


def test_a_slow_reader_sees_that_it_lost_something(launch: Launch, context: Context, run_dir: Path) -> None:
    launch()
    subscriber = Subscriber(context, run_dir, ("echo.number.",), ("echo",))
    assert subscriber.wait_connected(1, 5.0)
    caller = Caller(context, run_dir, "test")
    caller.call(PublishNumbers(upto=60_000, per_second=1_000_000), deadline=30.0)
    numbers: list[int] = []
    while (found := subscriber.receive(0.5)) is not None:
        assert isinstance(found.record, Counted)
        numbers.append(found.record.number)
    caller.call(PublishNumbers(upto=1))
    assert subscriber.receive(2.0) is not None
    assert len(numbers) < 60_000
    assert subscriber.lost == 60_000 - len(numbers)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed to be refused")
def test_strangers_cannot_connect(launch: Launch, run_dir: Path) -> None:
    launch()
    for name in ("echo.events", "echo.requests"):
        assert (run_dir / name).stat().st_mode & 0o007 == 0
