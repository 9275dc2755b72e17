"""A device's status out of what is known already: desired state, last look, running operation."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from bus.messages.docker_worker import DeviceStatus, LeaseStatus, NetworkStatus, Operation, VnicState, VnicStatus
from bus.messages.netmon import Lease
from common.contracts.vnic import Vnic
from services.docker_worker import spec, vnics
from services.docker_worker.container import Container, Endpoint
from services.docker_worker.corrections import Corrected
from services.docker_worker.desired import Device
from services.docker_worker.operations import Progress
from services.docker_worker.place import Place
from services.docker_worker.worker import Worker

_DOING: dict[Operation, str] = {
    "create": "creating",
    "delete": "deleting",
    "start": "starting",
    "stop": "stopping",
    "restart": "restarting",
    "reconcile": "reconciling",
}


def device_status(worker: Worker, name: str) -> DeviceStatus:
    """From memory, in microseconds."""
    device = worker.desired.get(name)
    if device is None:
        return DeviceStatus(status="not_found", device_id=name, message=f"there is no device {name}")
    operation, container = worker.operations.get(name), worker.observed.get(name)
    fields = _of_container(name, container) | _of_operation(operation, worker.retry_in(name))
    if container is None and operation is None:
        # A start of ours, or of the engine: the first look is still to come.
        fields |= {"status": "unknown", "message": worker.health().reason or "not looked at yet"}
    return DeviceStatus(
        device_id=name,
        image=device.spec.image,
        vnics=vnic_statuses(worker, device, container),
        notes=_notes(worker, device, container) or None,
        **fields,
    )


def _of_operation(operation: Progress | None, retry_in: float | None) -> dict[str, Any]:
    if operation is None:
        return {"status": "success"}
    again = f"next try in {retry_in:.0f} s" if retry_in is not None else ""
    if operation.error and not operation.retry:
        again = "not tried again: delete the device, or correct the request"
    return {
        "status": "error" if operation.error else _DOING[operation.operation],
        "operation": operation.operation,
        "step": operation.step,
        "percent": operation.percent,
        "started_at": operation.started_at,
        "updated_at": operation.updated_at,
        "error": operation.error,
        "message": (again if operation.error else operation.message) or None,
    }


def _of_container(name: str, container: Container | None) -> dict[str, Any]:
    if container is None:
        return {}
    networks = {
        network: NetworkStatus(
            ip_address=endpoint.ip_address, mac_address=endpoint.mac_address, gateway=endpoint.gateway
        )
        for network, endpoint in container.endpoints.items()
    }
    internal = container.endpoints.get(spec.internal_network(name))
    return {
        "container_status": container.status,
        "is_running": container.is_running,
        "networks": networks,
        "internal_ip": (internal.ip_address if internal else "") or None,
        "restart_count": container.restart_count,
        "uptime_seconds": _uptime(container.started_at) if container.is_running else None,
        "exit_code": None if container.is_running or container.never_started else container.exit_code,
        "health_status": container.health,
    }


def vnic_statuses(worker: Worker, device: Device, container: Container | None) -> tuple[VnicStatus, ...]:
    """All vNICs of a device; from memory."""
    found = []
    for one in vnics.places(worker, device, container):
        endpoint = endpoint_of(one.vnic, container)
        corrected = worker.corrections.get(container, one.vnic.name, endpoint) if container and endpoint else None
        lease = worker.leases.known(device.name, one.vnic) if one.vnic.mode == "dhcp" else None
        found.append(vnic_status(one, container, lease, corrected))
    return tuple(found)


def vnic_status(
    one: Place, container: Container | None, lease: Lease | None = None, corrected: Corrected | None = None
) -> VnicStatus:
    """The vNIC as the engine shows it, its MAC as we have corrected it, and in `reason` what is not as wanted."""
    vnic, endpoint = one.vnic, endpoint_of(one.vnic, container)
    if endpoint is not None and corrected is not None and corrected.mac_address:
        endpoint = msgspec.structs.replace(endpoint, mac_address=corrected.mac_address)
    state, reasons = _state(one, container, endpoint)
    if corrected is not None and corrected.problem:
        reasons.append(corrected.problem)
    given = one.decision == "take" or vnic.mode == "manual"
    return VnicStatus(
        name=vnic.name,
        parent_interface=vnic.parent_interface,
        mode=vnic.mode,
        ip_address=(endpoint.ip_address if endpoint else "") or (vnic.ip_address if given else None),
        mac_address=(endpoint.mac_address if endpoint else "") or vnic.mac_address,
        gateway=(endpoint.gateway if endpoint else "") or (vnic.gateway if given else None),
        state=state,
        reason="; ".join(reasons),
        lease=_lease_status(lease),
    )


def _state(one: Place, container: Container | None, endpoint: Endpoint | None) -> tuple[VnicState, list[str]]:
    own = [one.reason] if one.reason else []
    if one.decision != "take" and endpoint is None:
        return one.state, own
    if container is None or container.never_started:
        return "pending", ["the container has not been started yet", *own]
    if not container.is_running:
        return "down", [f"the container is {container.status}", *own]
    if endpoint is None:
        return "error", ["the container is not on this network", *own]
    differences = _differences(one.vnic, endpoint)
    return "error" if differences else "up", differences + own


def endpoint_of(vnic: Vnic, container: Container | None) -> Endpoint | None:
    if container is None:
        return None
    by_name = container.endpoints.get(spec.macvlan_network(vnic.parent_interface, vnic.subnet or ""))
    # A reused network has another name: then the address tells.
    by_address = (one for one in container.endpoints.values() if vnic.ip_address and one.ip_address == vnic.ip_address)
    return by_name or next(by_address, None)


def _differences(vnic: Vnic, endpoint: Endpoint) -> list[str]:
    pairs = (
        ("address", vnic.ip_address, endpoint.ip_address),
        ("MAC", vnic.mac_address, endpoint.mac_address),
        ("gateway", vnic.gateway, endpoint.gateway),
    )
    return [
        f"{what} {wanted} was wanted, it has {has or 'none'}"
        for what, wanted, has in pairs
        if wanted not in (None, has)
    ]


def _lease_status(lease: Lease | None) -> LeaseStatus | None:
    if lease is None or lease.ip_address is None:
        return None
    return LeaseStatus(
        server=lease.server,
        obtained_at=_iso(lease.obtained_at),
        renew_at=_iso(lease.renew_at),
        expires_at=_iso(lease.expires_at),
    )


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _notes(worker: Worker, device: Device, container: Container | None) -> tuple[str, ...]:
    notes = [*device.notes, *(spec.REFUSED[option] for option in device.without)]
    if held_back := worker.brake.sentence(device.name):
        notes.append(held_back)
    if container is not None and device.power == "running" and not container.is_running and container.restart_count > 2:
        notes.append(
            f"it ended {container.restart_count} times, last with exit code {container.exit_code}; the engine waits"
            " longer before each new start"
        )
    if container is not None and container.error:
        notes.append(f"the engine says: {container.error}")
    if container is not None and container.status == "paused":
        notes.append("it is paused, not by this agent: `docker unpause` lets it go on")
    health = worker.health()
    if not health.reachable:
        notes.append(f"{health.reason}; this is what was last seen")
    return tuple(notes)


def _uptime(started_at: str) -> int | None:
    """The engine writes nanoseconds, Python reads microseconds."""
    try:
        started = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", started_at))
    except ValueError:
        return None
    return max(0, int((datetime.now(UTC) - started).total_seconds()))
