"""From a cloud's JSON to a typed record, or one sentence that names the field and what was expected of it.

Sentences look like `$.vnic_configs[0].name: expected string, got integer`.
"""

import math
import re
from datetime import datetime
from typing import Literal, TypeVar

import msgspec

C = TypeVar("C", bound="Command")

Refusal = Literal["invalid", "refused", "unavailable"]

MAX_DEPTH = 64  # of nested data; deeper is no sensible payload, and recursion has its limits

_WORDS: dict[str, str] = {}
_JSON_NAMES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "bytes": "binary"}
_WIDEST_INTEGER = 2**63 - 1
_WHERE = re.compile(r"(?P<what>.*) - at (?:`key` in )?`(?P<path>[^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
_PATTERN = re.compile(r"Expected `str` matching regex (?P<quoted>.*)", re.DOTALL)


class ContractError(Exception):
    """A payload breaks its contract. `code`: one of `Refusal`; `message`: a sentence with the field's path."""

    def __init__(self, message: str, code: Refusal = "invalid") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What every command may carry besides its own fields."""

    correlation_id: int | float | None = None
    action: str | None = None
    requested_at: str | None = None


def matching(pattern: str, words: str) -> msgspec.Meta:
    """For `Annotated[str, ...]`: text that matches `pattern` as a whole; `words` is what a person is told to expect."""
    anchored = rf"\A(?:{pattern})\Z"
    _WORDS[repr(anchored)] = words
    return msgspec.Meta(pattern=anchored)


def decode(contract: type[C], payload: object) -> C:
    """`payload`, decoded JSON, as a record of `contract`; unknown fields are ignored.

    Raises `ContractError`, and nothing else, whatever the payload is.
    """
    if not isinstance(payload, dict):
        raise ContractError(f"$: expected one JSON object, got {json_name(payload)}")
    try:
        command = msgspec.convert(payload, contract, strict=True)
    except msgspec.ValidationError as problem:
        raise ContractError(_sentence(str(problem))) from None
    except (ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise ContractError(f"$: expected plain JSON, got what cannot be read: {type(problem).__name__}") from None
    _check_head(command)
    return command


def require_plain(value: object, path: str, depth: int = 0) -> None:
    """Raise `ContractError` unless `value` is JSON that any language can carry: numbers finite and integers within
    64 bits, text in Unicode, at most `MAX_DEPTH` deep."""
    if depth > MAX_DEPTH:
        raise ContractError(f"{path[:200]}: expected at most {MAX_DEPTH} levels of nesting")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ContractError(f"{path}: expected Unicode text, got a lone surrogate")
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        if not math.isfinite(value) or (isinstance(value, int) and abs(value) > _WIDEST_INTEGER):
            raise ContractError(f"{path}: expected a finite number, integers within 64 bits")
    elif isinstance(value, dict):
        for key, item in value.items():
            require_plain(key, f"{path}[key]", depth + 1)
            require_plain(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            require_plain(item, f"{path}[{position}]", depth + 1)
    else:
        raise ContractError(f"{path}: expected plain JSON, got {json_name(value)}")


def json_name(value: object) -> str:
    """What JSON calls the type of `value`."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list | tuple):
        return "array"
    name = type(value).__name__
    return _JSON_NAMES.get(name, name)


def _check_head(command: Command) -> None:
    if command.correlation_id is not None:
        require_plain(command.correlation_id, "$.correlation_id")
    if command.action is not None:
        require_plain(command.action, "$.action")
    if command.requested_at is not None:
        try:
            datetime.fromisoformat(command.requested_at)
        except ValueError:
            raise ContractError(
                "$.requested_at: expected an ISO 8601 date like 2025-11-20T20:30:45Z,"
                f" got {command.requested_at[:40]!a}"
            ) from None


def _sentence(message: str) -> str:
    found = _WHERE.fullmatch(message)
    what, path = (found["what"], found["path"]) if found else (message, "$")
    if missing := _MISSING.fullmatch(what):
        return f"{path}.{missing['field']}: expected a value, got none"
    if pattern := _PATTERN.fullmatch(what):
        what = f"Expected {_WORDS.get(pattern['quoted'], pattern['quoted'])}"
    what = re.sub(r"`([^`]*)`", lambda quoted: _in_json_words(quoted[1]), what)
    return f"{path}: {what[:1].lower()}{what[1:]}"


def _in_json_words(union: str) -> str:
    names = [_JSON_NAMES.get(name, name) for name in union.split(" | ")]
    if "number" in names and "integer" in names:
        names.remove("integer")
    return " or ".join(names)
