"""The queue: one thread per device, nothing missed, failing devices wait longer each time."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from services.docker_worker import work_queue
from services.docker_worker.start_brake import FREE_STARTS, WINDOW, StartBrake
from services.docker_worker.work_queue import WorkQueue


def until(condition: Callable[[], bool], within: float = 5.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        threading.Event().wait(0.002)


def test_a_device_is_worked_on_by_one_thread_and_several_at_once() -> None:
    inside: Counter[str] = Counter()
    most: Counter[str] = Counter()
    done: Counter[str] = Counter()
    lock, both = threading.Lock(), threading.Barrier(2, timeout=5)

    def work(name: str) -> None:
        with lock:
            inside[name] += 1
            most[name] = max(most[name], inside[name])
        if done[name] == 0:
            both.wait()  # the two devices are worked on at the same time
        with lock:
            inside[name] -= 1
            done[name] += 1

    queue = WorkQueue(work, workers=4)
    queue.start()
    for _ in range(50):
        queue.add("a")
        queue.add("b")
    until(lambda: done["a"] >= 1 and done["b"] >= 1)
    assert most == {"a": 1, "b": 1}


def test_what_comes_during_the_work_is_looked_at_afterwards() -> None:
    began, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def work(_name: str) -> None:
        began.release()
        assert go_on.acquire(timeout=5)

    queue = WorkQueue(work, workers=4)
    queue.start()
    queue.add("a")
    assert began.acquire(timeout=5)
    for _ in range(10):
        queue.add("a")
    go_on.release()
    assert began.acquire(timeout=5)
    go_on.release()
    assert not began.acquire(timeout=0.1)


def test_a_failing_device_waits_longer_each_time_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_queue, "BASE", 0.05)
    moments: list[float] = []

    def work(name: str) -> str | None:
        moments.append(time.monotonic())
        queue.add(name)  # its own doing makes events
        return "no" if len(moments) < 4 else None

    queue = WorkQueue(work)
    queue.start()
    queue.add("a")
    until(lambda: len(moments) >= 4)
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert pauses[0] >= 0.05
    assert pauses[1] >= 0.1


def test_a_command_does_not_wait_for_the_next_try() -> None:
    tried = threading.Semaphore(0)

    def work(_name: str) -> str:
        tried.release()
        return "no"

    queue = WorkQueue(work)
    queue.start()
    queue.add("a")
    assert tried.acquire(timeout=5)
    until(lambda: queue.retry_in("a") is not None)
    queue.add("a")
    assert not tried.acquire(timeout=0.1)
    queue.add("a", fresh=True)
    assert tried.acquire(timeout=0.3)


def test_a_command_during_a_failing_try_is_tried_at_once() -> None:
    began, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def work(_name: str) -> str:
        began.release()
        go_on.acquire(timeout=5)
        return "no"

    queue = WorkQueue(work)
    queue.start()
    queue.add("a")
    assert began.acquire(timeout=5)
    queue.add("a", fresh=True)
    go_on.release()
    assert began.acquire(timeout=0.3)
    go_on.release()


def test_the_brake_holds_a_device_that_ends_again_and_again() -> None:
    now = 0.0
    brake = StartBrake(lambda: now)
    waits = []
    for _ in range(FREE_STARTS + 4):
        waits.append(brake.wait("a"))
        now += brake.wait("a")
        brake.started("a")
    assert waits[:FREE_STARTS] == [0.0] * FREE_STARTS
    assert waits[FREE_STARTS:] == [2.0, 4.0, 8.0, 16.0]
    assert "next try in 32 s" in (brake.sentence("a") or "")
    now += WINDOW
    assert brake.wait("a") == 0.0


def test_a_person_releases_the_brake() -> None:
    brake = StartBrake(lambda: 0.0)
    for _ in range(5):
        brake.started("a")
    assert brake.wait("a") > 0
    brake.release("a")
    assert (brake.wait("a"), brake.sentence("a")) == (0.0, None)
