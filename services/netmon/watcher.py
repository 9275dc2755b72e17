"""Look at the kernel's interfaces once, then whenever something may have changed, and every 30 s to be sure."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing

from bus.messages.netmon import Interface
from common.backoff import doubling
from services.netmon.interfaces import interfaces
from services.netmon.netlink import AsyncIPRoute, Doorbell, NetlinkError, dump

log = logging.getLogger(__name__)

QUIET = 3.0  # the seed's debounce: so long nothing may happen before we look
CEILING = 10.0  # but look after so long, or a flapping link would never be seen
PERIOD = 30.0
DUMP_SECONDS = 10.0

Tell = Callable[[tuple[Interface, ...]], None]
Report = Callable[[str, str | None], None]


async def watch(patterns: tuple[str, ...], tell: Tell, report: Report) -> None:
    """Call `tell` with all interfaces after each full dump; the first one is at once. Never returns.

    What the kernel refuses is reported and tried again with new sockets.
    """
    failures = 0

    def told(found: tuple[Interface, ...]) -> None:
        nonlocal failures
        failures = 0
        report("netlink", None)
        tell(found)

    while True:
        try:
            await _follow(patterns, told)
        except (OSError, NetlinkError) as problem:
            report("netlink", f"the kernel's interfaces cannot be read: {type(problem).__name__}: {problem}")
            await asyncio.sleep(doubling(failures, base=0.2, cap=10.0))
            failures += 1


async def _follow(patterns: tuple[str, ...], tell: Tell) -> None:
    async with AsyncIPRoute() as netlink:
        while True:
            with closing(Doorbell()) as bell:
                while bell.problem is None:
                    bell.rung.clear()
                    async with asyncio.timeout(DUMP_SECONDS):
                        found = await dump(netlink)
                    tell(interfaces(found, patterns))
                    await settle(bell.rung)
            log.warning("netlink messages were lost (%s): listening anew and reading everything again", bell.problem)


async def settle(rung: asyncio.Event, quiet: float = QUIET, ceiling: float = CEILING, period: float = PERIOD) -> None:
    """Wait for the bell and then until it has been silent for `quiet` seconds, at most `ceiling` seconds after its
    first ring; or until `period` seconds have passed without a ring."""
    if not await _rings(rung, period):
        return
    loop = asyncio.get_running_loop()
    end = loop.time() + ceiling
    while (left := end - loop.time()) > 0:
        rung.clear()
        if not await _rings(rung, min(quiet, left)):
            return


async def _rings(rung: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await rung.wait()
    except TimeoutError:
        return False
    return True
