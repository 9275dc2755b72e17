"""Device events as server-sent events: first the recent ones, then each as it comes."""

import asyncio
import re
from typing import Any

import msgspec
from aiohttp import web

from services.local_cloud.agents import Agent

KEEP_ALIVE_SECONDS = 15.0
_SEND_SECONDS = 10.0
_SEQ = re.compile(r"[0-9]{1,15}")

Queue = asyncio.Queue[dict[str, Any] | None]


def wants_stream(request: web.Request) -> bool:
    """Whether the client asked for `text/event-stream`."""
    return "text/event-stream" in request.headers.get("Accept", "")


async def follow_events(request: web.Request, agent: Agent, queue: Queue) -> web.StreamResponse:
    """Stream the agent's events until the client leaves or the server stops.

    Each is `id: <seq>`, `event: device_event`, `data: {seq, received_at, event}`. `Last-Event-ID` continues after
    that one. A client that reads nothing for ten seconds is dropped.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    try:
        await response.prepare(request)
        sent = _last_seen(request, agent)
        for kept in list(agent.events):
            sent = await _send(response, kept, sent)
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    item = await queue.get()
            except TimeoutError:
                await _write(response, b": still here\n\n")
                continue
            if item is None:
                break
            sent = await _send(response, item, sent)
    except (ConnectionError, TimeoutError):
        pass  # the client left, which is how streams end
    finally:
        agent.subscribers.discard(queue)
    return response


def _last_seen(request: web.Request, agent: Agent) -> int:
    text = request.headers.get("Last-Event-ID", "")
    seen = int(text) if _SEQ.fullmatch(text) else 0
    # A number from before this server's start means nothing now.
    return seen if seen <= agent.last_seq else 0


async def _send(response: web.StreamResponse, kept: dict[str, Any], sent: int) -> int:
    """Send an event unless it was sent already (it can be both recent and new); the last one sent."""
    if kept["seq"] <= sent:
        return sent
    data = msgspec.json.encode(kept)
    await _write(response, b"id: %d\nevent: device_event\ndata: %s\n\n" % (kept["seq"], data))
    return int(kept["seq"])


async def _write(response: web.StreamResponse, chunk: bytes) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await response.write(chunk)
