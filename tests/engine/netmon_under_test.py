"""netmon as a process on a simulated edge host, with what the tests of its leases ask of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq

from bus.calls import Caller
from bus.envelope import new_id
from bus.events import Subscriber
from bus.messages.base import Request
from bus.messages.common import Info, ServiceInfo
from bus.messages.netmon import HoldLease, Lease, LeaseChanged, ListLeases, ReleaseLease
from tests.lab.host import EdgeHost
from tests.lab.process import wait_until

R = TypeVar("R", bound=msgspec.Struct)

PROJECT = Path(__file__).parents[2]
WITHIN = 20.0


@dataclass(kw_only=True)
class NetmonUnderTest:
    """One netmon with directories of its own; `start` and `kill` it as often as the test wants."""

    edge: EdgeHost
    dir: Path
    context: "zmq.Context[Any]" = field(default_factory=zmq.Context)
    process: subprocess.Popen[str] | None = None
    seen: dict[str, LeaseChanged] = field(default_factory=dict)
    events: list[LeaseChanged] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.dir / "run").mkdir(parents=True)
        self.caller = Caller(self.context, self.dir / "run", "test", new_id())
        self.subscriber = Subscriber(self.context, self.dir / "run", ("netmon.lease.",))

    def start(self, capabilities: str = "-all,+net_raw") -> None:
        """Start it with no other capabilities than these; returns when it has read the interfaces."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
        own = {f"ORCHESTRATOR_{name.upper()}_DIR": str(self.dir / name) for name in ("run", "state")}
        self.process = self.edge.popen(
            [
                "setpriv",
                f"--bounding-set={capabilities}",
                sys.executable,
                "-m",
                "services.netmon",
                "--log-level",
                "DEBUG",
            ],
            env=kept | own,
            cwd=PROJECT,
            log=self.dir / "log",
        )
        wait_until(lambda: self.info().health == "ready", WITHIN, f"netmon to be ready; see {self.dir}/log")

    def info(self) -> ServiceInfo:
        return self.caller.call(Info(), owner="netmon", patience=10.0, deadline=10.0)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def close(self) -> None:
        self.kill()
        self.context.destroy(linger=0)

    # --- what is asked

    def call(self, request: Request[R]) -> R:
        return self.caller.call(request)

    def hold(self, key: str, parent: str, mac: str, hostname: str | None = None) -> Lease:
        name = hostname or key.replace("/", "-")
        return self.call(HoldLease(key=key, parent_interface=parent, mac_address=mac, hostname=name))

    def release(self, key: str) -> str | None:
        return self.call(ReleaseLease(key=key)).ip_address

    def leases(self) -> dict[str, Lease]:
        return {lease.key: lease for lease in self.call(ListLeases()).leases}

    # --- what is told

    def listen(self, seconds: float) -> None:
        """Take in the events of at least the next moment, at most for `seconds`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            heard = self.subscriber.receive(min(left, 0.05))
            if heard is None:
                return
            if isinstance(heard[1], LeaseChanged):
                self.seen[heard[1].key] = heard[1]
                self.events.append(heard[1])

    def wait(self, key: str, condition: Callable[[LeaseChanged], object], within: float = WITHIN) -> LeaseChanged:
        """The first state of `key`, from now or before, that fits."""

        def fits() -> LeaseChanged | None:
            self.listen(0.2)
            lease = self.seen.get(key)
            return lease if lease is not None and condition(lease) else None

        return wait_until(fits, within, f"another state of {key} than {self.seen.get(key)}; see {self.dir}/log")

    def bound(self, key: str, within: float = WITHIN) -> LeaseChanged:
        """The lease of `key` as soon as it is bound."""
        return self.wait(key, lambda lease: lease.state == "bound", within)
