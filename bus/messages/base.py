"""How a message is declared: a frozen record, and beside it its name and what can be expected of it."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_args

import msgspec

R = TypeVar("R", bound=msgspec.Struct)
M = TypeVar("M", bound=type)


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a message. Readers ignore keys they do not know; new fields have defaults."""


class Event(Body, frozen=True, kw_only=True):
    """Something that happened, told to whoever listens."""


class Request(Body, Generic[R], frozen=True, kw_only=True):
    """Something asked of one service; `R` is the body of its reply."""


class EventDeclaration(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an event. `state_key`: the field that tells states of one topic apart, "" if there is
    one state only, None if the event is no state (not replayed to new subscribers). `period`: seconds."""

    name: str
    record: type[Event]
    state_key: str | None = None
    period: float | None = None


class RequestDeclaration(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request. `deadline`: seconds until the caller gives up. `inline`: answered from memory
    in the service's own bus thread, so it may never block."""

    name: str
    record: type[Request[Any]]
    reply: type[msgspec.Struct]
    deadline: float
    changes: bool
    inline: bool = False


_EVENTS: dict[type, EventDeclaration] = {}
_REQUESTS: dict[type, RequestDeclaration] = {}


def event(name: str, *, state_key: str | None = None, period: float | None = None) -> Callable[[M], M]:
    """Declare the event `<owner>.<noun>.<participle>`."""

    def declare(record: M) -> M:
        _EVENTS[record] = EventDeclaration(name=name, record=record, state_key=state_key, period=period)
        return record

    return declare


def request(name: str, *, deadline: float, changes: bool, inline: bool = False) -> Callable[[M], M]:
    """Declare the request `<owner>.<verb>_<noun>`; its reply is the record's type argument."""

    def declare(record: M) -> M:
        (reply,) = get_args(record.__orig_bases__[0])  # type: ignore[attr-defined]
        _REQUESTS[record] = RequestDeclaration(
            name=name, record=record, reply=reply, deadline=deadline, changes=changes, inline=inline
        )
        return record

    return declare


def event_declaration(record: type) -> EventDeclaration:
    """The declaration of an event's record; KeyError for a record that was not declared."""
    return _EVENTS[record]


def request_declaration(record: type) -> RequestDeclaration:
    """The declaration of a request's record; KeyError for a record that was not declared."""
    return _REQUESTS[record]


def full_name(declaration: EventDeclaration | RequestDeclaration, owner: str) -> str:
    """The name on the wire: messages that every service has (`ping`, `alive`) get their owner in front."""
    return declaration.name if "." in declaration.name else f"{owner}.{declaration.name}"


def find_event(name: str) -> EventDeclaration | None:
    """The event called `name` on the wire, if its module has been imported."""
    return _find(declared_events(), name)


def find_request(name: str) -> RequestDeclaration | None:
    """The request called `name` on the wire, if its module has been imported."""
    return _find(declared_requests(), name)


def declared_events() -> list[EventDeclaration]:
    """Every event whose module has been imported, by name."""
    return sorted(_EVENTS.values(), key=lambda declaration: declaration.name)


def declared_requests() -> list[RequestDeclaration]:
    """Every request whose module has been imported, by name."""
    return sorted(_REQUESTS.values(), key=lambda declaration: declaration.name)


D = TypeVar("D", EventDeclaration, RequestDeclaration)


def _find(declarations: list[D], name: str) -> D | None:
    bare = name.partition(".")[2]
    return next((found for found in declarations if found.name in (name, bare)), None)
