"""`leases.json` in the state directory: what is held, for a netmon that was restarted, killed or came up with its host.

{"schema": 1, "boot_id": "...", "holdings": [{"wish": {...}, "grant": {...} or null, "wanted": "192.168.1.7"}]}

A grant counts by a clock that begins anew with every boot of the host. In the same boot it goes on as it was; after
another one its age is what the wall clock says, and a grant whose age nobody can tell is only an address to ask for.
A lost or damaged file costs little: whoever wants a lease asks again, and its server knows the vNIC's MAC address.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from common.files import make_private_directory, write_atomic
from services.netmon import lease
from services.netmon.grant import Grant
from services.netmon.holding import Holding, Wish

log = logging.getLogger(__name__)

NAME = "leases.json"
SCHEMA = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    wish: Wish
    grant: Grant | None = None
    wanted: str | None = None


Kept = tuple[_Kept, ...]


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    schema: int
    boot_id: str
    holdings: Kept


def boot_id() -> str:
    """The kernel's name for the time since this boot."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def kept(holdings: Iterable[Holding]) -> Kept:
    """What of the holdings goes into the file."""
    return tuple(_Kept(wish=each.wish, grant=each.grant, wanted=each.wanted) for each in holdings)


def encode(kept: Kept, boot: str) -> bytes:
    """The file's bytes."""
    document = _Document(schema=SCHEMA, boot_id=boot, holdings=kept)
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(content: bytes, boot: str, now: float, wall: float) -> list[Holding]:
    """The holdings in the file's bytes. Raises `msgspec.DecodeError` or ValueError when it makes no sense."""
    document = msgspec.json.decode(content, type=_Document)
    if document.schema != SCHEMA:
        raise ValueError(f"schema {document.schema} is not {SCHEMA}: written by another version")
    by_wall = document.boot_id != boot
    return [_holding(kept, now, wall, by_wall) for kept in document.holdings]


def save(path: Path, content: bytes) -> None:
    """Replace the file. Raises OSError."""
    make_private_directory(path.parent)
    write_atomic(path, content)


def load(path: Path, now: float, wall: float) -> list[Holding]:
    """What the file says, nothing when there is none or it cannot be used."""
    try:
        return decode(path.read_bytes(), boot_id(), now, wall)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, msgspec.DecodeError) as problem:
        log.error("%s cannot be used, leases will be asked for anew: %s", path, problem)
        return []


def _holding(kept: _Kept, now: float, wall: float, by_wall: bool) -> Holding:
    grant = kept.grant
    if grant is None:
        return lease.hold(kept.wish, wanted=kept.wanted)
    age = wall - grant.obtained_at if by_wall else now - grant.obtained
    if age < 0 or (grant.lasts is not None and age >= grant.lasts):
        return lease.hold(kept.wish, wanted=grant.ip_address)
    return lease.hold(kept.wish, grant=msgspec.structs.replace(grant, obtained=now - age))
