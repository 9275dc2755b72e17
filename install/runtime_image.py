"""The runtime image of a trial: the real one where it can be had, else our simulated one, and it says which."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from common.settings import Settings

SIMULATED = "orchestrator-agent/simulated-runtime"

_HERE = Path(__file__).resolve().parent
_REGISTRY_SECONDS = 4.0
_PULL_SECONDS = 900.0


class NoImage(Exception):
    """There is no runtime image and none can be made; the text says why."""


class Image(NamedTuple):
    """A repository whose tag `latest` is on the engine."""

    repository: str
    told: str
    simulated: bool


def ensure(environment: dict[str, str], *, asked_for: str | None) -> Image:
    """The image to use: the one asked for, or the real one if it is here or can be pulled, or the simulated one.

    A simulated one that is here already is used without asking the network again. Raises `NoImage`.
    """
    real = asked_for or Settings().runtime_image
    if _present(real, environment):
        return Image(real, f"{real}:latest is here", simulated=real == SIMULATED)
    if real != SIMULATED and not _present(SIMULATED, environment) and _pull(real, environment):
        return Image(real, f"{real}:latest pulled", simulated=False)
    _build(environment)
    why = f"{real} is not here and cannot be pulled" if real != SIMULATED else "as asked for"
    return Image(SIMULATED, f"{SIMULATED}:latest, a SIMULATED runtime ({why})", simulated=True)


def _present(repository: str, environment: dict[str, str]) -> bool:
    command = ["docker", "image", "inspect", f"{repository}:latest"]
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=30).returncode == 0


def _pull(repository: str, environment: dict[str, str]) -> bool:
    if not _reachable(repository.split("/")[0]):
        return False
    command = ["docker", "pull", f"{repository}:latest"]
    try:
        return subprocess.run(command, env=environment, check=False, timeout=_PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _reachable(registry: str) -> bool:
    """In a child process: a look-up of a name cannot be bounded from inside, and may take a minute offline."""
    knock = "import socket, sys; socket.create_connection((sys.argv[1], 443), 3).close()"
    try:
        command = [sys.executable, "-c", knock, registry]
        return subprocess.run(command, capture_output=True, check=False, timeout=_REGISTRY_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _build(environment: dict[str, str]) -> None:
    command = ["bash", str(_HERE / "simulated_runtime" / "build.sh"), f"{SIMULATED}:latest"]
    ended = subprocess.run(command, env=environment, check=False, timeout=_PULL_SECONDS)
    if ended.returncode != 0:
        raise NoImage("no runtime image could be pulled, and the simulated one could not be built (see above)")
