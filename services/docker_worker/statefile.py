"""`runtime_vnics.json`: the desired state on disk, readable by a technician, and never lost to a power cut.

{"schema": 2, "checksum": "<sha256 of the devices>", "devices": {"plc-001": {"power": "running", ...}}}

The previous file stays beside it as `.bak`. The first shape, `{"<container>": [<vNIC>, ...]}`, is still understood.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from common.contracts.vnic import Vnic
from common.files import write_atomic

log = logging.getLogger(__name__)

NAME = "runtime_vnics.json"
SCHEMA = 2


class Named(Protocol):
    """What can be kept here."""

    @property
    def name(self) -> str: ...


D = TypeVar("D", bound=Named)


class UnusableError(Exception):
    """The file cannot be believed; the text says why."""


def save(path: Path, devices: Sequence[Named]) -> None:
    """Replace the file when its content changes, the old one becomes `.bak`. Raises OSError."""
    content = encode(devices)
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = b""
    if before == content:
        return
    if before:
        write_atomic(_backup(path), before)
    write_atomic(path, content)


def load(path: Path, kind: type[D], default_image: str) -> list[D]:
    """The devices of the file, else of its `.bak`, else none: then the labels on the containers have to tell."""
    for candidate in (path, _backup(path)):
        try:
            devices = decode(candidate.read_bytes(), kind, default_image)
        except FileNotFoundError:
            continue
        except (UnusableError, OSError) as problem:
            log.error("%s cannot be used: %s", candidate, problem)
            continue
        if candidate != path:
            log.warning("the desired state comes from %s: look whether the last change is missing", candidate)
        return devices
    return []


def encode(devices: Sequence[Named]) -> bytes:
    """The file's bytes."""
    entries = {device.name: msgspec.to_builtins(device) for device in sorted(devices, key=lambda device: device.name)}
    document = {"schema": SCHEMA, "checksum": _checksum(entries), "devices": entries}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(content: bytes, kind: type[D], default_image: str) -> list[D]:
    """The devices in the file's bytes. Raises `UnusableError`."""
    try:
        document = msgspec.json.decode(content, type=dict[str, Any])
        if "schema" not in document:
            return _first_shape(document, kind, default_image)
        if document["schema"] != SCHEMA:
            raise UnusableError(f"schema {document['schema']!r} is not {SCHEMA}: written by another version")
        if document.get("checksum") != _checksum(document.get("devices")):
            raise UnusableError("the checksum does not fit: edited by hand, or damaged")
        return list(msgspec.convert(document["devices"], dict[str, kind]).values())  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise UnusableError(f"not the expected JSON: {problem}") from None


class _FirstVnic(msgspec.Struct, kw_only=True):
    name: str
    parent_interface: str
    network_mode: str = "dhcp"
    ip_address: str | None = None
    subnet: str | None = None
    gateway: str | None = None
    dns: list[str] | None = None
    mac_address: str | None = None


def _first_shape(document: dict[str, Any], kind: type[D], default_image: str) -> list[D]:
    old = msgspec.convert(document, dict[str, list[_FirstVnic]])
    devices = []
    for name, vnics in old.items():
        now = [msgspec.to_builtins(_adopted(vnic)) for vnic in vnics]
        spec = {"vnics": now, "image": default_image}
        devices.append(msgspec.convert({"name": name, "power": "running", "spec": spec, "vnics": now}, kind))
    return devices


def _adopted(old: _FirstVnic) -> Vnic:
    # A mere netmask says nothing without the parent; the network of that name on the engine does.
    subnet = old.subnet if old.subnet and "/" in old.subnet else None
    return Vnic(
        name=old.name,
        parent_interface=old.parent_interface,
        mode="dhcp" if old.network_mode == "dhcp" else "manual",
        ip_address=old.ip_address,
        subnet=subnet,
        gateway=old.gateway,
        dns=tuple(old.dns or ()),
        mac_address=old.mac_address.lower() if old.mac_address else None,
    )


def _backup(path: Path) -> Path:
    return path.with_name(path.name + ".bak")


def _checksum(entries: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(entries, order="sorted")).hexdigest()
