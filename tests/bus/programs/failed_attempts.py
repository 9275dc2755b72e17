"""Three hundred failed attempts, measured in a process of their own by `test_cloud_link_session.py`."""

import asyncio
import gc
import tracemalloc
from pathlib import Path

from tests.bus.test_cloud_link_session import Plant, plant, until, upgrade

__all__ = ["plant"]  # the fixture, by import


def test_three_hundred_failed_attempts_leak_nothing(plant: Plant) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)

    wire = plant.wire(talk)
    agent = plant.agent(f"https://localhost:{wire.port}", delay=lambda _attempt: 0.0)

    def used() -> tuple[int, int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), agent.do(_tasks()), tracemalloc.get_traced_memory()[0]

    until(lambda: agent.link.now.attempt >= 30, 60)
    tracemalloc.start()
    try:
        descriptors, tasks, memory = used()
        until(lambda: agent.link.now.attempt >= 330, 90)
        descriptors_after, tasks_after, memory_after = used()
    finally:
        tracemalloc.stop()
    assert descriptors_after <= descriptors + 4  # one attempt is under way, on both sides
    assert tasks_after <= tasks + 4
    assert memory_after - memory < 1_000_000
    wire.close()
    plant.cloud(wire.port)
    agent.is_online()


async def _tasks() -> int:
    return len(asyncio.all_tasks())
