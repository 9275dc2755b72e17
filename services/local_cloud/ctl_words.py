"""ctl's command line: its words and options, and the help they show."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.local_cloud import ctl_vnics

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "agents": ("", "every agent: online or not, last heartbeat"),
    "commands": ("", "the command log, newest first"),
    "send": ("[agent] topic [json]", "send any command of the protocol"),
    "create": ("[agent] name", "create a vPLC with its vNICs"),
    "delete": ("[agent] name", "delete a vPLC; its volume stays"),
    "start": ("[agent] name", "start a vPLC"),
    "stop": ("[agent] name", "stop a vPLC; it stays stopped until a start"),
    "restart": ("[agent] name", "restart a vPLC"),
    "status": ("[agent] name", "the state of a vPLC and its vNICs"),
    "interfaces": ("[agent]", "the host's network interfaces"),
    "run": ("[agent] name METHOD /api/path", "one HTTP request to a vPLC's runtime"),
    "events": ("[agent]", "what happened to the agent's vPLCs"),
}


def parser(actions: Mapping[str, Callable[..., int]], description: str) -> argparse.ArgumentParser:
    """The parser; each parsed command carries `run`, its action, and `usage`, the words that it expects."""
    common = _common_options(defaults=False)
    whole = argparse.ArgumentParser(
        prog="ctl", description=description, parents=[_common_options(defaults=True)], epilog=_EPILOG
    )
    subparsers = whole.add_subparsers(dest="command", required=True, metavar="command")
    for name, (words, summary) in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary, parents=[common])
        sub.set_defaults(run=actions[name], usage=words)
        if words:
            sub.add_argument("words", nargs="*", metavar=words, help="the agent may be left out when there is one")
        if name in _OPTIONS:
            _OPTIONS[name](sub)
    return whole


_EPILOG = "Exit codes: 0 done, 1 the agent answered an error, 2 wrong use, 3 the local cloud does not answer."


def _common_options(*, defaults: bool) -> argparse.ArgumentParser:
    """Options that may stand before or after the command; the ones after must not reset the ones before."""

    def default(value: Any) -> Any:
        return value if defaults else argparse.SUPPRESS

    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--dir", type=Path, default=default(None), help="the local cloud's directory")
    options.add_argument("--json", action="store_true", default=default(False), help="answers as JSON")
    options.add_argument(
        "--timeout", type=_seconds, default=default(30.0), metavar="S", help="how long the agent may take (30)"
    )
    return options


def _create_options(sub: argparse.ArgumentParser) -> None:
    ctl_vnics.add_options(sub)
    sub.add_argument("--runtime-version", metavar="TAG", help="tag of the runtime image")
    sub.add_argument("--wait", action="store_true", help="wait until it runs, showing each step")
    sub.add_argument("--wait-timeout", type=_seconds, default=600.0, metavar="S", help="with --wait (600)")


def _run_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", metavar="JSON", help="the request's body")
    sub.add_argument("--port", type=int, metavar="N", help="the runtime's port (8443)")


def _interfaces_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--virtual", action="store_true", help="virtual ones too")


def _send_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--raw", action="store_true", help="send the JSON untouched, whatever it is")


def _events_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--follow", "-f", action="store_true", help="keep showing what comes")


def _commands_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--limit", type=int, default=20, metavar="N", help="how many (20)")


_OPTIONS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "create": _create_options,
    "run": _run_options,
    "send": _send_options,
    "interfaces": _interfaces_options,
    "events": _events_options,
    "commands": _commands_options,
}


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 900:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and at most 900, got {text}")
    return value
