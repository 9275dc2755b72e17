"""The requests about leases and addresses: what is asked is checked here, and done by `Leases`."""

from ipaddress import AddressValueError, IPv4Address
from typing import Protocol

from bus.errors import CommandError
from bus.messages import netmon as messages
from common.contracts.vnic import INTERFACE_NAME, MAC_ADDRESS
from services.netmon.holding import Wish
from services.netmon.leases import Leases

_LONGEST_KEY = 128


class Context(Protocol):
    """Where the leases are kept."""

    @property
    def leases(self) -> Leases: ...


def hold_lease(context: Context, request: messages.HoldLease) -> messages.Lease:
    """Raises `CommandError`: invalid for what cannot be meant, conflict for a MAC address that is held already."""
    if not 0 < len(request.key) <= _LONGEST_KEY or not request.key.isprintable():
        raise CommandError("invalid", f"$.key: expected 1-{_LONGEST_KEY} printable characters, got {request.key!r}")
    wish = Wish(
        key=request.key,
        parent_interface=_interface(request.parent_interface),
        mac_address=_mac(request.mac_address),
        hostname=hostname(request.hostname),
    )
    return context.leases.hold(wish)


def release_lease(context: Context, request: messages.ReleaseLease) -> messages.Released:
    """Never a "no": what is not held needs no release."""
    return messages.Released(key=request.key, ip_address=context.leases.release(request.key))


def list_leases(context: Context, _request: messages.ListLeases) -> messages.Leases:
    """Everything."""
    return messages.Leases(leases=context.leases.all())


def probe_address(context: Context, request: messages.ProbeAddress) -> messages.ProbeResult:
    """Raises `CommandError`: invalid, or unavailable when nothing can be asked on that interface."""
    parent, mac = _interface(request.parent_interface), _mac(request.mac_address)
    try:
        address = str(IPv4Address(request.ip_address))
    except AddressValueError:
        raise CommandError("invalid", f"$.ip_address: expected an IPv4 address, got {request.ip_address!r}") from None
    taken_by = context.leases.probe(parent, address, mac)
    return messages.ProbeResult(parent_interface=parent, ip_address=address, taken_by=taken_by)


def hostname(name: str) -> str:
    """The name as a DHCP server takes it: letters, digits and hyphens, at most 63 (RFC 1123)."""
    letters = (letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
    return "".join(letters).strip("-")[:63].rstrip("-")


def _interface(name: str) -> str:
    if not INTERFACE_NAME.fullmatch(name) or name in (".", ".."):
        raise CommandError("invalid", f"$.parent_interface: expected an interface name, got {name!r}")
    return name


def _mac(text: str) -> str:
    mac = text.lower()
    if not MAC_ADDRESS.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise CommandError("invalid", f"$.mac_address: expected a device's address like 02:42:..., got {text!r}")
    return mac
