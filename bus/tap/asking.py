"""`list`, `ping` and `call`: questions to the services themselves."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from bus import endpoints
from bus.calls import Caller
from bus.errors import CallFailed, CommandError, Timeout
from bus.messages.base import RequestDeclaration, declared_requests, find_request, full_name
from bus.messages.common import Info, Ping, ServiceInfo
from bus.tap.show import Printer

OK, SAID_NO, WRONG_USE, NOT_THERE, NO_ANSWER = 0, 1, 2, 3, 4


def list_services(context: "zmq.Context[Any]", run_dir: Path, printer: Printer) -> int:
    """Every service with its health, and what can be asked of it."""
    caller = Caller(context, run_dir, "tap")
    worst = OK
    for owner in _owners(run_dir):
        try:
            info = caller.call(Info(), owner=owner)
        except CallFailed as problem:
            worst = NOT_THERE
            _tell_absent(printer, owner, problem)
            continue
        _tell_service(printer, info)
    return worst


def ping(context: "zmq.Context[Any]", run_dir: Path, owners: list[str], printer: Printer) -> int:
    """How long each service takes to answer."""
    caller = Caller(context, run_dir, "tap")
    worst = OK
    for owner in owners or _owners(run_dir):
        try:
            caller.call(Ping(), owner=owner)  # the first one pays for the connection
            began = time.perf_counter()
            pong = caller.call(Ping(), owner=owner)
        except CallFailed as problem:
            worst = NOT_THERE
            _tell_absent(printer, owner, problem)
            continue
        milliseconds = 1000 * (time.perf_counter() - began)
        if printer.as_json:
            printer.record({"owner": owner, "run": pong.run, "milliseconds": round(milliseconds, 3)})
        else:
            printer.line(f"{owner:<14} {milliseconds:.2f} ms")
    return worst


def call(
    context: "zmq.Context[Any]",
    run_dir: Path,
    name: str,
    body: str,
    printer: Printer,
    *,
    confirmed: bool,
    deadline: float | None,
) -> int:
    """Send one request and print the answer. A request that changes something wants `confirmed`."""
    declaration = find_request(name)
    owner = name.partition(".")[0]
    if declaration is None or full_name(declaration, owner) != name:
        known = ", ".join(full_name(found, "<service>") for found in declared_requests())
        return _wrong(printer, f"no request is called {name!r}; known are {known}")
    if declaration.changes and not confirmed:
        return _wrong(printer, f"{name} changes something: say --yes if you mean it")
    try:
        request = msgspec.convert(json.loads(body), declaration.record)
    except (ValueError, RecursionError) as problem:
        return _wrong(printer, f"{name} cannot take {body!r}: {problem}; it takes {_fields(declaration)}")
    try:
        reply = Caller(context, run_dir, "tap").call(request, owner=owner, deadline=deadline)
    except CommandError as refusal:
        printer.record({"status": "error", "code": refusal.code, "error": refusal.message})
        return SAID_NO
    except CallFailed as problem:
        printer.record({"status": "error", "code": problem.code, "error": problem.message})
        return NO_ANSWER if isinstance(problem, Timeout) else NOT_THERE
    printer.record(msgspec.to_builtins(reply, builtin_types=(bytes,)))
    return OK


def _owners(run_dir: Path) -> list[str]:
    return list(dict.fromkeys((*endpoints.OWNERS, *endpoints.present(run_dir))))


def _fields(declaration: RequestDeclaration) -> str:
    fields = msgspec.structs.fields(declaration.record)
    named = ", ".join(f"{field.name}{' (required)' if field.required else ''}" for field in fields)
    return named or "no fields"


def _tell_service(printer: Printer, info: ServiceInfo) -> None:
    if printer.as_json:
        printer.record(msgspec.to_builtins(info))
        return
    tint = "reply" if info.health == "ready" else "error"
    why = f": {'; '.join(info.reasons)}" if info.reasons else ""
    printer.line(f"{info.owner}  pid {info.pid}  up {info.uptime:.0f} s  {printer.paint(tint, info.health)}{why}")
    for name in info.requests:
        found = find_request(name)
        mark = "changes" if found and found.changes else "reads"
        printer.line(f"    {mark:<8} {name}")


def _tell_absent(printer: Printer, owner: str, problem: CallFailed) -> None:
    if printer.as_json:
        printer.record({"owner": owner, "code": problem.code, "error": problem.message})
    else:
        printer.line(printer.paint("error", f"{owner}  {problem.message}"))


def _wrong(printer: Printer, sentence: str) -> int:
    printer.record({"status": "error", "code": "invalid", "error": sentence})
    return WRONG_USE
