"""The lines of `netmon.sock`, in the exact shapes of the seed document ("Network Monitor Sidecar", "Event Types").

The seed knows interfaces that are up and have an IPv4 address, and changes of them. What it has no words for is said
with the ones it has: an interface that is gone, or goes by another name now, is DOWN and without addresses.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from bus.messages.netmon import Interface
from services.netmon.interfaces import Changes, is_active


def discovery(interfaces: Iterable[Interface], timestamp: str) -> bytes:
    """`network_discovery`: the physical interfaces that are up and have an IPv4 address."""
    listed = [_data(each, timestamp) for each in interfaces if each.physical and is_active(each)]
    return _line("network_discovery", {"interfaces": listed, "timestamp": timestamp})


def changes(what: Changes, timestamp: str) -> Iterator[bytes]:
    """A `network_change` for each interface that is active or was: one that lost its address or its cable is told
    with what is left."""
    for gone in what.removed:
        if is_active(gone):
            yield _change(_absent(gone), timestamp)
    for before, now in what.changed:
        if before.name != now.name and is_active(before):
            yield _change(_absent(before), timestamp)
        if is_active(now) or is_active(before):
            yield _change(now, timestamp)
    for new in what.added:
        if is_active(new):
            yield _change(new, timestamp)


def _absent(interface: Interface) -> Interface:
    return msgspec.structs.replace(interface, operstate="DOWN", ipv4_addresses=(), gateway=None)


def _change(interface: Interface, timestamp: str) -> bytes:
    return _line("network_change", _data(interface, timestamp))


def _data(interface: Interface, timestamp: str) -> dict[str, Any]:
    return {
        "interface": interface.name,
        "index": interface.index,
        "operstate": interface.operstate,
        "ipv4_addresses": interface.ipv4_addresses,
        "gateway": interface.gateway,
        "timestamp": timestamp,
    }


def _line(kind: str, data: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"type": kind, "data": data}) + b"\n"
