"""The desired state: what every device on this host shall be. Kept in memory, on disk before anybody is answered."""

import threading
from pathlib import Path
from typing import Any, Literal

import msgspec

from common.contracts.vnic import Vnic
from services.docker_worker import statefile

Power = Literal["running", "stopped", "absent"]


class DeviceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; two requests are the same when their specs are equal. `image`: `repository:tag`."""

    vnics: tuple[Vnic, ...] = ()
    image: str
    environment: dict[str, str] = {}


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device: the request, what was made of it, and what it shall do.

    `vnics`: the request's with subnet, gateway and MAC filled in. `image_id`: pinned once chosen. `without`: the
    options that this host has refused (`capabilities`, `init`). `restart_from`: the life of the container
    (`Container.started_at`) that a restart command wants replaced. `grace`: seconds from stop to kill.
    """

    name: str
    power: Power
    spec: DeviceSpec
    vnics: tuple[Vnic, ...] = ()
    image_id: str | None = None
    without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    restart_from: str | None = None
    grace: float = 10.0


class DesiredState:
    """All devices by name. Every command gives the device a new revision, so that work on an older one can notice."""

    def __init__(self, state_dir: Path, default_image: str) -> None:
        self._file = state_dir / statefile.NAME
        self._lock = threading.Lock()
        self._revisions: dict[str, int] = {}
        self._counter = 0
        self._devices = {device.name: device for device in statefile.load(self._file, Device, default_image)}

    def get(self, name: str) -> Device | None:
        """The device as it shall be, None when it shall not be and is not."""
        return self._devices.get(name)

    def all(self) -> list[Device]:
        """Every device, those that are being deleted too."""
        return list(self._devices.values())

    def revision(self, name: str) -> int:
        """Grows with every command for the device."""
        return self._revisions.get(name, 0)

    def command(self, device: Device) -> int:
        """A command wants `device` to be so: on disk when this returns. Returns its revision; raises OSError."""
        with self._lock:
            self._write({**self._devices, device.name: device})
            return self._revise(device.name)

    def amend(self, name: str, revision: int, **changes: Any) -> Device | None:
        """Note what the work on this revision has found out; None, and nothing noted, when it is outdated."""
        with self._lock:
            if self.revision(name) != revision or name not in self._devices:
                return None
            device = msgspec.structs.replace(self._devices[name], **changes)
            if device != self._devices[name]:
                self._write({**self._devices, name: device})
            return device

    def adopt(self, device: Device) -> None:
        """Take over a device found on the engine, unless it is known meanwhile."""
        with self._lock:
            if device.name not in self._devices:
                self._write({**self._devices, device.name: device})
                self._revise(device.name)

    def forget(self, name: str, revision: int) -> bool:
        """The device is gone for good; False when a newer command wants it back."""
        with self._lock:
            if self.revision(name) != revision:
                return False
            if name in self._devices:
                self._write({key: value for key, value in self._devices.items() if key != name})
            self._revise(name)
            return True

    def _write(self, devices: dict[str, Device]) -> None:
        statefile.save(self._file, list(devices.values()))
        self._devices = devices

    def _revise(self, name: str) -> int:
        self._counter += 1
        self._revisions[name] = self._counter
        return self._counter
