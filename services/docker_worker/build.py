"""Making a device's container: image, networks, volume, container, places on the networks. Each step finds what an
earlier, interrupted try has left."""

from collections.abc import Collection, Sequence

from services.docker_worker import image, spec
from services.docker_worker.container import Container
from services.docker_worker.errors import EngineError, Kind, StepFailed, failed
from services.docker_worker.job import Job
from services.docker_worker.networks import Network
from services.docker_worker.spec import Attachment

_OPTIONS: dict[Kind, str] = {"privileges_refused": "capabilities", "init_missing": "init"}


def create(job: Job) -> str:
    """Make the container and put it on all its networks; returns its id. It is not started."""
    _choose_image(job)
    wanted = attachments(job, job.worker.networks.list())
    _ensure_volume(job)
    identity, at_create = _create_container(job, wanted)
    for attachment in wanted:
        if attachment.network not in at_create:
            _connect(job, identity, attachment)
    return identity


def leave_out(job: Job, problem: EngineError) -> bool:
    """Where the host refuses an option that the PLC can do without, note it; False when that is not what happened."""
    option = _OPTIONS.get(problem.kind)
    if option is None or option in job.device.without:
        return False
    job.amend(without=tuple(sorted({*job.device.without, option})))
    return True


def attachments(job: Job, existing: Sequence[Network]) -> tuple[Attachment, ...]:
    """Every network the device belongs on, made where it is missing: the internal one, then the primary vNIC's."""
    networks = job.worker.networks
    internal = networks.internal(job.name, existing, job.announce)
    found = [Attachment(network=internal.name, network_id=internal.id)]
    first = spec.primary(job.device.vnics)
    for vnic in sorted(job.device.vnics, key=lambda vnic: vnic is not first):
        if vnic.mode == "dhcp":
            raise StepFailed("unavailable", f"vNIC {vnic.name}: dhcp is not available in this version", retry=False)
        network = networks.macvlan(vnic, existing, job.announce)
        found.append(
            Attachment(
                network=network.name,
                network_id=network.id,
                ip_address=vnic.ip_address,
                mac_address=vnic.mac_address,
            )
        )
    return tuple(found)


def is_attached(job: Job, container: Container) -> bool:
    """Is the container, as inspected, on all its networks with its addresses?"""
    addresses = {endpoint.ip_address for endpoint in container.endpoints.values()}
    return spec.internal_network(job.name) in container.endpoints and all(
        vnic.ip_address in addresses for vnic in job.device.vnics
    )


def attach(job: Job, container: Container) -> None:
    """Put an existing container where it belongs, and take it off networks that are gone: with one of those in its
    configuration it could not start."""
    existing = job.worker.networks.list()
    wanted = attachments(job, existing)
    alive = {network.id for network in existing} | {attachment.network_id for attachment in wanted}
    for name, endpoint in container.endpoints.items():
        # A container that was never started has no ids yet.
        if endpoint.network_id and endpoint.network_id not in alive:
            with job.step(f"leaving the network {name}, which is gone"):
                job.engine.disconnect(name, container.id)
    for attachment in wanted:
        endpoint_now = container.endpoints.get(attachment.network)
        if endpoint_now is None or (endpoint_now.network_id and endpoint_now.network_id not in alive):
            _connect(job, container.id, attachment)


def _create_container(job: Job, wanted: tuple[Attachment, ...]) -> tuple[str, Collection[str]]:
    """The new container's id, and the names of the networks that it is on already."""
    config = spec.container_config(job.device, job.worker.owner.id, wanted, per_network_mac=job.engine.per_network_mac)
    job.announce("creating the container")
    try:
        identity = job.engine.create_container(job.name, config)
    except EngineError as problem:
        if leave_out(job, problem):  # engines from 25 on refuse at create, older ones at start
            return _create_container(job, wanted)
        if problem.kind == "not_found" and "image" in problem.text.lower():
            job.amend(image_id=None)  # removed by somebody since it was chosen
        raise failed(problem, "creating the container") from problem
    return identity, config["NetworkingConfig"]["EndpointsConfig"].keys()


def _choose_image(job: Job) -> None:
    if job.device.image_id is not None:
        return
    reference = job.device.spec.image
    told: list[int | None] = []

    def progress(percent: int | None, _text: str) -> None:
        job.still_wanted()
        if percent is not None and percent not in told[-1:]:
            told.append(percent)
            job.announce("pulling the image", percent, reference)

    try:
        chosen = image.choose(
            job.engine, reference, lambda: job.announce("pulling the image", None, reference), progress
        )
    except EngineError as problem:
        raise failed(problem, f"looking for the image {reference}") from problem
    job.amend(image_id=chosen.image_id, notes=(chosen.note,) if chosen.note else ())


def _ensure_volume(job: Job) -> None:
    name = spec.volume(job.name)
    with job.step("creating the volume"):
        volume = job.engine.create_volume(name, spec.labels(job.worker.owner.id, job.name))
    labels = volume.get("Labels") or {}
    if labels.get(spec.OWNER) not in job.worker.owner.known or labels.get(spec.DEVICE) != job.name:
        raise StepFailed("conflict", f"a volume {name} exists and is not ours; remove or rename it")


def _connect(job: Job, identity: str, attachment: Attachment) -> None:
    with job.step(f"connecting to {attachment.network}"):
        mac = attachment.mac_address if job.engine.per_network_mac else None
        job.engine.connect(attachment.network_id, identity, attachment.ip_address, mac)
