"""Bearer tokens in files: made at the first start, readable by their owner only, compared in constant time."""

import hmac
import secrets
from pathlib import Path

from common.files import write_atomic


def read_or_make(path: Path) -> str:
    """The token in `path`, made (256 random bits, mode 0600) when the file is missing. Raises `OSError`."""
    if not path.exists():
        write_atomic(path, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
    token = path.read_text(encoding="ascii").strip()
    if len(token) < 16:
        raise OSError(f"{path}: expected a token of at least 16 characters; remove the file to get a new one")
    return token


def bearer_matches(authorization: str, token: str) -> bool:
    """Whether an `Authorization` header value carries `token`; the time taken does not depend on the guess."""
    scheme, _, given = authorization.partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    return same and scheme.lower() == "bearer"
