"""`python -m services.local_cloud.ctl`: see the agents of the local cloud and run their vPLCs, from a shell.

Speaks over the unix socket in the local cloud's directory. Exit codes: 0 done, 1 the agent (or the cloud for it)
answered an error, 2 wrong use, 3 the local cloud does not answer.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import settings as house
from services.local_cloud import ctl_text, ctl_vnics
from services.local_cloud.ctl_client import Cloud, Refused, Unreachable
from services.local_cloud.ctl_words import parser

POLL_SECONDS = 0.5
_JSON_BEGINS = ("{", "[", '"')
_UNKNOWN_GRACE_SECONDS = 5.0

_DEVICE_TOPICS = {
    "delete": "delete_device",
    "start": "start_device",
    "stop": "stop_device",
    "restart": "restart_device",
    "status": "get_device_status",
}


class UsageError(Exception):
    """The command line does not say what is needed; the text says what."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = parser(_ACTIONS, (__doc__ or "").split("\n\n")[0]).parse_args(arguments)
    try:
        directory = given.dir or house.load().local_cloud_dir
        code: int = given.run(Cloud(Path(directory) / "api.sock"), given)
        return code
    except (UsageError, house.SettingsError) as problem:
        return _complain(str(problem), 2)
    except Refused as problem:
        return _complain(str(problem), 2 if problem.status == 400 else 1)
    except Unreachable as problem:
        return _complain(str(problem), 3)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return 0


def _agents(cloud: Cloud, given: argparse.Namespace) -> int:
    return _show(given, cloud.get("/api/agents"), ctl_text.agents)


def _commands(cloud: Cloud, given: argparse.Namespace) -> int:
    return _show(given, cloud.get(f"/api/commands?limit={given.limit}"), ctl_text.commands)


def _send(cloud: Cloud, given: argparse.Namespace) -> int:
    """`[agent] topic [json]`: with two words, the second is the JSON when it looks like it."""
    words = list(given.words)
    named = len(words) == 3 or (len(words) == 2 and not words[1].startswith(_JSON_BEGINS))
    agent_id = words.pop(0) if named else _only_agent(cloud)
    if not 1 <= len(words) <= 2:
        raise UsageError("send: expected [agent] topic [json]")
    payload = _json(words[1], "the payload") if len(words) == 2 else {}
    answer = cloud.send(agent_id, words[0], payload, given.timeout, raw=given.raw)
    return _answered(given, words[0], answer)


def _device(cloud: Cloud, given: argparse.Namespace) -> int:
    agent_id, (name,) = _agent_and(cloud, given, 1)
    topic = _DEVICE_TOPICS[given.command]
    return _answered(given, topic, cloud.send(agent_id, topic, {"device_id": name}, given.timeout))


def _create(cloud: Cloud, given: argparse.Namespace) -> int:
    try:
        vnics = ctl_vnics.vnic_configs(given.vnics)
    except ValueError as problem:
        raise UsageError(str(problem)) from None
    agent_id, (name,) = _agent_and(cloud, given, 1)
    payload: dict[str, Any] = {"container_name": name, "vnic_configs": vnics}
    if given.runtime_version:
        payload["runtime_version"] = given.runtime_version
    answer = cloud.send(agent_id, "create_new_runtime", payload, given.timeout)
    code = _answered(given, "create_new_runtime", answer)
    if code or not given.wait:
        return code
    return _wait_until_running(cloud, given, agent_id, name)


def _wait_until_running(cloud: Cloud, given: argparse.Namespace, agent_id: str, name: str) -> int:
    """Poll the status, show each new step, and end with the device running (0) or a reason why not (1)."""
    started, shown = time.monotonic(), ""
    while (elapsed := time.monotonic() - started) < given.wait_timeout:
        status = cloud.send(agent_id, "get_device_status", {"device_id": name}, given.timeout)
        state = status.get("status") if isinstance(status, dict) else None
        if state == "success" and status.get("is_running"):
            return _answered(given, "get_device_status", status)
        if state == "error" or state == "success" or (state == "not_found" and elapsed > _UNKNOWN_GRACE_SECONDS):
            why = status.get("error") or status.get("message") or f"it is {status.get('container_status', state)}"
            return _complain(f"{name} does not run: {why}", 1)
        step = str(status.get("step") or state) if isinstance(status, dict) else str(status)
        if step != shown and not given.json:
            print(f"{elapsed:6.1f} s  {step}", flush=True)
        shown = step
        time.sleep(POLL_SECONDS)
    return _complain(f"{name} does not run after {given.wait_timeout:g} s; its last step was {shown}", 1)


def _interfaces(cloud: Cloud, given: argparse.Namespace) -> int:
    agent_id, _ = _agent_and(cloud, given, 0)
    payload = {"include_virtual": given.virtual}
    return _answered(given, "get_host_interfaces", cloud.send(agent_id, "get_host_interfaces", payload, given.timeout))


def _run(cloud: Cloud, given: argparse.Namespace) -> int:
    agent_id, (name, method, api) = _agent_and(cloud, given, 3)
    payload: dict[str, Any] = {"device_id": name, "method": method.upper(), "api": api}
    if given.port is not None:
        payload["port"] = given.port
    if given.data is not None:
        payload["data"] = _json(given.data, "--data")
    answer = cloud.send(agent_id, "run_command", payload, given.timeout)
    if isinstance(answer, dict) and isinstance(answer.get("http_response"), dict):
        _show(given, answer, ctl_text.http_response)
        return 0 if answer.get("status") == "success" else 1
    return _answered(given, "run_command", answer)


def _events(cloud: Cloud, given: argparse.Namespace) -> int:
    agent_id, _ = _agent_and(cloud, given, 0)
    events = cloud.follow(agent_id) if given.follow else cloud.get(f"/api/agents/{agent_id}/events")["events"]
    for event in events:
        print(json.dumps(event) if given.json else ctl_text.event(event), flush=True)
    return _complain("the local cloud has stopped", 3) if given.follow else 0


def _agent_and(cloud: Cloud, given: argparse.Namespace, count: int) -> tuple[str, list[str]]:
    """The agent and the `count` words after it; the agent may be left out when exactly one is known."""
    words = list(given.words)
    if len(words) == count + 1:
        return words[0], words[1:]
    if len(words) == count:
        return _only_agent(cloud), words
    raise UsageError(f"{given.command}: expected {given.usage}, got {len(words)} words")


def _only_agent(cloud: Cloud) -> str:
    known = [agent["id"] for agent in cloud.get("/api/agents")["agents"]]
    if len(known) == 1:
        return str(known[0])
    if not known:
        raise UsageError("no agent is enrolled yet: python -m install.enrol on the edge host")
    raise UsageError(f"name one of the agents: {', '.join(known)}")


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as problem:
        raise UsageError(f"{what} is no JSON: {problem}") from None


def _answered(given: argparse.Namespace, topic: str, answer: Any) -> int:
    if isinstance(answer, dict) and answer.get("status") in ("error", "not_found"):
        if given.json:
            print(json.dumps(answer))
            return 1
        return _complain(ctl_text.problem(answer), 1)
    return _show(given, answer, lambda value: ctl_text.answer(topic, value))


def _show(given: argparse.Namespace, value: Any, render: Any) -> int:
    print(json.dumps(value) if given.json else render(value))
    return 0


def _complain(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code


_ACTIONS: Mapping[str, Callable[[Cloud, argparse.Namespace], int]] = {
    "agents": _agents,
    "commands": _commands,
    "send": _send,
    "create": _create,
    **dict.fromkeys(_DEVICE_TOPICS, _device),
    "interfaces": _interfaces,
    "run": _run,
    "events": _events,
}

if __name__ == "__main__":
    sys.exit(main())
