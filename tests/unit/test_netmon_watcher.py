"""When netmon looks again: after quiet, after the ceiling of a flapping link, and now and then anyway."""

import asyncio
import subprocess
import sys
import time

from services.netmon.watcher import settle


async def settled(rings: int, gap: float, *, quiet: float = 0.1, ceiling: float = 0.5, period: float = 0.3) -> float:
    """Seconds until `settle` returns, while the bell rings `rings` times, `gap` seconds apart."""
    rung = asyncio.Event()

    async def ring() -> None:
        for _ in range(rings):
            rung.set()
            await asyncio.sleep(gap)

    ringer = asyncio.create_task(ring())
    started = time.monotonic()
    await settle(rung, quiet, ceiling, period)
    ringer.cancel()
    return time.monotonic() - started


def test_one_ring_is_followed_by_one_quiet_time() -> None:
    assert 0.1 <= asyncio.run(settled(1, 0.0)) < 0.2


def test_the_quiet_time_starts_anew_with_each_ring() -> None:
    assert 0.24 <= asyncio.run(settled(4, 0.05)) < 0.4


def test_a_bell_that_never_stops_is_answered_at_the_ceiling() -> None:
    assert 0.5 <= asyncio.run(settled(1000, 0.01)) < 0.65


def test_without_a_ring_the_period_ends_the_wait() -> None:
    assert 0.3 <= asyncio.run(settled(0, 0.0)) < 0.4


def test_the_netlink_module_loads_only_the_part_of_the_library_that_it_uses() -> None:
    program = (
        "import sys, services.netmon.netlink\n"
        "print(len([name for name in sys.modules if name.startswith('pyroute2.ndb')]),"
        " 'pyroute2.iproute.linux' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0", "True"]
