"""What the HTTP faces share: JSON answers, and errors that are one sentence and a code, never a traceback.

Every error is `{"error": sentence, "code": ..., "statusCode": ...}`; codes as on the cloud protocol, and `busy`.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
from aiohttp import web

log = logging.getLogger(__name__)

Code = Literal["invalid", "not_found", "conflict", "refused", "unavailable", "timeout", "busy", "internal"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CODE_OF_STATUS: Mapping[int, Code] = {
    401: "refused",
    403: "refused",
    404: "not_found",
    409: "conflict",
    429: "busy",
    503: "unavailable",
    504: "timeout",
}


class ApiError(Exception):
    """An answer other than success: HTTP `status`, closed `code`, and a sentence a person can act on."""

    def __init__(self, status: int, code: Code, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON response. Bytes inside become base64, as binary acknowledgements carry them."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )


def refusal(problem: ApiError) -> web.Response:
    """The JSON response for an error."""
    body = {"error": problem.message, "code": problem.code, "statusCode": problem.status}
    return answer(body, problem.status, problem.headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn everything a handler raises into an error answer."""
    try:
        return await handler(request)
    except ApiError as problem:
        return refusal(problem)
    except web.HTTPException as problem:
        return refusal(_from_http(request, problem))
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return refusal(ApiError(500, "internal", "the local cloud failed on this request; its log has the details"))


def _from_http(request: web.Request, problem: web.HTTPException) -> ApiError:
    allow = problem.headers.get("Allow")
    if problem.status == 404:
        message = f"there is nothing at {request.path}; GET / lists what there is"
    elif allow:
        message = f"{request.path} does not know {request.method}; it knows {allow}"
    else:
        message = problem.text or problem.reason
    code = _CODE_OF_STATUS.get(problem.status, "internal" if problem.status >= 500 else "invalid")
    return ApiError(problem.status, code, message, {"Allow": allow} if allow else None)
