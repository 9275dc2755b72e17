"""Addresses that somebody wants to know about: who on the LAN has them? All of it belongs to the one thread."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from bus.errors import CommandError
from services.netmon import arp

Send = Callable[[str, bytes], str | None]


@dataclass(kw_only=True)
class _Asked:
    parent: str
    ip_address: str
    mac_address: str
    due: float
    sent: int = 1
    verdict: "Future[str | None]" = field(default_factory=Future)


class AddressProbes:
    """`send` puts a frame on a parent interface and says why it did not leave, if so."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._asked: list[_Asked] = []

    def start(
        self, parent: str, ip_address: str, mac_address: str, known: str | None, now: float
    ) -> "Future[str | None]":
        """Ask; the verdict is the owner's MAC address or None. `known`: an owner nobody has to be asked about."""
        asked = _Asked(parent=parent, ip_address=ip_address, mac_address=mac_address, due=now + arp.INTERVAL)
        if known:
            asked.verdict.set_result(known)
        elif self._ask(asked):
            self._asked.append(asked)
        return asked.verdict

    def hear(self, parent: str, heard: arp.Arp) -> None:
        """Somebody spoke on that LAN."""
        for asked in tuple(self._asked):
            rival = arp.rival(heard, asked.ip_address, asked.mac_address) if asked.parent == parent else None
            if rival:
                self._asked.remove(asked)
                asked.verdict.set_result(rival)

    def tick(self, now: float) -> None:
        """Ask again what is due, and give the verdict where silence has lasted long enough."""
        for asked in tuple(self._asked):
            if now < asked.due:
                continue
            asked.due = now + arp.INTERVAL
            asked.sent += 1
            if asked.sent > arp.PROBES:
                self._asked.remove(asked)
                asked.verdict.set_result(None)
            elif not self._ask(asked):
                self._asked.remove(asked)

    def moments(self) -> Iterable[float]:
        """When `tick` has something to do."""
        return [asked.due for asked in self._asked]

    def parents(self) -> set[str]:
        """Where ARP has to be heard."""
        return {asked.parent for asked in self._asked}

    def _ask(self, asked: _Asked) -> bool:
        problem = self._send(asked.parent, arp.probe(asked.mac_address, asked.ip_address))
        if problem:
            asked.verdict.set_exception(CommandError("unavailable", f"{asked.ip_address} cannot be probed: {problem}"))
        return problem is None
