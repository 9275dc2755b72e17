"""Secrets never leave in clear: passwords, tokens, keys and `Authorization` are masked in mirrors and logs."""

import re
from typing import Any

MASK = "***"

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token$|^jwt|authorization|api[_-]?key|private[_-]?key|cookie|pepper|credential",
    re.IGNORECASE,
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_JWT = re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
# Begins with the word itself: whatever stands before it is kept anyway, and a search that tries every beginning of a
# long word would take the square of its length.
_PAIR = re.compile(
    r"""(?P<key>(?:password|passwd|secret|token|authorization|api[_-]?key|pepper)["']?\s*[:=]\s*)"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;&}\]]+)""",
    re.IGNORECASE,
)


def text(value: str) -> str:
    """`value` with everything that looks like a secret masked."""
    value = _PEM.sub(MASK, value)
    value = _JWT.sub(MASK, value)
    value = _BEARER.sub(rf"\1 {MASK}", value)
    return _PAIR.sub(rf"\g<key>{MASK}", value)


def tree(value: Any) -> Any:
    """A copy of plain data (dicts, lists, scalars) with the values of secret keys and secret text masked."""
    if isinstance(value, dict):
        return {
            key: MASK if isinstance(key, str) and item is not None and _SECRET_KEY.search(key) else tree(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [tree(item) for item in value]
    if isinstance(value, str):
        return text(value)
    return value
