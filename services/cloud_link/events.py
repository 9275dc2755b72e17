"""`device_event` to the cloud: what happens to the devices, in order, also over an outage.

While there is no session the events wait in memory, at most `MOST_WAITING` of them: they survive an outage of the
cloud, not a restart of this process. When some had to be dropped, the oldest first, the next event sent says how many
in `dropped_before`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from bus.envelope import Envelope
from bus.messages.base import Event
from bus.messages.docker_worker import DeviceChanged, DeviceProgressed
from services.cloud_link.heartbeat import timestamp

MOST_WAITING = 2000

_RETRY = 0.2  # seconds: the session has just ended and nobody has noticed yet

Send = Callable[[str, dict[str, Any]], Awaitable[object | None]]


def device_event(event: Event, envelope: Envelope) -> dict[str, Any] | None:
    """The cloud's form of an event of docker_worker; None for events that are not about a device."""
    if isinstance(event, DeviceChanged):
        told: dict[str, Any] = {"device_id": event.device_id, "event": event.event, "error": event.error}
        told["vnic"] = event.vnic
    elif isinstance(event, DeviceProgressed):
        told = {"device_id": event.device_id, "event": "progress", "step": event.step, "percent": event.percent}
    else:
        return None
    given = {name: value for name, value in told.items() if value is not None}
    return given | {"trace": envelope.trace, "timestamp": timestamp(datetime.fromtimestamp(envelope.ts, UTC))}


class Outbox:
    """Events that wait for a session. Lives in the session's event loop; `hear` may be called from any thread."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[dict[str, Any]] = deque()
        self._most = most
        self._filled = asyncio.Event()
        self.dropped = 0

    def hear(self, event: Event, envelope: Envelope) -> None:
        """For `Service.subscribe`: put an event of docker_worker in line."""
        if (payload := device_event(event, envelope)) is not None:
            self._loop.call_soon_threadsafe(self.put, payload)

    def put(self, payload: dict[str, Any]) -> None:
        """Put an event in line; the oldest gives way when the line is full."""
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(payload)
        self._filled.set()

    async def keep_sending(self, send: Send, online: asyncio.Event) -> None:
        """Send what waits, in order, whenever there is a session; until cancelled."""
        while True:
            await self._filled.wait()
            await online.wait()
            while self._waiting:
                payload, dropped = self._waiting.popleft(), self.dropped
                if await send("device_event", payload | ({"dropped_before": dropped} if dropped else {})) is None:
                    self._waiting.appendleft(payload)
                    await asyncio.sleep(_RETRY)
                    break
                self.dropped -= dropped
            if not self._waiting:
                self._filled.clear()
