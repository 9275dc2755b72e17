"""`tail` and `rate`: what goes over the bus, message by message or counted."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import zmq

from bus import endpoints
from bus.events import Subscriber
from bus.messages.base import find_event
from bus.tap.show import Printer


def tail(
    context: "zmq.Context[Any]",
    run_dir: Path,
    prefixes: tuple[str, ...],
    printer: Printer,
    *,
    count: int,
    seconds: float,
) -> int:
    """Print messages until `count` have come, or `seconds` are over (0: no limit)."""
    subscriber = _subscribe(context, run_dir, prefixes)
    end = time.monotonic() + seconds if seconds else float("inf")
    printed = lost = 0
    while (left := end - time.monotonic()) > 0 and not (count and printed >= count):
        heard = subscriber.receive(min(left, 1.0))
        if subscriber.lost > lost:
            printer.line(printer.paint("error", f"-- {subscriber.lost - lost} messages lost: this tap was too slow --"))
            lost = subscriber.lost
        if heard is not None:
            printer.message(heard.envelope)
            printed += 1
    return 0


def rate(
    context: "zmq.Context[Any]", run_dir: Path, prefixes: tuple[str, ...], printer: Printer, *, seconds: float
) -> int:
    """Count for `seconds`, then print messages a second per name, beside the period that was declared."""
    subscriber = _subscribe(context, run_dir, prefixes)
    seen: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        heard = subscriber.receive(left)
        if heard is not None and not heard.envelope.replay:
            seen[heard.envelope.name] += 1
    if not printer.as_json:
        printer.line(f"{'per second':>10}  {'expected':>8}  name   ({seconds:g} s, {subscriber.lost} lost)")
    for name, number in sorted(seen.items()):
        declaration = find_event(name)
        expected = 1 / declaration.period if declaration and declaration.period else None
        if printer.as_json:
            printer.record({"name": name, "per_second": number / seconds, "expected": expected})
        else:
            printer.line(f"{number / seconds:>10.2f}  {'' if expected is None else f'{expected:.2f}':>8}  {name}")
    return 0


def _subscribe(context: "zmq.Context[Any]", run_dir: Path, prefixes: tuple[str, ...]) -> Subscriber:
    owners = tuple(dict.fromkeys((*endpoints.OWNERS, *endpoints.present(run_dir))))
    return Subscriber(context, run_dir, prefixes or ("",), owners)
