"""Everything the handlers and the reconciler work with, put together by `__main__`."""

import threading
from collections.abc import Callable

import msgspec

from bus.errors import CommandError
from bus.messages.base import Event
from bus.messages.netmon import Interface
from common.settings import Settings
from services.docker_worker import spec
from services.docker_worker.address_probes import AddressProbes
from services.docker_worker.container import Container
from services.docker_worker.corrections import Corrections
from services.docker_worker.desired import DesiredState
from services.docker_worker.engine import Engine
from services.docker_worker.leases import Leases
from services.docker_worker.networks import Networks
from services.docker_worker.observe import Health, Observed
from services.docker_worker.operations import Operations
from services.docker_worker.owner import Owner
from services.docker_worker.proxy import Uploads
from services.docker_worker.start_brake import StartBrake
from services.docker_worker.vnic_news import VnicNews


class HostInterfaces:
    """The host's interfaces as netmon last told them."""

    def __init__(self) -> None:
        self._heard = threading.Event()
        self._interfaces: tuple[Interface, ...] = ()

    def hear(self, interfaces: tuple[Interface, ...]) -> None:
        self._interfaces = interfaces
        self._heard.set()

    def heard(self) -> tuple[Interface, ...] | None:
        """As netmon last told them, None when it has not yet."""
        return self._interfaces if self._heard.is_set() else None

    def known(self, within: float) -> tuple[Interface, ...]:
        """Raises `CommandError` when netmon has not been heard of `within` seconds."""
        if not self._heard.wait(within):
            raise CommandError(
                "unavailable", "the host's interfaces are not known yet: netmon has not been heard of; is it running?"
            )
        return self._interfaces


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """The context of every handler. `enqueue(name, fresh)`: have the device looked at, see `WorkQueue.add`."""

    settings: Settings
    owner: Owner
    engine: Engine
    networks: Networks
    desired: DesiredState
    observed: Observed
    operations: Operations
    brake: StartBrake
    interfaces: HostInterfaces
    uploads: Uploads
    leases: Leases
    probes: AddressProbes
    corrections: Corrections
    news: VnicNews
    publish: Callable[[Event], None]
    enqueue: Callable[[str, bool], None]
    retry_in: Callable[[str], float | None]

    def health(self) -> Health:
        """Whether the engine answers, as far as is known."""
        return self.observed.health

    def is_ours(self, container: Container, name: str) -> bool:
        """Made by us, under any id we ever had, for the device `name`."""
        return (
            container.labels.get(spec.OWNER) in self.owner.known
            and container.labels.get(spec.DEVICE) == name
            and container.name == name
        )

    def need_engine(self) -> None:
        """Raises `CommandError("unavailable")` when the engine does not answer."""
        health = self.health()
        if not health.reachable:
            raise CommandError("unavailable", health.reason)

    def internal_address(self, device_id: str) -> str:
        """Where the agent reaches the device: its address on `<device>_internal`.

        Raises `CommandError`: `not_found`, `conflict` when it does not run, `unavailable` when that is not known.
        """
        container = self.observed.get(device_id)
        if container is None:
            if self.desired.get(device_id) is not None:
                raise CommandError("conflict", f"{device_id} has no container yet; see get_device_status")
            if not self.observed.complete.is_set():
                raise CommandError("unavailable", self.health().reason or "the devices have not been listed yet")
            raise CommandError("not_found", f"there is no device {device_id}")
        if container.status != "running":
            raise CommandError("conflict", f"{device_id} does not run (it is {container.status}); start it first")
        endpoint = container.endpoints.get(spec.internal_network(device_id))
        if endpoint is None or not endpoint.ip_address:
            raise CommandError("unavailable", f"{device_id} is not on its internal network; it is being repaired")
        return endpoint.ip_address
