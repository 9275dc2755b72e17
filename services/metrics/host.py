"""The host's figures for the heartbeat: CPU, memory, disk, and how long the agent has been running.

From inside a container psutil still sees the host: /proc/stat and /proc/meminfo are the kernel's, and the disks
are the ones that are mounted into the container.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

GB = 2**30

# A mount of these may be on a disk no more or block for ever: loop images, network block devices, user-space drivers.
_NO_DISK = (
    "/dev/loop",
    "/dev/ram",
    "/dev/zram",
    "/dev/fd",
    "/dev/sr",
    "/dev/nbd",
    "/dev/rbd",
    "/dev/drbd",
    "/dev/fuse",
)
_NO_DISK_SYSTEMS = ("squashfs", "erofs", "iso9660", "udf", "overlay", "tmpfs", "devtmpfs", "fuse")

Complain = Callable[[str, str | None], None]


class Mount(NamedTuple):
    """Where a device is mounted; psutil's `sdiskpart` has these fields too."""

    device: str
    mountpoint: str
    fstype: str


class Space(NamedTuple):
    """Bytes."""

    used: int
    total: int


def cpu_meter() -> Callable[[], float]:
    """A function that tells the CPU use of all cores together, 0 to 100, since it was last called.

    Its first call looks for half a second, for the time before it is unknown. Call it from one thread: psutil
    remembers the last look of each thread apart.
    """
    windows = itertools.chain([0.5], itertools.repeat(None))
    return lambda: float(psutil.cpu_percent(interval=next(windows)))


def memory() -> Space:
    """RAM in use (without what the kernel would give back at once) and RAM there is."""
    figures = psutil.virtual_memory()
    return Space(figures.used, figures.total)


def mounts() -> list[Mount]:
    """All mounts of file systems that live on a block device."""
    return [Mount(part.device, part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=False)]


def physical(found: Iterable[Mount]) -> dict[str, list[str]]:
    """The mount points of each local disk partition, in order of mounting; bind mounts repeat the device."""
    places: dict[str, list[str]] = {}
    for mount in found:
        is_disk = mount.device.startswith("/dev/") and not mount.device.startswith(_NO_DISK)
        if is_disk and not mount.fstype.startswith(_NO_DISK_SYSTEMS):
            places.setdefault(mount.device, []).append(mount.mountpoint)
    return places


def disk(places: dict[str, list[str]], complain: Complain) -> Space:
    """The space of all partitions together, each counted once.

    A partition that cannot be asked is left out; `complain(key, sentence)` says so, and `complain(key, None)`
    that a partition can be asked.
    """
    used = total = 0
    for device, mountpoints in places.items():
        space, problem = _space_of(mountpoints)
        complain(f"disk {device}", f"{device} is left out of the disk figures: {problem}" if problem else None)
        used, total = used + space.used, total + space.total
    return Space(used, total)


def _space_of(mountpoints: list[str]) -> tuple[Space, str]:
    """Space and "", or no space and the reason. The first mount may be covered by another one; the next will do."""
    problem = ""
    for mountpoint in mountpoints:
        try:
            figures = psutil.disk_usage(mountpoint)
        except OSError as failure:
            problem = str(failure)
        else:
            return Space(figures.used, figures.total), ""
    return Space(0, 0), problem


def agent_start(parent: int, proc: Path = Path("/proc")) -> float:
    """When the agent was started, in seconds of the boot clock, which steps of the wall clock do not move.

    The agent is as old as supervisord when `parent` is one, so a restart of this service does not make it young;
    else as old as this process.
    """
    try:
        if b"supervisord" in (proc / str(parent) / "cmdline").read_bytes():
            return _start_of(proc / str(parent))
    except OSError:
        pass  # the parent has ended, lives in another PID namespace, or is hidden from this user
    return _start_of(proc / "self")


def _start_of(process: Path) -> float:
    """Field 22 of proc_pid_stat(5): the 20th after the name, which is in parentheses and may hold anything."""
    ticks = int((process / "stat").read_bytes().rpartition(b")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def boot_clock() -> float:
    """Seconds since boot, sleep included: the clock in which /proc gives process starts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
