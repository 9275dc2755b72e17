"""The reconciler: compares what a device shall be with what it is, and takes the next steps until nothing is left.

Whatever happens, a command, a Docker event, a start of ours or the engine's, a timer, is only a reason to come here
with the device's name. So a half-done creation, a killed worker and a restarted engine are the same code.
"""

import logging
from collections.abc import Collection, Mapping

from bus.messages.docker_worker import DeviceChanged, Operation
from common import trace
from services.docker_worker import leases, mac_correction, power, removal, spec, status, vnics
from services.docker_worker.container import Container, parse
from services.docker_worker.desired import Device
from services.docker_worker.errors import EngineError, Later, StepFailed, Superseded, failed
from services.docker_worker.job import Job
from services.docker_worker.worker import Worker

log = logging.getLogger(__name__)

_DONE: dict[Operation, str] = {
    "create": "created",
    "delete": "deleted",
    "start": "started",
    "stop": "stopped",
    "restart": "restarted",
    "reconcile": "recovered",
}


def reconcile(worker: Worker, name: str) -> str | float | None:
    """Bring one device to where it shall be. Never raises; the result is for `WorkQueue`."""
    revision = worker.desired.revision(name)
    device = worker.desired.get(name)
    if device is None:
        worker.observed.forget(name)
        return None
    running = worker.operations.get(name)
    with trace.use(running.trace if running else None):
        job = Job(worker, device, revision, running.operation if running else "reconcile")
        try:
            return _approach(job)
        except Superseded:
            return 0.0
        except Later as soon:
            return soon.seconds
        except StepFailed as problem:
            return _give_up(job, problem)
        except EngineError as problem:
            if running is None and problem.kind in ("unreachable", "timeout"):
                return problem.text  # an outage of the engine is its state, not an error of every device
            return _give_up(job, failed(problem, "looking at the device"))
        except OSError as problem:
            return _give_up(job, StepFailed("unavailable", f"the desired state cannot be written: {problem}"))


def _approach(job: Job) -> float | None:
    before = job.worker.observed.get(job.name)
    container = job.find()
    if job.worker.operations.get(job.name) is None:
        job.operation = _inferred(job.device, container)
    if before is not None and before.is_running:
        _tell_death(job, before, container)
    held_back = again = None
    if job.device.power == "absent":
        removal.remove(job, container)
        container = None
    else:
        if job.device.power == "running":
            held_back = power.run(job, container)
        else:
            power.rest(job, container)
        if job.acted:
            container = job.find()
        again = _finish_vnics(job, container)
        if job.device.restart_from is not None and held_back is None:
            job.amend(restart_from=None)
    if held_back is None:
        if job.problems:
            raise job.problems[0]
        if job.waiting:
            return vnics.LOOK_AGAIN
        _settle(job, container)
    return held_back or again


def _finish_vnics(job: Job, container: Container | None) -> float | None:
    """Correct MACs and tell what has become of the vNICs; returns the seconds until one of them wants another look."""
    placed = vnics.places(job.worker, job.device, container)
    again = vnics.look_again_in(placed)
    if container is not None and container.is_running:
        retry = mac_correction.correct(job, container, placed)
        again = min((seconds for seconds in (again, retry) if seconds is not None), default=None)
        job.worker.news.tell(job.name, container.status, status.vnic_statuses(job.worker, job.device, container))
    return again


def _settle(job: Job, container: Container | None) -> None:
    asked = job.worker.operations.get(job.name) is not None
    job.worker.operations.end(job.name, job.revision)
    if asked or job.acted:
        status = container.status if container else ""
        log.info("%s: %s, %s", job.name, _DONE[job.operation], status or "gone")
        job.worker.publish(DeviceChanged(device_id=job.name, event=_DONE[job.operation], container_status=status))


def _give_up(job: Job, problem: StepFailed) -> str | None:
    worker = job.worker
    if worker.operations.get(job.name) is None:
        worker.operations.begin(job.name, job.operation, trace.current(), "looking at the device")
    if worker.operations.fail(job.name, job.revision, problem.code, problem.sentence, retry=problem.retry):
        log.warning("%s: %s: %s", job.name, job.operation, problem.sentence)
        worker.publish(DeviceChanged(device_id=job.name, event="failed", error=problem.sentence))
    return problem.sentence if problem.retry else None


def _tell_death(job: Job, before: Container, container: Container | None) -> None:
    lives = container is not None and container.is_running and container.started_at == before.started_at
    if job.device.power == "running" and not lives:
        why = f"ended with exit code {container.exit_code}" if container else "its container is gone"
        log.warning("%s: %s", job.name, why)
        status = container.status if container else ""
        job.worker.publish(DeviceChanged(device_id=job.name, event="died", container_status=status, error=why))


def _inferred(device: Device, container: Container | None) -> Operation:
    """The operation that an earlier life of ours was in, or our own doing."""
    if device.power == "absent":
        return "delete"
    if container is None or container.never_started:
        return "create"
    return "restart" if device.restart_from is not None else "reconcile"


def resync(worker: Worker) -> None:
    """Look at all: adopt devices of ours that the state file does not know, and enqueue every device whose container
    is not as it was at the last look. One call for all of them. Raises EngineError."""
    listed: dict[str, tuple[str, str]] = {}
    for container in worker.engine.owned_containers(spec.OWNER):
        labels = container.get("Labels") or {}
        name = labels.get(spec.DEVICE, "")
        if labels.get(spec.OWNER) not in worker.owner.known or f"/{name}" not in container["Names"]:
            continue
        listed[name] = (container["Id"], container["State"])
        if worker.desired.get(name) is None:
            _adopt(worker, name, container["Id"])
    worker.observed.complete.set()
    worker.leases.release_orphans(lambda key: _is_needed(worker, key, listed))
    for device in worker.desired.all():
        seen = worker.observed.get(device.name)
        operation = worker.operations.get(device.name)
        if operation is not None and operation.error and not operation.retry:
            continue
        if seen is None or listed.get(device.name) != (seen.id, seen.status) or operation is not None:
            worker.enqueue(device.name, False)


def _is_needed(worker: Worker, lease: str, listed: Collection[str]) -> bool:
    """Does a vNIC of a device want the lease of this key? Those of others than ours have no slash, and a device that
    is there but could not be adopted may want anything."""
    name, slash, _ = lease.partition("/")
    device = worker.desired.get(name)
    if device is None:
        return not slash or name in listed
    return any(lease == leases.key_of(name, vnic) for vnic in device.vnics if vnic.mode == "dhcp")


def _adopt(worker: Worker, name: str, identity: str) -> None:
    inspected = worker.engine.inspect_container(identity)
    if inspected is None:
        return
    container = parse(inspected)
    if not worker.is_ours(container, name):
        return
    try:
        device = spec.from_labels(container)
    except ValueError as problem:
        log.error("%s is ours, but its labels are not legible (%s): it is left alone", name, problem)
        return
    log.warning("%s was not in the desired state; adopted from its labels as %s", name, device.power)
    worker.observed.put(name, container)
    try:
        worker.desired.adopt(device)
    except OSError as problem:
        log.error("%s cannot be written to the desired state: %s; trying again in a minute", name, problem)


def heard(worker: Worker, identity: str, labels: Mapping[str, str]) -> None:
    """Something has happened to the container of this id: if it is a device's, have it looked at."""
    name = worker.observed.name_of(identity) or labels.get(spec.DEVICE)
    if name is not None and worker.desired.get(name) is not None:
        worker.enqueue(name, False)


def network_seen(worker: Worker) -> None:
    """The host's interfaces may be others, or netmon is a new one: each vNIC says again what it needs."""
    for device in worker.desired.all():
        if device.vnics:
            worker.enqueue(device.name, False)
