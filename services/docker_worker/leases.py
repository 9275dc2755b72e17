"""The leases of our `dhcp` vNICs, as netmon tells them; netmon holds them, on our word.

What is remembered comes from netmon's events, which are replayed to a newcomer. A reply to `hold` may be older than
the last event, so it counts only where nothing is remembered.
"""

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Protocol, TypeVar

import msgspec

from bus.errors import CallFailed
from bus.messages.base import Request
from bus.messages.netmon import HoldLease, Lease, ListLeases, ReleaseLease
from common.contracts.vnic import Vnic

log = logging.getLogger(__name__)

R = TypeVar("R", bound=msgspec.Struct)

HOLD_WITHIN = 2.0  # seconds: netmon answers from memory, and the device's other affairs wait for it


class Ask(Protocol):
    """A request to another service; raises `CallFailed`. `deadline`: seconds, None for the request's own."""

    def __call__(self, request: Request[R], deadline: float | None = None) -> R: ...


def key_of(device: str, vnic: Vnic) -> str:
    """The name netmon knows the lease by. Names of devices have no slash."""
    return f"{device}/{vnic.name}"


class Leases:
    """`enqueue(device, fresh)`: have the device looked at. Safe to use from several threads."""

    def __init__(self, ask: Ask, enqueue: Callable[[str, bool], None]) -> None:
        self._ask, self._enqueue = ask, enqueue
        self._lock = Lock()
        self._known: dict[str, Lease] = {}
        self._problems: dict[str, str] = {}
        self._since: dict[str, float] = {}

    def hear(self, lease: Lease) -> None:
        """An event. A renewal that changed nothing is noted, and moves nobody."""
        with self._lock:
            before = self._known.get(lease.key)
            self._known[lease.key] = lease
        if before is None or _what_matters(before) != _what_matters(lease):
            self._enqueue(lease.key.partition("/")[0], True)

    def hold(self, device: str, vnic: Vnic) -> None:
        """Have netmon hold the lease; asking again changes nothing. Why it could not be asked is remembered."""
        key = key_of(device, vnic)
        self._since.setdefault(key, time.monotonic())
        request = HoldLease(
            key=key, parent_interface=vnic.parent_interface, mac_address=vnic.mac_address or "", hostname=device
        )
        try:
            lease = self._ask(request, HOLD_WITHIN)
        except CallFailed as problem:
            if self._problems.get(key) != problem.message:
                log.warning("%s: the lease cannot be asked for: %s", key, problem.message)
            self._problems[key] = problem.message
            return
        self._problems.pop(key, None)
        with self._lock:
            if self.known(device, vnic) is None:
                self._known[key] = lease

    def known(self, device: str, vnic: Vnic) -> Lease | None:
        """The lease of this very vNIC: one of an earlier device of the same name does not count."""
        lease = self._known.get(key_of(device, vnic))
        asked = (vnic.parent_interface, vnic.mac_address)
        return lease if lease is not None and (lease.parent_interface, lease.mac_address) == asked else None

    def problem(self, device: str, vnic: Vnic) -> str:
        """Why netmon could not be asked at the last try; empty when it could."""
        return self._problems.get(key_of(device, vnic), "")

    def waited(self, device: str, vnic: Vnic) -> float:
        """Seconds since this process asked for the lease first."""
        began = self._since.get(key_of(device, vnic))
        return 0.0 if began is None else time.monotonic() - began

    def release(self, device: str, vnic: Vnic) -> None:
        """The vNIC is gone for good. Where netmon cannot be asked, `release_orphans` finds the lease later."""
        key = key_of(device, vnic)
        try:
            self._ask(ReleaseLease(key=key))
        except CallFailed as problem:
            log.warning("%s: the lease cannot be given back now, it will be: %s", key, problem.message)
        with self._lock:
            self._known.pop(key, None)
            self._problems.pop(key, None)
            self._since.pop(key, None)

    def release_orphans(self, is_wanted: Callable[[str], bool]) -> None:
        """Give back every lease that no vNIC needs, left by a device whose removal netmon did not hear of."""
        try:
            held = self._ask(ListLeases()).leases
            for key in (lease.key for lease in held if not is_wanted(lease.key)):
                log.warning("the lease of %s is nobody's: giving it back", key)
                self._ask(ReleaseLease(key=key))
        except CallFailed as problem:
            log.warning("leases that nobody needs cannot be looked for now: %s", problem.message)


def _what_matters(lease: Lease) -> tuple[object, ...]:
    return lease.state, lease.mac_address, lease.ip_address, lease.subnet, lease.gateway, lease.conflict_mac
