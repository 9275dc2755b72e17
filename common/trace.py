"""The trace: the cloud's correlation id, carried through every hop so that one `grep` tells a story."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str | None] = ContextVar("trace", default=None)


def current() -> str | None:
    """The trace of the work this thread or task is doing, if it came from a traced request."""
    return _current.get()


def begin(trace: str | None) -> None:
    """This thread turns to work under `trace`, until it begins other work."""
    _current.set(trace)


@contextmanager
def use(trace: str | None) -> Iterator[None]:
    """Do the enclosed work under `trace`."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
