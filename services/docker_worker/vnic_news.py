"""Tells when a vNIC of a running device goes down, comes up again, or gets another address."""

from collections.abc import Callable, Sequence

from bus.messages.base import Event
from bus.messages.docker_worker import DeviceChanged, VnicStatus

_GOOD = "up"


class VnicNews:
    """Remembers what was told. A vNIC that is up from the first is no news."""

    def __init__(self, publish: Callable[[Event], None]) -> None:
        self._publish = publish
        self._told: dict[tuple[str, str], tuple[str, str | None]] = {}

    def tell(self, device: str, container_status: str, vnics: Sequence[VnicStatus]) -> None:
        """The vNICs as they are now, of a device that runs."""
        for vnic in vnics:
            before = self._told.get((device, vnic.name))
            now = (vnic.state, vnic.ip_address)
            self._told[device, vnic.name] = now
            if now == before or (before is None and vnic.state == _GOOD):
                continue
            good = vnic.state == _GOOD
            self._publish(
                DeviceChanged(
                    device_id=device,
                    event="vnic_up" if good else "vnic_down",
                    container_status=container_status,
                    error=None if good else f"{vnic.name}: {vnic.state}: {vnic.reason}",
                    vnic=vnic.name,
                )
            )

    def forget(self, device: str) -> None:
        self._told = {key: told for key, told in self._told.items() if key[0] != device}
