"""What can go wrong with the engine, as kinds that a step can decide on, and what a failed step says.

The engine tells most things only in the text of its answer, so kinds are matched by status and text; the texts
were read from engines 20.10 and 26.1.
"""

import re
from typing import Literal

from bus.errors import Code

Kind = Literal[
    "unreachable",
    "timeout",
    "not_found",
    "name_taken",
    "removing",
    "pool_overlaps",
    "pools_exhausted",
    "parent_in_use",
    "parent_missing",
    "address_in_use",
    "already_connected",
    "not_connected",
    "in_use",
    "privileges_refused",
    "init_missing",
    "other",
]

# First match wins. A status of 0 stands for any.
_KINDS: tuple[tuple[int, str, Kind], ...] = (
    (0, r"unable to apply caps|error setting rlimit|setting capabilities|invalid CapAdd", "privileges_refused"),
    (0, r"docker-init", "init_missing"),
    (0, r"pool overlaps with other one", "pool_overlaps"),
    (0, r"could not find an available, non-overlapping", "pools_exhausted"),
    (0, r"is already using parent interface", "parent_in_use"),
    (0, r"invalid subinterface vlan name|requested parent interface .* was not found", "parent_missing"),
    (0, r"address already in use", "address_in_use"),
    (0, r"endpoint with name .* already exists|is already attached to network", "already_connected"),
    (0, r"is not connected to (the )?network", "not_connected"),
    (0, r"has active endpoints", "in_use"),
    (409, r"removal of container .* is already in progress", "removing"),
    (409, r"already in use by container|already exists", "name_taken"),
    (404, r"", "not_found"),
)


class EngineError(Exception):
    """The engine said no, or nothing. `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, kind: Kind, status: int, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.status = status
        self.text = text


class StepFailed(Exception):
    """A step towards the desired state failed. `code` and `sentence` are for the caller; `retry` says whether trying
    again, with nothing changed by us, can help."""

    def __init__(self, code: Code, sentence: str, *, retry: bool = True) -> None:
        super().__init__(sentence)
        self.code: Code = code
        self.sentence = sentence
        self.retry = retry


class Superseded(Exception):
    """The desired state has changed while we worked on the old one: start over."""


class Later(Exception):
    """Something that cannot be waited for here is expected soon: look again after so many `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def classify(status: int, text: str) -> Kind:
    """The kind of an error answer of the engine."""
    for expected, pattern, kind in _KINDS:
        if expected in (0, status) and re.search(pattern, text, re.IGNORECASE):
            return kind
    return "other"


def failed(problem: EngineError, doing: str) -> StepFailed:
    """What an engine's error means to whoever asked for the device; `doing` is what was being done."""
    if problem.kind in ("unreachable", "timeout"):
        return StepFailed("unavailable", f"{doing}: the Docker engine does not answer ({problem.text})")
    if problem.kind in ("address_in_use", "name_taken", "pool_overlaps", "parent_in_use"):
        return StepFailed("conflict", f"{doing}: {problem.text}")
    return StepFailed("unavailable", f"{doing}: the Docker engine refused: {problem.text}")
