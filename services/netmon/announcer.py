"""What has become known, and telling the house and the clients of `netmon.sock` what is new."""

from collections.abc import Callable
from datetime import UTC, datetime

from bus.messages.base import Event
from bus.messages.netmon import Interface, InterfaceAdded, InterfaceChanged, InterfaceRemoved, NetworkDiscovered
from services.netmon import seed_lines
from services.netmon.interfaces import Changes, diff


class Announcer:
    """Keeps the present state. `publish` sends an event to the bus, `send` a line to the clients of the socket.

    Written by the watcher's thread; read from any thread, as one reference to records that do not change.
    """

    def __init__(self, publish: Callable[[Event], None], send: Callable[[bytes], None]) -> None:
        self.interfaces: tuple[Interface, ...] | None = None
        self._publish, self._send = publish, send

    def tell(self, now: tuple[Interface, ...]) -> None:
        """Take over a new state; the first one and every change of a physical interface are told.

        The state goes out before its changes: who reacts to a change has the whole picture already.
        """
        before, self.interfaces = self.interfaces, now
        changes = diff(before or (), now)
        if before is not None and not changes:
            return
        moment = timestamp()
        physical = tuple(interface for interface in now if interface.physical)
        self._publish(NetworkDiscovered(interfaces=physical, timestamp=moment))
        if before is None:
            self._send(seed_lines.discovery(physical, moment))
            return
        for event in _events(changes, moment):
            self._publish(event)
        for line in seed_lines.changes(changes, moment):
            self._send(line)

    def greeting(self) -> bytes | None:
        """The first line for a new client; None before the first dump, which will be sent to all."""
        return None if self.interfaces is None else seed_lines.discovery(self.interfaces, timestamp())


def timestamp() -> str:
    """Now in UTC, in the seed document's form: ISO 8601 with microseconds and without a zone."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _events(changes: Changes, moment: str) -> list[Event]:
    return [
        *(InterfaceRemoved(interface=gone, timestamp=moment) for gone in changes.removed),
        *(InterfaceChanged(interface=now, before=before, timestamp=moment) for before, now in changes.changed),
        *(InterfaceAdded(interface=new, timestamp=moment) for new in changes.added),
    ]
