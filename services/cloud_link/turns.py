"""First come, first served, per device: what changes a device happens in the order in which it was commanded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus.errors import Unavailable

PATIENCE = 30.0  # seconds to wait for one's turn; the cloud's own ack time-out is 60 by default


class Turns:
    """One line of waiters a key; a line exists only while somebody stands in it."""

    def __init__(self) -> None:
        self._lines: dict[str, tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def take(self, key: str | None, patience: float = PATIENCE) -> AsyncIterator[None]:
        """Have the turn for `key` (None: no turn is needed). Raises `Unavailable` when it does not come in time."""
        if key is None:
            yield
            return
        lock, waiters = self._lines.setdefault(key, (asyncio.Lock(), []))
        waiters.append(None)
        try:
            try:
                async with asyncio.timeout(patience):
                    await lock.acquire()  # fair: asyncio's lock wakes in order of arrival
            except TimeoutError:
                raise Unavailable(f"busy: {key} is still at earlier commands; try again") from None
            try:
                yield
            finally:
                lock.release()
        finally:
            waiters.pop()
            if not waiters:
                del self._lines[key]
