"""The commands for devices: check, write down what is wanted, have it done; then answer, or wait for the outcome."""

import logging
import re

import msgspec

from bus.errors import CommandError
from bus.messages.base import request_declaration
from bus.messages.docker_worker import (
    Accepted,
    CreateRuntime,
    DeleteDevice,
    DeviceList,
    DeviceState,
    DeviceStatus,
    GetDeviceStatus,
    ListDevices,
    Operation,
    RestartDevice,
    StartDevice,
    StopDevice,
)
from common import trace
from common.contracts.vnic import CONTAINER_NAME, contradictions
from common.settings import Settings
from services.docker_worker import addresses, spec, status
from services.docker_worker.container import parse
from services.docker_worker.desired import Device, DeviceSpec
from services.docker_worker.errors import EngineError
from services.docker_worker.worker import Worker

log = logging.getLogger(__name__)

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")  # distribution/reference grammar
DEFAULT_TAG = "latest"
NETMON_WITHIN = 2.0  # seconds
FIRST_LOOK_WITHIN = 1.0
LONGEST_GRACE = 30.0


def create_runtime(worker: Worker, request: CreateRuntime) -> Accepted:
    """Make a vPLC in the background."""
    wanted = _checked_spec(worker, request)
    name = request.container_name
    existing = worker.desired.get(name)
    if existing is None:
        worker.need_engine()
        existing = _adopted_meanwhile(worker, name)
    if existing is not None:
        return _repeated(worker, existing, wanted)
    interfaces = worker.interfaces.known(NETMON_WITHIN) if wanted.vnics else ()
    others = [(device.name, vnic) for device in worker.desired.all() for vnic in device.vnics]
    vnics = addresses.resolve(wanted.vnics, interfaces, others, per_network_mac=worker.engine.per_network_mac)
    _refuse_foreign(worker, name)
    _command(worker, Device(name=name, power="running", spec=wanted, vnics=vnics), "create")
    return Accepted(status="creating", device_id=name, message=f"Container creation started for {name}")


def delete_device(worker: Worker, request: DeleteDevice) -> Accepted:
    """Remove a vPLC in the background; what does not exist is gone already."""
    name = _checked_name("device_id", request.device_id)
    device = worker.desired.get(name)
    if device is None and worker.observed.complete.is_set():
        return Accepted(status="deleting", device_id=name, message=f"there is no device {name}")
    if device is None:  # the engine has not been listed yet: there may be one
        device = Device(name=name, power="absent", spec=DeviceSpec(image=default_image(worker.settings)))
    if device.power != "absent" or worker.desired.get(name) is None:
        _command(worker, msgspec.structs.replace(device, power="absent", restart_from=None), "delete")
    return Accepted(status="deleting", device_id=name, message=f"{name} is being removed; its volume stays")


def start_device(worker: Worker, request: StartDevice) -> DeviceState:
    device = _existing(worker, request.device_id)
    limit = request_declaration(StartDevice).deadline - 1.0
    seconds = _in_range("timeout_s", request.timeout_s, limit)
    worker.brake.release(device.name)
    wanted = msgspec.structs.replace(device, power="running")
    return _carried_out(worker, wanted, "start", seconds)


def stop_device(worker: Worker, request: StopDevice) -> DeviceState:
    device = _existing(worker, request.device_id)
    grace = _in_range("timeout_s", request.timeout_s, LONGEST_GRACE)
    wanted = msgspec.structs.replace(device, power="stopped", grace=grace, restart_from=None)
    return _carried_out(worker, wanted, "stop", request_declaration(StopDevice).deadline - 1.0)


def restart_device(worker: Worker, request: RestartDevice) -> DeviceState:
    device = _existing(worker, request.device_id)
    grace = _in_range("timeout_s", request.timeout_s, LONGEST_GRACE)
    worker.brake.release(device.name)
    container = worker.observed.get(device.name)
    # The present life of the container, so that a repeated or interrupted restart ends in one new life.
    replaced = container.started_at if container is not None and container.is_running else None
    wanted = msgspec.structs.replace(device, power="running", grace=grace, restart_from=replaced)
    return _carried_out(worker, wanted, "restart", request_declaration(RestartDevice).deadline - 1.0)


def get_device_status(worker: Worker, request: GetDeviceStatus) -> DeviceStatus:
    return status.device_status(worker, request.device_id)


def list_devices(worker: Worker, _request: ListDevices) -> DeviceList:
    names = sorted(device.name for device in worker.desired.all())
    return DeviceList(devices=tuple(status.device_status(worker, name) for name in names))


def _checked_name(field: str, name: str) -> str:
    if not CONTAINER_NAME.fullmatch(name) or len(name) < 2:  # the engine's own lower limit is 2
        raise CommandError(
            "invalid",
            f"$.{field}: expected 2-63 characters of letters, digits, _ . -, beginning with a letter or digit,"
            f" got {name[:80]!r}",
        )
    return name


def _checked_spec(worker: Worker, request: CreateRuntime) -> DeviceSpec:
    _checked_name("container_name", request.container_name)
    problems = contradictions(request.vnics) + spec.environment_problems(request.environment)
    if request.image_tag is not None and not _TAG.fullmatch(request.image_tag):
        problems.append(f"$.runtime_version: expected an image tag like v4.1.4, got {request.image_tag[:80]!r}")
    if problems:
        raise CommandError("invalid", "; ".join(problems))
    return DeviceSpec(
        vnics=request.vnics,
        image=default_image(worker.settings, request.image_tag),
        environment=dict(request.environment),
    )


def default_image(settings: Settings, tag: str | None = None) -> str:
    """`repository:tag`; the setting may name a tag itself (a colon after the last slash)."""
    repository, colon, own_tag = settings.runtime_image.rpartition(":")
    if not colon or "/" in own_tag:
        repository, own_tag = settings.runtime_image, DEFAULT_TAG
    return f"{repository}:{tag or own_tag}"


def _repeated(worker: Worker, existing: Device, wanted: DeviceSpec) -> Accepted:
    name = existing.name
    if existing.power == "absent":
        raise CommandError("conflict", f"{name} is still being deleted; create it again when it is gone")
    if existing.spec != wanted:
        raise CommandError(
            "conflict", f"{name} exists with another configuration; delete it first, or choose another name"
        )
    operation, container = worker.operations.get(name), worker.observed.get(name)
    if container is None or (operation is not None and operation.operation == "create"):
        return Accepted(status="creating", device_id=name, message=f"{name} is being created already")
    return Accepted(status="success", device_id=name, message=f"{name} exists already and is {container.status}")


def _adopted_meanwhile(worker: Worker, name: str) -> Device | None:
    if not worker.observed.complete.wait(FIRST_LOOK_WITHIN):
        raise CommandError("unavailable", "the devices on the Docker engine have not been listed yet; try again")
    return worker.desired.get(name)


def _refuse_foreign(worker: Worker, name: str) -> None:
    try:
        identity = worker.engine.find_container(name, limit=2.0)
        inspected = worker.engine.inspect_container(identity, limit=1.0) if identity else None
    except EngineError as problem:
        raise CommandError("unavailable", f"the Docker engine does not answer: {problem.text}") from problem
    if inspected is not None and not worker.is_ours(parse(inspected), name):
        raise CommandError("conflict", f"a container named {name} exists and is not ours; choose another name")


def _existing(worker: Worker, device_id: str) -> Device:
    name = _checked_name("device_id", device_id)
    device = worker.desired.get(name)
    if device is None:
        if not worker.observed.complete.is_set():
            worker.need_engine()
            device = _adopted_meanwhile(worker, name)
        if device is None:
            raise CommandError("not_found", f"there is no device {name}")
    if device.power == "absent":
        raise CommandError("conflict", f"{name} is being deleted")
    worker.need_engine()
    return device


def _in_range(field: str, seconds: float, limit: float) -> float:
    if not 0 < seconds <= limit:
        raise CommandError("invalid", f"$.{field}: expected more than 0 and at most {limit:g} seconds, got {seconds:g}")
    return seconds


def _command(worker: Worker, device: Device, operation: Operation) -> int:
    """Write down what is wanted, and only then have it done."""
    try:
        revision = worker.desired.command(device)
    except OSError as problem:
        raise CommandError("unavailable", f"the command cannot be written down: {problem}") from problem
    worker.operations.begin(device.name, operation, trace.current())
    worker.enqueue(device.name, True)
    return revision


def _carried_out(worker: Worker, device: Device, operation: Operation, seconds: float) -> DeviceState:
    revision = _command(worker, device, operation)
    if not worker.operations.wait(device.name, revision, seconds):
        raise CommandError(
            "timeout", f"the {operation} of {device.name} goes on in the background after {seconds:g} s; see its status"
        )
    outcome = worker.operations.get(device.name)
    if outcome is not None and outcome.error:
        raise CommandError(outcome.code, f"{outcome.error}; it is tried again" if outcome.retry else outcome.error)
    container = worker.observed.get(device.name)
    return DeviceState(device_id=device.name, container_status=container.status if container else "unknown")
