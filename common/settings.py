"""Settings: environment `ORCHESTRATOR_*` over the settings file over defaults, as one frozen record.

A wrong key or type stops the start with one line that names the key, its source and what was expected.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

PREFIX = "ORCHESTRATOR_"
DEFAULT_FILE = Path("/etc/orchestrator/agent.toml")

# Read by our build and test tools, not by the services; they may share the environment.
_TOOL_KEYS = frozenset(
    {"config", "cache", "lab_cache", "trial_dir"} | {f"engine_{key}" for key in ("start", "log", "pid", "dir", "wait")}
)

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class SettingsError(Exception):
    """A setting is unknown or of the wrong type; the text is for the operator."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a service may be told from outside. Directories are absolute or relative to the start."""

    server_url: str = "https://api.getedge.me"
    ca_file: Path | None = None  # None: the system's trust store
    mtls_dir: Path = msgspec.field(default_factory=lambda: Path("~/.mtls").expanduser())
    state_dir: Path = Path("/var/orchestrator")
    run_dir: Path = Path("/run/orchestrator")
    runtime_image: str = "ghcr.io/autonomy-logic/openplc-runtime"
    log_level: LogLevel = "INFO"
    log_days: int = 14
    interfaces: tuple[str, ...] = ()  # name patterns that count as physical besides the real NICs
    internal_pool: str = "198.18.0.0/16"  # the /29 of every <name>_internal network; RFC 2544 space, no LAN
    netmon_socket_mode: Annotated[str, msgspec.Meta(pattern="^0?[0-7]{3}$")] = "0660"
    docker_host: str = "unix:///var/run/docker.sock"

    local_cloud_dir: Path = Path("/var/orchestrator/local-cloud")
    local_cloud_bind: str = "127.0.0.1"
    local_cloud_port: int = 7443
    local_cloud_api_port: int = 7444
    local_cloud_names: tuple[str, ...] = ("localhost", "127.0.0.1")


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of this process.

    Raises `SettingsError` for an unknown key, a wrong type, or a settings file that was asked for and
    cannot be read.
    """
    environment = os.environ if environment is None else environment
    values = _from_file(environment) | _from_environment(environment)
    try:
        settings = msgspec.convert(values, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as problem:
        raise SettingsError(f"settings: {problem}") from None
    return settings


def _from_file(environment: Mapping[str, str]) -> dict[str, Any]:
    asked_for = environment.get(f"{PREFIX}CONFIG")
    path = Path(asked_for) if asked_for else DEFAULT_FILE
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if asked_for:
            raise SettingsError(f"settings file {path} does not exist") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise SettingsError(f"settings file {path}: {problem}") from None
    _refuse_unknown(values, f"settings file {path}", str)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {
        key.removeprefix(PREFIX).lower(): value for key, value in environment.items() if key.startswith(PREFIX)
    }
    for key in _TOOL_KEYS:
        values.pop(key, None)
    _refuse_unknown(values, "environment", lambda key: PREFIX + key.upper())
    for key in ("interfaces", "local_cloud_names"):
        if key in values:
            values[key] = [item.strip() for item in values[key].split(",") if item.strip()]
    if docker_host := environment.get("DOCKER_HOST"):
        values["docker_host"] = docker_host
    return values


def _refuse_unknown(values: Mapping[str, Any], source: str, spell: Any) -> None:
    known = Settings.__struct_fields__
    for key in values:
        if key not in known:
            raise SettingsError(
                f"{source}: unknown setting {spell(key)}; known are {', '.join(spell(name) for name in known)}"
            )


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    raise ValueError(f"expected a path, got {value!r}")
