"""What a lease asks of servers, and how long it waits for an answer: discover, request, confirm, renew, release.

Each function returns the lease as it is after asking, with the moment at which it is tired of waiting.
"""

import random

from msgspec.structs import replace

from services.netmon.dhcp_message import Kind, Query
from services.netmon.grant import Grant
from services.netmon.holding import Action, Holding, Phase, Send, Step

PATIENCE = 4.0  # RFC 2131, 4.1: 4 s until the first repetition, then doubling to 64 s, each one second more or less
LONGEST_PATIENCE = 64.0
FUZZ = 1.0
QUICK = 1.0  # seconds per attempt to get an old address confirmed; a server that knows us answers within milliseconds
CONFIRMATIONS = 2
REQUESTS = 3
LEAST_WAIT = 60.0  # RFC 2131, 4.4.5: between two renewals; less for a lease so short that it would end meanwhile

Chance = random.Random


def discover(holding: Holding, now: float, chance: Chance, attempt: int = 0) -> Step:
    """Is there a server, and what does it offer?"""
    holding = _round(holding, now, chance) if attempt == 0 else holding
    patience = min(LONGEST_PATIENCE, PATIENCE * 2.0 ** min(attempt, 16)) + chance.uniform(-FUZZ, FUZZ)
    reason = holding.reason or ("" if holding.grant else f"asking for a lease on {holding.wish.parent_interface}")
    asking = replace(holding, phase="discovering", attempt=attempt, due=now + patience, sent=now, candidate=None)
    asking = replace(asking, reason=reason, heard=False)
    return asking, (ask(asking, now, kind=Kind.DISCOVER, requested=holding.wanted),)


def request(holding: Holding, now: float, chance: Chance, attempt: int = 0) -> Step:
    """Take the offer of the server that was chosen."""
    patience = PATIENCE / 2 * 2.0**attempt + chance.uniform(-FUZZ, FUZZ) / 2
    asking = replace(holding, phase="requesting", attempt=attempt, due=now + patience, sent=now, heard=False)
    return asking, (ask(asking, now, kind=Kind.REQUEST, requested=holding.wanted, server=holding.server),)


def confirm(holding: Holding, now: float, chance: Chance, attempt: int = 0) -> Step:
    """INIT-REBOOT: is the address I had still mine, on this network?"""
    holding = _round(holding, now, chance) if attempt == 0 else holding
    wanted = holding.grant.ip_address if holding.grant else holding.wanted
    asking = replace(holding, phase="confirming", attempt=attempt, wanted=wanted, due=now + QUICK, sent=now)
    asking = replace(asking, candidate=None, heard=False)
    return asking, (ask(asking, now, kind=Kind.REQUEST, requested=wanted),)


def renew(holding: Holding, grant: Grant, now: float, chance: Chance) -> Step:
    """Ask the server that granted it; from T2 on anybody, in the two forms that the head of `lease.py` tells of."""
    over, rebind = grant.ends(), grant.rebind_after
    if over is None or rebind is None:
        return replace(holding, due=None), ()
    alone = now < grant.obtained + rebind
    phase: Phase = "renewing" if alone else "rebinding"
    attempt = holding.attempt + 1 if holding.phase == phase else 0
    holding = _round(holding, now, chance) if holding.phase == "bound" else holding
    wait = max((grant.obtained + rebind if alone else over) - now, 0.0) / 2
    due = now + max(wait, min(LEAST_WAIT, (grant.lasts or 0.0) / 20))
    if alone:
        due = min(due, grant.obtained + rebind)
    asking = replace(holding, phase=phase, attempt=attempt, due=due, sent=now)
    if alone:
        query = ask(asking, now, kind=Kind.REQUEST, own=grant.ip_address, broadcast=False).query
        return asking, (Send(query=query, to=grant),)
    if attempt % 2 == 0:
        return asking, (ask(asking, now, kind=Kind.REQUEST, requested=grant.ip_address),)
    asking = replace(asking, reason=f"the DHCP server {grant.server} does not answer; every server is asked to renew")
    return asking, (ask(asking, now, kind=Kind.REQUEST, own=grant.ip_address),)


def _round(holding: Holding, now: float, chance: Chance) -> Holding:
    return replace(holding, xid=chance.getrandbits(32), began=now)


def ask(
    holding: Holding,
    now: float,
    *,
    kind: Kind,
    own: str | None = None,
    requested: str | None = None,
    server: str | None = None,
    broadcast: bool = True,
) -> Send:
    """A message of this round to everybody."""
    query = Query(
        kind=kind,
        xid=holding.xid,
        mac_address=holding.wish.mac_address,
        hostname=holding.wish.hostname,
        secs=int(now - holding.began),
        own=own,
        requested=requested,
        server=server,
        broadcast=broadcast,
    )
    return Send(query=query)


def farewell(holding: Holding, chance: Chance) -> tuple[Action, ...]:
    """Give the address back; nobody waits for an answer, there is none."""
    grant = holding.grant or holding.candidate
    if grant is None or holding.link != "up":
        return ()
    query = Query(
        kind=Kind.RELEASE,
        xid=chance.getrandbits(32),
        mac_address=holding.wish.mac_address,
        own=grant.ip_address,
        server=grant.server,
        broadcast=False,
    )
    return (Send(query=query, to=grant),)
