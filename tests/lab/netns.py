"""Named network namespaces: make them, run programs in them, call Python functions in them."""

import ctypes
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from subprocess import CompletedProcess
from typing import TypeVar

from tests.lab.process import run

T = TypeVar("T")

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # linux/sched.h


def add(ns: str) -> None:
    """A new namespace with its loopback up."""
    run(["ip", "netns", "add", ns])
    ip(ns, "link", "set", "lo", "up")


def delete(ns: str) -> None:
    """Takes its interfaces, addresses, routes and firewall rules along."""
    run(["ip", "netns", "delete", ns])


def with_prefix(prefix: str) -> list[str]:
    """Names of the namespaces on this machine that begin so."""
    return sorted(path.name for path in NAMESPACES.glob(f"{prefix}*"))


def ip(ns: str, *words: str) -> str:
    """`ip` inside `ns`; returns what it printed."""
    return run(["ip", "-n", ns, *words]).stdout


def command_in(ns: str, argv: Sequence[str | Path]) -> list[str]:
    """The command line that runs `argv` in `ns`, in the mount namespace of the caller.

    Not `ip netns exec`: that mounts a fresh /sys and so hides the cgroups, without which no engine starts.
    """
    return ["nsenter", f"--net={NAMESPACES / ns}", "--", *(str(word) for word in argv)]


def run_in(
    ns: str,
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
) -> CompletedProcess[str]:
    """`process.run` inside `ns`."""
    return run(command_in(ns, argv), check=check, timeout=timeout, env=env)


def call_in(ns: str, function: Callable[[], T], *, within: float = 30.0) -> T:
    """Call `function` in a thread of its own that lives in `ns`; its result or its exception comes back.

    Sockets opened there, and threads and programs started there, stay in `ns` for good. Raises
    TimeoutError when it takes longer than `within` seconds (the thread is then left to end by itself).
    """
    outcome: Future[T] = Future()

    def body() -> None:
        try:
            _enter(ns)
            outcome.set_result(function())
        except BaseException as problem:  # noqa: BLE001 - handed to the caller, who raises it
            outcome.set_exception(problem)

    threading.Thread(target=body, name=f"in-{ns}", daemon=True).start()
    return outcome.result(within)


def _enter(ns: str) -> None:
    """setns(2) for the calling thread; os.setns came with Python 3.12 only."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(NAMESPACES / ns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns to {ns}: {os.strerror(number)}")
    finally:
        os.close(descriptor)
