"""What goes back to the cloud: the head of every answer, error answers, and the size that a server accepts."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from bus.errors import Code

Fields = dict[str, Any]

# A python-socketio server drops the session over a message beyond 1,000,000 bytes, its default limit.
LARGEST_ANSWER = 900_000

_LONGEST_ECHO = 128  # characters of a topic or a correlation id that are worth sending back
_LONGEST_SENTENCE = 600
_WIDEST_INTEGER = 2**63 - 1


def error(code: Code, sentence: str) -> Fields:
    """The fields of an error answer; `sentence` is for a person."""
    readable = sentence.encode("utf-8", "replace").decode("utf-8")
    if len(readable) > _LONGEST_SENTENCE:
        readable = readable[:_LONGEST_SENTENCE] + " ..."
    return {"status": "error", "code": code, "error": readable}


def correlation_of(arguments: Sequence[object]) -> int | float | str | bool | None:
    """The correlation id to send back as it came: a JSON scalar of sane size, else None."""
    payload = arguments[0] if arguments else None
    given = payload.get("correlation_id") if isinstance(payload, dict) else None
    if isinstance(given, str):
        return given if len(given) <= _LONGEST_ECHO and given.isprintable() else None
    if isinstance(given, int):
        return given if abs(given) <= _WIDEST_INTEGER else None
    if isinstance(given, float):
        return given if math.isfinite(given) else None
    return None


def echo(topic: object) -> str | None:
    """The topic as an answer's `action`, None when it is no readable text."""
    return topic if isinstance(topic, str) and len(topic) <= _LONGEST_ECHO and topic.isprintable() else None


def packed(answer: Fields) -> tuple[bytes, Fields]:
    """`answer` as JSON, and what it says: an answer too large for a server, or one that no JSON can carry, is
    replaced by an error answer that tells so."""
    head = {key: answer[key] for key in ("action", "correlation_id")}
    try:
        encoded = msgspec.json.encode(answer)
    except (ValueError, TypeError, OverflowError, RecursionError) as problem:
        shorter = head | error("internal", f"the answer cannot be written as JSON: {type(problem).__name__}")
    else:
        if len(encoded) <= LARGEST_ANSWER:
            return encoded, answer
        sentence = f"the answer has {len(encoded)} bytes, a session carries at most {LARGEST_ANSWER}; ask for less"
        shorter = head | error("refused", sentence)
    return msgspec.json.encode(shorter), shorter
