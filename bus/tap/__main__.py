"""The command line of the tap."""

import argparse
import os
import sys
from pathlib import Path

import zmq

import bus.messages.every  # noqa: F401 - so that every message is known by name
from bus.tap.asking import call, list_services, ping
from bus.tap.show import Printer
from bus.tap.watching import rate, tail
from common import settings as all_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 well, 1 the service answered no, 2 wrong use, 3 nobody there, 4 no answer in time."""
    options = _parser().parse_args(arguments)
    try:
        run_dir = options.run_dir or all_settings.load().run_dir
    except all_settings.SettingsError as problem:
        print(problem, file=sys.stderr)
        return 2
    printer = Printer(as_json=options.json)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    prefixes = tuple(getattr(options, "prefix", ()))
    match options.command:
        case "tail":
            return tail(context, run_dir, prefixes, printer, count=options.count, seconds=options.seconds)
        case "rate":
            return rate(context, run_dir, prefixes, printer, seconds=options.seconds)
        case "list":
            return list_services(context, run_dir, printer)
        case "ping":
            return ping(context, run_dir, options.owner, printer)
        case _:
            return call(
                context,
                run_dir,
                options.name,
                options.body,
                printer,
                confirmed=options.yes,
                deadline=options.deadline,
            )


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="one JSON object a line, no colours")
    shared.add_argument("--run-dir", type=Path, help="instead of ORCHESTRATOR_RUN_DIR (/run/orchestrator)")
    parser = argparse.ArgumentParser(prog="python -m bus.tap", description="See and ask what goes over the bus.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    found = commands.add_parser("tail", parents=[shared], help="print messages as they come; `rpc.` shows requests")
    found.add_argument(
        "prefix", nargs="*", help="for example docker_worker.device. or rpc.netmon (default: everything)"
    )
    found.add_argument("--count", type=int, default=0, metavar="N", help="stop after N messages")
    found.add_argument("--seconds", type=float, default=0.0, metavar="S", help="stop after S seconds")

    found = commands.add_parser("rate", parents=[shared], help="messages a second, by name")
    found.add_argument("prefix", nargs="*")
    found.add_argument("--seconds", type=float, default=5.0, metavar="S", help="how long to count (default 5)")

    commands.add_parser("list", parents=[shared], help="services, their health and what they answer")

    found = commands.add_parser("ping", parents=[shared], help="how quickly the services answer")
    found.add_argument("owner", nargs="*", help="cloud_link, docker_worker, metrics, netmon (default: all)")

    found = commands.add_parser("call", parents=[shared], help="send one request and print the answer")
    found.add_argument("name", help="for example netmon.get_host_interfaces; `list` shows all")
    found.add_argument("body", nargs="?", default="{}", help="the request's fields as JSON (default {})")
    found.add_argument("--yes", action="store_true", help="needed for a request that changes something")
    found.add_argument("--deadline", type=float, metavar="S", help="seconds to wait instead of the declared ones")
    return parser


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 0
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
