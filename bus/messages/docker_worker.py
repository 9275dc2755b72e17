"""docker_worker: the vPLCs on this host, what they should be and what they are."""

from typing import Any, Literal

from bus.messages.base import Body, Event, Request, event, request
from common.contracts.vnic import Vnic

Operation = Literal["create", "delete", "start", "stop", "restart", "reconcile"]


# ---- events


@event("docker_worker.engine.changed", state_key="")
class EngineChanged(Event, frozen=True, kw_only=True):
    """Whether the Docker engine answers; `reason` is a sentence when it does not."""

    reachable: bool
    version: str
    api_version: str
    reason: str


@event("docker_worker.device.progressed")
class DeviceProgressed(Event, frozen=True, kw_only=True):
    """A step of an operation begins. `percent`: of the image pull, where known."""

    device_id: str
    operation: Operation
    step: str
    percent: int | None = None
    message: str = ""


@event("docker_worker.device.changed")
class DeviceChanged(Event, frozen=True, kw_only=True):
    """Something has become true of a device: `event` is one of created, started, stopped, restarted, deleted, died,
    failed, recovered, vnic_up, vnic_down; `container_status` as the engine names it, `error` a sentence, `vnic`
    the name of the one that it is about."""

    device_id: str
    event: str
    container_status: str = ""
    error: str | None = None
    vnic: str | None = None


# ---- requests


class Accepted(Body, frozen=True, kw_only=True):
    """Work goes on in the background; progress by events and `get_device_status`."""

    status: str
    device_id: str
    message: str


@request("docker_worker.create_runtime", deadline=4.0, changes=True)
class CreateRuntime(Request[Accepted], frozen=True, kw_only=True):
    """Make a vPLC. Repeating an identical request succeeds (`creating` or `success`); a different one for a name
    that exists is `conflict`. `image_tag`: of the configured runtime image, None for the default."""

    container_name: str
    vnics: tuple[Vnic, ...] = ()
    image_tag: str | None = None
    environment: dict[str, str] = {}


@request("docker_worker.delete_device", deadline=4.0, changes=True)
class DeleteDevice(Request[Accepted], frozen=True, kw_only=True):
    """Remove a vPLC and its networks; its volume stays. Deleting what does not exist succeeds."""

    device_id: str


class DeviceState(Body, frozen=True, kw_only=True):
    """The device as the engine shows it after the command."""

    device_id: str
    container_status: str


@request("docker_worker.start_device", deadline=30.0, changes=True)
class StartDevice(Request[DeviceState], frozen=True, kw_only=True):
    """Start a stopped vPLC, and keep it running from now on. `timeout_s`: how long to wait for it."""

    device_id: str
    timeout_s: float = 20.0


@request("docker_worker.stop_device", deadline=40.0, changes=True)
class StopDevice(Request[DeviceState], frozen=True, kw_only=True):
    """Stop a vPLC gracefully, and keep it stopped. `timeout_s`: seconds until it is killed."""

    device_id: str
    timeout_s: float = 10.0


@request("docker_worker.restart_device", deadline=60.0, changes=True)
class RestartDevice(Request[DeviceState], frozen=True, kw_only=True):
    """Stop a vPLC gracefully and start it again. `timeout_s`: seconds until it is killed."""

    device_id: str
    timeout_s: float = 10.0


class UploadedFile(Body, frozen=True, kw_only=True):
    """A file of a multipart request."""

    filename: str
    content: bytes
    content_type: str = "application/octet-stream"


class HttpResponse(Body, frozen=True, kw_only=True):
    """The vPLC's answer. `body`: parsed JSON, text, or base64 (then `body_encoding` says so)."""

    status_code: int
    headers: dict[str, str]
    body: Any
    ok: bool
    content_type: str
    body_encoding: str | None = None


@request("docker_worker.run_command", deadline=40.0, changes=True)
class RunCommand(Request[HttpResponse], frozen=True, kw_only=True):
    """One HTTPS request to the vPLC's own API over its internal network. `timeout_s`: the whole exchange."""

    device_id: str
    method: Literal["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]
    api: str
    port: int = 8443
    headers: dict[str, str] = {}
    data: Any = None
    params: dict[str, Any] = {}
    files: dict[str, UploadedFile] = {}
    timeout_s: float = 30.0


class NetworkStatus(Body, frozen=True, kw_only=True):
    """One network of a device, as the engine shows it."""

    ip_address: str
    mac_address: str
    gateway: str


VnicState = Literal["pending", "probing", "waiting_for_lease", "up", "down", "conflict", "no_parent", "error"]


class LeaseStatus(Body, frozen=True, kw_only=True):
    """What a DHCP server has granted; times are ISO 8601 in UTC, None: never."""

    server: str | None
    obtained_at: str | None
    renew_at: str | None
    expires_at: str | None


class VnicStatus(Body, frozen=True, kw_only=True):
    """One vNIC as it is; `reason` a sentence where it is not simply up. `state`: "pending" and "down" with its
    container, "probing" while the LAN is asked for its address, "waiting_for_lease", "conflict" when another device
    has its address, "no_parent" when its interface is gone, "error" where it differs from what was wanted. `lease`:
    of a vNIC in dhcp mode that has one."""

    name: str
    parent_interface: str
    mode: str
    ip_address: str | None
    mac_address: str | None
    gateway: str | None
    state: VnicState
    reason: str = ""
    lease: LeaseStatus | None = None


class DeviceStatus(Body, frozen=True, kw_only=True, omit_defaults=True):
    """A device: `status` is the running operation (creating, deleting, starting, stopping, restarting, reconciling),
    `error` of the last one, `success`, `not_found`, or `unknown` while the engine has not shown it yet. Times are
    ISO 8601 in UTC. Fields that do not apply are left out."""

    status: str
    device_id: str
    operation: str | None = None
    step: str | None = None
    percent: int | None = None
    started_at: str | None = None
    updated_at: str | None = None
    error: str | None = None
    message: str | None = None
    container_status: str | None = None
    is_running: bool | None = None
    networks: dict[str, NetworkStatus] | None = None
    internal_ip: str | None = None
    restart_count: int | None = None
    uptime_seconds: int | None = None
    exit_code: int | None = None
    health_status: str | None = None
    image: str | None = None
    vnics: tuple[VnicStatus, ...] | None = None
    notes: tuple[str, ...] | None = None


@request("docker_worker.get_device_status", deadline=4.0, changes=False, inline=True)
class GetDeviceStatus(Request[DeviceStatus], frozen=True, kw_only=True):
    """How a device is, from what docker_worker knows already: never waits for the engine."""

    device_id: str


class DeviceList(Body, frozen=True, kw_only=True):
    """Every device this agent keeps."""

    devices: tuple[DeviceStatus, ...]


@request("docker_worker.list_devices", deadline=4.0, changes=False, inline=True)
class ListDevices(Request[DeviceList], frozen=True, kw_only=True):
    """All devices of this agent, with their state."""
