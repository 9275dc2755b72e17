"""Answers as people read them: tables and `name: value` lines. Pure functions from JSON to text."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_HEAD = ("action", "correlation_id")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their longest cell."""
    cells = [list(header), *[["-" if cell in (None, "") else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def agents(value: Any) -> str:
    """`GET /api/agents`."""
    if not value["agents"]:
        return "no agent is enrolled yet: python -m install.enrol on the edge host"
    rows = []
    for agent in value["agents"]:
        beat = agent["heartbeat"] or {}
        since = agent["connected_at"] if agent["online"] else agent["disconnected_at"]
        state = "online" if agent["online"] else "offline"
        memory = (
            f"{beat['memory_usage']}/{beat['memory_total']}"
            if "memory_usage" in beat and "memory_total" in beat
            else None
        )
        rows.append((agent["id"], state, since, agent["heartbeat_at"], beat.get("cpu_usage"), memory, agent["address"]))
    return table(("AGENT", "STATE", "SINCE", "LAST BEAT", "CPU %", "MEMORY GB", "ADDRESS"), rows)


def commands(value: Any) -> str:
    """`GET /api/commands`."""
    rows = [
        (
            command["correlation_id"],
            command["sent_at"],
            command["agent_id"],
            command["topic"],
            command["status"] or command["outcome"],
            f"{command['duration_ms']:.1f}",
            command["detail"],
        )
        for command in value["commands"]
    ]
    return table(("ID", "SENT", "AGENT", "TOPIC", "OUTCOME", "MS", "DETAIL"), rows)


def event(value: Mapping[str, Any]) -> str:
    """One device event in one line."""
    fields = value.get("event")
    if not isinstance(fields, dict):
        return json.dumps(value)
    known = ("device_id", "event", "step", "percent", "error", "trace", "timestamp")
    said = [f"{name}={fields[name]}" for name in known[2:-1] if fields.get(name) is not None]
    said += [f"{name}={json.dumps(item)}" for name, item in fields.items() if name not in known]
    head = f"{value.get('received_at')} {fields.get('device_id', '-')} {fields.get('event', '-')}"
    return " ".join([head, *said])


def answer(topic: str, value: Any) -> str:
    """An acknowledgement that is no error."""
    if not isinstance(value, dict):
        return json.dumps(value, indent=2)
    return _RENDER.get(topic, pairs)(value)


def pairs(value: Mapping[str, Any]) -> str:
    """Each field on a line; what is nested as JSON below its name."""
    lines = []
    for name, item in value.items():
        if name in _HEAD or item is None:
            continue
        text = json.dumps(item, indent=2) if isinstance(item, dict | list) and item else item
        lines.append(f"{name}: {text}")
    return "\n".join(lines)


def problem(value: Mapping[str, Any]) -> str:
    """The error of an acknowledgement, in one line."""
    code = value.get("code")
    text = value.get("error") or value.get("message") or value.get("status")
    return f"{text}" + (f" ({code})" if code else "")


def _interfaces(value: Mapping[str, Any]) -> str:
    names = ("name", "operstate", "ip_address", "subnet", "gateway", "mac_address")
    found = [item for item in value.get("interfaces", []) if isinstance(item, dict)]
    return table(
        [name.upper().replace("_", " ") for name in names], [[item.get(name) for name in names] for item in found]
    )


def _status(value: Mapping[str, Any]) -> str:
    names = ("name", "parent_interface", "mode", "ip_address", "gateway", "mac_address", "state")
    vnics = value.get("vnics")
    if not isinstance(vnics, list) or not all(isinstance(vnic, dict) for vnic in vnics):
        return pairs(value)
    text = pairs({name: item for name, item in value.items() if name != "vnics"})
    if not vnics:
        return text
    rows = [[vnic.get(name) for name in names] for vnic in vnics]
    return f"{text}\n{table([name.upper().replace('_', ' ') for name in names], rows)}"


def http_response(value: Mapping[str, Any]) -> str:
    """The answer of a vPLC to `run_command`."""
    response = value.get("http_response")
    if not isinstance(response, dict):
        return pairs(value)
    body = response.get("body")
    text = body if isinstance(body, str) else json.dumps(body, indent=2)
    return f"HTTP {response.get('status_code')}\n{text}"


_RENDER: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "get_host_interfaces": _interfaces,
    "get_device_status": _status,
    "run_command": http_response,
}
