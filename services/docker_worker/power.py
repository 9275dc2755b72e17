"""Bringing a device to where it shall be: running, or there but stopped."""

from services.docker_worker import attach, build, spec, vnics
from services.docker_worker.container import Container
from services.docker_worker.errors import EngineError, StepFailed, failed
from services.docker_worker.job import Job

_TRIES = 3  # as made, and without each of the two options


def run(job: Job, container: Container | None) -> float | None:
    """Let the device run. Returns the seconds to wait when a start is held back. Raises `Later`."""
    if container is not None and _is_outdated(job, container):
        _discard(job, container.id)
        container = None
    if container is None:
        identity = build.create(job)
        if not vnics.is_in_conflict(job):
            _start(job, identity, never_started=True)
            return None
        container = job.find()
        if container is None:
            raise StepFailed("unavailable", "the container was removed by somebody while it was made")
    _set_policy(job, container)
    vnics.ask(job, container)
    if container.is_running and container.started_at == job.device.restart_from:
        _stop(job, container)
    elif container.is_running or container.status == "restarting":
        placed = vnics.places(job.worker, job.device, container)
        if not attach.is_attached(job, container, placed):
            attach.attach(job, container, placed)
        vnics.await_first_answers(job, container)
        return None
    held_back = job.worker.brake.wait(job.name)
    if held_back:
        return held_back
    vnics.await_first_answers(job, container)
    attach.attach(job, container, vnics.places(job.worker, job.device, container))
    _start(job, container.id, never_started=container.never_started)
    return None


def rest(job: Job, container: Container | None) -> None:
    """Have the device there, and stopped."""
    if container is not None and _is_outdated(job, container):
        _discard(job, container.id)
        container = None
    if container is None:
        build.create(job)
        return
    # First the policy: killed in between, the engine must not bring back what was told to stop.
    _set_policy(job, container)
    if container.is_running or container.status == "restarting":
        _stop(job, container)
    else:
        vnics.ask(job, container)
        attach.leave(job, container, vnics.places(job.worker, job.device, container))


def _start(job: Job, identity: str, *, never_started: bool) -> None:
    """Start; where the host refuses an option that the PLC can do without, make the container again without it.
    Only one that never ran: what is in a container that did is more than its volume holds."""
    for _ in range(_TRIES):
        job.announce("starting the container")
        try:
            job.engine.start_container(identity)
        except EngineError as problem:
            if not (never_started and build.leave_out(job, problem)):
                raise _not_started(problem) from problem
            _discard(job, identity)
            identity = build.create(job)
        else:
            job.worker.brake.started(job.name)
            return
    raise StepFailed("unavailable", "starting the container: the host refuses every set of options")


def _not_started(problem: EngineError) -> StepFailed:
    if problem.kind == "parent_missing":
        return StepFailed("unavailable", f"starting the container: a parent interface is not there: {problem.text}")
    return failed(problem, "starting the container")


def _stop(job: Job, container: Container) -> None:
    with job.step("stopping the container"):
        job.engine.stop_container(container.id, job.device.grace)


def _set_policy(job: Job, container: Container) -> None:
    policy = spec.restart_policy(job.device)
    if container.restart_policy != policy:
        with job.step(f"setting the restart policy to {policy}"):
            job.engine.set_restart_policy(container.id, policy)


def _is_outdated(job: Job, container: Container) -> bool:
    """Made for other options than those chosen since, and nothing in it can be lost."""
    return container.never_started and (
        container.labels.get(spec.WITHOUT, "") != spec.without_label(job.device)
        or container.labels.get(spec.SPEC_HASH) != spec.spec_hash(job.device.spec)
    )


def _discard(job: Job, identity: str) -> None:
    with job.step("removing the container that cannot be started"):
        job.engine.remove_container(identity)
    job.worker.observed.forget(job.name)
