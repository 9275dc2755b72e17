"""Starts cloud_link: `python -m services.cloud_link`."""

from services.cloud_link import lean  # noqa: F401  # isort: skip - first, it decides what the others import

import asyncio
import logging
import sys
from typing import Any

from bus.async_calls import AsyncCaller
from bus.messages.cloud_link import SessionChanged
from bus.service import Service, start
from services.cloud_link.events import Outbox
from services.cloud_link.gateway import Gateway
from services.cloud_link.heartbeat import LastSample, keep_beating
from services.cloud_link.link import Link
from services.cloud_link.transport import forget_environment

log = logging.getLogger(__name__)

HANDLERS: dict[Any, Any] = {}  # nobody asks cloud_link for anything but ping, info and stats


async def room(service: Service, sample: LastSample) -> None:
    """The asyncio room: the session, the commands that come through it, the heartbeat and the device events."""
    settings = service.settings
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell_bug)
    caller = AsyncCaller(settings.run_dir, service.owner)
    gateway = Gateway(caller.call, service.publish)

    def tell(change: SessionChanged) -> None:
        service.publish(change)
        service.report("session", None if change.state == "online" else change.reason)

    link = Link(
        server_url=settings.server_url,
        ca_file=settings.ca_file,
        mtls_dir=settings.mtls_dir,
        answer=gateway.answer_json,
        tell=tell,
    )
    outbox = Outbox()
    tell(link.now)
    service.detail(lambda: {"session": link.now, "commands_in_hand": gateway.in_hand, "events_dropped": outbox.dropped})
    service.subscribe(("docker_worker.device.",), outbox.hear)
    service.on_stop(lambda: asyncio.run_coroutine_threadsafe(link.leave(), loop).result(2.0))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(link.keep())
        tasks.create_task(keep_beating(link.send, lambda: link.now.agent_id, sample, service.publish, link.online))
        tasks.create_task(outbox.keep_sending(link.send, link.online))
        service.ready()


def _tell_bug(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("%s", context.get("message", "a task failed"), exc_info=context.get("exception"))


def main() -> None:
    """Wire the parts and serve."""
    forget_environment()
    settings = start("cloud_link")
    if not settings.server_url.startswith("https://"):
        log.critical(
            "the server's URL must begin with https://, the agent proves itself by TLS; got %s", settings.server_url
        )
        sys.exit(2)
    service = Service("cloud_link", settings, HANDLERS, None)
    sample = LastSample()
    service.subscribe(("metrics.host.",), sample.hear)
    service.spawn("session", lambda: asyncio.run(room(service, sample)))
    service.run()


if __name__ == "__main__":
    main()
