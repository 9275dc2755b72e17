"""Taking a device away: its container, its internal network, and MACVLAN networks of ours that nobody uses any more.

The volume stays: users and secrets of the runtime are in it.
"""

import logging
from collections.abc import Sequence
from typing import Any

from services.docker_worker import spec, vnics
from services.docker_worker.container import Container
from services.docker_worker.errors import EngineError, Superseded, failed
from services.docker_worker.job import Job
from services.docker_worker.networks import Network, find_macvlan
from services.docker_worker.worker import Worker

log = logging.getLogger(__name__)


def remove(job: Job, container: Container | None) -> None:
    """Remove what there is; nothing is an error that is gone already."""
    if container is not None:
        if container.is_running:
            with job.step("stopping the container"):
                job.engine.stop_container(container.id, job.device.grace)
        with job.step("removing the container"):
            job.engine.remove_container(container.id)
        job.worker.observed.forget(job.name)
    existing = job.worker.networks.list()
    for network in existing:
        if (
            network.name == spec.internal_network(job.name)
            and network.labels.get(spec.DEVICE) == job.name
            and job.worker.networks.is_ours(network)
        ):
            with job.step("removing the internal network"):
                job.engine.remove_network(network.id)
    job.worker.networks.release(job.name)
    for parent in sorted({vnic.parent_interface for vnic in job.device.vnics}):
        remove_unused(job, parent, existing)
    for vnic in job.device.vnics:
        if vnic.mode == "dhcp":
            job.worker.leases.release(job.name, vnic)
    if not job.worker.desired.forget(job.name, job.revision):
        raise Superseded
    job.worker.probes.forget(job.name)
    job.worker.corrections.forget(job.name)
    job.worker.news.forget(job.name)


def remove_unused(job: Job, parent: str, existing: Sequence[Network]) -> None:
    """Remove MACVLAN networks of ours on a parent interface that no device wants and no container refers to."""
    for candidate in existing:
        if candidate.driver == "macvlan" and candidate.parent == parent and job.worker.networks.is_ours(candidate):
            _remove_one(job, candidate)


def _remove_one(job: Job, candidate: Network) -> None:
    with job.worker.networks.parent_lock(candidate.parent):
        besides = job.name if job.device.power == "absent" else None
        if _is_wanted(job.worker, candidate, besides=besides) or is_referenced(candidate, job.engine.all_containers()):
            return
        job.announce(f"removing the network {candidate.name}")
        try:
            job.engine.remove_network(candidate.id)
        except EngineError as problem:
            if problem.kind != "in_use":  # somebody joined it in this moment, and keeps it
                raise failed(problem, f"removing the network {candidate.name}") from problem
            return
    # It may have been in the way of theirs.
    for device in job.worker.desired.all():
        if device.name != job.name and any(vnic.parent_interface == candidate.parent for vnic in device.vnics):
            job.worker.enqueue(device.name, True)


def is_being_left(job: Job, parent: str, existing: Sequence[Network]) -> bool:
    """Is there a network of ours on the parent that no vNIC belongs on any more, and only our devices are on still?"""
    leaving = [
        network
        for network in existing
        if network.driver == "macvlan"
        and network.parent == parent
        and job.worker.networks.is_ours(network)
        and not _is_wanted(job.worker, network, besides=None)
    ]
    others = [
        container
        for container in job.engine.all_containers()
        if not any(job.worker.desired.get(name.removeprefix("/")) for name in container["Names"])
    ]
    return bool(leaving) and not any(is_referenced(network, others) for network in leaving)


def sweep(worker: Worker) -> None:
    """Remove networks of ours that no device wants and no container has: left by a creation whose desired state was
    lost; and helper containers that were left when we were killed. Raises EngineError."""
    for helper in worker.engine.owned_containers(spec.HELPER):
        if helper["Labels"].get(spec.OWNER) in worker.owner.known and helper["State"] != "running":
            worker.engine.remove_container(helper["Id"])
    ours = [network for network in worker.networks.list() if worker.networks.is_ours(network)]
    known = {device.name for device in worker.desired.all()}
    for network in ours:
        if network.driver == "macvlan":
            with worker.networks.parent_lock(network.parent):
                _sweep_one(worker, network, wanted=_is_wanted(worker, network, besides=None))
        else:
            _sweep_one(worker, network, wanted=network.labels.get(spec.DEVICE) in known)


def _sweep_one(worker: Worker, network: Network, *, wanted: bool) -> None:
    if wanted or is_referenced(network, worker.engine.all_containers()):
        return
    log.warning("the network %s is ours and nobody's: removing it", network.name)
    try:
        worker.engine.remove_network(network.id)
    except EngineError as problem:
        if problem.kind in ("unreachable", "timeout"):
            raise
        log.warning("the network %s cannot be removed: %s", network.name, problem.text)


def _is_wanted(worker: Worker, network: Network, *, besides: str | None) -> bool:
    """Does a device mean to use it, perhaps before its container exists?"""
    return any(
        find_macvlan(vnics.on_lan(worker, device.name, vnic), [network]) is not None
        for device in worker.desired.all()
        if device.name != besides and device.power != "absent"
        for vnic in device.vnics
    )


def is_referenced(network: Network, containers: Sequence[dict[str, Any]]) -> bool:
    """Has any container, running or not, the network in its configuration? The engine would let it be removed under
    one that is stopped, which could then never start again."""
    return any(
        name == network.name or endpoint.get("NetworkID") == network.id
        for container in containers
        for name, endpoint in ((container.get("NetworkSettings") or {}).get("Networks") or {}).items()
    )
