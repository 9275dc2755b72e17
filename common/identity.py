"""Who this agent is: the client certificate in the mTLS directory, and everything that can be wrong with it.

The standard library is enough here and 13 MB lighter than `cryptography`: OpenSSL judges the pair (that the
certificate parses, that the key belongs to it) through `ssl.SSLContext.load_cert_chain`; what it does not tell in
public, the subject's CN and the dates, is read from the DER that OpenSSL has just accepted (RFC 5280, 4.1).
"""

import re
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["missing", "loose_permissions", "unreadable", "key_mismatch", "no_name", "expired", "not_yet_valid"]

CERTIFICATE, KEY = "client.crt", "client.key"

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # it becomes part of labels and paths
_COMMON_NAME = bytes.fromhex("550403")  # OID 2.5.4.3
_UTC_TIME, _GENERALIZED_TIME, _VERSION, _BMP_STRING = 0x17, 0x18, 0xA0, 0x1E


class IdentityProblem(Exception):
    """The agent cannot prove who it is. `kind` tells programs which way, the text tells a technician what to do."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A usable identity: the subject's CN, the validity and the files."""

    agent_id: str
    not_before: datetime
    not_after: datetime
    certificate: Path
    key: Path


def load(mtls_dir: Path, now: datetime | None = None) -> Identity:
    """The identity in `mtls_dir`, fit for use at `now` (the present). Raises `IdentityProblem`."""
    certificate, key = mtls_dir / CERTIFICATE, mtls_dir / KEY
    _require_private(mtls_dir, "the directory", "0700")
    _require_private(key, "the private key", "0600")
    encoded = _read(certificate)
    _require_pair(certificate, key)
    agent_id, not_before, not_after = _facts(encoded, certificate)
    if not _AGENT_ID.fullmatch(agent_id):
        raise IdentityProblem(
            "no_name",
            f"the certificate {certificate} names no agent: expected a subject CN of 1-64 letters, digits, _ . -,"
            f" got {agent_id[:80]!r}",
        )
    now = now or datetime.now(UTC)
    if now > not_after:
        raise IdentityProblem(
            "expired",
            f"the certificate {certificate} of agent {agent_id} expired at {not_after:%Y-%m-%d %H:%M} UTC"
            f" (this host's clock says {now:%Y-%m-%d %H:%M}): provision the agent again",
        )
    if now < not_before:
        raise IdentityProblem(
            "not_yet_valid",
            f"the certificate {certificate} of agent {agent_id} is valid only from {not_before:%Y-%m-%d %H:%M} UTC"
            f" (this host's clock says {now:%Y-%m-%d %H:%M}): check the clock",
        )
    return Identity(agent_id=agent_id, not_before=not_before, not_after=not_after, certificate=certificate, key=key)


def agent_id(mtls_dir: Path) -> str:
    """The subject CN of the certificate, whatever its dates and modes. Raises `IdentityProblem`."""
    certificate = mtls_dir / CERTIFICATE
    return _facts(_read(certificate), certificate)[0]


def _require_private(path: Path, what: str, expected: str) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        raise IdentityProblem("missing", f"{what} {path} does not exist: provision the agent") from None
    except OSError as problem:
        raise IdentityProblem("unreadable", f"{what} {path} cannot be read: {problem.strerror}") from None
    if mode & 0o077:
        raise IdentityProblem(
            "loose_permissions",
            f"{what} {path} has mode {mode:04o}, others may get at it: run chmod {expected} {path}",
        )


def _read(certificate: Path) -> str:
    try:
        return certificate.read_text(encoding="ascii")
    except FileNotFoundError:
        raise IdentityProblem("missing", f"the certificate {certificate} does not exist: provision the agent") from None
    except OSError as problem:
        raise IdentityProblem("unreadable", f"the certificate {certificate}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise IdentityProblem("unreadable", f"the certificate {certificate} is no PEM text") from None


def _require_pair(certificate: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # without it OpenSSL asks the terminal
    except ssl.SSLError as problem:
        if problem.reason == "KEY_VALUES_MISMATCH":
            raise IdentityProblem(
                "key_mismatch", f"the private key {key} does not belong to the certificate {certificate}"
            ) from None
        raise IdentityProblem(
            "unreadable", f"{certificate} and {key} are no certificate and unencrypted key in PEM: {problem}"
        ) from None
    except OSError as problem:
        raise IdentityProblem("unreadable", f"{certificate} or {key}: {problem.strerror}") from None


# ---- the few bytes of X.509 that are needed


def _facts(encoded: str, certificate: Path) -> tuple[str, datetime, datetime]:
    """CN ("" when there is none), notBefore and notAfter of the first certificate of a PEM file."""
    try:
        der = ssl.PEM_cert_to_DER_cert(_first_certificate(encoded))
        (_, whole) = _items(der)[0]
        (_, signed) = _items(whole)[0]
        fields = _items(signed)
        if fields[0][0] == _VERSION:
            fields = fields[1:]
        _serial, _algorithm, _issuer, (_, validity), (_, subject) = fields[:5]
        begin, end = _items(validity)
        return _common_name(subject), _moment(*begin), _moment(*end)
    except (ValueError, IndexError) as problem:
        raise IdentityProblem("unreadable", f"{certificate} holds no certificate that can be read: {problem}") from None


def _first_certificate(encoded: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start, stop = encoded.find(begin), encoded.find(end)
    if start < 0 or stop < start:
        raise ValueError("no PEM block CERTIFICATE in it")
    return encoded[start : stop + len(end)]


def _items(der: bytes) -> list[tuple[int, bytes]]:
    """The tag and content of each element of a DER sequence's content."""
    found: list[tuple[int, bytes]] = []
    place = 0
    while place < len(der):
        tag, length = der[place], der[place + 1]
        place += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[place : place + size], "big")
            place += size
        if place + length > len(der):
            raise ValueError("an element reaches beyond the end")
        found.append((tag, der[place : place + length]))
        place += length
    return found


def _common_name(subject: bytes) -> str:
    for _, relative in _items(subject):
        for _, attribute in _items(relative):
            (_, kind), (tag, value) = _items(attribute)[:2]
            if kind == _COMMON_NAME:
                return value.decode("utf-16-be" if tag == _BMP_STRING else "utf-8")
    return ""


def _moment(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 1950-2049 (RFC 5280, 4.1.2.5.1)
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a date of an unknown kind")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
