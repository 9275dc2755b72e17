"""The service netmon: the host's interfaces on the bus and on `netmon.sock`."""

import asyncio
from dataclasses import dataclass

from bus.answering import Handlers
from bus.messages.netmon import (
    GetHostInterfaces,
    HoldLease,
    Interface,
    LeaseChanged,
    ListLeases,
    ProbeAddress,
    ReleaseLease,
)
from bus.service import Service, start
from services.netmon import lease_file, lease_requests, socket_server, views
from services.netmon.announcer import Announcer
from services.netmon.leases import Leases
from services.netmon.socket_server import SocketServer
from services.netmon.watcher import watch

HANDLERS: Handlers = {
    GetHostInterfaces: views.get_host_interfaces,
    HoldLease: lease_requests.hold_lease,
    ReleaseLease: lease_requests.release_lease,
    ListLeases: lease_requests.list_leases,
    ProbeAddress: lease_requests.probe_address,
}


@dataclass(frozen=True)
class Context:
    """What the handlers ask."""

    announcer: Announcer
    leases: Leases

    @property
    def interfaces(self) -> tuple[Interface, ...] | None:
        return self.announcer.interfaces


def main() -> None:
    settings = start("netmon")
    path = settings.state_dir / socket_server.NAME
    sockets = SocketServer(lambda: announcer.greeting())
    announcer = Announcer(lambda event: service.publish(event), sockets.send)
    leases = Leases(
        settings.state_dir / lease_file.NAME,
        lambda changed: service.publish(changed),
        lambda key: service.forget_state(LeaseChanged, key),
        lambda key, reason: service.report(key, reason),
    )
    service = Service("netmon", settings, HANDLERS, Context(announcer, leases))

    def tell(found: tuple[Interface, ...]) -> None:
        first = announcer.interfaces is None
        announcer.tell(found)
        leases.network_seen(found)
        if first:
            service.ready()

    async def follow() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sockets.serve(path, int(settings.netmon_socket_mode, 8), service.report))
            tasks.create_task(watch(settings.interfaces, tell, service.report))

    service.detail(lambda: {"socket_clients": sockets.clients, "socket_clients_dropped": sockets.dropped})
    service.spawn("netlink", lambda: asyncio.run(follow()))
    service.detail(leases.counters)
    service.spawn("leases", leases.run)
    service.on_stop(lambda: path.unlink(missing_ok=True))
    service.run()


if __name__ == "__main__":
    main()
