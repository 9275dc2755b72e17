"""From a `RunCommand` to the bytes of one HTTP request, or a `CommandError` naming the field that is wrong.

Nothing the cloud sends can choose the target: the address comes from the registry, the port from a closed list,
and the path is made of plain segments only. `@` would move the host into the user part of a URL, `%2e` and `..`
climb, `?` and `#` smuggle a query; none of them has a meaning in the runtime's API.
"""

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from urllib3.filepost import encode_multipart_formdata

from bus.errors import CommandError
from bus.messages.docker_worker import RunCommand, UploadedFile

METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"})
BODY_LIMIT = 4 * 1024 * 1024
QUERY_LIMIT = 8 * 1024
LONGEST = 300.0  # seconds; as the contract of the cloud says

RELAYED_HEADERS = frozenset(
    {
        "accept",
        "accept-language",
        "authorization",
        "cache-control",
        "content-type",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "range",
        "user-agent",
        "x-correlation-id",
        "x-request-id",
        "x-requested-with",
    }
)

_PATH = re.compile(r"/?[A-Za-z0-9_./-]{1,200}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]{0,8192}")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(;[\x20-\x7e]*)?", re.ASCII)
_FORM = "application/x-www-form-urlencoded"


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request, ready to send: `target` is path and query, `dropped` the header names that are not relayed."""

    method: str
    port: int
    target: str
    headers: dict[str, str]
    body: bytes | None
    dropped: tuple[str, ...]


def prepare(request: RunCommand, ports: frozenset[int]) -> HttpRequest:
    """Check every field and encode the body.

    Raises `CommandError`: `invalid` for what is malformed, `refused` for what is well formed and not allowed.
    """
    if request.method not in METHODS:
        raise CommandError("invalid", f"method: expected one of {', '.join(sorted(METHODS))}, got {request.method!r}")
    _check_port(request.port, ports)
    check_timeout(request.timeout_s)
    headers, dropped = _relayed(request.headers)
    body, content_type = _body(request, headers)
    if body is not None and len(body) > BODY_LIMIT:
        raise CommandError("refused", f"the request is {len(body)} bytes long, at most {BODY_LIMIT} are passed on")
    headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    if content_type:
        headers["Content-Type"] = content_type
    return HttpRequest(
        method=request.method,
        port=request.port,
        target=_path(request.api) + _query(request.params),
        headers=headers,
        body=body,
        dropped=dropped,
    )


def check_timeout(seconds: float) -> None:
    """Raise `CommandError` unless `seconds` is a usable deadline."""
    if not (math.isfinite(seconds) and 0 < seconds <= LONGEST):
        raise CommandError("invalid", f"timeout_s: expected more than 0 and at most {LONGEST:g} s, got {seconds!r}")


def _check_port(port: int, ports: frozenset[int]) -> None:
    if not 1 <= port <= 65535:
        raise CommandError("invalid", f"port: expected 1 to 65535, got {port}")
    if port not in ports:
        served = ", ".join(str(each) for each in sorted(ports))
        raise CommandError("refused", f"port {port}: the vPLC's HTTPS API is on {served}; nothing else is passed on")


def _path(api: str) -> str:
    segments = api.removeprefix("/").split("/")
    if not _PATH.fullmatch(api) or any(segment in (".", "..") for segment in segments) or "" in segments[:-1]:
        raise CommandError(
            "invalid",
            "api: expected a path such as /api/status, of at most 200 letters, digits, '_', '-', '.' and single '/' "
            f"(a query goes into params), got {api[:80]!r}",
        )
    return "/" + api.removeprefix("/")


def _query(params: Mapping[str, Any]) -> str:
    if not params:
        return ""
    query = urlencode(_pairs("params", params))
    if len(query) > QUERY_LIMIT:
        raise CommandError("refused", f"params: {len(query)} bytes when encoded, at most {QUERY_LIMIT} are passed on")
    return f"?{query}" if query else ""


def _pairs(field: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Flat name and text pairs; a list gives its name several times, None leaves it out."""
    pairs = []
    for name, value in values.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is None:
                continue
            if isinstance(item, bool):
                item = "true" if item else "false"
            if not isinstance(item, str | int | float):
                raise CommandError("invalid", f"{field}.{name}: expected text, a number, true, false or a list of them")
            pairs.append((name, str(item)))
    return pairs


def _relayed(headers: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The headers that go to the vPLC, and the names of those that do not.

    Host, Content-Length, Accept-Encoding and the hop-by-hop ones are ours to set; cookies, proxy headers and method
    overrides have no business with a vPLC.
    """
    kept, dropped = {}, []
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise CommandError("invalid", f"headers: {name[:80]!r} is no header name")
        if not _HEADER_VALUE.fullmatch(value):
            raise CommandError("invalid", f"headers.{name}: expected printable ASCII of at most 8192 characters")
        if name.lower() in RELAYED_HEADERS:
            kept[name] = value
        else:
            dropped.append(name)
    return kept, tuple(dropped)


def _body(request: RunCommand, headers: Mapping[str, str]) -> tuple[bytes | None, str]:
    """The encoded body and its Content-Type. With files the caller's Content-Type is dropped: it lacks our boundary,
    and the runtime would find no file in the request."""
    stated = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    data = request.data
    if request.files:
        return _multipart(data, request.files)
    if data is None:
        return None, stated
    if stated.lower().startswith(_FORM):
        return _form(data), stated
    if stated and isinstance(data, str) and "json" not in stated.lower():
        return data.encode(), stated
    try:
        return msgspec.json.encode(data), stated or "application/json"
    except (TypeError, ValueError, RecursionError) as problem:
        raise CommandError("invalid", f"data: cannot be written as JSON: {problem}") from None


def _form(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if not isinstance(data, dict):
        raise CommandError("invalid", f"data: expected an object or text for a form, got {type(data).__name__}")
    return urlencode(_pairs("data", data)).encode()


def _multipart(data: Any, files: Mapping[str, UploadedFile]) -> tuple[bytes, str]:
    if not (data is None or isinstance(data, dict)):
        raise CommandError("invalid", f"data: expected an object beside files, got {type(data).__name__}")
    parts: list[tuple[str, Any]] = list(_pairs("data", data or {}))
    for field, file in files.items():
        if not _MEDIA_TYPE.fullmatch(file.content_type):
            raise CommandError("invalid", f"files.{field}.content_type: expected a type such as application/zip")
        parts.append((field, (file.filename, file.content, file.content_type)))
    body, content_type = encode_multipart_formdata(parts)
    return body, content_type
