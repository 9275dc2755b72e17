"""A lease on the way: for whom it is held, where it stands, what can happen to it and what is then to be done."""

from typing import Literal

import msgspec

from services.netmon.dhcp_message import Query, Reply
from services.netmon.grant import Grant

Phase = Literal[
    "away", "discovering", "requesting", "confirming", "probing", "pausing", "bound", "renewing", "rebinding"
]
Link = Literal["unknown", "gone", "down", "up"]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a lease is held. `key`: "plc1/eth0"."""

    key: str
    parent_interface: str
    mac_address: str
    hostname: str


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Where one lease stands. `grant` may be used; `candidate` was given and is being probed; `wanted` is the address
    to ask for; `due`: when the phase goes on by itself; `began`: when this round of asking did;
    `attempt` counts repetitions, `refusals` the offers that were taken back;
    `heard`: what was sent last has been answered, but not so that it helps."""

    wish: Wish
    phase: Phase = "away"
    link: Link = "unknown"
    due: float | None = None
    grant: Grant | None = None
    candidate: Grant | None = None
    wanted: str | None = None
    server: str | None = None
    xid: int = 0
    attempt: int = 0
    refusals: int = 0
    heard: bool = False
    began: float = 0.0
    sent: float = 0.0
    conflict_mac: str | None = None
    reason: str = ""


# ---- what happens to a lease


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


class LinkSeen(msgspec.Struct, frozen=True, kw_only=True):
    """How the parent interface is; `changed`: it may lead to another network than before."""

    link: Link
    changed: bool = False


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A server's message with our xid and MAC; `at`: unix seconds."""

    reply: Reply
    source_mac: str
    at: float


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """Another device has the address that is being probed."""

    mac_address: str


Event = Tick | LinkSeen | Heard | Rival

# ---- what is to be done


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """Send `query` to everybody, or to the server of `to`, from the address it granted."""

    query: Query
    to: Grant | None = None


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Ask once by ARP who has the address; `first`: it was not asked before."""

    ip_address: str
    first: bool


Action = Send | Probe
Step = tuple[Holding, tuple[Action, ...]]
