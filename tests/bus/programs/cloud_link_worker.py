"""A stand-in for docker_worker whose stop takes as long as it is told and whose other answers are immediate."""

import time
from dataclasses import dataclass, field

from bus.messages.docker_worker import (
    DeviceChanged,
    DeviceState,
    DeviceStatus,
    GetDeviceStatus,
    HttpResponse,
    RunCommand,
    StartDevice,
    StopDevice,
)
from bus.service import Service, start


@dataclass
class Context:
    service: Service | None = None
    stopping: set[str] = field(default_factory=set)


def status(context: Context, request: GetDeviceStatus) -> DeviceStatus:
    known = "stopping" if request.device_id in context.stopping else "not_found"
    return DeviceStatus(status=known, device_id=request.device_id)


def start_device(context: Context, request: StartDevice) -> DeviceState:
    assert context.service is not None
    context.service.publish(DeviceChanged(device_id=request.device_id, event="started"))
    return DeviceState(device_id=request.device_id, container_status="running")


def stop_device(context: Context, request: StopDevice) -> DeviceState:
    context.stopping.add(request.device_id)
    time.sleep(request.timeout_s)
    context.stopping.remove(request.device_id)
    return DeviceState(device_id=request.device_id, container_status="exited")


def run_command(_context: Context, request: RunCommand) -> HttpResponse:
    size = sum(len(file.content) for file in request.files.values())
    return HttpResponse(status_code=200, headers={}, body={"received": size}, ok=True, content_type="application/json")


def main() -> None:
    context = Context()
    handlers = {
        GetDeviceStatus: status,
        StartDevice: start_device,
        StopDevice: stop_device,
        RunCommand: run_command,
    }
    service = context.service = Service("docker_worker", start("docker_worker"), handlers, context)
    service.ready()
    service.run()


if __name__ == "__main__":
    main()
