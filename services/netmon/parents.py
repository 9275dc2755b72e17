"""The parent interfaces as leases see them: how the link is, who is on them, and one packet socket on each in use."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from bus.messages.netmon import Interface
from services.netmon.holding import Link
from services.netmon.one_thread import OneThread
from services.netmon.packet_socket import PacketSocket

log = logging.getLogger(__name__)

_DEVICES = Path("/sys/class/net")

Hear = Callable[[str, bytes], None]
Report = Callable[[str, str | None], None]


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """What tells one network behind an interface from another. `flaps`: how often its carrier came or went, for a
    cable that was moved to another switch within the debounce looks in every other way as before."""

    index: int
    mac_address: str
    carrier: bool
    flaps: int
    addresses: tuple[str, ...]
    gateway: str | None


def parents(found: Iterable[Interface]) -> dict[str, Parent]:
    """By name, from the interfaces that netlink tells."""
    return {
        each.name: Parent(
            index=each.index,
            mac_address=each.mac_address,
            carrier=each.carrier,
            flaps=_flaps(each.name),
            addresses=tuple(address.address for address in each.ipv4_addresses),
            gateway=each.gateway,
        )
        for each in found
    }


def link(parent: Parent | None) -> Link:
    """How a lease sees it."""
    if parent is None:
        return "gone"
    return "up" if parent.carrier else "down"


def _flaps(name: str) -> int:
    try:
        return int((_DEVICES / name / "carrier_changes").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0  # gone meanwhile


class Sockets:
    """One packet socket for each parent interface in use; all of it belongs to the one thread."""

    def __init__(self, thread: OneThread, hear: Hear, report: Report) -> None:
        self._thread, self._hear, self._report = thread, hear, report
        self._open: dict[str, PacketSocket] = {}
        self._arp: dict[str, bool] = {}

    def keep(self, wanted: dict[str, bool], known: dict[str, Parent]) -> None:
        """Close the sockets nobody wants and those of an interface that is another one now (its name was given to a
        new card); `wanted`: names, and whether ARP has to be heard."""
        for name, opened in tuple(self._open.items()):
            parent = known.get(name)
            if name not in wanted or parent is None or parent.index != opened.index:
                self._close(name)
            elif self._arp[name] != wanted[name]:
                opened.hear_arp(wanted[name])
                self._arp[name] = wanted[name]

    def send(self, name: str, frame: bytes, *, hear_arp: bool = False) -> str | None:
        """Send a frame; a sentence when it could not leave, None when it has. Whoever asks asks again."""
        try:
            opened = self._open.get(name) or self._opened(name)
            if hear_arp and not self._arp[name]:
                opened.hear_arp(True)
                self._arp[name] = True
            opened.send(frame)
        except OSError as problem:
            self._failed(name, problem)
            return f"nothing can be sent on {name}: {problem.strerror}"
        self._report(_key(name), None)
        return None

    def _opened(self, name: str) -> PacketSocket:
        opened = PacketSocket(name)
        self._open[name], self._arp[name] = opened, False
        self._thread.watch(opened, lambda: self._receive(name, opened))
        return opened

    def _receive(self, name: str, opened: PacketSocket) -> None:
        try:
            frames = opened.receive()
        except OSError as problem:
            self._failed(name, problem)
            return
        for frame in frames:
            self._hear(name, frame)

    def _failed(self, name: str, problem: OSError) -> None:
        log.info("%s: %s; the socket is opened again when it is needed", name, problem.strerror)
        if isinstance(problem, PermissionError):
            self._report(_key(name), f"no raw socket on {name} ({problem.strerror}): netmon needs CAP_NET_RAW")
        self._close(name)

    def _close(self, name: str) -> None:
        opened = self._open.pop(name, None)
        if opened is not None:
            self._thread.forget(opened)
            opened.close()


def _key(name: str) -> str:
    return f"leases on {name}"
