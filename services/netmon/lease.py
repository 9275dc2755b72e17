"""One lease as a state machine without sockets and clocks: `advance(holding, event, now) -> (holding, actions)`.

RFC 2131 for a client that is no host: it asks on behalf of a vPLC's vNIC, and its address is used by somebody else's
kernel. From that follow two things the RFC does differently:

- A grant that is good stays good while a new one is being sought. When the network has changed, or netmon was started
  again, the server is asked whether the address is still ours (INIT-REBOOT) and, if it keeps silent, for any address;
  only a refusal, the end of the grant, a rival device or a proved replacement takes the old address away.
- Renewal by broadcast (after T2) has by turns the form of INIT-REBOOT and that of the RFC. A server answers the latter
  to the address itself, which it cannot find while the vPLC is stopped; INIT-REBOOT it answers to everybody.

`now` is seconds of a clock that runs through suspension; wall time is only carried along as data.
"""

from msgspec.structs import replace

from services.netmon import arp, asking
from services.netmon.asking import Chance
from services.netmon.dhcp_message import Kind, Reply
from services.netmon.grant import Grant, granted, unusable
from services.netmon.holding import Event, Heard, Holding, LinkSeen, Probe, Rival, Step, Tick, Wish

PAUSE = 10.0  # RFC 2131, 3.1: after a declined address the client waits at least ten seconds
# Seconds after a server has refused what it offered. dnsmasq does so when it had offered one address to two who asked
# at the same time, as the vPLCs of a host do; once is no reason to wait, but a loop has to be slow.
PAUSES_AFTER_REFUSAL = (0.2, 1.0, 4.0, PAUSE)


def advance(holding: Holding, event: Event, now: float, chance: Chance) -> Step:
    """What becomes of the lease, and what is to be done for that."""
    match event:
        case Tick():
            return _tick(holding, now, chance)
        case LinkSeen():
            return _link_seen(holding, event, now, chance)
        case Heard():
            return _heard(holding, event, now, chance)
        case Rival():
            return _declined(holding, event.mac_address, now)


def hold(wish: Wish, grant: Grant | None = None, wanted: str | None = None) -> Holding:
    """The beginning, before anything is known of the parent interface; with what an earlier life held, if any."""
    wanted = grant.ip_address if grant else wanted
    reason = "" if grant else f"waiting to see the interface {wish.parent_interface}"
    return Holding(wish=wish, grant=grant, wanted=wanted, reason=reason)


def with_wish(holding: Holding, wish: Wish) -> Holding:
    """The same lease, perhaps under another hostname from the next message on."""
    return replace(holding, wish=wish)


def unsent(holding: Holding, problem: str) -> Holding:
    """The last message did not get out; it is repeated in its time, as one that was lost on the way."""
    return replace(holding, heard=True, reason=problem)


def wakes_at(holding: Holding) -> float | None:
    """When `Tick` has something to do; None for never."""
    moments = (holding.due, holding.grant.ends() if holding.grant else None)
    return min((moment for moment in moments if moment is not None), default=None)


# ---- the parent interface


def _link_seen(holding: Holding, seen: LinkSeen, now: float, chance: Chance) -> Step:
    if seen.link == "up":
        if holding.link == "up" and not seen.changed:
            return holding, ()
        return _begin(replace(holding, link="up", conflict_mac=None, reason=""), now, chance)
    if seen.link == holding.link:
        return holding, ()
    parent = holding.wish.parent_interface
    reason = f"there is no interface {parent}" if seen.link == "gone" else f"{parent} is down or has no carrier"
    return replace(holding, link=seen.link, phase="away", due=None, candidate=None, reason=reason), ()


def _begin(holding: Holding, now: float, chance: Chance) -> Step:
    if holding.grant or holding.wanted:
        return asking.confirm(holding, now, chance)
    return asking.discover(holding, now, chance)


# ---- time


def _tick(holding: Holding, now: float, chance: Chance) -> Step:
    over = holding.grant.ends() if holding.grant else None
    if holding.grant and over is not None and now >= over:
        reason = f"the lease of {holding.grant.ip_address} has ended and no DHCP server has renewed it"
        holding = replace(holding, grant=None, wanted=holding.grant.ip_address, reason=reason)
        if holding.phase in ("bound", "renewing", "rebinding"):
            return asking.discover(holding, now, chance)
    if holding.due is None or now < holding.due:
        return holding, ()
    match holding.phase:
        case "discovering":
            return asking.discover(_unanswered(holding), now, chance, holding.attempt + 1)
        case "requesting" if holding.attempt + 1 < asking.REQUESTS:
            return asking.request(holding, now, chance, holding.attempt + 1)
        case "confirming" if holding.attempt + 1 < asking.CONFIRMATIONS:
            return asking.confirm(holding, now, chance, holding.attempt + 1)
        case "requesting" | "confirming":
            return asking.discover(_unanswered(holding), now, chance)
        case "probing" if holding.candidate and holding.attempt + 1 < arp.PROBES:
            return _probe(holding, holding.candidate, now, holding.attempt + 1)
        case "probing" if holding.candidate:
            return _bind(holding, holding.candidate), ()
        case "bound" | "renewing" | "rebinding" if holding.grant:
            return asking.renew(holding, holding.grant, now, chance)
        case _:
            return asking.discover(holding, now, chance)


def _unanswered(holding: Holding) -> Holding:
    parent = holding.wish.parent_interface
    if holding.conflict_mac or holding.heard:
        return holding  # the reason says more
    return replace(holding, reason=f"no DHCP server answers on {parent}; it is asked again and again")


# ---- answers


def _heard(holding: Holding, heard: Heard, now: float, chance: Chance) -> Step:
    reply = heard.reply
    if reply.xid != holding.xid or reply.mac_address != holding.wish.mac_address:
        return holding, ()
    expecting_answer = holding.phase in ("requesting", "confirming", "renewing", "rebinding")
    match reply.kind:
        case Kind.OFFER if holding.phase == "discovering":
            problem = unusable(reply)
            if problem:
                return replace(holding, heard=True, reason=problem), ()
            return asking.request(replace(holding, wanted=reply.address, server=reply.server), now, chance)
        case Kind.ACK if expecting_answer:
            problem = unusable(reply)
            if problem:
                return replace(holding, heard=True, reason=problem), ()
            return _granted(holding, heard, now)
        case Kind.NAK if expecting_answer and not _from_another(holding, reply):
            return _refused(holding, reply, now, chance)
        case _:
            return holding, ()


def _from_another(holding: Holding, reply: Reply) -> bool:
    """A refusal by a server that was not asked: it speaks for its own leases only."""
    asked = holding.server if holding.phase == "requesting" else None
    if holding.phase == "renewing" and holding.grant:
        asked = holding.grant.server
    return asked is not None and reply.server is not None and asked != reply.server


def _granted(holding: Holding, heard: Heard, now: float) -> Step:
    candidate = granted(heard.reply, heard.source_mac, holding.sent, heard.at - (now - holding.sent))
    renewed = holding.phase in ("renewing", "rebinding")
    if renewed and holding.grant and _place(candidate) == _place(holding.grant):
        return _bind(holding, candidate), ()
    if holding.grant is None and holding.conflict_mac is None:
        holding = replace(holding, reason=f"asking the LAN whether another device has {candidate.ip_address}")
    return _probe(holding, candidate, now, 0)


def _place(grant: Grant) -> tuple[str, int]:
    return grant.ip_address, grant.prefixlen


def _probe(holding: Holding, candidate: Grant, now: float, attempt: int) -> Step:
    probing = replace(holding, phase="probing", candidate=candidate, attempt=attempt, due=now + arp.INTERVAL)
    return probing, (Probe(ip_address=candidate.ip_address, first=attempt == 0),)


def _bind(holding: Holding, grant: Grant) -> Holding:
    due = None if grant.renew_after is None else grant.obtained + grant.renew_after
    bound = replace(holding, phase="bound", grant=grant, candidate=None, wanted=grant.ip_address, due=due)
    return replace(bound, conflict_mac=None, reason="", attempt=0, refusals=0)


def _refused(holding: Holding, reply: Reply, now: float, chance: Chance) -> Step:
    said = f": {reply.text}" if reply.text else ""
    reason = f"the DHCP server {reply.server or '(without a name)'} refused {_asked(holding)}{said}"
    phase = holding.phase
    holding = replace(holding, grant=None, wanted=None, reason=reason)
    if phase == "requesting":
        pause = PAUSES_AFTER_REFUSAL[min(holding.refusals, len(PAUSES_AFTER_REFUSAL) - 1)]
        return replace(holding, phase="pausing", refusals=holding.refusals + 1, due=now + pause), ()
    return asking.discover(holding, now, chance)


def _asked(holding: Holding) -> str:
    return holding.wanted or (holding.grant.ip_address if holding.grant else "the address")


def _declined(holding: Holding, rival: str, now: float) -> Step:
    candidate = holding.candidate
    if holding.phase != "probing" or candidate is None:
        return holding, ()
    decline = asking.ask(holding, now, kind=Kind.DECLINE, requested=candidate.ip_address, server=candidate.server)
    reason = f"{candidate.ip_address} is used by another device, {rival}; the DHCP server is asked for another one"
    declined = replace(holding, phase="pausing", due=now + PAUSE, grant=None, candidate=None, wanted=None)
    return replace(declined, conflict_mac=rival, reason=reason), (decline,)
