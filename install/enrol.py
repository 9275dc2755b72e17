"""`python -m install.enrol`: gives this host its identity at a cloud, as the cloud protocol's provisioning words it.

An id is asked for, a key is made that never leaves this host, and the cloud signs a request for it. The pair is
written whole or not at all; a valid identity that is there already is kept unless `--reprovision` is given.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from install.identity_files import Identity, IdentityProblem, read_identity, settle_interrupted, tighten, write_identity

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_MOST_ANSWER_BYTES = 256 * 1024


class EnrolmentFailed(Exception):
    """No identity was obtained and nothing was changed; the text says why and what to do."""


def enrol(
    provisioning: str, ca: Path, token: str, mtls_dir: Path, *, reprovision: bool = False
) -> tuple[Identity, bool]:
    """The identity in `mtls_dir` and whether it is new. Raises `EnrolmentFailed`."""
    try:
        settle_interrupted(mtls_dir)
        if not reprovision and (present := _present(mtls_dir)):
            tighten(mtls_dir)
            return present, False
        with requests.Session() as session:
            # Proxies and .netrc of the installing shell are no business of the identity.
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {token}"
            cloud = _Cloud(session, provisioning.rstrip("/"), ca)
            agent_id = cloud.new_id()
            key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
            certificate_pem = cloud.certificate_for(_request_for(key, agent_id))
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        identity = read_identity(key_pem, certificate_pem.encode("utf-8", "replace"))
        if identity.agent_id != agent_id:
            raise EnrolmentFailed(f"the cloud sent a certificate for {identity.agent_id} instead of {agent_id}")
        write_identity(mtls_dir, key_pem, certificate_pem.encode())
    except IdentityProblem as problem:
        raise EnrolmentFailed(str(problem)) from None
    except OSError as problem:
        raise EnrolmentFailed(f"cannot write the identity: {problem}") from None
    return identity, True


class _Cloud:
    """The two provisioning requests of one enrolment."""

    def __init__(self, session: requests.Session, url: str, ca: Path) -> None:
        self._session, self._url, self._ca = session, url, ca

    def new_id(self) -> str:
        agent_id = self._data("GET", "/orchestrators/id").get("id")
        if not isinstance(agent_id, str) or not agent_id:
            raise EnrolmentFailed("the cloud's answer holds no data.id")
        return agent_id

    def certificate_for(self, csr_pem: bytes) -> str:
        files = {"csr": ("client.csr", csr_pem, "application/pkcs10")}
        certificate = self._data("POST", "/orchestrators/enroll", files=files).get("certificate")
        if not isinstance(certificate, str) or not certificate:
            raise EnrolmentFailed("the cloud's answer holds no data.certificate")
        return certificate

    def _data(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        url = self._url + path
        try:
            # `verify` in each call: REQUESTS_CA_BUNDLE in the environment overrides a session's.
            response = self._session.request(
                method,
                url,
                verify=str(self._ca),
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,
                **more,
            )
            with response:
                body = _read(response)
        except requests.exceptions.SSLError as problem:
            raise EnrolmentFailed(
                f"{url}: the server's certificate is not accepted by {self._ca} ({_cause(problem)})"
            ) from None
        except (requests.RequestException, OSError, ValueError) as problem:
            raise EnrolmentFailed(f"{url} does not answer ({_cause(problem)}); is the address right?") from None
        return _data_of(url, response.status_code, body)


def _read(response: requests.Response) -> bytes:
    """The body, bounded in size and in time (the timeout of `requests` counts anew at every byte)."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    body = b""
    while chunk := response.raw.read1(65536, decode_content=True):
        body += chunk
        if len(body) > _MOST_ANSWER_BYTES or time.monotonic() > deadline:
            raise OSError("its answer is too long or too slow")
    return body


def _data_of(url: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        raise EnrolmentFailed(f"{url} answered HTTP {status} and no JSON; is it a provisioning address?") from None
    if not isinstance(answer, dict):
        raise EnrolmentFailed(f"{url} answered HTTP {status} and no JSON object")
    data = answer.get("data")
    if status != 200 or answer.get("statusCode", 200) != 200 or not isinstance(data, dict):
        why = answer.get("error") or answer.get("message") or "no reason given"
        raise EnrolmentFailed(f"{url} answered HTTP {status}: {str(why)[:300]}")
    return data


def _present(mtls_dir: Path) -> Identity | None:
    """The valid identity that is there already; None when there is none or it has expired."""
    key_file, certificate_file = mtls_dir / "client.key", mtls_dir / "client.crt"
    if not key_file.exists() and not certificate_file.exists():
        return None
    try:
        identity = read_identity(key_file.read_bytes(), certificate_file.read_bytes())
    except (OSError, IdentityProblem) as problem:
        raise EnrolmentFailed(f"{mtls_dir}: {problem}; --reprovision replaces it by a new identity") from None
    if identity.not_after <= datetime.now(UTC):
        raise EnrolmentFailed(
            f"{certificate_file} of agent {identity.agent_id} expired on {identity.not_after:%Y-%m-%d};"
            " --reprovision gets a new identity"
        )
    return identity


def _request_for(key: rsa.RSAPrivateKey, agent_id: str) -> bytes:
    try:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agent_id)])
    except ValueError as problem:
        raise EnrolmentFailed(f"the cloud gave an id that cannot be a CN: {problem}") from None
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM)


def _cause(problem: BaseException) -> str:
    """The innermost reason, in one line; the libraries wrap it three times."""
    inner: BaseException | None = problem
    while inner is not None:
        problem = inner
        inside = (getattr(inner, "reason", None), *inner.args)
        inner = next((item for item in inside if isinstance(item, BaseException)), None)
    lines = str(problem).rsplit("): ", 1)[-1].splitlines()
    return lines[0][:200] if lines else type(problem).__name__


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise EnrolmentFailed(f"cannot read the enrolment token: {problem}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise EnrolmentFailed(f"{path} holds no enrolment token")
    return token


def main(arguments: Sequence[str] | None = None) -> int:
    """Enrol; 0 with id and expiry on stdout, 1 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="install.enrol", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--provisioning", required=True, metavar="URL", help="for example https://cloud.plant:7444")
    parser.add_argument("--ca", required=True, type=Path, metavar="FILE", help="the cloud's CA certificate (PEM)")
    parser.add_argument("--token-file", required=True, type=Path, metavar="FILE", help="the enrolment token")
    parser.add_argument("--mtls-dir", default=Path("~/.mtls"), type=Path, metavar="DIR", help="~/.mtls")
    parser.add_argument("--reprovision", action="store_true", help="replace the identity that is there")
    given = parser.parse_args(arguments)
    try:
        if not given.provisioning.startswith("https://"):
            raise EnrolmentFailed(f"--provisioning: expected an https:// address, got {given.provisioning}")
        if not given.ca.is_file():
            raise EnrolmentFailed(f"--ca: there is no file {given.ca}")
        identity, new = enrol(
            given.provisioning,
            given.ca,
            _token(given.token_file),
            given.mtls_dir.expanduser(),
            reprovision=given.reprovision,
        )
    except EnrolmentFailed as problem:
        print(f"enrol: {problem}", file=sys.stderr)
        return 1
    state = "enrolled" if new else "kept the present identity"
    print(f"{state}: agent id {identity.agent_id}, certificate valid to {identity.not_after:%Y-%m-%d %H:%M} UTC")
    return 0


if __name__ == "__main__":
    sys.exit(main())
