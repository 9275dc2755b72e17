"""What the agent costs: memory, idle CPU with ten vPLCs, and the time from nothing to online."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bus.messages.common import Ping
from tests.bench.table import Row, alone
from tests.e2e.product import OWNERS, ROOT, Product
from tests.e2e.test_promise import back_within
from tests.lab.process import wait_until

VPLCS, IDLE_SECONDS, STARTS, KILLS = 10, 60.0, 5, 5


def rows(product: Product) -> list[Row]:
    """Memory and CPU while ten vPLCs run and nobody asks for anything; then kills; then cold starts."""
    names = [f"bench-idle-{number}" for number in range(VPLCS)]
    for number, name in enumerate(names):
        product.create(name, ip=f"192.168.10.{210 + number}")
    processes = {"supervisord": _supervisord(product)} | {name: product.pid(name) for name in OWNERS}
    before = {name: _cpu_seconds(pid) for name, pid in processes.items()}
    began = time.monotonic()
    time.sleep(IDLE_SECONDS)  # the measured span itself, nothing is waited for
    spent = {name: _cpu_seconds(pid) - before[name] for name, pid in processes.items()}
    share = 100 * sum(spent.values()) / (time.monotonic() - began)
    memory = {name: _pss_megabytes(pid) for name, pid in processes.items()}
    for name in names:
        product.delete(name)
    told = ", ".join(f"{name} {size:.1f}" for name, size in memory.items())
    burnt = ", ".join(f"{name} {100 * seconds / IDLE_SECONDS:.2f}" for name, seconds in spent.items())
    return [
        alone("memory, PSS of supervisord and the four", "MB", [sum(memory.values())], "<= 120 MB"),
        Row(f"  {told}", 1, "", "", "", ""),
        alone(f"idle CPU with {VPLCS} vPLCs, one core", "%", [share], "<= 1 %"),
        Row(f"  {burnt}", 1, "", "", "", ""),
        *_recoveries(product),
        alone("cold start of the agent to online", "s", _cold_starts(product), "<= 3 s"),
    ]


def _recoveries(product: Product) -> list[Row]:
    caller = product.caller()
    found = []
    for program in ("docker-worker", "metrics", "netmon"):
        times = []
        for _ in range(KILLS):
            _wait_until_it_runs(product, program)
            before = caller.call(Ping(), owner=OWNERS[program]).run
            product.kill(program)
            times.append(back_within(product, program, before, within=10.0))
        found.append(alone(f"killed {program} answers again", "s", times, "<= 3 s"))
    return found


def _wait_until_it_runs(product: Product, program: str) -> None:
    """A program killed within its first second is started again later, on purpose: that is not what is measured."""
    wait_until(
        lambda: "RUNNING" in product.supervisorctl("status", program, check=False), 10.0, f"{program} runs", every=0.2
    )


def _cold_starts(product: Product) -> list[float]:
    """Stop the agent but not its cloud; start supervisord with the four until the cloud sees the session."""
    text = (product.dir / "supervisord.conf").read_text().replace(str(product.run_dir), str(product.dir / "cold"))
    configuration = product.dir / "cold.conf"
    configuration.write_text(text)
    (product.dir / "cold").mkdir()
    environment = product.environment | {"ORCHESTRATOR_RUN_DIR": str(product.dir / "cold")}
    product.supervisorctl("stop", *OWNERS)
    seconds = []
    for _ in range(STARTS):
        wait_until(lambda: not product.online(), 15.0, "the agent is offline")
        began = time.monotonic()
        supervisor = product.edge.popen(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", configuration],
            env=environment,
            cwd=ROOT,
            log=product.dir / "cold.log",
        )
        wait_until(product.online, 30.0, "the agent is online", every=0.01)
        seconds.append(time.monotonic() - began)
        _end(supervisor)
    product.supervisorctl("start", *OWNERS)
    return seconds


def _end(supervisor: "subprocess.Popen[str]") -> None:
    supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(30)


def _supervisord(product: Product) -> int:
    return int((product.run_dir / "supervisord.pid").read_text())


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
