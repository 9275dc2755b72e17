"""Install what the lab needs from Debian's packages, once per machine."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.process import CommandFailed, run

ENGINE_SH = Path(__file__).parents[2] / "install" / "engine.sh"
PACKAGES = {"dnsmasq": "dnsmasq-base", "busybox": "busybox-static", "ip": "iproute2", "nsenter": "util-linux"}
APT_DEADLINE = 900.0  # seconds; a first `apt-get update` over a slow line takes minutes


def cache() -> Path:
    """Where downloads and built images are kept between runs."""
    folder = Path(os.environ.get("ORCHESTRATOR_LAB_CACHE", "/var/tmp/orchestrator-lab"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def cache_lock() -> Iterator[None]:
    """One process at a time installs or builds; the others find the result."""
    with (cache() / ".lock").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


def ensure_tools() -> None:
    """Engine packages, DHCP server and busybox. Raises `CommandFailed` with apt's own words."""
    with cache_lock():
        run([ENGINE_SH, "install"], timeout=APT_DEADLINE)
        missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
        if missing:
            apt_get(["install", "--yes", "--no-install-recommends", *missing])


def apt_get(words: Sequence[str]) -> None:
    """Run apt-get; when it fails, once more with fresh package lists."""
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run([*command, *words], timeout=APT_DEADLINE, env=env)
    except CommandFailed:
        run([*command, "update"], timeout=APT_DEADLINE, env=env)
        run([*command, *words], timeout=APT_DEADLINE, env=env)
