"""The vNICs of one device: asks netmon for what they need, and says where each of them shall be now."""

from collections.abc import Sequence

import msgspec

from common.contracts.vnic import Vnic
from services.docker_worker import place
from services.docker_worker.addresses import random_mac
from services.docker_worker.container import Container
from services.docker_worker.desired import Device
from services.docker_worker.errors import Later
from services.docker_worker.job import Job
from services.docker_worker.place import Place
from services.docker_worker.worker import Worker

FIRST_ANSWER_WITHIN = 3.0  # seconds: a server answers in 20 ms, the LAN is probed for a second
LOOK_AGAIN = 0.5
NETMON_AGAIN = 2.0


def ask(job: Job, container: Container | None) -> None:
    """Have every lease held and every new address probed; returns at once."""
    if any(vnic.mode == "dhcp" and vnic.mac_address is None for vnic in job.device.vnics):
        _give_macs(job)  # from a state file of the first shape
    for vnic in job.device.vnics:
        if vnic.mode == "dhcp":
            job.worker.leases.hold(job.name, vnic)
        elif is_held(job.worker, job.device, vnic, container):
            if not job.worker.probes.is_open(job.name, vnic):
                job.worker.probes.drop(job.name, vnic)
        elif not _lacks_parent(job.worker, vnic):
            job.worker.probes.want(job.name, vnic)


def places(worker: Worker, device: Device, container: Container | None) -> tuple[Place, ...]:
    """Where each vNIC shall be, by what is known now; from memory."""
    return tuple(_place(worker, device, vnic, container) for vnic in device.vnics)


def places_at_creation(job: Job) -> tuple[Place, ...]:
    """The same for a container that is only made now, with manual addresses that are still being asked for.

    Who has such an address answers within milliseconds, long before the start. Only the silence that proves it free
    takes longer than a creation: when it is broken after the start, the vNIC is taken off the LAN again.
    """
    return tuple(
        msgspec.structs.replace(one, decision="take") if one.soon and one.vnic.mode == "manual" else one
        for one in places(job.worker, job.device, None)
    )


def is_in_conflict(job: Job) -> bool:
    """Has another device answered for an address that the new container was made with?"""
    return any(one.state == "conflict" for one in places(job.worker, job.device, None))


def await_leases(job: Job) -> None:
    """Raises `Later` while a lease is likely to come in time for the container's creation."""
    _await(job, [one for one in places(job.worker, job.device, None) if one.vnic.mode == "dhcp"])


def await_first_answers(job: Job, container: Container | None) -> None:
    """Raises `Later` while an answer is likely to come in time for the container's start."""
    _await(job, places(job.worker, job.device, container))


def _await(job: Job, placed: Sequence[Place]) -> None:
    if any(one.soon for one in placed):
        job.still_wanted()
        progress = job.worker.operations.get(job.name)
        if progress is None or progress.step != "waiting for addresses":
            job.announce("waiting for addresses")
        raise Later(LOOK_AGAIN)


def look_again_in(placed: Sequence[Place]) -> float | None:
    """Seconds after which a vNIC wants another try that nobody else would cause."""
    return min((one.again for one in placed if one.again is not None), default=None)


def is_held(worker: Worker, device: Device, vnic: Vnic, container: Container | None) -> bool:
    """Has the container the vNIC's address, so that nobody has to be asked for it?

    Not when it is started again by command: others may have taken the address while it was stopped. A container that
    died, or that the engine has restarted, was away for a moment only.
    """
    if not _is_configured(vnic, container):
        return False
    operation = worker.operations.get(device.name)
    starting = operation is not None and operation.operation == "start"
    return container is not None and (container.is_running or not starting)


def on_lan(worker: Worker, device: str, vnic: Vnic) -> Vnic:
    """The vNIC with the address and the network that its lease gives, if it has one."""
    if vnic.mode != "dhcp":
        return vnic
    return place.of_lease(vnic, worker.leases.known(device, vnic)).vnic


def _place(worker: Worker, device: Device, vnic: Vnic, container: Container | None) -> Place:
    if _lacks_parent(worker, vnic):
        return place.without_parent(vnic)
    if vnic.mode == "dhcp":
        problem = worker.leases.problem(device.name, vnic)
        found = place.of_lease(vnic, worker.leases.known(device.name, vnic), problem)
        waited = worker.leases.waited(device.name, vnic)
        if problem:
            found = msgspec.structs.replace(found, again=NETMON_AGAIN)
    else:
        verdict = worker.probes.verdict(device.name, vnic)
        held = is_held(worker, device, vnic, container) and not (verdict and verdict.taken_by)
        if verdict is not None and verdict.problem and _is_configured(vnic, container):
            held = True  # it was asked for once, and a netmon that is away shall not take a PLC off its LAN
        found = place.of_address(vnic, verdict, held=held)
        waited = worker.probes.waited(device.name, vnic)
    return msgspec.structs.replace(found, soon=found.soon and waited < FIRST_ANSWER_WITHIN)


def _is_configured(vnic: Vnic, container: Container | None) -> bool:
    """Has the container, which has run, the vNIC's address in its configuration?"""
    return (
        container is not None
        and not container.never_started
        and any(endpoint.ip_address == vnic.ip_address for endpoint in container.endpoints.values())
    )


def _lacks_parent(worker: Worker, vnic: Vnic) -> bool:
    """Only where netmon has told what there is."""
    known = worker.interfaces.heard()
    return known is not None and all(interface.name != vnic.parent_interface for interface in known)


def _give_macs(job: Job) -> None:
    used = {vnic.mac_address for device in job.worker.desired.all() for vnic in device.vnics}
    given = []
    for vnic in job.device.vnics:
        mac = vnic.mac_address or random_mac(used)
        used.add(mac)
        given.append(msgspec.structs.replace(vnic, mac_address=mac) if vnic.mode == "dhcp" else vnic)
    job.amend(vnics=tuple(given))
