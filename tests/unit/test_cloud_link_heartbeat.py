"""The heartbeat's words and beat, and the device events that wait for a session."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from bus.envelope import Envelope
from bus.messages.cloud_link import HeartbeatSent
from bus.messages.docker_worker import DeviceChanged, DeviceProgressed, EngineChanged
from bus.messages.metrics import HostSampled
from services.cloud_link.events import Outbox, device_event
from services.cloud_link.heartbeat import LastSample, heartbeat, keep_beating
from services.cloud_link.session import Receipt

SAMPLE = HostSampled(
    cpu_usage=15.2,
    memory_usage=2.5,
    memory_total=16.0,
    disk_usage=45.8,
    disk_total=500.0,
    uptime=86400.0,
    sampled_at=1.0,
)


async def eventually(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody; the tests have deadlines
        await asyncio.sleep(0.001)


def envelope(**more: Any) -> Envelope:
    fields = {"id": "1", "kind": "event", "name": "x", "ts": time.time(), "src": "s", "run": "r", "seq": 1} | more
    return Envelope(**fields)


def test_a_heartbeat_has_exactly_the_seeds_fields() -> None:
    sample = LastSample()
    sample.hear(SAMPLE, envelope())
    sent = heartbeat("07048933", *sample.figures())
    moment = sent.pop("timestamp")
    assert sent == {
        "agent_id": "07048933",
        "cpu_usage": 15.2,
        "memory_usage": 2.5,
        "memory_total": 16.0,
        "disk_usage": 45.8,
        "disk_total": 500.0,
        "uptime": 86400.0,
        "status": "online",
    }
    parsed = datetime.fromisoformat(moment)
    assert parsed.tzinfo is None
    assert len(moment) == len("2025-11-20T20:30:45.123456")
    assert abs((parsed.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()) < 5


def test_before_the_first_sample_the_figures_are_null_and_stale() -> None:
    sent = heartbeat("a", *LastSample().figures())
    assert sent["stale"] is True
    assert sent["cpu_usage"] is None
    assert sent["uptime"] is None


def test_an_old_sample_is_sent_again_and_called_stale() -> None:
    sample = LastSample()
    sample.hear(SAMPLE, envelope(replay=True, ts=time.time() - 13))
    sent = heartbeat("a", *sample.figures())
    assert (sent["stale"], sent["cpu_usage"]) == (True, 15.2)
    sample.hear(SAMPLE, envelope())
    assert "stale" not in heartbeat("a", *sample.figures())


class Outgoing:
    """As much of a session's queue as a receipt looks at."""

    def __init__(self) -> None:
        self.written, self.closed = 0, False


def test_the_beat_keeps_its_schedule_and_never_queues_behind_a_frozen_server() -> None:
    async def play() -> None:
        outgoing, sent, published = Outgoing(), [], []
        online = asyncio.Event()

        async def send(event: str, data: dict[str, Any]) -> Receipt:
            sent.append((asyncio.get_running_loop().time(), event, data))
            return Receipt(outgoing, len(sent))  # type: ignore[arg-type]

        beating = asyncio.create_task(
            keep_beating(send, lambda: "a", LastSample(), published.append, online, period=0.02)
        )
        await asyncio.sleep(0)
        assert sent == []
        online.set()
        await eventually(lambda: sent)
        begun = time.monotonic()
        await eventually(lambda: time.monotonic() > begun + 0.1)
        assert len(sent) == 1  # the first still waits for the server
        outgoing.closed = True  # a new session
        outgoing.written = 1000
        await eventually(lambda: len(sent) >= 5)
        gaps = [later[0] - earlier[0] for earlier, later in pairwise(sent[1:])]
        assert all(0.005 < gap < 0.2 for gap in gaps)
        assert published[:5] == [HeartbeatSent(stale=True)] * 5
        beating.cancel()

    asyncio.run(asyncio.wait_for(play(), 10))


def test_device_events_in_the_protocols_words() -> None:
    at = envelope(ts=1763670645.5, trace="12345")
    assert device_event(DeviceChanged(device_id="p", event="failed", error="no image"), at) == {
        "device_id": "p",
        "event": "failed",
        "error": "no image",
        "trace": "12345",
        "timestamp": "2025-11-20T20:30:45.500000",
    }
    progressed = DeviceProgressed(device_id="p", operation="create", step="pulling image", percent=40)
    told = device_event(progressed, at)
    assert told is not None
    assert (told["event"], told["step"], told["percent"]) == ("progress", "pulling image", 40)
    assert "error" not in told
    assert device_event(EngineChanged(reachable=True, version="", api_version="", reason=""), at) is None


def test_events_wait_for_a_session_in_order_and_a_gap_is_told() -> None:
    async def play() -> None:
        outbox, online, sent = Outbox(most=3), asyncio.Event(), []
        refuse = 2

        async def send(event: str, data: dict[str, Any]) -> object | None:
            nonlocal refuse
            if refuse:
                refuse -= 1
                return None
            sent.append((event, data))
            return object()

        sending = asyncio.create_task(outbox.keep_sending(send, online))
        for number in range(5):
            outbox.hear(DeviceChanged(device_id=f"p{number}", event="started"), envelope())
        await eventually(lambda: outbox.dropped >= 2)
        assert sent == []
        online.set()
        await eventually(lambda: len(sent) >= 3)
        outbox.hear(DeviceChanged(device_id="p5", event="started"), envelope())
        await eventually(lambda: len(sent) >= 4)
        assert [data["device_id"] for _, data in sent] == ["p2", "p3", "p4", "p5"]
        assert [data.get("dropped_before") for _, data in sent] == [2, None, None, None]
        assert {event for event, _ in sent} == {"device_event"}
        sending.cancel()

    asyncio.run(asyncio.wait_for(play(), 10))
