"""The kernel's side: full dumps by pyroute2, and a doorbell that rings when something has changed.

Messages of the kernel are only a reason to look again, never read as the change itself: a pulled cable sends one
NEWLINK, an interface set down loses its default route without any DELROUTE, and under load messages are lost. So
the doorbell does not decode them; it is a plain socket of the standard library that counts and forgets.

Everything here belongs to one event loop in one thread.
"""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.netmon.lean_package import without_init
from services.netmon.records import Address, DefaultRoute, Dump, Link

without_init("pyroute2")

from pyroute2.iproute.linux import AsyncIPRoute  # noqa: E402 - after the line above, which saves 6 MB
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_LINK  # noqa: E402

__all__ = ["AsyncIPRoute", "Doorbell", "NetlinkError", "dump"]

_GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE
_ETHERNET = 1  # ARPHRD_ETHER
_MAIN_TABLE = 254  # RT_TABLE_MAIN
_MESSAGES_AT_ONCE = 256
_DEVICES = Path("/sys/class/net")


class Doorbell:
    """Hears of changes of links, IPv4 addresses and routes, and keeps nothing but the fact.

    `rung` is set after each. When the kernel had to drop messages (ENOBUFS) or the socket fails, `problem` is set
    too and the bell is deaf: close it, open a new one and take a full dump.
    """

    def __init__(self) -> None:
        self.rung = asyncio.Event()
        self.problem: OSError | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._socket.bind((0, _GROUPS))
        self._loop.add_reader(self._socket, self._drain)

    def _drain(self) -> None:
        self.rung.set()
        try:
            for _ in range(_MESSAGES_AT_ONCE):
                self._socket.recv(65536)
        except BlockingIOError:
            pass  # all heard
        except OSError as problem:
            self.problem = problem
            self._loop.remove_reader(self._socket)

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._socket)
        self._socket.close()


async def dump(netlink: AsyncIPRoute) -> Dump:
    """All links, IPv4 addresses and default routes. Raises `OSError` or `NetlinkError`: then use a new socket.

    Dumps only: pyroute2 0.9.7 leaks memory on single look-ups over a long-lived socket.
    """
    links = [message async for message in await netlink.get_links()]
    addresses = [message async for message in await netlink.get_addr(family=socket.AF_INET)]
    routes = [message async for message in await netlink.get_routes(family=socket.AF_INET)]
    return Dump(
        # Messages of the bridge family repeat a port without its kind, which would make a veth look physical.
        links=tuple(_link(message) for message in links if message["family"] == socket.AF_UNSPEC),
        addresses=tuple(_address(message) for message in addresses),
        routes=tuple(hop for message in routes for hop in _default_routes(message)),
    )


def _link(message: Any) -> Link:
    name = message.get_attr("IFLA_IFNAME")
    device = message.get_attr("IFLA_PARENT_DEV_NAME")  # since Linux 5.14; sysfs knows it on older ones
    return Link(
        index=message["index"],
        name=name,
        mac_address=message.get_attr("IFLA_ADDRESS") or "",
        operstate=message.get_attr("IFLA_OPERSTATE") or "UNKNOWN",
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        ethernet=message["ifi_type"] == _ETHERNET,
        kind=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
        has_device=device is not None or (_DEVICES / name / "device").exists(),
    )


def _address(message: Any) -> Address:
    return Address(
        index=message["index"],
        # On a point-to-point link IFA_ADDRESS is the other end.
        address=message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"),
        prefixlen=message["prefixlen"],
    )


def _default_routes(message: Any) -> Iterator[DefaultRoute]:
    table = message.get_attr("RTA_TABLE") or message["table"]
    if message["dst_len"] != 0 or table != _MAIN_TABLE:
        return
    metric = message.get_attr("RTA_PRIORITY") or 0
    hops = [(hop["oif"], hop.get_attr("RTA_GATEWAY")) for hop in message.get_attr("RTA_MULTIPATH") or []]
    for index, gateway in [(message.get_attr("RTA_OIF"), message.get_attr("RTA_GATEWAY")), *hops]:
        if index is not None and gateway is not None:
            yield DefaultRoute(index=index, gateway=gateway, metric=metric)
