"""The commands of the cloud, one row a topic: its contract, the request it becomes, and the shape of the answer.

To add a command: its record in `common.contracts.commands`, a function that makes the request, a row.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bus.errors import CommandError
from bus.messages import docker_worker, netmon
from bus.messages.base import Request, request_declaration
from common.contracts import commands
from common.contracts.decode import Command, require_plain
from common.contracts.vnic_spellings import to_vnics
from services.cloud_link.answers import Fields, error

Ask = Request[Any] | Fields  # fields: the answer is known here already

_READING = ("GET", "HEAD")
_HTTP_CODES = {404: "not_found", 409: "conflict"}


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """How one topic is answered.

    `ask`: the request for a service, or the answer itself; raises `ContractError` or `CommandError`.
    `answer`: the fields of the answer, `status` included, from the command and the service's reply.
    `margin`: None where the request's declared deadline holds, else seconds beyond its own `timeout_s`.
    `turn`: the device whose changes must keep their order, None for a command that changes nothing.
    """

    contract: type[Command]
    ask: Callable[[Any], Ask]
    answer: Callable[[Any, Any], Fields] = lambda _command, reply: dict(reply)
    margin: float | None = None
    turn: Callable[[Any], str | None] = lambda _command: None

    def deadline(self, request: Request[Any]) -> float:
        """Seconds that the service has for `request`."""
        if self.margin is None:
            return request_declaration(type(request)).deadline
        seconds: float = request.timeout_s  # type: ignore[attr-defined]
        return seconds + self.margin


# ---- requests


def _create(command: commands.CreateNewRuntime) -> Ask:
    commands.require_honoured(command)
    return docker_worker.CreateRuntime(
        container_name=command.container_name,
        vnics=to_vnics(command.vnic_configs),
        image_tag=command.runtime_version,
        environment=commands.checked_environment(command.environment),
    )


def _delete(command: commands.DeviceCommand) -> Ask:
    return docker_worker.DeleteDevice(device_id=command.device_id)


def _timed(request: type[Request[docker_worker.DeviceState]]) -> Callable[[commands.TimedDeviceCommand], Ask]:
    return lambda command: request(device_id=command.device_id, **_given(timeout_s=command.timeout_s))


def _run(command: commands.RunCommand) -> Ask:
    require_plain(command.api, "$.api")
    require_plain(command.data, "$.data")
    require_plain(command.params, "$.params")
    require_plain(command.headers, "$.headers")
    contents = commands.file_contents(command.files)
    files = {
        field: docker_worker.UploadedFile(
            filename=file.filename, content=contents[field], **_given(content_type=file.content_type)
        )
        for field, file in (command.files or {}).items()
    }
    return docker_worker.RunCommand(
        device_id=command.device_id,
        method=command.method,  # type: ignore[arg-type]  # one of the literals: the contract's pattern says so
        api=command.api,
        data=command.data,
        files=files,
        **_given(port=command.port, headers=command.headers, params=command.params, timeout_s=command.timeout_s),
    )


def _status(command: commands.GetDeviceStatus) -> Ask:
    if command.device_id == commands.ORCHESTRATOR:
        return {"status": "not_found", "device_id": command.device_id, "message": "no self-destruct is running"}
    return docker_worker.GetDeviceStatus(device_id=command.device_id)


def _interfaces(command: commands.GetHostInterfaces) -> Ask:
    return netmon.GetHostInterfaces(**_given(include_virtual=command.include_virtual, detailed=command.detailed))


def _not_yet(what: str) -> Callable[[Command], Ask]:
    def ask(_command: Command) -> Ask:
        raise CommandError("unavailable", f"{what} is not available in this version of the agent")

    return ask


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that were given; the others keep the request's own defaults."""
    return {name: value for name, value in fields.items() if value is not None}


# ---- answers


def _accepted(name: str) -> Callable[[Any, docker_worker.Accepted], Fields]:
    return lambda _command, reply: {"status": reply.status, name: reply.device_id, "message": reply.message}


def _device_state(_command: Any, reply: docker_worker.DeviceState) -> Fields:
    return {"status": "success", "success": True} | msgspec.structs.asdict(reply)


def _http_response(_command: Any, reply: docker_worker.HttpResponse) -> Fields:
    response = msgspec.structs.asdict(reply)
    if reply.body_encoding is None:
        del response["body_encoding"]
    if reply.status_code < 400:
        return {"status": "success", "http_response": response}
    code = _HTTP_CODES.get(reply.status_code, "internal" if reply.status_code >= 500 else "refused")
    sentence = f"the device answered HTTP {reply.status_code}; http_response has its words"
    return error(code, sentence) | {"http_response": response}  # type: ignore[arg-type]  # all of them are codes


def _device_status(_command: Any, reply: docker_worker.DeviceStatus) -> Fields:
    fields: Fields = msgspec.to_builtins(reply)
    if reply.status == "error":
        return error("internal", reply.error or reply.message or "the last operation on the device failed") | fields
    return fields


def _host_interfaces(command: commands.GetHostInterfaces, reply: netmon.HostInterfaces) -> Fields:
    brief = command.detailed is False
    shown = [msgspec.structs.asdict(interface) for interface in reply.interfaces]
    if brief:
        shown = [{key: one[key] for key in ("name", "ip_address", "gateway", "operstate")} for one in shown]
    return {"status": "success", "interfaces": shown}


# ---- the table


def _device(command: commands.DeviceCommand) -> str:
    return command.device_id


def _device_unless_read(command: commands.RunCommand) -> str | None:
    return None if command.method in _READING else command.device_id


TOPICS: Mapping[str, Topic] = {
    "create_new_runtime": Topic(
        contract=commands.CreateNewRuntime,
        ask=_create,
        answer=_accepted("container_id"),
        turn=lambda command: command.container_name,
    ),
    "delete_device": Topic(contract=commands.DeviceCommand, ask=_delete, answer=_accepted("device_id"), turn=_device),
    "start_device": Topic(
        contract=commands.TimedDeviceCommand,
        ask=_timed(docker_worker.StartDevice),
        answer=_device_state,
        margin=10.0,
        turn=_device,
    ),
    "stop_device": Topic(
        contract=commands.TimedDeviceCommand,
        ask=_timed(docker_worker.StopDevice),
        answer=_device_state,
        margin=30.0,
        turn=_device,
    ),
    "restart_device": Topic(
        contract=commands.TimedDeviceCommand,
        ask=_timed(docker_worker.RestartDevice),
        answer=_device_state,
        margin=50.0,
        turn=_device,
    ),
    "run_command": Topic(
        contract=commands.RunCommand, ask=_run, answer=_http_response, margin=10.0, turn=_device_unless_read
    ),
    "get_device_status": Topic(contract=commands.GetDeviceStatus, ask=_status, answer=_device_status),
    "get_host_interfaces": Topic(contract=commands.GetHostInterfaces, ask=_interfaces, answer=_host_interfaces),
    "get_consumption_device": Topic(
        contract=commands.GetConsumptionDevice, ask=_not_yet("the history of a device's consumption")
    ),
    "get_consumption_orchestrator": Topic(
        contract=commands.GetConsumptionOrchestrator, ask=_not_yet("the history of the host's consumption")
    ),
    "get_serial_devices": Topic(contract=commands.GetSerialDevices, ask=_not_yet("the list of serial devices")),
    "delete_orchestrator": Topic(contract=commands.DeleteOrchestrator, ask=_not_yet("removing the agent by command")),
}
