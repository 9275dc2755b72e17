"""What counts as an agent's identity: its id, the strength of its key, and a self-signed certificate we may pin."""

import re
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_GOOD_HASHES = ("sha256", "sha384", "sha512")


class IdentityRefused(Exception):
    """A certificate, or a request for one, that we do not accept; the text says why."""


def common_name(subject: x509.Name) -> str:
    """The agent id in a subject. Raises `IdentityRefused` unless there is exactly one, of the right form."""
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise IdentityRefused(f"subject: expected one CN, got {len(names)}")
    name = names[0].value
    if not isinstance(name, str) or not AGENT_ID.fullmatch(name):
        raise IdentityRefused(f"subject CN: expected an agent id of 1-63 letters, digits, _ . -, got {name!r}")
    return name


def check_common_name(subject: x509.Name, expected_id: str) -> None:
    """Raises `IdentityRefused` unless the subject names the agent `expected_id`."""
    name = common_name(subject)
    if name != expected_id:
        raise IdentityRefused(f"subject CN: expected {expected_id}, got {name}")


def check_key(key: object) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """The key if it is RSA of 2048 to 8192 bits or on P-256. Raises `IdentityRefused`."""
    if isinstance(key, rsa.RSAPublicKey):
        # The upper bound keeps one handshake from costing the server seconds.
        if 2048 <= key.key_size <= 8192:
            return key
        raise IdentityRefused(f"key: expected RSA of 2048 to 8192 bits (4096 is usual), got {key.key_size}")
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise IdentityRefused("key: expected RSA of at least 2048 bits or an elliptic curve key on P-256")


def check_self_signed(certificate_pem: bytes, expected_id: str) -> x509.Certificate:
    """Read a self-signed client certificate that names `expected_id` and proves possession of its own key.

    Raises `IdentityRefused` with a sentence naming what is wrong.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        certificate.verify_directly_issued_by(certificate)
        digest = certificate.signature_hash_algorithm
        usages = certificate.extensions
    except (InvalidSignature, TypeError):
        raise IdentityRefused("certificate: expected a self-signed one, but another key signed it") from None
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise IdentityRefused(f"certificate: expected a self-signed PEM certificate ({problem})") from None
    check_common_name(certificate.subject, expected_id)
    check_key(certificate.public_key())
    if digest is None or digest.name not in _GOOD_HASHES:
        raise IdentityRefused("certificate: expected a signature with SHA-256 or better")
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise IdentityRefused("certificate: not valid at this time; check its dates and the host's clock")
    _check_usage(usages)
    return certificate


def _check_usage(extensions: x509.Extensions) -> None:
    try:
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise IdentityRefused("certificate: its extended key usage does not include clientAuth")
