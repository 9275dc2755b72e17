"""`make run`, as a stranger types it: it starts, it says what to do next, Ctrl-C leaves nothing, it starts again."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.e2e.product import product
from tests.lab.host import EdgeHost
from tests.lab.process import wait_until


def ours(directory: Path) -> list[str]:
    """Processes that belong to the trial in `directory`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ORCHESTRATOR_TRIAL_DIR") == str(directory):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_start_stop_and_start_again(new_edge_host: Callable[[], EdgeHost]) -> None:
    edge = new_edge_host()
    lan = edge.lan("plant", "192.168.30.0/24")
    edge.nic("ens37", lan, address="192.168.30.5/24", gateway="192.168.30.1")
    edge.start_engine()
    directory = edge.dir / "t"
    with product(edge, directory) as running:
        told = (directory / "told").read_text()
        assert "SIMULATED" in told
        assert f"API https://localhost:7444/ (token in {directory}/local-cloud/api.token)" in told
        assert "ctl create plc1 --parent ens37 --ip 192.168.30.240/24 --wait" in told
        running.create("plc-trial", ip="192.168.30.60")
        assert running.stop() == 0
    assert ours(directory) == []
    assert sorted(path.name for path in (directory / "run").glob("*.sock")) == []
    began = time.monotonic()
    with product(edge, directory) as again:
        print(f"second start: online after {time.monotonic() - began:.2f} s")
        assert again.agent_id == running.agent_id
        pc = lan.pc("pc", "192.168.30.50")
        wait_until(lambda: pc.ping("192.168.30.60"), 5.0, "the vPLC went on running")
        assert again.status("plc-trial")["is_running"] is True
        again.delete("plc-trial")
    assert ours(directory) == []
