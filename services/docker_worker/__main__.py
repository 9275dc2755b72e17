"""docker_worker: the vPLCs on this host. Wiring only."""

import logging
import sys
from ipaddress import IPv4Network

from bus.answering import Handlers
from bus.envelope import Envelope
from bus.messages.base import Event, Request
from bus.messages.docker_worker import (
    CreateRuntime,
    DeleteDevice,
    EngineChanged,
    GetDeviceStatus,
    ListDevices,
    RestartDevice,
    RunCommand,
    StartDevice,
    StopDevice,
)
from bus.messages.netmon import LeaseChanged, NetworkDiscovered
from bus.service import Service, start
from common.files import make_private_directory
from common.identity import IdentityProblem, agent_id
from common.settings import Settings
from services.docker_worker import commands, proxy, reconcile, removal
from services.docker_worker.address_probes import AddressProbes
from services.docker_worker.corrections import Corrections
from services.docker_worker.desired import DesiredState
from services.docker_worker.engine import Engine
from services.docker_worker.leases import Leases, R
from services.docker_worker.networks import INTERNAL_PREFIX, Networks, host_routes
from services.docker_worker.observe import EngineWatch, Health, Observed
from services.docker_worker.operations import Operations
from services.docker_worker.owner import Owner, recognise
from services.docker_worker.proxy import Uploads
from services.docker_worker.start_brake import StartBrake
from services.docker_worker.vnic_news import VnicNews
from services.docker_worker.work_queue import WorkQueue
from services.docker_worker.worker import HostInterfaces, Worker

log = logging.getLogger(__name__)

HANDLERS: Handlers = {
    CreateRuntime: commands.create_runtime,
    DeleteDevice: commands.delete_device,
    StartDevice: commands.start_device,
    StopDevice: commands.stop_device,
    RestartDevice: commands.restart_device,
    GetDeviceStatus: commands.get_device_status,
    ListDevices: commands.list_devices,
    RunCommand: proxy.run_command,
}

OWNER = "docker_worker"
HANDLER_THREADS = 16  # a stop waits for its outcome in one of them
PING_EVERY = 3.0  # seconds; how soon a frozen engine is noticed
RESYNC_EVERY = 60.0


def main() -> None:
    settings = start(OWNER)
    engine, owner, pool = Engine(settings.docker_host), _owner(settings), _pool(settings)

    def enqueue(name: str, fresh: bool) -> None:
        queue.add(name, fresh=fresh)

    def ask(request: Request[R], deadline: float | None = None) -> R:
        return service.call(request, deadline=deadline)

    worker = Worker(
        settings=settings,
        owner=owner,
        engine=engine,
        networks=Networks(engine, owner, pool, host_routes),
        desired=DesiredState(settings.state_dir, commands.default_image(settings)),
        observed=Observed(),
        operations=Operations(),
        brake=StartBrake(),
        interfaces=HostInterfaces(),
        uploads=Uploads(),
        leases=Leases(ask, enqueue),
        probes=AddressProbes(ask, enqueue),
        corrections=Corrections(),
        news=VnicNews(lambda record: service.publish(record)),
        publish=lambda record: service.publish(record),
        enqueue=enqueue,
        retry_in=lambda name: queue.retry_in(name),
    )
    queue = WorkQueue(lambda name: reconcile.reconcile(worker, name))
    service = Service(OWNER, settings, HANDLERS, worker, workers=HANDLER_THREADS)

    def on_health(health: Health) -> None:
        service.report("engine", None if health.reachable else health.reason)
        service.publish(
            EngineChanged(
                reachable=health.reachable,
                version=health.version,
                api_version=health.api_version,
                reason=health.reason,
            )
        )
        if health.reachable:  # whatever failed while it was away: now
            for device in worker.desired.all():
                worker.enqueue(device.name, True)
        service.ready()  # an engine that is away is a state of ours, not a start that takes long

    def on_discovery(record: Event, _envelope: Envelope) -> None:
        if isinstance(record, NetworkDiscovered):
            worker.interfaces.hear(record.interfaces)
            reconcile.network_seen(worker)

    def on_lease(record: Event, _envelope: Envelope) -> None:
        if isinstance(record, LeaseChanged):
            worker.leases.hear(record)

    watch = EngineWatch(
        engine,
        worker.observed,
        service.stopping,
        on_health=on_health,
        resync=lambda: reconcile.resync(worker),
        sweep=lambda: removal.sweep(worker),
        on_container=lambda identity, labels: reconcile.heard(worker, identity, labels),
    )
    service.detail(lambda: {"engine": worker.health().version or None, "devices": len(worker.desired.all())})
    service.subscribe(("netmon.network.discovered",), on_discovery)
    service.subscribe(("netmon.lease.changed",), on_lease)
    queue.start()
    worker.probes.start()
    service.spawn("engine", watch.run)
    service.every(PING_EVERY, watch.check, name="engine-ping")
    service.every(RESYNC_EVERY, watch.look_at_all, name="resync")
    service.run()


def _owner(settings: Settings) -> Owner:
    try:
        identity = agent_id(settings.mtls_dir)
    except IdentityProblem as problem:
        log.warning("no agent id for the labels, a local one stands in: %s", problem)
        identity = None
    try:
        make_private_directory(settings.state_dir)
        return recognise(settings.state_dir, identity)
    except OSError as problem:
        log.critical("cannot start: the state directory %s: %s", settings.state_dir, problem)
        sys.exit(2)


def _pool(settings: Settings) -> IPv4Network:
    try:
        pool = IPv4Network(settings.internal_pool)
    except ValueError as problem:
        log.critical("cannot start: setting internal_pool: expected a network like 198.18.0.0/16: %s", problem)
        sys.exit(2)
    if pool.prefixlen > INTERNAL_PREFIX:
        log.critical("cannot start: setting internal_pool: expected room for a /%d, got %s", INTERNAL_PREFIX, pool)
        sys.exit(2)
    return pool


if __name__ == "__main__":
    main()
