"""The service netmon: the host's interfaces on the bus and on `netmon.sock`."""

import asyncio

from bus.answering import Handlers
from bus.messages.netmon import GetHostInterfaces, Interface
from bus.service import Service, start
from services.netmon import socket_server, views
from services.netmon.announcer import Announcer
from services.netmon.socket_server import SocketServer
from services.netmon.watcher import watch

HANDLERS: Handlers = {GetHostInterfaces: views.get_host_interfaces}


def main() -> None:
    settings = start("netmon")
    path = settings.state_dir / socket_server.NAME
    sockets = SocketServer(lambda: announcer.greeting())
    announcer = Announcer(lambda event: service.publish(event), sockets.send)
    service = Service("netmon", settings, HANDLERS, announcer, workers=2)

    def tell(found: tuple[Interface, ...]) -> None:
        first = announcer.interfaces is None
        announcer.tell(found)
        if first:
            service.ready()

    async def follow() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sockets.serve(path, int(settings.netmon_socket_mode, 8), service.report))
            tasks.create_task(watch(settings.interfaces, tell, service.report))

    service.detail(lambda: {"socket_clients": sockets.clients, "socket_clients_dropped": sockets.dropped})
    service.spawn("netlink", lambda: asyncio.run(follow()))
    service.on_stop(lambda: path.unlink(missing_ok=True))
    service.run()


if __name__ == "__main__":
    main()
