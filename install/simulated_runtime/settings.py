"""Settings of the simulated runtime: SIM_* environment variables over defaults that suit its image."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION = "v4.1.4-simulated"


class BadSetting(Exception):
    """An environment variable holds what cannot be used; the text names it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the simulated runtime listens and lives, and how slow its slow things are (seconds).

    `state_dir` holds accounts and secrets and is meant to be a volume; `work_dir` holds the certificate
    and the program and dies with the container. Port 0 takes any free port.
    """

    address: str = "0.0.0.0"  # noqa: S104  (the real one listens on every interface too)
    port: int = 8443
    discovery_port: int = 33333
    state_dir: Path = Path("/var/run/runtime")
    work_dir: Path = Path("/workdir")
    key_bits: int = 2048
    token_seconds: int = 900
    start_seconds: float = 0.2
    stop_seconds: float = 1.0
    build_seconds: float = 1.5
    password_rounds: int = 600_000

    @property
    def certificate_dir(self) -> Path:
        return self.work_dir / "webserver"

    @property
    def build_dir(self) -> Path:
        return self.work_dir / "build"


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read SIM_ADDRESS, SIM_PORT, SIM_STATE_DIR and so on, one per field of Settings; raises BadSetting."""

    def text(name: str, default: object) -> str:
        return environment.get(f"SIM_{name}", "") or str(default)

    def number(name: str, default: float, low: float, high: float) -> float:
        raw = text(name, default)
        try:
            value = float(raw)
        except ValueError:
            raise BadSetting(f"SIM_{name}={raw}: a number was expected") from None
        if not low <= value <= high:
            raise BadSetting(f"SIM_{name}={raw}: expected {low:g} to {high:g}")
        return value

    d = Settings()
    return Settings(
        address=text("ADDRESS", d.address),
        port=int(number("PORT", d.port, 0, 65535)),
        discovery_port=int(number("DISCOVERY_PORT", d.discovery_port, 0, 65535)),
        state_dir=Path(text("STATE_DIR", d.state_dir)),
        work_dir=Path(text("WORK_DIR", d.work_dir)),
        key_bits=int(number("KEY_BITS", d.key_bits, 2048, 4096)),
        token_seconds=int(number("TOKEN_SECONDS", d.token_seconds, 1, 86400)),
        start_seconds=number("START_SECONDS", d.start_seconds, 0, 60),
        stop_seconds=number("STOP_SECONDS", d.stop_seconds, 0, 60),
        build_seconds=number("BUILD_SECONDS", d.build_seconds, 0, 600),
        password_rounds=int(number("PASSWORD_ROUNDS", d.password_rounds, 1, 10_000_000)),
    )
