"""`make run`: the agent with a local cloud of its own, in the foreground, for a first look and for development.

Engine, runtime image, supervisord with the local cloud and the four services, enrolment, session: one line a
step. What it keeps lies in `var/` of the checkout, or in ORCHESTRATOR_TRIAL_DIR. Ctrl-C stops everything that was
started here, and nothing else.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import settings as house
from install import runtime_image, what_next
from services.local_cloud.ctl_client import Cloud, Refused, Unreachable

ROOT = Path(__file__).resolve().parents[1]
VAR = Path(os.environ.get("ORCHESTRATOR_TRIAL_DIR") or ROOT / "var")

_ONLINE_SECONDS = 30.0
_STOP_SECONDS = 25.0


class RunFailed(Exception):
    """The trial cannot go on; the text says why and what to do."""


class Asked(Exception):
    """Ctrl-C or SIGTERM."""


def main() -> int:
    """Run until Ctrl-C. Exit code 0 when stopped by the user, 1 when something failed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    environment = _environment()
    supervisor: subprocess.Popen[bytes] | None = None
    try:
        settings = house.load(environment)
        _engine(environment)
        image = runtime_image.ensure(environment, asked_for=os.environ.get("ORCHESTRATOR_RUNTIME_IMAGE"))
        environment["ORCHESTRATOR_RUNTIME_IMAGE"] = image.repository
        say("image", image.told)
        supervisor = _supervisord(settings, environment)
        say("cloud", _local_cloud(settings, supervisor))
        say("identity", _enrol(settings, environment))
        agent_id = _online(settings, supervisor)
        say("agent", f"{agent_id} is online")
        what_next.write_environment(VAR / "env.sh", environment)
        what_next.tell(VAR, settings, agent_id, simulated=image.simulated)
        while True:
            _still_runs(supervisor)
            time.sleep(0.5)
    except Asked:
        return 0
    except (RunFailed, runtime_image.NoImage, house.SettingsError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as slow:
        print(f"error: {shlex.join(map(str, slow.cmd))} did not end within {slow.timeout:g} s", file=sys.stderr)
        return 1
    finally:
        _stop_all(supervisor, environment)


def _end(number: int, _frame: object) -> None:
    """Leave whatever is being done; a second Ctrl-C does not disturb the stopping."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Asked(number)


def say(step: str, told: str) -> None:
    """One progress line."""
    print(f"{step}: {told}", flush=True)


def _environment() -> dict[str, str]:
    """Ours: what the user set wins, the rest lies under `var/`."""
    trial = {
        "ORCHESTRATOR_STATE_DIR": str(VAR / "state"),
        "ORCHESTRATOR_MTLS_DIR": str(VAR / "mtls"),
        "ORCHESTRATOR_LOCAL_CLOUD_DIR": str(VAR / "local-cloud"),
    }
    environment = trial | dict(os.environ)
    cloud = Path(environment["ORCHESTRATOR_LOCAL_CLOUD_DIR"])
    port = environment.get("ORCHESTRATOR_LOCAL_CLOUD_PORT", "7443")
    environment.setdefault("ORCHESTRATOR_SERVER_URL", f"https://localhost:{port}")
    environment.setdefault("ORCHESTRATOR_CA_FILE", str(cloud / "ca.crt"))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
    return environment


def _engine(environment: dict[str, str]) -> None:
    """Says itself what it does: an installation takes a while."""
    VAR.mkdir(parents=True, exist_ok=True)
    command = ["sh", str(ROOT / "install/engine.sh"), "ensure", *_engine_files()]
    if subprocess.run(command, env=environment, check=False, timeout=900).returncode != 0:
        raise RunFailed("no Docker engine, see above")


def _engine_files() -> list[str]:
    return ["--log", str(VAR / "engine.log"), "--pid-file", str(VAR / "engine.pid")]


def _supervisord(settings: house.Settings, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    settings.run_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    errors = (VAR / "supervisord.err").open("wb")
    return subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(_configuration(settings))],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the same lines are in the logs
        stderr=errors,
        start_new_session=True,  # Ctrl-C is ours to hand on, once
    )


def _configuration(settings: house.Settings) -> Path:
    """The shipped supervisord.conf, or a copy of it for another run directory than the usual one."""
    shipped = ROOT / "supervisord.conf"
    if settings.run_dir == house.Settings().run_dir:
        return shipped
    text = shipped.read_text(encoding="utf-8").replace(str(house.Settings().run_dir), str(settings.run_dir))
    copy = VAR / "supervisord.conf"
    copy.write_text(text.replace("%(here)s", str(ROOT)), encoding="utf-8")
    return copy


def _local_cloud(settings: house.Settings, supervisor: "subprocess.Popen[bytes]") -> str:
    conf = str(_configuration(settings))
    control = [sys.executable, "-m", "supervisor.supervisorctl", "-c", conf]

    def started() -> bool:
        ended = subprocess.run([*control, "start", "local-cloud"], capture_output=True, text=True, check=False)
        return "started" in ended.stdout

    _wait(started, supervisor, 15.0, "supervisord starts no local cloud: see `supervisorctl status`")
    _wait(
        lambda: _api(settings, "/api/health") is not None,
        supervisor,
        15.0,
        f"the local cloud does not answer: see {settings.run_dir}/local-cloud.log"
        f" (are ports {settings.local_cloud_port} and {settings.local_cloud_api_port} free?)",
    )
    return f"API https://localhost:{settings.local_cloud_api_port}/ (token in {settings.local_cloud_dir}/api.token)"


def _enrol(settings: house.Settings, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "install.enrol"]
    command += ["--provisioning", f"https://localhost:{settings.local_cloud_api_port}"]
    command += ["--ca", str(settings.local_cloud_dir / "ca.crt")]
    command += ["--token-file", str(settings.local_cloud_dir / "enrol.token")]
    command += ["--mtls-dir", str(settings.mtls_dir)]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    if ended.returncode != 0:
        raise RunFailed(f"no identity: {ended.stderr.strip()}")
    return ended.stdout.strip().splitlines()[-1]


def _online(settings: house.Settings, supervisor: "subprocess.Popen[bytes]") -> str:
    found: list[str] = []

    def online() -> bool:
        agents = (_api(settings, "/api/agents") or {}).get("agents", [])
        found[:] = [agent["id"] for agent in agents if agent.get("online")]
        return bool(found)

    _wait(
        online,
        supervisor,
        _ONLINE_SECONDS,
        f"the agent is not online after {_ONLINE_SECONDS:g} s: see {settings.run_dir}/cloud-link.log",
    )
    return found[0]


def _api(settings: house.Settings, path: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = _cloud(settings).get(path)
    except (Unreachable, Refused):
        return None
    return answer


def _cloud(settings: house.Settings) -> Cloud:
    return Cloud(settings.local_cloud_dir / "api.sock")


def _wait(
    condition: Callable[[], bool],
    supervisor: "subprocess.Popen[bytes]",
    seconds: float,
    otherwise: str,
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        _still_runs(supervisor)
        if time.monotonic() > end:
            raise RunFailed(otherwise)
        time.sleep(0.05)


def _still_runs(supervisor: "subprocess.Popen[bytes]") -> None:
    if supervisor.poll() is not None:
        told = (VAR / "supervisord.err").read_text(encoding="utf-8", errors="replace").strip()
        raise RunFailed(f"supervisord ended with code {supervisor.returncode}: {told or 'it said nothing'}")


def _stop_all(supervisor: "subprocess.Popen[bytes] | None", environment: dict[str, str]) -> None:
    if supervisor is not None and supervisor.poll() is None:
        print()
        say("stopping", "the agent and the local cloud")
        supervisor.terminate()
        try:
            supervisor.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(supervisor.pid, signal.SIGKILL)
            supervisor.wait(5.0)
            say("stopping", f"they did not end within {_STOP_SECONDS:g} s and were killed")
    if (VAR / "engine.pid").exists():
        say("stopping", "the Docker engine that was started here, with its vPLCs (they come back with the next start)")
        subprocess.run(
            ["sh", str(ROOT / "install/engine.sh"), "stop", "--pid-file", str(VAR / "engine.pid")],
            env=environment,
            check=False,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )
    elif supervisor is not None:
        say("stopped", "vPLCs go on running on the Docker engine that was here before; the next start finds them")


if __name__ == "__main__":
    sys.exit(main())
