"""What a fresh device makes for itself at its first start: the `.env` with its secrets, and its certificate.

Secrets live on the state volume, the certificate in the container: recreating the container keeps the
tokens valid and changes the fingerprint, as with the real runtime.
"""

import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_HEX_SECRET = re.compile(r"[0-9a-f]{64}")


class BadSecrets(Exception):
    """The `.env` or an environment variable holds no usable secret. The real runtime ends with code 1."""


class BadCertificate(Exception):
    """Certificate or key file is there but empty. The real runtime ends with code 0 (sic)."""


@dataclass(frozen=True)
class Secrets:
    """The key that signs tokens, and the pepper added to every password; 64 hexadecimal digits each."""

    jwt_key: str
    pepper: str


def load_secrets(path: Path, environment: Mapping[str, str] = os.environ) -> Secrets:
    """Read `.env`, made at the first start; JWT_SECRET_KEY and PEPPER of the environment go before it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = (f"{name}={secrets.token_hex(32)}\n" for name in ("JWT_SECRET_KEY", "PEPPER"))
        path.write_text("".join(made))
        path.chmod(0o600)
    lines = path.read_text(errors="replace").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    values.update({name: environment[name] for name in ("JWT_SECRET_KEY", "PEPPER") if name in environment})
    for name in ("JWT_SECRET_KEY", "PEPPER"):
        if not _HEX_SECRET.fullmatch(values.get(name, "")):
            raise BadSecrets(f"{name} in {path} or the environment is missing or not 64 hexadecimal digits")
    return Secrets(values["JWT_SECRET_KEY"], values["PEPPER"])


def load_certificate(folder: Path, key_bits: int) -> tuple[Path, Path]:
    """Paths of certificate and key, self-signed for CN=localhost and made at the first start."""
    certificate, key = folder / "certOPENPLC.pem", folder / "keyOPENPLC.pem"
    if not (certificate.exists() and key.exists()):
        _make_certificate(certificate, key, key_bits)
    for path in (certificate, key):
        if not path.stat().st_size:
            raise BadCertificate(f"{path} is empty")
    return certificate, key


def _make_certificate(certificate: Path, key: Path, key_bits: int) -> None:
    certificate.parent.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", f"rsa:{key_bits}", "-nodes", "-days", "36500"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
