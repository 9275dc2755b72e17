"""Request and response of the simulated runtime as plain records, and the shapes of its bodies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, read whole. Header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """One response, sent whole."""

    status: int
    content_type: str
    body: bytes


class Refused(Exception):
    """Ends a request early with the response it carries."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def json_response(value: object, status: int = 200) -> Response:
    body = json.dumps(value, separators=(",", ":")) + "\n"
    return Response(status, "application/json", body.encode())


def message(text: str, status: int = 200) -> Response:
    return json_response({"msg": text}, status)


def html_response(status: int) -> Response:
    """An error page, as the real runtime's web framework sends it where no route answers."""
    phrase = HTTPStatus(status).phrase
    page = f"<!doctype html>\n<html lang=en>\n<title>{status} {phrase}</title>\n<h1>{phrase}</h1>\n"
    return Response(status, "text/html; charset=utf-8", page.encode())


def json_body(request: Request) -> dict[str, Any]:
    """The JSON object in the body; refuses other content types (415) and other shapes (400) with a page."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refused(html_response(415))
    try:
        value = json.loads(request.body)
    except ValueError:
        raise Refused(html_response(400)) from None
    if not isinstance(value, dict):
        raise Refused(html_response(500))
    return value


def form_file(request: Request, name: str) -> bytes | None:
    """The content of the file field `name` of a multipart form, or None."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    boundary = _parameter(parameters, "boundary")
    if kind.strip().lower() != "multipart/form-data" or not boundary:
        return None
    # Every part but the first follows CRLF + boundary; a CRLF in front makes the first one alike.
    parts = (b"\r\n" + request.body).split(b"\r\n--" + boundary.encode())
    for part in parts[1:]:
        head, gap, content = part.partition(b"\r\n\r\n")
        for line in head.decode("utf-8", "replace").splitlines():
            label, _, value = line.partition(":")
            is_file = label.strip().lower() == "content-disposition" and "filename=" in value
            if gap and is_file and _parameter(value, "name") == name:
                return content
    return None


def _parameter(text: str, name: str) -> str:
    for part in text.split(";"):
        label, _, value = part.strip().partition("=")
        if label.lower() == name:
            return value.strip().strip('"')
    return ""
