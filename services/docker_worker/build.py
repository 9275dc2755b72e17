"""Making a device's container: image, networks, volume, container, places on the networks. Each step finds what an
earlier, interrupted try has left."""

from collections.abc import Collection, Sequence

from services.docker_worker import attach, image, spec, vnics
from services.docker_worker.errors import EngineError, Kind, StepFailed, failed
from services.docker_worker.job import Job
from services.docker_worker.place import Place
from services.docker_worker.spec import Attachment

_OPTIONS: dict[Kind, str] = {"privileges_refused": "capabilities", "init_missing": "init"}


def create(job: Job) -> str:
    """Make the container and put it on all its networks; returns its id. It is not started.

    Raises `Later` while leases are expected soon: what a container has from its creation on, its MAC above all, no
    engine gives it afterwards. A manual address is on no LAN before the start, so its probe may go on meanwhile.
    """
    vnics.ask(job, None)
    _choose_image(job)
    job.worker.networks.internal(job.name, job.worker.networks.list(), job.announce)
    vnics.await_leases(job)
    placed = vnics.places_at_creation(job)
    wanted = attach.attachments(job, job.worker.networks.list(), placed)
    _ensure_volume(job)
    identity, at_create = _create_container(job, wanted, placed)
    for attachment in wanted:
        if attachment.network not in at_create:
            attach.connect(job, identity, attachment)
    return identity


def leave_out(job: Job, problem: EngineError) -> bool:
    """Where the host refuses an option that the PLC can do without, note it; False when that is not what happened."""
    option = _OPTIONS.get(problem.kind)
    if option is None or option in job.device.without:
        return False
    job.amend(without=tuple(sorted({*job.device.without, option})))
    return True


def _create_container(job: Job, wanted: tuple[Attachment, ...], placed: Sequence[Place]) -> tuple[str, Collection[str]]:
    """The new container's id, and the names of the networks that it is on already."""
    config = spec.container_config(
        job.device,
        job.worker.owner.id,
        wanted,
        dns=spec.dns_servers(one.vnic for one in placed),
        per_network_mac=job.engine.per_network_mac,
    )
    job.announce("creating the container")
    try:
        identity = job.engine.create_container(job.name, config)
    except EngineError as problem:
        if leave_out(job, problem):  # engines from 25 on refuse at create, older ones at start
            return _create_container(job, wanted, placed)
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
