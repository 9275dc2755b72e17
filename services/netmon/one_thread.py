"""A thread that waits for sockets, for the time and for errands that other threads give it.

What only this thread touches needs no lock. An errand's result is handed over when the round in which it ran has
ended, so whatever the thread does at the end of a round (write a file, publish) is done before anybody goes on.
"""

import contextlib
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

LONGEST_SLEEP = 30.0  # after a suspension timers are late by this much at most: the kernel's own wait stood still


class Readable(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


class OneThread:
    """`run` is the thread; `do` and `post` are for all others; `watch` and `forget` for the thread itself."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._errands: SimpleQueue[tuple[Callable[[], Any], Future[Any] | None]] = SimpleQueue()
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self.watch(self._bell, self._hear_bell)

    def do(self, errand: Callable[[], T]) -> "Future[T]":
        """Have the thread call `errand`; result or exception come through the future. From any thread."""
        future: Future[T] = Future()
        self._give(errand, future)
        return future

    def post(self, errand: Callable[[], None]) -> None:
        """Have the thread call `errand`, and wait for nothing: an exception in it ends the thread."""
        self._give(errand, None)

    def watch(self, readable: Readable, react: Callable[[], None]) -> None:
        """Call `react` whenever there is something to read."""
        self._selector.register(readable, selectors.EVENT_READ, react)

    def forget(self, readable: Readable) -> None:
        """Watch it no more; before it is closed."""
        self._selector.unregister(readable)

    def run(
        self, wakes_at: Callable[[], float | None], now: Callable[[], float], end_round: Callable[[], None]
    ) -> None:
        """Wait, react, run the errands, `end_round`, hand the results over, again; never returns.

        `end_round` is also called when the time that `wakes_at` told has come; it does what is due.
        """
        while True:
            moment = wakes_at()
            wait = LONGEST_SLEEP if moment is None else min(max(moment - now(), 0.0), LONGEST_SLEEP)
            for key, _ in self._selector.select(wait):
                key.data()
            finished = self._run_errands()
            end_round()
            for hand_over in finished:
                hand_over()

    def _run_errands(self) -> list[Callable[[], None]]:
        finished: list[Callable[[], None]] = []
        while True:
            try:
                errand, future = self._errands.get_nowait()
            except Empty:
                return finished
            if future is None:
                errand()
            else:
                finished.append(_outcome(errand, future))

    def _give(self, errand: Callable[[], Any], future: "Future[Any] | None") -> None:
        self._errands.put((errand, future))
        with contextlib.suppress(BlockingIOError):  # the bell rings already
            self._ringer.send(b"!")

    def _hear_bell(self) -> None:
        self._bell.recv(4096)


def _outcome(errand: Callable[[], Any], future: "Future[Any]") -> Callable[[], None]:
    try:
        result = errand()
    except Exception as problem:  # noqa: BLE001 - handed to the caller, who raises it
        failure = problem
        return lambda: future.set_exception(failure)
    return lambda: future.set_result(result)
