"""The service metrics: a sample of the host every 5 s, whatever the rest of the house is doing."""

import os
import time

from bus.answering import Handlers
from bus.messages.metrics import HostSampled
from bus.service import Service, start
from services.metrics import host

HANDLERS: Handlers = {}


def main() -> None:
    settings = start("metrics")
    service = Service("metrics", settings, HANDLERS, None)
    cpu = host.cpu_meter()
    started = host.agent_start(os.getppid())

    def sample() -> None:
        memory, disk = host.memory(), host.disk(host.physical(host.mounts()), service.report)
        service.publish(
            HostSampled(
                cpu_usage=cpu(),
                memory_usage=memory.used / host.GB,
                memory_total=memory.total / host.GB,
                disk_usage=disk.used / host.GB,
                disk_total=disk.total / host.GB,
                uptime=host.boot_clock() - started,
                sampled_at=time.time(),
            )
        )

    service.every(5.0, sample, name="host sampler")
    service.ready()
    service.run()


if __name__ == "__main__":
    main()
