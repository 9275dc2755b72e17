"""An agent's identity on disk: `client.key` (0600) and `client.crt` (0644) in a directory of mode 0700.

The pair changes whole or not at all: both files are staged beside the old ones, then renamed over them. A crash
between the two renames is put right by `settle_interrupted` at the next run. The directory itself is never
renamed, since it may be a mount.
"""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from common.files import sync_directory, write_atomic

_KEY, _CERTIFICATE = "client.key", "client.crt"
_STAGED_KEY, _STAGED_CERTIFICATE = "client.key.new", "client.crt.new"


class IdentityProblem(Exception):
    """A key and certificate that are no identity; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who this host is, and until when (UTC)."""

    agent_id: str
    not_after: datetime


def read_identity(key_pem: bytes, certificate_pem: bytes) -> Identity:
    """Check that the certificate belongs to the key and is in force. Raises `IdentityProblem`.

    An expired certificate is returned like any other; only one that is not valid yet is a problem here.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise IdentityProblem(f"key or certificate cannot be read ({problem})") from None
    if certificate.public_key() != key.public_key():
        raise IdentityProblem("the certificate does not belong to the key")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise IdentityProblem(f"the certificate's subject has {len(names)} CN, expected one")
    if certificate.not_valid_before_utc > datetime.now(UTC):
        raise IdentityProblem("the certificate is not valid yet; check this host's clock")
    return Identity(agent_id=names[0].value, not_after=certificate.not_valid_after_utc)


def write_identity(directory: Path, key_pem: bytes, certificate_pem: bytes) -> None:
    """Replace the identity in `directory`. Raises `OSError`, and then the old pair is untouched."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # The certificate is staged last: its presence says that the staged pair is whole.
        write_atomic(directory / _STAGED_KEY, key_pem, mode=0o600)
        write_atomic(directory / _STAGED_CERTIFICATE, certificate_pem, mode=0o644)
    except OSError:
        _drop_staged(directory)
        raise
    _switch(directory)
    tighten(directory)


def tighten(directory: Path) -> None:
    """Give the files the modes they must have, whatever the umask or a copy made of them."""
    directory.chmod(0o700)
    (directory / _KEY).chmod(0o600)
    (directory / _CERTIFICATE).chmod(0o644)


def settle_interrupted(directory: Path) -> None:
    """Finish a switch that was cut in the middle, or drop a pair that was only half staged. Raises `OSError`."""
    if (directory / _STAGED_CERTIFICATE).exists():
        _switch(directory)
    else:
        _drop_staged(directory)


def _switch(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # already renamed when the last run was cut
        (directory / _STAGED_KEY).replace(directory / _KEY)
    (directory / _STAGED_CERTIFICATE).replace(directory / _CERTIFICATE)
    sync_directory(directory)


def _drop_staged(directory: Path) -> None:
    for name in (_STAGED_CERTIFICATE, _STAGED_KEY):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()
