"""Which disks count, how long the agent has run, and how busy the host is."""

import os
import time
from pathlib import Path

import psutil
import pytest

from services.metrics.host import Mount, agent_start, boot_clock, cpu_meter, disk, memory, mounts, physical


def test_bind_mounts_of_a_disk_count_once() -> None:
    found = [Mount("/dev/sda1", "/etc/hosts", "ext4"), Mount("/dev/sda1", "/var/orchestrator", "ext4")]
    assert physical(found) == {"/dev/sda1": ["/etc/hosts", "/var/orchestrator"]}


@pytest.mark.parametrize("device", ["/dev/sda1", "/dev/nvme0n1p2", "/dev/mmcblk0p1", "/dev/mapper/vg-root", "/dev/vda"])
def test_partitions_and_volumes_are_physical(device: str) -> None:
    assert device in physical([Mount(device, "/", "ext4")])


@pytest.mark.parametrize(
    "mount",
    [
        Mount("/dev/loop3", "/snap/core/1", "squashfs"),
        Mount("/dev/loop4", "/mnt/image", "ext4"),
        Mount("/dev/sr0", "/media/cdrom", "iso9660"),
        Mount("/dev/nbd0", "/mnt/network", "ext4"),
        Mount("/dev/sdb1", "/mnt/usb", "fuseblk"),
        Mount("overlay", "/", "overlay"),
        Mount("tmpfs", "/run", "tmpfs"),
        Mount("server:/export", "/mnt/nfs", "nfs4"),
    ],
)
def test_what_is_no_local_disk_is_never_touched(mount: Mount) -> None:
    assert physical([mount]) == {}


def test_a_partition_that_cannot_be_asked_is_left_out_and_told(tmp_path: Path) -> None:
    told: dict[str, str | None] = {}
    places = {"/dev/good": [str(tmp_path)], "/dev/stale": [str(tmp_path / "gone"), str(tmp_path / "gone too")]}
    space = disk(places, told.__setitem__)
    assert space.total == psutil.disk_usage(str(tmp_path)).total
    assert told["disk /dev/good"] is None
    assert "/dev/stale is left out of the disk figures" in (told["disk /dev/stale"] or "")


def test_a_covered_mount_point_is_passed_over(tmp_path: Path) -> None:
    told: dict[str, str | None] = {}
    space = disk({"/dev/sda1": [str(tmp_path / "gone"), str(tmp_path)]}, told.__setitem__)
    assert space.used > 0
    assert told == {"disk /dev/sda1": None}


def test_this_host_has_memory_and_a_disk() -> None:
    assert 0 < memory().used < memory().total
    space = disk(physical(mounts()), lambda key, problem: None)
    assert 0 < space.used <= space.total


def test_the_first_look_at_the_cpu_is_a_figure_too() -> None:
    cpu = cpu_meter()
    started = time.monotonic()
    assert 0.0 <= cpu() <= 100.0
    assert 0.4 < time.monotonic() - started < 0.9
    busy_until = time.monotonic() + 0.2
    while time.monotonic() < busy_until:
        pass
    assert 0.0 < cpu() <= 100.0


def test_alone_the_agent_is_as_old_as_the_process() -> None:
    age = boot_clock() - agent_start(parent=os.getppid())
    assert age == pytest.approx(time.time() - psutil.Process().create_time(), abs=1.5)  # it rounds to whole seconds


def fake_process(proc: Path, name: str, cmdline: bytes, start_ticks: int) -> None:
    (proc / name).mkdir()
    (proc / name / "cmdline").write_bytes(cmdline)
    fields = " ".join(["S", "1"] + ["0"] * 17 + [str(start_ticks)] + ["0"] * 30)
    (proc / name / "stat").write_text(f"77 (a name) with (odd) signs) {fields}\n")


@pytest.mark.parametrize(
    ("cmdline", "expected_ticks"),
    [(b"/usr/bin/python3\0/usr/bin/supervisord\0-n\0", 1000), (b"-bash\0", 5000)],
    ids=["under supervisord", "from a shell"],
)
def test_under_supervisord_the_agent_is_as_old_as_supervisord(
    tmp_path: Path, cmdline: bytes, expected_ticks: int
) -> None:
    fake_process(tmp_path, "7", cmdline, 1000)
    fake_process(tmp_path, "self", b"python\0", 5000)
    assert agent_start(7, proc=tmp_path) == expected_ticks / os.sysconf("SC_CLK_TCK")


def test_a_parent_out_of_sight_is_no_trouble(tmp_path: Path) -> None:
    fake_process(tmp_path, "self", b"python\0", 5000)
    assert agent_start(0, proc=tmp_path) == 5000 / os.sysconf("SC_CLK_TCK")
