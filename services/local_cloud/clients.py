"""The register of client certificates: which were issued or pinned, and which of them no longer count.

`clients.json` holds every certificate by its fingerprint. A certificate is accepted when our authority signed
it or when exactly this certificate was pinned, and its record is not revoked. The fingerprint matters for
pinned ones: a self-signed certificate may itself be a CA, and must not vouch for others.
"""

import logging
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from common.files import write_atomic
from services.local_cloud.authority import Authority, AuthorityBroken, certificate_pem
from services.local_cloud.clock import now_iso
from services.local_cloud.identity import IdentityRefused, common_name

log = logging.getLogger(__name__)


class ClientCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate of one agent. Times ISO 8601 UTC; `pem` only for pinned ones, which TLS needs as anchors."""

    fingerprint: str
    serial: str
    agent_id: str
    kind: Literal["issued", "pinned"]
    issued_at: str
    not_after: str
    revoked_at: str | None = None
    pem: str | None = None


class ClientRegister:
    """The register in memory and on disk; the file is replaced whole and atomically at every change.

    Raises `AuthorityBroken` for a damaged file, and `OSError`.
    """

    def __init__(self, path: Path, authority: Authority) -> None:
        self._path, self._authority = path, authority
        records: list[ClientCertificate] = []
        if path.exists():
            try:
                records = msgspec.json.decode(path.read_bytes(), type=list[ClientCertificate])
            except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
                raise AuthorityBroken(f"{path} is damaged ({problem}): restore it from a backup") from None
        self._records = {record.fingerprint: record for record in records}

    def agent_ids(self) -> set[str]:
        """Every agent that ever got a certificate."""
        return {record.agent_id for record in self._records.values()}

    def pinned(self) -> list[str]:
        """The PEM of the pinned certificates that still count."""
        return [record.pem for record in self._records.values() if record.pem and not record.revoked_at]

    def add(self, certificate: x509.Certificate, agent_id: str, kind: Literal["issued", "pinned"]) -> None:
        """Write a certificate down; it is durable when this returns. Raises `OSError`."""
        record = ClientCertificate(
            fingerprint=_fingerprint(certificate),
            serial=f"{certificate.serial_number:x}",
            agent_id=agent_id,
            kind=kind,
            issued_at=now_iso(),
            not_after=certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z"),
            pem=certificate_pem(certificate) if kind == "pinned" else None,
        )
        records = self._records | {record.fingerprint: record}
        write_atomic(self._path, msgspec.json.format(msgspec.json.encode(list(records.values()))), mode=0o600)
        self._records = records

    def identify(self, peer_der: bytes) -> str:
        """The agent id behind the certificate of a finished TLS handshake. Raises `IdentityRefused`."""
        certificate = x509.load_der_x509_certificate(peer_der)
        agent_id = common_name(certificate.subject)
        record = self._records.get(_fingerprint(certificate))
        if record is not None and record.revoked_at:
            raise IdentityRefused(f"the certificate of {agent_id} was revoked at {record.revoked_at}")
        if record is None:
            self._require_our_signature(certificate, agent_id)
        return agent_id

    def _require_our_signature(self, certificate: x509.Certificate, agent_id: str) -> None:
        try:
            certificate.verify_directly_issued_by(self._authority.certificate)
        except (ValueError, TypeError, InvalidSignature):
            raise IdentityRefused(f"a certificate for {agent_id} that was neither issued nor pinned here") from None
        log.warning("agent %s shows a certificate of ours that is not in %s (restored?)", agent_id, self._path.name)


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
