"""A container's places on the networks: made where they are missing, left where the vNIC does not belong any more.

An address is taken only when it is proved, and the old one given up only when the new one is there to be taken, or
when it is not the vNIC's any more.
"""

from collections.abc import Sequence

from services.docker_worker import removal, spec
from services.docker_worker.container import Container, Endpoint
from services.docker_worker.errors import StepFailed
from services.docker_worker.job import Job
from services.docker_worker.networks import Network, find_macvlan
from services.docker_worker.place import Place
from services.docker_worker.spec import Attachment


def attachments(job: Job, existing: Sequence[Network], placed: Sequence[Place]) -> tuple[Attachment, ...]:
    """Every network the device belongs on now, made where it is missing: the internal one, then the primary vNIC's.

    A vNIC whose network cannot be made holds nobody back: the job remembers the problem.
    """
    internal = job.worker.networks.internal(job.name, existing, job.announce)
    found = [Attachment(network=internal.name, network_id=internal.id)]
    taken = [one.vnic for one in placed if one.decision == "take"]
    first = spec.primary(tuple(taken))
    for vnic in sorted(taken, key=lambda vnic: vnic is not first):
        try:
            network = job.worker.networks.macvlan(vnic, existing, job.announce)
        except StepFailed as problem:
            if problem.code != "conflict":
                raise
            if removal.is_being_left(job, vnic.parent_interface, existing):
                job.waiting = True  # the host has moved: the others are about to go, too
            else:
                job.problems.append(problem)
            continue
        found.append(
            Attachment(
                network=network.name,
                network_id=network.id,
                ip_address=vnic.ip_address,
                mac_address=vnic.mac_address,
            )
        )
    return tuple(found)


def is_attached(job: Job, container: Container, placed: Sequence[Place]) -> bool:
    """Is the container, as inspected, on all its networks with its addresses, and on no other one?"""
    internal = spec.internal_network(job.name)
    wanted = [one for one in placed if one.decision == "take"]
    others = {name: endpoint for name, endpoint in container.endpoints.items() if name != internal}
    complete = all(any(_fits(one, name, endpoint) for name, endpoint in others.items()) for one in wanted)
    kept = any(one.decision == "keep" for one in placed)
    return internal in container.endpoints and complete and (kept or len(others) <= len(wanted))


def attach(job: Job, container: Container, placed: Sequence[Place]) -> None:
    """Put an existing container where it belongs."""
    left = leave(job, container, placed)
    existing = job.worker.networks.list()
    for attachment in attachments(job, existing, placed):
        if attachment.network not in container.endpoints or attachment.network in left:
            connect(job, container.id, attachment)


def leave(job: Job, container: Container, placed: Sequence[Place]) -> set[str]:
    """Take a container off networks where it does not belong, and off those that are gone: with one of these in its
    configuration it could not start. Returns the names of the networks left."""
    existing = job.worker.networks.list()
    left: set[str] = set()
    for name, endpoint in container.endpoints.items():
        network = _network(existing, name, endpoint)
        if network is None:
            # A container that was never started has no ids yet.
            if endpoint.network_id:
                _disconnect(job, container, name, f"leaving the network {name}, which is gone")
                left.add(name)
        elif _is_out_of_place(network, endpoint, placed):
            _disconnect(job, container, network.id, f"leaving the network {name}")
            left.add(name)
            removal.remove_unused(job, network.parent, existing)
    return left


def connect(job: Job, identity: str, attachment: Attachment) -> None:
    """One container to one network."""
    with job.step(f"connecting to {attachment.network}"):
        mac = attachment.mac_address if job.engine.per_network_mac else None
        job.engine.connect(attachment.network_id, identity, attachment.ip_address, mac)


def _disconnect(job: Job, container: Container, network: str, step: str) -> None:
    with job.step(step):
        job.engine.disconnect(network, container.id)


def _network(existing: Sequence[Network], name: str, endpoint: Endpoint) -> Network | None:
    """The engine's network of an endpoint; one of the same name made later is another one."""
    for network in existing:
        if network.id == endpoint.network_id or (not endpoint.network_id and network.name == name):
            return network
    return None


def _is_out_of_place(network: Network, endpoint: Endpoint, placed: Sequence[Place]) -> bool:
    """Is it on the LAN of one of its vNICs, and none of them wants it there?"""
    here = [one for one in placed if one.vnic.parent_interface == network.parent]
    return (
        network.driver == "macvlan"
        and bool(here)
        and not any(
            one.decision == "keep"
            or (
                one.decision == "take"
                and one.vnic.ip_address == endpoint.ip_address
                and find_macvlan(one.vnic, [network]) is not None
            )
            for one in here
        )
    )


def _fits(one: Place, name: str, endpoint: Endpoint) -> bool:
    # A network of another name may be one that was found and is shared: then the address has to do.
    own = spec.macvlan_network(one.vnic.parent_interface, one.vnic.subnet or "")
    return endpoint.ip_address == one.vnic.ip_address and (name == own or not name.startswith("macvlan_"))
