"""Enrolment: an edge host gets an identity with the token, once per id, and nobody gets one without."""

import asyncio
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from install import enrol, identity_files
from services.local_cloud.limits import RateLimit
from services.local_cloud.provisioning import PendingIds
from tests.unit.local_cloud_rig import LocalCloud, certificate, connected, local_cloud, request_for, wait_for


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with local_cloud(tmp_path_factory.mktemp("lc")) as running:
        yield running


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_an_id_is_given_with_its_deadline(cloud: LocalCloud) -> None:
    answer = cloud.provision("GET", "id").json()
    data = answer["data"]
    left = datetime.fromisoformat(data["expiresAt"]) - datetime.now(UTC)
    assert answer["statusCode"] == 200 and data["expiresIn"] == 300 and 290 < left.total_seconds() <= 300
    assert len(data["id"]) == 8 and data["id"].isdigit()


def test_a_request_becomes_a_client_certificate_once(cloud: LocalCloud, key: rsa.RSAPrivateKey) -> None:
    agent_id = cloud.new_id()
    csr = request_for(key, agent_id)
    response = cloud.provision("POST", "enroll", files={"csr": csr})
    answer = response.json()
    assert response.status_code == 200 and answer["statusCode"] == 200
    assert answer["data"]["id"] == agent_id and answer["data"]["message"]
    issued = x509.load_pem_x509_certificate(answer["data"]["certificate"].encode())
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(cloud.ca.read_bytes()))
    assert issued.subject.rfc4514_string() == f"CN={agent_id}" and issued.public_key() == key.public_key()
    usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert 364 <= (issued.not_valid_after_utc - datetime.now(UTC)).days <= 365
    again = cloud.provision("POST", "enroll", files={"csr": csr})
    assert again.status_code == 404 and "was used" in again.json()["error"]
    assert f"{issued.serial_number:x}" in (cloud.directory / "clients.json").read_text()
    listed = cloud.agent(agent_id)
    assert listed["enrolled_at"] and not listed["online"]


def test_without_the_token_there_is_nothing_and_guessing_is_slowed_down(tmp_path: Path) -> None:
    with local_cloud(tmp_path / "lc") as cloud:
        for method, path in (("GET", "id"), ("POST", "enroll"), ("POST", "certificate")):
            for token in ("wrong", "x" * 2000, cloud.token("api")):
                response = cloud.provision(method, path, token=token)
                assert (response.status_code, response.json()["code"]) == (401, "refused")
        statuses = [cloud.provision("GET", "id", token="guess").status_code for _ in range(4)]
        assert statuses[-1] == 429
        response = cloud.provision("GET", "id")
        assert response.status_code == 429 and int(response.headers["Retry-After"]) >= 1


def test_a_bad_request_is_refused_by_name_and_leaves_the_id_usable(cloud: LocalCloud, key: rsa.RSAPrivateKey) -> None:
    agent_id = cloud.new_id()
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    other_curve = ec.generate_private_key(ec.SECP384R1())
    good = request_for(key, agent_id)
    broken = bytearray(good)
    broken[-60] ^= 1
    for csr, what in (
        (b"no pem", "csr"),
        (bytes(broken), "csr"),
        (request_for(weak, agent_id), "2048"),
        (request_for(other_curve, agent_id), "P-256"),
        (request_for(key, "../../etc"), "CN"),
        (b"x" * 70_000, "csr"),
    ):
        response = cloud.provision("POST", "enroll", files={"csr": csr})
        assert response.status_code in (400, 413) and what in response.json()["error"], what
    assert cloud.provision("POST", "enroll", data=b"csr").status_code == 400
    assert "csr" in cloud.provision("POST", "enroll", files={"other": good}).json()["error"]
    assert cloud.provision("POST", "enroll", files={"csr": request_for(key, "12345678")}).status_code == 404
    assert cloud.provision("POST", "enroll", files={"csr": good}).status_code == 200


def test_a_self_signed_certificate_must_prove_itself(cloud: LocalCloud) -> None:
    agent_id = cloud.new_id()
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    for pem, why in (
        (b"no pem", "PEM"),
        (certificate("someone", key), "CN"),
        (certificate(agent_id, key, signer=other), "self-signed"),
        (certificate(agent_id, key, issuer="a ca", signer=other), "self-signed"),
        (certificate(agent_id, key, days=-1), "dates"),
    ):
        response = cloud.provision("POST", "certificate", files={"certificate": pem}, data={"id": agent_id})
        assert response.status_code == 400 and why in response.json()["error"], why
    good = {"certificate": certificate(agent_id, key)}
    assert cloud.provision("POST", "certificate", files=good, data={"id": "00000000"}).status_code == 404
    assert cloud.provision("POST", "certificate", files=good, data={"id": agent_id}).status_code == 200
    assert cloud.provision("POST", "certificate", files=good, data={"id": agent_id}).status_code == 404


def test_ids_last_five_minutes_and_their_number_is_bounded() -> None:
    now = [0.0]
    ids = PendingIds(set, clock=lambda: now[0])
    first, second = ids.give(), ids.give()
    assert first and second
    now[0] = 299.0
    until = ids.claim(first)
    assert until == 300.0 and ids.claim(first) is None
    ids.give_back(first, until)
    now[0] = 301.0
    assert ids.claim(first) is None and ids.claim(second) is None
    assert all(ids.give() for _ in range(1000)) and ids.give() is None
    now[0] = 700.0
    assert ids.give()


def test_the_rate_limit_refills_with_time() -> None:
    now = [0.0]
    limit = RateLimit(burst=2, per_second=1, clock=lambda: now[0])
    assert [limit.wait_for("a"), limit.wait_for("a"), limit.wait_for("a")] == [0, 0, 1]
    assert limit.wait_for("b") == 0
    now[0] = 1.0
    assert limit.wait_for("a") == 0


def test_the_installer_enrols_this_host_and_keeps_the_identity(
    cloud: LocalCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    mtls = tmp_path / "deep" / "mtls"
    arguments = ["--provisioning", cloud.api_url, "--ca", str(cloud.ca), "--mtls-dir", str(mtls)]
    arguments += ["--token-file", str(cloud.directory / "enrol.token")]
    assert enrol.main(arguments) == 0
    agent_id = identity_files.read_identity(*(pair := pair_of(mtls))).agent_id
    said = capsys.readouterr().out
    assert agent_id in said and str(datetime.now(UTC).year + 1) in said
    assert [stat.S_IMODE((mtls / name).stat().st_mode) for name in (".", "client.key", "client.crt")] == [
        0o700,
        0o600,
        0o644,
    ]
    private = identity_files.serialization.load_pem_private_key(pair[0], password=None)
    assert isinstance(private, rsa.RSAPrivateKey) and private.key_size == 4096

    async def scenario() -> None:
        async with connected(cloud, mtls):
            await asyncio.to_thread(wait_for, lambda: cloud.agent(agent_id)["online"])

    asyncio.run(scenario())
    (mtls / "client.key").chmod(0o644)
    assert enrol.main(arguments) == 0 and "kept" in capsys.readouterr().out
    assert pair_of(mtls) == pair and stat.S_IMODE((mtls / "client.key").stat().st_mode) == 0o600
    # A failed --reprovision leaves everything as it was; a smaller key keeps the success quick.
    wrong = [*arguments, "--reprovision", "--token-file", str(cloud.directory / "api.token")]
    assert enrol.main(wrong) == 1 and "token" in capsys.readouterr().err and pair_of(mtls) == pair
    made = rsa.generate_private_key
    monkeypatch.setattr(enrol.rsa, "generate_private_key", lambda **kw: made(public_exponent=65537, key_size=2048))
    assert enrol.main([*arguments, "--reprovision"]) == 0
    assert identity_files.read_identity(*pair_of(mtls)).agent_id != agent_id
    assert sorted(path.name for path in mtls.iterdir()) == ["client.crt", "client.key"]


def test_an_interrupted_switch_of_identities_is_finished_or_undone(tmp_path: Path) -> None:
    old, new = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    plain = [identity_pair(name, key) for name, key in (("old", old), ("new", new))]
    identity_files.write_identity(tmp_path, *plain[0])
    # Cut while staging: the new key is there, its certificate is not.
    (tmp_path / "client.key.new").write_bytes(plain[1][0])
    identity_files.settle_interrupted(tmp_path)
    assert pair_of(tmp_path) == plain[0] and not (tmp_path / "client.key.new").exists()
    # Cut between the two renames: the key is the new one, the certificate still the old one.
    (tmp_path / "client.key").write_bytes(plain[1][0])
    (tmp_path / "client.crt.new").write_bytes(plain[1][1])
    identity_files.settle_interrupted(tmp_path)
    assert pair_of(tmp_path) == plain[1] and not (tmp_path / "client.crt.new").exists()


def test_every_failure_of_the_installer_is_one_clear_line(
    cloud: LocalCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token, ca, url = cloud.directory / "enrol.token", cloud.ca, cloud.api_url
    (tmp_path / "empty").touch()
    expired = tmp_path / "expired"
    key = ec.generate_private_key(ec.SECP256R1())
    identity_files.write_identity(expired, *identity_pair("4711", key, days=-1))
    for provisioning, ca_file, token_file, mtls, what in (
        (url, Path("/etc/ssl/certs/ca-certificates.crt"), token, "m", "certificate"),
        ("https://127.0.0.1:1", ca, token, "m", "does not answer"),
        (cloud.agents_url, ca, token, "m", "does not answer"),
        (f"{url}/nowhere", ca, token, "m", "404"),
        ("http://localhost:1", ca, token, "m", "https"),
        (url, tmp_path / "none", token, "m", "--ca"),
        (url, tmp_path / "empty", token, "m", "certificate"),
        (url, ca, tmp_path / "none", "m", "token"),
        (url, ca, tmp_path / "empty", "m", "token"),
        (url, ca, token, "empty", "cannot"),
        (url, ca, token, "expired", "--reprovision"),
    ):
        arguments = ["--provisioning", provisioning, "--ca", str(ca_file), "--token-file", str(token_file)]
        assert enrol.main([*arguments, "--mtls-dir", str(tmp_path / mtls)]) == 1, what
        said = capsys.readouterr().err.strip()
        assert what in said and "\n" not in said, said
    assert not (tmp_path / "m").exists()


def pair_of(directory: Path) -> tuple[bytes, bytes]:
    return (directory / "client.key").read_bytes(), (directory / "client.crt").read_bytes()


def identity_pair(name: str, key: ec.EllipticCurvePrivateKey, days: int = 30) -> tuple[bytes, bytes]:
    plain = key.private_bytes(
        identity_files.serialization.Encoding.PEM,
        identity_files.serialization.PrivateFormat.PKCS8,
        identity_files.serialization.NoEncryption(),
    )
    return plain, certificate(name, key, days=days)
