"""Asks the LAN for addresses before they are used, beside everything else: a probe takes a second.

Each verdict is good for a short while only; what it led to, the container on the network, needs none.
"""

import logging
import queue
import time
from collections.abc import Callable
from threading import Lock

import msgspec

from bus.errors import CallFailed
from bus.messages.netmon import ProbeAddress
from common import threads
from common.backoff import doubling
from common.contracts.vnic import Vnic
from services.docker_worker.addresses import random_mac
from services.docker_worker.leases import Ask
from services.docker_worker.place import Verdict

log = logging.getLogger(__name__)

GOOD_FOR = 30.0  # seconds
CONFLICT_BASE, CONFLICT_CAP = 5.0, 60.0  # seconds until an address in use is asked for again
PROBLEM_BASE, PROBLEM_CAP = 1.0, 15.0  # seconds until netmon is asked again
AFTER_ASKING = 1.5  # seconds that a probe may take; its end is told besides
THREADS = 4  # netmon answers from a pool of eight, and other questions shall not wait

Key = tuple[str, str, str, str]


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    began: float
    asking: bool = True
    verdict: Verdict | None = None
    ended: float = 0.0
    failures: int = 0


class AddressProbes:
    """`enqueue(device, fresh)`: have the device looked at, its verdict is there. Safe to use from several threads."""

    def __init__(self, ask: Ask, enqueue: Callable[[str, bool], None]) -> None:
        self._ask, self._enqueue = ask, enqueue
        self._lock = Lock()
        self._asked: dict[Key, _Asked] = {}
        self._waiting: queue.SimpleQueue[tuple[str, Vnic]] = queue.SimpleQueue()

    def start(self) -> None:
        for number in range(THREADS):
            threads.spawn(f"probe-{number}", self._serve)

    def want(self, device: str, vnic: Vnic) -> None:
        """Have the address asked for, unless that goes on already or its verdict still counts."""
        key, now = _key(device, vnic), time.monotonic()
        with self._lock:
            before = self._asked.get(key)
            if before is not None and (before.asking or now < before.ended + _counts_for(before)):
                return
            if before is not None and before.failures:  # what was wrong stays true until the next verdict
                self._asked[key] = msgspec.structs.replace(before, asking=True, began=now)
            else:
                self._asked[key] = _Asked(began=now)
        self._waiting.put((device, vnic))

    def verdict(self, device: str, vnic: Vnic) -> Verdict | None:
        """The last one that counts, None while one is awaited; with the seconds that are left until the next try."""
        asked = self._asked.get(_key(device, vnic))
        if asked is None or asked.verdict is None:
            return None
        left = AFTER_ASKING if asked.asking else asked.ended + asked.verdict.again - time.monotonic()
        return msgspec.structs.replace(asked.verdict, again=max(0.1, left))

    def is_open(self, device: str, vnic: Vnic) -> bool:
        """Is the address being asked for, or was another device found on it?"""
        asked = self._asked.get(_key(device, vnic))
        return asked is not None and (
            asked.asking or (asked.verdict is not None and asked.verdict.taken_by is not None)
        )

    def waited(self, device: str, vnic: Vnic) -> float:
        """Seconds since the probe that goes on began."""
        asked = self._asked.get(_key(device, vnic))
        return 0.0 if asked is None else time.monotonic() - asked.began

    def drop(self, device: str, vnic: Vnic) -> None:
        """The verdict has led to what it was for: next time it takes a new one."""
        with self._lock:
            self._asked.pop(_key(device, vnic), None)

    def forget(self, device: str) -> None:
        """The device is gone."""
        with self._lock:
            self._asked = {key: asked for key, asked in self._asked.items() if key[0] != device}

    def _serve(self) -> None:
        while True:
            device, vnic = self._waiting.get()
            verdict = self._probe(vnic)
            with self._lock:
                before = self._asked.get(_key(device, vnic))
                if before is None:
                    continue
                failures = before.failures + 1 if verdict.taken_by or verdict.problem else 0
                verdict = msgspec.structs.replace(verdict, again=_pause(verdict, before.failures))
                self._asked[_key(device, vnic)] = msgspec.structs.replace(
                    before, asking=False, verdict=verdict, ended=time.monotonic(), failures=failures
                )
            if verdict.taken_by:
                log.warning("%s: %s of %s is used by %s", device, vnic.ip_address, vnic.name, verdict.taken_by)
            self._enqueue(device, False)

    def _probe(self, vnic: Vnic) -> Verdict:
        request = ProbeAddress(
            parent_interface=vnic.parent_interface,
            ip_address=vnic.ip_address or "",
            mac_address=vnic.mac_address or random_mac(),
        )
        try:
            return Verdict(taken_by=self._ask(request).taken_by)
        except CallFailed as problem:
            return Verdict(problem=problem.message)


def _counts_for(asked: _Asked) -> float:
    return asked.verdict.again if asked.verdict else 0.0


def _pause(verdict: Verdict, failures: int) -> float:
    if verdict.taken_by:
        return doubling(failures, base=CONFLICT_BASE, cap=CONFLICT_CAP)
    return doubling(failures, base=PROBLEM_BASE, cap=PROBLEM_CAP) if verdict.problem else GOOD_FOR


def _key(device: str, vnic: Vnic) -> Key:
    return device, vnic.name, vnic.parent_interface, vnic.ip_address or ""
