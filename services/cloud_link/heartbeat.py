"""The heartbeat: the seed's fields every 5 s, whatever any other service is doing.

`timestamp` is ISO 8601 in UTC without an offset, as in the seed ("2025-11-20T20:30:45.123456"). The figures are those
of the last `metrics.host.sampled`; when metrics is silent they are sent again with `"stale": true`, and before the
first sample they are null. A heartbeat is never queued behind another one that the server has not taken.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from bus.envelope import Envelope
from bus.messages.base import Event
from bus.messages.cloud_link import HeartbeatSent
from bus.messages.metrics import HostSampled
from services.cloud_link.session import Receipt

log = logging.getLogger(__name__)

PERIOD = 5.0  # seconds
STALE_AFTER = 12.0  # seconds: two samples have not come

_FIGURES = ("cpu_usage", "memory_usage", "memory_total", "disk_usage", "disk_total", "uptime")

Send = Callable[[str, dict[str, Any]], Awaitable[Receipt | None]]


class LastSample:
    """The last sample of the host, and when it was heard. Written by the bus's thread, read by the session's."""

    def __init__(self) -> None:
        self._heard: tuple[HostSampled, float] | None = None

    def hear(self, event: Event, envelope: Envelope) -> None:
        """For `Service.subscribe`. A replayed sample may be old: what counts is when it was taken."""
        if isinstance(event, HostSampled):
            age = max(0.0, time.time() - envelope.ts) if envelope.replay else 0.0
            self._heard = (event, time.monotonic() - age)

    def figures(self) -> tuple[dict[str, float | None], bool]:
        """The figures, and whether they are stale."""
        if self._heard is None:
            return dict.fromkeys(_FIGURES), True
        sample, heard = self._heard
        return {name: getattr(sample, name) for name in _FIGURES}, time.monotonic() - heard > STALE_AFTER


def heartbeat(agent_id: str | None, figures: dict[str, float | None], stale: bool) -> dict[str, Any]:
    """The payload of one heartbeat."""
    payload = {"agent_id": agent_id} | figures
    payload |= {"status": "online", "timestamp": timestamp(datetime.now(UTC))}
    return payload | {"stale": True} if stale else payload


def timestamp(moment: datetime) -> str:
    """ISO 8601 as in the seed: UTC, microseconds, no offset."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


async def keep_beating(
    send: Send,
    agent_id: Callable[[], str | None],
    sample: LastSample,
    publish: Callable[[Event], None],
    online: asyncio.Event,
    period: float = PERIOD,
) -> None:
    """Send a heartbeat when a session begins and then every `period` seconds, until cancelled."""
    last: Receipt | None = None
    while True:
        await online.wait()
        due = time.monotonic()
        while online.is_set():
            if last is not None and last.is_unsent:
                log.warning("left out a heartbeat: the server has not taken the last one yet")
            else:
                figures, stale = sample.figures()
                last = await send("heartbeat", heartbeat(agent_id(), figures, stale))
                if last is not None:
                    publish(HeartbeatSent(stale=stale))
            due = max(due + period, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
