"""The leases of this host's vNICs: every one a state machine of `lease.py`, all of them driven by one thread.

Public methods may be called from any thread; what begins with an underscore runs in the one thread only. What is
held is on disk before anybody hears of it.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path

from bus.errors import CommandError
from bus.messages.netmon import Interface, Lease, LeaseChanged
from common import trace
from services.netmon import arp, asking, dhcp_message, lease, lease_file, lease_view, packet_socket
from services.netmon.address_probes import AddressProbes
from services.netmon.holding import Action, Event, Heard, Holding, LinkSeen, Probe, Rival, Tick, Wish
from services.netmon.one_thread import OneThread
from services.netmon.parents import Parent, Report, Sockets, link, parents

log = logging.getLogger(__name__)

RETRY_SAVING = 10.0
WITHIN = 3.5  # seconds for an errand in the one thread, which waits for nothing but the disk


def now() -> float:
    """Seconds of the clock that leases are counted by: it runs on while the host sleeps, and never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leases:
    """`tell` publishes a lease that has changed, `forget` ends its state on the bus."""

    def __init__(
        self, file: Path, tell: Callable[[LeaseChanged], None], forget: Callable[[str], None], report: Report
    ) -> None:
        self._file, self._tell, self._forget, self._report = file, tell, forget, report
        self._thread = OneThread()
        self._sockets = Sockets(self._thread, self._hear, report)
        self._probes = AddressProbes(lambda parent, frame: self._sockets.send(parent, frame, hear_arp=True))
        self._chance = random.Random()  # noqa: S311 - transaction ids and jitter are no secrets
        self._parents: dict[str, Parent] | None = None
        self._holdings: dict[str, Holding] = {}
        self._told: dict[str, Lease] = {}
        self._traces: dict[str, str | None] = {}
        self._touched: set[str] = set()
        self._boot = lease_file.boot_id()
        self._saved: lease_file.Kept = ()
        self._save_again = 0.0
        self._malformed = 0

    # ---- for any thread

    def run(self) -> None:
        """Take up what the file says, then serve; the body of the one thread."""
        for holding in lease_file.load(self._file, now(), time.time()):
            self._put(holding)
        self._end_round()
        self._thread.run(self._wakes_at, now, self._end_round)

    def hold(self, wish: Wish) -> Lease:
        """Hold a lease from now on; raises `CommandError` conflict when another key has this MAC address there."""
        origin = trace.current()
        return self._thread.do(lambda: self._hold(wish, origin)).result(WITHIN)

    def release(self, key: str) -> str | None:
        """Give the lease back and forget it; returns the address that was given back."""
        return self._thread.do(lambda: self._release(key)).result(WITHIN)

    def all(self) -> tuple[Lease, ...]:
        """Every lease as it stands, by key."""
        return self._thread.do(lambda: tuple(self._view(key) for key in sorted(self._holdings))).result(WITHIN)

    def probe(self, parent: str, ip_address: str, mac_address: str) -> str | None:
        """Ask the LAN who has the address, None if nobody; raises `CommandError` unavailable if it cannot be asked."""
        verdict = self._thread.do(lambda: self._probe_address(parent, ip_address, mac_address)).result(WITHIN)
        return verdict.result(WITHIN)

    def counters(self) -> dict[str, int]:
        """For `info`, from memory."""
        return {"leases": len(self._holdings), "dhcp_messages_malformed": self._malformed}

    def network_seen(self, found: Iterable[Interface]) -> None:
        """The interfaces as they are now: each lease whose network may be another one asks whether it still holds."""
        seen = parents(found)
        self._thread.post(lambda: self._network_seen(seen))

    # ---- errands

    def _hold(self, wish: Wish, origin: str | None) -> Lease:
        held = self._holdings.get(wish.key)
        rivals = (each.wish for each in self._holdings.values() if each.wish.key != wish.key)
        for other in rivals:
            if (other.parent_interface, other.mac_address) == (wish.parent_interface, wish.mac_address):
                raise CommandError("conflict", f"{wish.mac_address} is the MAC address of {other.key}")
        self._traces[wish.key] = origin
        if held and (held.wish.parent_interface, held.wish.mac_address) == (wish.parent_interface, wish.mac_address):
            self._put(lease.with_wish(held, wish))
            return self._view(wish.key)
        if held:
            log.info("%s moves to %s with %s", wish.key, wish.parent_interface, wish.mac_address)
            self._release(wish.key)
        self._put(lease.hold(wish))
        if self._parents is not None:
            self._advance(wish.key, LinkSeen(link=link(self._parents.get(wish.parent_interface))))
        return self._view(wish.key)

    def _release(self, key: str) -> str | None:
        holding = self._holdings.get(key)
        if holding is None:
            return None
        self._perform(key, asking.farewell(holding, self._chance))
        del self._holdings[key]
        self._traces.pop(key, None)
        self._told.pop(key, None)
        self._forget(key)
        log.info("%s is held no more%s", key, f", {holding.grant.ip_address} is given back" if holding.grant else "")
        return holding.grant.ip_address if holding.grant else None

    def _probe_address(self, parent: str, ip_address: str, mac_address: str) -> "Future[str | None]":
        seen = (self._parents or {}).get(parent)
        if seen is None or not seen.carrier:
            what = "is down or has no carrier" if seen else "does not exist"
            raise CommandError("unavailable", f"{ip_address} cannot be probed: {parent} {what}")
        ours = self._ours(parent, ip_address, mac_address)
        return self._probes.start(parent, ip_address, mac_address, ours, now())

    def _network_seen(self, seen: dict[str, Parent]) -> None:
        before, self._parents = self._parents or {}, seen
        self._keep_sockets()
        for key, holding in tuple(self._holdings.items()):
            parent = seen.get(holding.wish.parent_interface)
            changed = parent != before.get(holding.wish.parent_interface)
            self._advance(key, LinkSeen(link=link(parent), changed=changed))

    # ---- sockets

    def _hear(self, parent: str, frame: bytes) -> None:
        heard = arp.decode(frame)
        if heard is not None:
            self._probes.hear(parent, heard)
            for key, holding in self._probing(parent):
                rival = (
                    arp.rival(heard, holding.candidate.ip_address, holding.wish.mac_address)
                    if holding.candidate
                    else None
                )
                if rival:
                    self._advance(key, Rival(mac_address=rival))
            return
        datagram = packet_socket.from_server(frame)
        if datagram is None:
            return
        try:
            reply = dhcp_message.decode(datagram.payload)
        except dhcp_message.MalformedError:
            self._malformed += 1  # counted, not logged: whoever sends one may send thousands
            return
        event = Heard(reply=reply, source_mac=datagram.source_mac, at=time.time())
        for key, holding in tuple(self._holdings.items()):
            if (holding.wish.parent_interface, holding.wish.mac_address) == (parent, reply.mac_address):
                self._advance(key, event)

    def _probing(self, parent: str) -> list[tuple[str, Holding]]:
        return [
            (key, holding)
            for key, holding in self._holdings.items()
            if holding.phase == "probing" and holding.wish.parent_interface == parent
        ]

    def _keep_sockets(self) -> None:
        wanted = {holding.wish.parent_interface: False for holding in self._holdings.values()}
        wanted |= dict.fromkeys(self._probes.parents(), True)
        wanted |= {each.wish.parent_interface: True for each in self._holdings.values() if each.phase == "probing"}
        self._sockets.keep(wanted, self._parents or {})

    # ---- the machines

    def _advance(self, key: str, event: Event) -> None:
        holding, actions = lease.advance(self._holdings[key], event, now(), self._chance)
        self._put(holding)
        self._perform(key, actions)

    def _put(self, holding: Holding) -> None:
        self._holdings[holding.wish.key] = holding
        self._touched.add(holding.wish.key)

    def _perform(self, key: str, actions: Iterable[Action]) -> None:
        wish = self._holdings[key].wish
        for action in actions:
            if isinstance(action, Probe):
                ours = self._ours(wish.parent_interface, action.ip_address, wish.mac_address) if action.first else None
                if ours:
                    self._advance(key, Rival(mac_address=ours))
                    return
                frame = arp.probe(wish.mac_address, action.ip_address)
            else:
                frame = lease_view.frame(action, wish.mac_address)
            problem = self._sockets.send(wish.parent_interface, frame, hear_arp=isinstance(action, Probe))
            if problem:
                self._put(lease.unsent(self._holdings[key], problem))

    def _ours(self, parent: str, ip_address: str, mac_address: str) -> str | None:
        """Who has the address on this side of the NIC, where a probe cannot see: the host or another of its vNICs."""
        seen = (self._parents or {}).get(parent)
        if seen and ip_address in seen.addresses:
            return seen.mac_address
        for each in self._holdings.values():
            here = each.wish.parent_interface == parent and each.wish.mac_address != mac_address
            if here and ip_address in {grant.ip_address for grant in (each.grant, each.candidate) if grant}:
                return each.wish.mac_address
        return None

    # ---- the round

    def _wakes_at(self) -> float | None:
        moments = [moment for each in self._holdings.values() if (moment := lease.wakes_at(each)) is not None]
        moments += self._probes.moments()
        if self._save_again:
            moments.append(self._save_again)
        return min(moments, default=None)

    def _end_round(self) -> None:
        moment = now()
        self._probes.tick(moment)
        for key, holding in tuple(self._holdings.items()):
            due = lease.wakes_at(holding)
            if due is not None and moment >= due:
                self._advance(key, Tick())
        self._keep_sockets()
        self._save(moment)
        for key in self._touched & self._holdings.keys():
            self._tell_changes(key)
        self._touched.clear()

    def _save(self, moment: float) -> None:
        kept = lease_file.kept(self._holdings.values())
        if kept == self._saved:
            self._save_again = 0.0
            return
        if moment < self._save_again:
            return
        try:
            lease_file.save(self._file, lease_file.encode(kept, self._boot))
        except OSError as problem:
            self._save_again = moment + RETRY_SAVING
            self._report(lease_file.NAME, f"{self._file} cannot be written, leases would be lost: {problem.strerror}")
            return
        self._saved, self._save_again = kept, 0.0
        self._report(lease_file.NAME, None)

    def _tell_changes(self, key: str) -> None:
        view = self._view(key)
        before = self._told.get(key)
        if before == view:
            return
        self._told[key] = view
        told = lease_view.sentence(view)
        level = logging.DEBUG if before and lease_view.sentence(before) == told else logging.INFO
        with trace.use(self._traces.get(key)):
            log.log(level, "%s on %s: %s", key, view.parent_interface, told)
            self._tell(lease_view.changed(view))

    def _view(self, key: str) -> Lease:
        return lease_view.view(self._holdings[key])
