"""The local cloud's own certificate authority: it names this server to the agents and the agents to this server.

Files in the local cloud's directory (0700): `ca.key` (0600), `ca.crt`, and `server.pem` (0600; key and
certificate in one file, so that a power cut never leaves a pair that does not match).
"""

import ipaddress
import logging
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.files import write_atomic
from services.local_cloud.identity import IdentityRefused, check_common_name, check_key

log = logging.getLogger(__name__)

AUTHORITY_VALIDITY = timedelta(days=20 * 365)
SERVER_VALIDITY = timedelta(days=397)
CLIENT_VALIDITY = timedelta(days=365)
RENEW_SERVER_BEFORE = timedelta(days=30)
# Edge hosts without a battery clock may be behind; a certificate must not be "not yet valid" for them.
BACKDATED = timedelta(days=1)
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class AuthorityBroken(Exception):
    """The authority's files cannot be used; the text tells the operator which and what to do."""


@dataclass(frozen=True, kw_only=True)
class Authority:
    """The open authority: its directory, private key and self-signed certificate."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def certificate_file(self) -> Path:
        """What an agent needs as its CA file."""
        return self.directory / "ca.crt"

    @property
    def server_file(self) -> Path:
        """Key and certificate of this server."""
        return self.directory / "server.pem"


def open_authority(directory: Path) -> Authority:
    """Load the authority in `directory` (which exists), or make it at the first start.

    Raises `AuthorityBroken` when its key is missing, unreadable or open to others, and `OSError`.
    """
    key_file, certificate_file = directory / "ca.key", directory / "ca.crt"
    if not key_file.exists():
        if certificate_file.exists():
            raise AuthorityBroken(f"{certificate_file} is there but {key_file} is not: restore the key from a backup")
        write_atomic(key_file, _key_pem(ec.generate_private_key(ec.SECP256R1())), mode=0o600)
        log.info("made a new certificate authority in %s", directory)
    key = _load_key(key_file)
    if not certificate_file.exists():
        write_atomic(certificate_file, _pem(_self_signed(key)), mode=0o644)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except ValueError as problem:
        raise AuthorityBroken(f"{certificate_file} is no certificate: {problem}") from None
    if certificate.public_key() != key.public_key():
        raise AuthorityBroken(f"{certificate_file} does not belong to {key_file}: restore both from one backup")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise AuthorityBroken(f"{certificate_file} ended on {certificate.not_valid_after_utc:%Y-%m-%d}")
    return Authority(directory=directory, key=key, certificate=certificate)


def ensure_server_certificate(authority: Authority, names: Sequence[str]) -> bool:
    """Make or renew this server's certificate for `names` (DNS names and IP addresses). True when it is a new one.

    Raises `AuthorityBroken` for a name that is none, and `OSError`.
    """
    if not names:
        raise AuthorityBroken("local_cloud_names: expected at least one DNS name or address, got none")
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    if _server_certificate_fits(authority, alternatives):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _leaf(
        authority,
        key.public_key(),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orchestrator local cloud")]),
        SERVER_VALIDITY,
        [ExtendedKeyUsageOID.SERVER_AUTH],
        alternatives,
    )
    write_atomic(authority.server_file, _key_pem(key) + _pem(certificate), mode=0o600)
    log.info("made a server certificate for %s, valid to %s", ", ".join(names), certificate.not_valid_after_utc)
    return True


def sign_client(authority: Authority, csr_pem: bytes, expected_id: str) -> x509.Certificate:
    """Issue a client certificate for the agent `expected_id` (PEM request in, certificate out).

    Only the public key is taken from the request; name, usages and validity are ours.
    Raises `IdentityRefused` with a sentence when the request is not acceptable.
    """
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        signed = request.is_signature_valid
        public_key = request.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as problem:
        raise IdentityRefused(f"csr: expected a PEM certificate signing request ({problem})") from None
    if not signed:
        raise IdentityRefused("csr: its signature does not match its key")
    check_common_name(request.subject, expected_id)
    key = check_key(public_key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, expected_id)])
    return _leaf(authority, key, name, CLIENT_VALIDITY, [ExtendedKeyUsageOID.CLIENT_AUTH])


def certificate_pem(certificate: x509.Certificate) -> str:
    """The certificate as PEM text."""
    return _pem(certificate).decode()


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # A random part keeps two plants' authorities apart in anybody's list of certificates.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Orchestrator local cloud CA {secrets.token_hex(4)}")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + AUTHORITY_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    name: x509.Name,
    validity: timedelta,
    usages: Sequence[x509.ObjectIdentifier],
    alternatives: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    issuer_key = authority.key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(now + validity, authority.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _server_certificate_fits(authority: Authority, alternatives: x509.SubjectAlternativeName) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(authority.server_file.read_bytes())
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        certificate.verify_directly_issued_by(authority.certificate)
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound, InvalidSignature):
        return False
    return present == alternatives and certificate.not_valid_after_utc - datetime.now(UTC) > RENEW_SERVER_BEFORE


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not _DNS_NAME.fullmatch(name):
            raise AuthorityBroken(f"local_cloud_names: expected a DNS name or an address, got {name!r}") from None
        return x509.DNSName(name)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise AuthorityBroken(f"{path} can be read by others: chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise AuthorityBroken(f"{path} is no private key: {problem}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityBroken(f"{path}: expected an elliptic curve key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
