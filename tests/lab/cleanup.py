"""Claim a name for a lab, and clear everything that carries a lab's name.

Several labs run on one machine at a time, and a killed test run can not tidy up after itself. So each lab
owns one folder under `LABS` and one prefix of namespace names, and holds a lock on a file in its folder for
as long as its process lives. Whoever starts a lab first clears the labs whose lock is free: their owner is
dead. Tear-down takes the same road as that: there is one way to clear a lab, and every test run tries it.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.lab import netns
from tests.lab.process import kill_all, run

LABS = Path("/var/tmp/orchestrator-labs")
PREFIX = "olab-"
PROGRAMS = ("dockerd", "containerd", "runc", "docker-proxy", "dnsmasq")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One lab: `name` begins all its namespaces' names, `dir` holds all its files."""

    name: str

    @property
    def dir(self) -> Path:
        return LABS / self.name

    def namespace(self, *parts: str) -> str:
        return "-".join([self.name, *parts])

    def namespaces(self) -> list[str]:
        return netns.with_prefix(f"{self.name}-")


@contextmanager
def claimed_lab() -> Iterator[Lab]:
    """A fresh lab name that is ours until the end of the block; then nothing of the lab is left."""
    with _only_one_at_a_time():
        _clear_dead_labs()
        lab = Lab(name=f"{PREFIX}{secrets.token_hex(3)}")
        lab.dir.mkdir()
        owner = _lock(lab.dir / "owner")
        if owner is None:
            raise RuntimeError(f"{lab.dir} is new, yet locked by another process")
        os.write(owner, f"{os.getpid()}\n".encode())  # for people; the lock is what counts
    try:
        yield lab
    finally:
        try:
            clear(lab)
        finally:
            os.close(owner)


def clear_dead_labs() -> list[str]:
    """Clear what killed runs left; returns their names. Labs of living processes are not touched."""
    with _only_one_at_a_time():
        return _clear_dead_labs()


def _clear_dead_labs() -> list[str]:
    names = {path.name for path in LABS.glob(f"{PREFIX}*")}
    names |= {"-".join(ns.split("-")[:2]) for ns in netns.with_prefix(PREFIX)}
    return [name for name in sorted(names) if _clear_if_dead(Lab(name=name))]


def _clear_if_dead(lab: Lab) -> bool:
    lab.dir.mkdir(exist_ok=True)
    owner = _lock(lab.dir / "owner")
    if owner is None:
        return False
    try:
        clear(lab)
    finally:
        os.close(owner)
    return True


def clear(lab: Lab) -> None:
    """End the lab's processes, then remove its mounts, cgroups, namespaces and folder.

    Raises TimeoutError, `CommandFailed` or OSError when something of it can not be removed.
    """
    kill_all(lambda: processes(lab))
    containers = [path.name for path in (lab.dir / "data/containers").glob("*")]
    for address in lab.dir.glob("state/io.containerd.runtime.v2.task/*/*/address"):
        # A killed shim leaves its socket in a folder that all containerds of a machine share.
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
    for point in mounts(lab):
        run(["umount", "--lazy", point])
    for container in containers:
        _remove_cgroups(container)
    for ns in lab.namespaces():
        netns.delete(ns)
    shutil.rmtree(lab.dir)


def processes(lab: Lab) -> list[psutil.Process]:
    """Every process in one of the lab's namespaces, the engine's programs, and the containers below."""
    inside = {(netns.NAMESPACES / ns).stat().st_ino for ns in lab.namespaces()}
    roots = [process for process in psutil.process_iter() if _belongs(process, inside, f"{lab.dir}/")]
    found = {process.pid: process for process in roots}
    for root in roots:
        try:
            found |= {child.pid: child for child in root.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue  # ended meanwhile; its children, if any, are found in the next round
    found.pop(os.getpid(), None)
    return list(found.values())


def _belongs(process: psutil.Process, inside: set[int], folder: str) -> bool:
    try:
        if Path(f"/proc/{process.pid}/ns/net").stat().st_ino in inside:
            return True
        return process.name().startswith(PROGRAMS) and any(folder in word for word in process.cmdline())
    except (OSError, psutil.Error):
        return False  # it has ended, or is a zombie


def mounts(lab: Lab) -> list[str]:
    """Mount points below the lab's folder, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (line.split()[4].replace("\\040", " ") for line in lines)
    return [point for point in reversed(list(points)) if point.startswith(f"{lab.dir}/")]


def _remove_cgroups(container: str) -> None:
    """The engine's cgroup of a container that was killed behind its back (v1: one in every hierarchy)."""
    for top in [*CGROUPS.glob(f"docker/{container}"), *CGROUPS.glob(f"*/docker/{container}")]:
        for folder, _, _ in os.walk(top, topdown=False):
            Path(folder).rmdir()


@contextmanager
def _only_one_at_a_time() -> Iterator[None]:
    LABS.mkdir(parents=True, exist_ok=True)
    with (LABS / ".lock").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None when another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
