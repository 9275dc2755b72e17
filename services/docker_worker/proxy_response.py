"""From the vPLC's bytes to an `HttpResponse`: JSON parsed, text as text, anything else as base64."""

import base64
from typing import Any

import msgspec

from bus.messages.docker_worker import HttpResponse
from services.docker_worker.proxy_exchange import Answer

_TEXTUAL = ("text/", "application/json", "application/xml", "application/javascript", "application/x-www-form")


def relay(answer: Answer) -> HttpResponse:
    """The answer as it was given, 4xx and 5xx included: to the runtime a 404 is often the normal answer."""
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    content_type = next((value for name, value in answer.headers if name.lower() == "content-type"), "")
    body, encoding = _body(answer.body, content_type.lower())
    return HttpResponse(
        status_code=answer.status_code,
        headers=headers,
        body=body,
        ok=answer.status_code < 400,
        content_type=content_type,
        body_encoding=encoding,
    )


def _body(body: bytes, content_type: str) -> tuple[Any, str | None]:
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().endswith(("/json", "+json")):
        try:
            return _json(body), None
        except (msgspec.MsgspecError, OverflowError, RecursionError):
            pass  # not JSON after all, or more than the bus can carry: then it is text
    if not media_type or media_type.startswith(_TEXTUAL) or media_type.strip().endswith(("+json", "+xml")):
        _, _, charset = parameters.partition("charset=")
        try:
            return body.decode(charset.strip(" \"'") or "utf-8"), None
        except (UnicodeDecodeError, LookupError):
            pass  # not the text it says it is: pass the bytes on unharmed
    return base64.b64encode(body).decode(), "base64"


def _json(body: bytes) -> Any:
    value = msgspec.json.decode(body)
    msgspec.msgpack.encode(value)  # the bus carries 64-bit integers only
    return value
