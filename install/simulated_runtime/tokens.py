"""JSON Web Tokens (HS256), and the sentences the real runtime refuses them with."""

import base64
import binascii
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Claims:
    """What a good token says: whom it was given to, and its own id (empty if it carries none)."""

    user_id: str
    token_id: str


class TokenRefused(Exception):
    """A token that is not accepted: `status` is 401 (expired and the like) or 422 (unreadable)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def issue(secret: str, user_id: int, lifetime: int) -> str:
    """A token for `user_id` that is good for `lifetime` seconds of wall time."""
    now = int(time.time())
    claims = {
        "fresh": False,
        "iat": now,
        "jti": str(uuid.uuid4()),
        "type": "access",
        "sub": str(user_id),
        "nbf": now,
        "exp": now + lifetime,
    }
    signed = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
    return f"{signed}.{_base64(_signature(secret, signed))}"


def verify(secret: str, token: str) -> Claims:
    """The claims of a token signed with `secret` and not expired; raises TokenRefused."""
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenRefused(422, "Not enough segments")
    header, body, signature = parts
    if not hmac.compare_digest(_bytes(signature), _signature(secret, f"{header}.{body}")):
        raise TokenRefused(422, "Signature verification failed")
    if _object(header, "header").get("alg") != "HS256":
        raise TokenRefused(422, "The specified alg value is not allowed")
    claims = _object(body, "payload")
    expires = claims.get("exp")
    if isinstance(expires, int | float) and expires <= time.time():
        raise TokenRefused(401, "Token has expired")
    if not isinstance(claims.get("sub"), str):
        raise TokenRefused(422, "Missing claim: sub")
    return Claims(claims["sub"], str(claims.get("jti", "")))


def _signature(secret: str, signed: str) -> bytes:
    return hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _encode(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise TokenRefused(422, "Invalid crypto padding") from None


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(text))
    except ValueError:
        raise TokenRefused(422, f"Invalid {what} string") from None
    if not isinstance(value, dict):
        raise TokenRefused(422, f"Invalid {what} string: must be a json object")
    return value
