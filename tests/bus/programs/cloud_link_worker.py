"""A stand-in for docker_worker whose stop takes as long as it is told and whose other answers are immediate."""

import time
from typing import Any

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


def status(_service: list[Any], request: GetDeviceStatus) -> DeviceStatus:
    return DeviceStatus(status="not_found", device_id=request.device_id)


def start_device(service: list[Any], request: StartDevice) -> DeviceState:
    service[0].publish(DeviceChanged(device_id=request.device_id, event="started"))
    return DeviceState(device_id=request.device_id, container_status="running")


def stop_device(_service: list[Any], request: StopDevice) -> DeviceState:
    time.sleep(request.timeout_s)
    return DeviceState(device_id=request.device_id, container_status="exited")


def run_command(_service: list[Any], request: RunCommand) -> HttpResponse:
    size = sum(len(file.content) for file in request.files.values())
    return HttpResponse(status_code=200, headers={}, body={"received": size}, ok=True, content_type="application/json")


def main() -> None:
    holder: list[Any] = []
    handlers = {
        GetDeviceStatus: status,
        StartDevice: start_device,
        StopDevice: stop_device,
        RunCommand: run_command,
    }
    service = Service("docker_worker", start("docker_worker"), handlers, holder)
    holder.append(service)
    service.ready()
    service.run()


if __name__ == "__main__":
    main()
