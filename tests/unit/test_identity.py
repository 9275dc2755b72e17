"""The agent's identity: what is accepted, and that everything wrong with it is told apart."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from common import identity
from common.identity import IdentityProblem

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def certificate(
    key: Key,
    name: list[tuple[x509.ObjectIdentifier, str]],
    begin: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=365),
) -> bytes:
    subject = x509.Name([x509.NameAttribute(kind, text) for kind, text in name])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def store(directory: Path, cert: bytes, key: bytes) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    (directory / "client.crt").write_bytes(cert)
    (directory / "client.key").write_bytes(key)
    (directory / "client.crt").chmod(0o644)
    (directory / "client.key").chmod(0o600)
    return directory


@pytest.fixture
def mtls(tmp_path: Path) -> Path:
    key = new_key()
    return store(tmp_path / "mtls", certificate(key, [(NameOID.COMMON_NAME, "07048933")]), pem(key))


def problem(directory: Path) -> IdentityProblem:
    with pytest.raises(IdentityProblem) as caught:
        identity.load(directory, NOW)
    return caught.value


def test_the_agent_is_who_the_certificate_says(mtls: Path) -> None:
    mine = identity.load(mtls, NOW)
    assert mine.agent_id == "07048933"
    assert mine.not_before == NOW - timedelta(days=1)
    assert mine.not_after == NOW + timedelta(days=365)
    assert mine.certificate.name == "client.crt"
    assert mine.key.name == "client.key"
    assert identity.agent_id(mtls) == "07048933"


def test_the_common_name_is_found_among_other_names_in_a_real_installers_certificate(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = [
        (NameOID.COUNTRY_NAME, "BR"),
        (NameOID.ORGANIZATION_NAME, "Autonomía"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Development"),
        (NameOID.COMMON_NAME, "dev-agent"),
    ]
    cert = certificate(key, name, end=datetime(2126, 1, 1, tzinfo=UTC))  # beyond 2049 the date has another form
    mine = identity.load(store(tmp_path / "mtls", b"some text before\n" + cert, pem(key)), NOW)
    assert mine.agent_id == "dev-agent"
    assert mine.not_after.year == 2126


@pytest.mark.parametrize("name", ["client.crt", "client.key"])
def test_a_missing_file_is_named(mtls: Path, name: str) -> None:
    (mtls / name).unlink()
    assert problem(mtls).kind == "missing"
    assert name in problem(mtls).message


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert problem(tmp_path / "nothing").kind == "missing"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_key_that_others_can_get_at_is_refused(mtls: Path, mode: int) -> None:
    (mtls / "client.key").chmod(mode)
    found = problem(mtls)
    assert found.kind == "loose_permissions"
    assert "chmod 0600" in found.message
    assert "client.key" in found.message


def test_a_directory_that_others_can_get_at_is_refused(mtls: Path) -> None:
    mtls.chmod(0o755)
    assert problem(mtls).kind == "loose_permissions"
    assert "chmod 0700" in problem(mtls).message


def test_a_key_of_another_certificate_is_refused(mtls: Path) -> None:
    (mtls / "client.key").write_bytes(pem(new_key()))
    assert problem(mtls).kind == "key_mismatch"


def test_an_expired_certificate_says_since_when(tmp_path: Path) -> None:
    key = new_key()
    cert = certificate(key, [(NameOID.COMMON_NAME, "a1")], NOW - timedelta(days=30), NOW - timedelta(days=2))
    found = problem(store(tmp_path / "mtls", cert, pem(key)))
    assert found.kind == "expired"
    assert "2026-11-21" in found.message
    assert identity.agent_id(tmp_path / "mtls") == "a1"


def test_a_certificate_of_the_future_points_at_the_clock(tmp_path: Path) -> None:
    key = new_key()
    cert = certificate(key, [(NameOID.COMMON_NAME, "a1")], NOW + timedelta(days=2))
    found = problem(store(tmp_path / "mtls", cert, pem(key)))
    assert found.kind == "not_yet_valid"
    assert "clock" in found.message


@pytest.mark.parametrize("name", [[], [(NameOID.ORGANIZATION_NAME, "x")], [(NameOID.COMMON_NAME, "../up")]])
def test_a_certificate_without_a_usable_name_is_refused(
    tmp_path: Path, name: list[tuple[x509.ObjectIdentifier, str]]
) -> None:
    key = new_key()
    assert problem(store(tmp_path / "mtls", certificate(key, name), pem(key))).kind == "no_name"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"hello", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"],
)
def test_garbage_is_no_certificate(mtls: Path, content: bytes) -> None:
    (mtls / "client.crt").write_bytes(content)
    assert problem(mtls).kind == "unreadable"
    with pytest.raises(IdentityProblem):
        identity.agent_id(mtls)


def test_a_cut_certificate_is_told_not_raised(mtls: Path) -> None:
    whole = (mtls / "client.crt").read_text()
    lines = whole.splitlines()
    for kept in range(1, len(lines) - 1):
        (mtls / "client.crt").write_text("\n".join([*lines[:kept], lines[-1]]) + "\n")
        assert problem(mtls).kind == "unreadable"


def test_an_encrypted_key_does_not_ask_the_terminal(mtls: Path) -> None:
    locked = new_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (mtls / "client.key").write_bytes(locked)
    assert problem(mtls).kind == "unreadable"
