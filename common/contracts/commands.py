"""The commands of the cloud: one record a topic, with the fields of the protocol page."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from common.contracts.decode import Command, ContractError, matching, require_plain
from common.contracts.vnic import CONTAINER_NAME, INTERFACE_NAME
from common.contracts.vnic_spellings import VnicConfig

ORCHESTRATOR = "__orchestrator__"  # the device id that means the agent itself
MAX_UPLOAD = 3 * 1024 * 1024  # bytes of all files of one command, so that they fit a message of the bus

_NAME_WORDS = "1-63 characters of letters, digits, _ . -, beginning with a letter or digit"
_PERIOD_WORDS = "a period like 15m, 1h, 24h, 7d, plain seconds, or <start>,<end> in unix seconds"

DeviceId = Annotated[str, matching(CONTAINER_NAME.pattern, _NAME_WORDS)]
DeviceIdOrOrchestrator = Annotated[str, matching(f"{ORCHESTRATOR}|{CONTAINER_NAME.pattern}", _NAME_WORDS)]
ImageTag = Annotated[str, matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", "an image tag: 1-128 letters, digits, _ . -")]
InterfaceName = Annotated[str, matching(rf"(?:{INTERFACE_NAME.pattern})?", "1-15 characters of letters, digits, _ . -")]
Period = Annotated[str, matching(r"[1-9][0-9]{0,9}[smhdw]?|[0-9]{1,12},[0-9]{1,12}", _PERIOD_WORDS)]
Method = Annotated[str, matching("GET|POST|PUT|DELETE|PATCH|HEAD", "GET, POST, PUT, DELETE, PATCH or HEAD")]
ApiPath = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Patience = Annotated[float, msgspec.Meta(gt=0, le=300)]
Scalar = str | int | float | bool | None

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")


class CreateNewRuntime(Command, frozen=True, kw_only=True):
    """Make a vPLC. The fields after `environment` are known to the protocol and not yet honoured."""

    container_name: DeviceId
    vnic_configs: tuple[VnicConfig, ...]
    runtime_version: ImageTag | None = None
    environment: dict[str, str] | None = None
    serial_configs: list[dict[str, Any]] | None = None
    dedicated_interface: InterfaceName | None = None
    resources: dict[str, Any] | None = None
    realtime: bool | dict[str, Any] | None = None
    volumes: list[dict[str, Any] | str] | dict[str, Any] | None = None


class DeviceCommand(Command, frozen=True, kw_only=True):
    """A command that needs nothing but the device."""

    device_id: DeviceId


class TimedDeviceCommand(DeviceCommand, frozen=True, kw_only=True):
    """Start, stop or restart; `timeout_s`: seconds, the default is the worker's."""

    timeout_s: Patience | None = None


class GetDeviceStatus(Command, frozen=True, kw_only=True):
    """How a device is, or `__orchestrator__` for the agent's own removal."""

    device_id: DeviceIdOrOrchestrator


class FileContent(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a multipart request, as received."""

    filename: str
    content_base64: str
    content_type: str | None = None


class RunCommand(DeviceCommand, frozen=True, kw_only=True):
    """One HTTPS request to the vPLC's own API."""

    method: Method
    api: ApiPath
    port: Port | None = None
    headers: dict[str, str] | None = None
    data: Any = None
    params: dict[str, Scalar | list[Scalar]] | None = None
    files: dict[str, FileContent] | None = None
    timeout_s: Patience | None = None


class GetHostInterfaces(Command, frozen=True, kw_only=True):
    """The host's interfaces."""

    include_virtual: bool | None = None
    detailed: bool | None = None


class GetConsumptionOrchestrator(Command, frozen=True, kw_only=True):
    """What the host used over two periods."""

    cpuPeriod: Period  # noqa: N815 - the protocol's spelling
    memoryPeriod: Period  # noqa: N815


class GetConsumptionDevice(GetConsumptionOrchestrator, frozen=True, kw_only=True):
    """What a vPLC used over two periods."""

    device_id: DeviceId


class GetSerialDevices(Command, frozen=True, kw_only=True):
    """The host's serial ports."""


class DeleteOrchestrator(Command, frozen=True, kw_only=True):
    """Remove the agent itself; `purge`: with the vPLCs' volumes."""

    purge: bool | None = None


def require_honoured(command: CreateNewRuntime) -> None:
    """Raise `ContractError` with code `unavailable` for a wish that this version would have to ignore."""
    for field in ("serial_configs", "dedicated_interface", "resources", "realtime", "volumes"):
        if getattr(command, field):
            raise ContractError(
                f"$.{field}: this version of the agent cannot honour it yet; leave it out to create the device without",
                "unavailable",
            )


def checked_environment(environment: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a vPLC; raises `ContractError` for what no process can be given."""
    require_plain(environment, "$.environment")
    for name, value in (environment or {}).items():
        if not _VARIABLE.fullmatch(name):
            raise ContractError(f"$.environment: expected variable names of letters, digits and _, got {name[:64]!r}")
        if "\0" in value:
            raise ContractError(f"$.environment.{name}: expected text without NUL")
    return dict(environment or {})


def file_contents(files: Mapping[str, FileContent] | None) -> dict[str, bytes]:
    """The files' bytes by form field.

    Raises `ContractError`: `invalid` for bad base64, `refused` above `MAX_UPLOAD`.
    """
    contents: dict[str, bytes] = {}
    for field, file in (files or {}).items():
        path = f"$.files.{field}"
        require_plain([field, file.filename, file.content_type], path)
        try:
            contents[field] = base64.b64decode(file.content_base64, validate=True)
        except (binascii.Error, ValueError) as problem:
            raise ContractError(f"{path}.content_base64: expected base64, which this is not: {problem}") from None
    total = sum(map(len, contents.values()))
    if total > MAX_UPLOAD:
        raise ContractError(
            f"$.files: expected at most {MAX_UPLOAD} bytes in all files together, got {total}", "refused"
        )
    return contents
