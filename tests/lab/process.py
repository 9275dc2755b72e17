"""Run commands, wait for conditions, end processes: each with a deadline and a useful error."""

import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


class CommandFailed(RuntimeError):
    """A command ended with another exit code than 0; the message carries what it wrote to stderr."""


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end. Raises `CommandFailed`, or `subprocess.TimeoutExpired` after `timeout` seconds."""
    done = subprocess.run(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env=None if env is None else dict(env),
        cwd=cwd,
        check=False,
    )
    if check and done.returncode:
        words = " ".join(str(word) for word in argv)
        raise CommandFailed(f"{words}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done


def wait_until(condition: Callable[[], T | None], within: float, what: str, every: float = 0.02) -> T:
    """The first truthy value of `condition`. Raises TimeoutError naming `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        time.sleep(every)


def is_running(process: psutil.Process) -> bool:
    """False for a zombie too: PID 1 of a test machine may reap late."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_all(find: Callable[[], Iterable[psutil.Process]], within: float = 10.0) -> None:
    """SIGKILL what `find` returns, and ask again until it returns nothing that runs."""

    def none_left() -> bool:
        running = [process for process in find() if is_running(process)]
        for process in running:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # it ended between the look and the kill
        return not running

    wait_until(none_left, within, "every process of the lab is gone")


def tail(path: Path, lines: int = 15) -> str:
    """The end of a log file, for error messages."""
    if not path.exists():
        return f"({path} was never written)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
