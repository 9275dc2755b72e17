"""Where a service is found: two sockets and a lock in the run directory, named after their owner."""

import fcntl
import os
from pathlib import Path

from common.files import make_private_directory

OWNERS = ("cloud_link", "docker_worker", "metrics", "netmon")

_LONGEST_PATH = 107  # bytes of a Unix socket's path: sun_path of unix(7), less its terminating zero


class AlreadyRunningError(Exception):
    """Another process owns this endpoint; a second bind would silently steal it."""


def events(run_dir: Path, owner: str) -> str:
    """The endpoint where `owner` publishes."""
    return f"ipc://{_checked(run_dir / f'{owner}.events')}"


def requests(run_dir: Path, owner: str) -> str:
    """The endpoint where `owner` answers."""
    return f"ipc://{_checked(run_dir / f'{owner}.requests')}"


def present(run_dir: Path) -> list[str]:
    """Owners that have left an endpoint in the run directory, alive or not."""
    return sorted(path.stem for path in run_dir.glob("*.events"))


def claim(run_dir: Path, owner: str) -> int:
    """Become the one process that may bind `owner`'s endpoints; keep the returned descriptor open.

    Raises `AlreadyRunningError` naming the other process.
    """
    make_private_directory(run_dir)
    descriptor = os.open(run_dir / f"{owner}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise AlreadyRunningError(f"another {owner} already runs in {run_dir} (pid {holder})") from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    return descriptor


def _checked(path: Path) -> Path:
    length = len(os.fsencode(path.absolute()))
    if length > _LONGEST_PATH:
        raise ValueError(f"run directory too deep: {path} has {length} bytes, a socket's path at most {_LONGEST_PATH}")
    return path.absolute()
