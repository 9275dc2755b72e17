"""The life of a lease, told to the state machine event by event; the clock is a number here."""

import random
from dataclasses import dataclass, field

import pytest

from services.netmon import arp, asking, lease, lease_view
from services.netmon.dhcp_message import Kind, Query, Reply
from services.netmon.grant import unusable
from services.netmon.holding import Event, Heard, Holding, Link, LinkSeen, Probe, Rival, Send, Tick, Wish

MAC, OTHER_MAC, SERVER_MAC = "02:00:00:00:00:01", "72:fc:00:00:00:99", "aa:00:00:00:00:01"
WISH = Wish(key="plc1/eth0", parent_interface="ens37", mac_address=MAC, hostname="plc1")
SERVER, ADDRESS = "192.168.10.1", "192.168.10.100"
WALL = 1_700_000_000.0


@dataclass
class Life:
    """A lease and its surroundings."""

    holding: Holding = field(default_factory=lambda: lease.hold(WISH))
    now: float = 1000.0
    sent: list[Query] = field(default_factory=list)
    unicast: list[Query] = field(default_factory=list)
    probes: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def happens(self, event: Event) -> "Life":
        self.holding, actions = lease.advance(self.holding, event, self.now, self.chance)
        for action in actions:
            if isinstance(action, Probe):
                self.probes += 1
            elif isinstance(action, Send):
                self.sent.append(action.query)
                if action.to is not None:
                    assert (action.to.server, action.to.server_mac) == (SERVER, SERVER_MAC)
                    self.unicast.append(action.query)
        return self

    def link(self, link: Link, changed: bool = False) -> "Life":
        return self.happens(LinkSeen(link=link, changed=changed))

    def hears(self, kind: Kind, address: str = ADDRESS, server: str = SERVER, **more: object) -> "Life":
        terms: dict[str, object] = {"prefixlen": 24, "lease_time": 120, "routers": (server,)}
        terms |= {"xid": self.holding.xid, "mac_address": MAC, "address": address, "server": server}
        reply = Reply(kind=kind, **(terms | more))  # type: ignore[arg-type]
        return self.happens(Heard(reply=reply, source_mac=SERVER_MAC, at=WALL + self.now))

    def sleeps(self) -> float:
        """Until the lease has something to do; how long that was."""
        moment = lease.wakes_at(self.holding)
        assert moment is not None
        before, self.now = self.now, max(moment, self.now)
        self.happens(Tick())
        return self.now - before

    def sleeps_until(self, phase: str) -> "Life":
        for _ in range(100):
            if self.holding.phase == phase:
                return self
            self.sleeps()
        raise AssertionError(f"never {phase}, but {self.holding}")

    @property
    def state(self) -> str:
        return lease_view.view(self.holding).state

    @property
    def last(self) -> Query:
        return self.sent[-1]


def bound(**terms: object) -> Life:
    life = Life().link("up").hears(Kind.OFFER, **terms).hears(Kind.ACK, **terms)  # type: ignore[arg-type]
    return life.sleeps_until("bound")


# ---- taking a lease


def test_nothing_is_asked_before_the_parent_is_known() -> None:
    life = Life()
    assert (life.sent, life.state, life.holding.reason) == (
        [],
        "waiting_for_lease",
        "waiting to see the interface ens37",
    )


def test_discover_offer_request_acknowledgement_three_probes_bound() -> None:
    life = Life().link("up")
    assert (life.last.kind, life.last.broadcast, life.last.hostname) == (Kind.DISCOVER, True, "plc1")
    life.hears(Kind.OFFER)
    assert (life.last.kind, life.last.requested, life.last.server) == (Kind.REQUEST, ADDRESS, SERVER)
    life.hears(Kind.ACK)
    assert (life.state, life.probes, life.holding.grant) == ("probing", 1, None)
    started = life.now
    life.sleeps_until("bound")
    assert (life.state, life.probes, len(life.sent)) == ("bound", arp.PROBES, 2)
    assert life.now - started == pytest.approx(arp.PROBES * arp.INTERVAL)
    view = lease_view.view(life.holding)
    assert (view.ip_address, view.subnet, view.gateway, view.reason) == (ADDRESS, "192.168.10.0/24", SERVER, "")
    assert view.obtained_at is not None
    assert (view.renew_at, view.expires_at) == (view.obtained_at + 60, view.obtained_at + 120)


def test_a_silent_server_is_asked_again_after_4_8_16_32_64_64_seconds_more_or_less_one() -> None:
    life = Life().link("up")
    for expected in (4, 8, 16, 32, 64, 64):
        assert abs(life.sleeps() - expected) <= 1
        assert life.last.kind == Kind.DISCOVER
        assert life.state == "waiting_for_lease"
        assert life.holding.reason == "no DHCP server answers on ens37; it is asked again and again"
    assert life.last.secs == int(life.now - 1000)
    life.hears(Kind.OFFER).hears(Kind.ACK).sleeps_until("bound")
    assert life.holding.reason == ""


def test_a_server_that_offers_and_then_is_silent_is_asked_from_the_beginning() -> None:
    life = Life().link("up").hears(Kind.OFFER)
    for _ in range(asking.REQUESTS):
        life.sleeps()
    assert [query.kind for query in life.sent] == [Kind.DISCOVER, *[Kind.REQUEST] * asking.REQUESTS, Kind.DISCOVER]


def test_what_is_meant_for_others_is_left_aside() -> None:
    life = Life().link("up")
    life.hears(Kind.OFFER, xid=life.holding.xid ^ 1).hears(Kind.OFFER, mac_address=OTHER_MAC).hears(Kind.ACK)
    assert (life.holding.phase, len(life.sent)) == ("discovering", 1)


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ({"address": "169.254.7.7"}, "no address for a device on a LAN"),
        ({"address": "0.0.0.0"}, "no address for a device on a LAN"),
        ({"address": "224.0.0.5"}, "no address for a device on a LAN"),
        ({"address": "192.168.10.255"}, "no device's address"),
        ({"prefixlen": None}, "without a netmask"),
        ({"lease_time": None}, "without saying for how long"),
        ({"lease_time": 0}, "without saying for how long"),
    ],
)
def test_an_unusable_offer_is_never_taken_and_told(terms: dict[str, object], why: str) -> None:
    life = Life().link("up").hears(Kind.OFFER, **terms)  # type: ignore[arg-type]
    assert life.holding.phase == "discovering"
    assert why in life.holding.reason
    assert SERVER in life.holding.reason
    life.sleeps()
    assert why in life.holding.reason, "it is told until the server is silent"
    life.sleeps()
    assert life.holding.reason == "no DHCP server answers on ens37; it is asked again and again"


def test_an_offer_without_a_server_is_never_taken() -> None:
    reply = Reply(kind=Kind.OFFER, xid=1, mac_address=MAC, address=ADDRESS, prefixlen=24, lease_time=1)
    assert unusable(reply) == "the DHCP server (without a name) does not say which one it is"


def test_what_cannot_be_sent_is_told_as_such_and_not_as_a_silent_server() -> None:
    life = Life().link("up")
    life.holding = lease.unsent(life.holding, "nothing can be sent on ens37: Network is down")
    life.sleeps()
    assert life.holding.reason == "nothing can be sent on ens37: Network is down"
    life.sleeps()
    assert "no DHCP server answers" in life.holding.reason


# ---- conflicts


def test_an_address_that_another_device_has_is_declined_and_another_one_asked_for_after_ten_seconds() -> None:
    life = Life().link("up").hears(Kind.OFFER).hears(Kind.ACK).happens(Rival(mac_address=OTHER_MAC))
    assert (life.last.kind, life.last.requested, life.last.server) == (Kind.DECLINE, ADDRESS, SERVER)
    view = lease_view.view(life.holding)
    assert (view.state, view.conflict_mac, view.ip_address) == ("conflict", OTHER_MAC, None)
    assert ADDRESS in view.reason
    assert OTHER_MAC in view.reason
    assert life.sleeps() == pytest.approx(10)
    assert (life.last.kind, life.last.requested, life.state) == (Kind.DISCOVER, None, "conflict")
    life.hears(Kind.OFFER, "192.168.10.101").hears(Kind.ACK, "192.168.10.101").sleeps_until("bound")
    view = lease_view.view(life.holding)
    assert (view.state, view.conflict_mac, view.reason) == ("bound", None, "")


def test_a_rival_after_the_probe_changes_nothing() -> None:
    life = bound()
    before = life.holding
    assert life.happens(Rival(mac_address=OTHER_MAC)).holding == before


# ---- renewal


def test_renewal_asks_the_server_alone_at_t1_and_changes_only_the_times() -> None:
    life = bound()
    before = lease_view.view(life.holding)
    assert life.sleeps() == pytest.approx(60, abs=1)
    assert (life.unicast, life.last.own) == ([life.last], ADDRESS)
    assert (life.last.requested, life.last.server, life.last.broadcast) == (None, None, False)
    assert lease_view.view(life.holding) == before, "asking is nobody's business"
    life.hears(Kind.ACK)
    after = lease_view.view(life.holding)
    assert before.expires_at is not None
    assert after.expires_at == pytest.approx(before.expires_at + 60, abs=0.01)
    assert (after.state, after.ip_address, life.probes) == ("bound", ADDRESS, arp.PROBES)


def test_the_times_of_the_server_are_kept_when_they_make_sense() -> None:
    view = lease_view.view(bound(renew_time=10, rebind_time=90).holding)
    assert view.obtained_at is not None
    assert (view.renew_at, view.rebind_at) == (view.obtained_at + 10, view.obtained_at + 90)
    view = lease_view.view(bound(renew_time=110, rebind_time=200).holding)
    assert view.obtained_at is not None
    assert (view.renew_at, view.rebind_at) == (view.obtained_at + 60, view.obtained_at + 105)


def test_a_lease_is_counted_from_when_it_was_asked_for() -> None:
    life = Life().link("up").hears(Kind.OFFER)
    asked = life.now
    life.now += 1.5
    life.hears(Kind.ACK).sleeps_until("bound")
    assert life.holding.grant is not None
    assert (life.holding.grant.obtained, life.holding.grant.obtained_at) == (asked, WALL + asked)


def test_from_t2_on_everybody_is_asked_and_the_address_is_held_until_it_ends() -> None:
    life = bound()
    start = life.holding.grant.obtained if life.holding.grant else 0.0
    life.sleeps_until("rebinding")
    assert life.now == pytest.approx(start + 105)
    assert len(life.unicast) >= 2
    assert (life.state, life.holding.reason) == ("bound", "")
    asked_as_newcomer = life.last
    life.sleeps()
    asked_as_owner = life.last
    assert (asked_as_newcomer.own, asked_as_newcomer.requested) == (None, ADDRESS), "this is answered to everybody"
    assert (asked_as_owner.own, asked_as_owner.broadcast) == (ADDRESS, True)
    assert (life.state, "does not answer" in life.holding.reason) == ("bound", True)
    life.sleeps_until("discovering")
    assert life.now == pytest.approx(start + 120)
    view = lease_view.view(life.holding)
    assert (view.state, view.ip_address) == ("waiting_for_lease", None)
    assert view.reason == f"the lease of {ADDRESS} has ended and no DHCP server has renewed it"
    assert life.last.requested == ADDRESS, "the old address is asked for"


def test_an_answer_after_t2_renews() -> None:
    life = bound().sleeps_until("rebinding").hears(Kind.ACK, server="192.168.10.2")
    view = lease_view.view(life.holding)
    assert (life.holding.phase, view.server, view.reason) == ("bound", "192.168.10.2", "")


def test_a_renewal_to_another_address_is_probed_first() -> None:
    life = bound().sleeps_until("renewing").hears(Kind.ACK, "192.168.10.150")
    assert (life.holding.phase, lease_view.view(life.holding).ip_address) == ("probing", ADDRESS)
    life.sleeps_until("bound")
    assert lease_view.view(life.holding).ip_address == "192.168.10.150"


def test_a_refused_renewal_takes_the_address_away_and_starts_anew() -> None:
    life = bound().sleeps_until("renewing").hears(Kind.NAK, text="lease not found")
    view = lease_view.view(life.holding)
    assert (view.state, view.ip_address, life.last.kind) == ("waiting_for_lease", None, Kind.DISCOVER)
    assert view.reason == f"the DHCP server {SERVER} refused {ADDRESS}: lease not found"
    assert life.last.requested is None


def test_a_stranger_cannot_refuse_what_another_server_granted() -> None:
    life = bound().sleeps_until("renewing").hears(Kind.NAK, server="192.168.10.66")
    assert (life.holding.phase, life.state) == ("renewing", "bound")


def test_a_server_that_takes_its_offers_back_is_asked_again_soon_and_then_slowly() -> None:
    life = Life().link("up")
    pauses = []
    for _ in range(5):
        life.hears(Kind.OFFER).hears(Kind.NAK)
        pauses.append(round(life.sleeps(), 3))
        assert life.last.kind == Kind.DISCOVER
    assert pauses == [0.2, 1, 4, 10, 10]


def test_a_lease_without_end_is_never_renewed() -> None:
    life = bound(lease_time=None, endless=True)
    assert lease.wakes_at(life.holding) is None
    assert lease_view.view(life.holding).expires_at is None


# ---- the network


def test_an_adopted_lease_is_confirmed_and_good_all_the_while() -> None:
    grant = bound().holding.grant
    life = Life(holding=lease.hold(WISH, grant=grant))
    assert life.state == "bound"
    life.link("up")
    assert (life.last.kind, life.last.requested, life.last.server, life.last.own) == (Kind.REQUEST, ADDRESS, None, None)
    life.hears(Kind.ACK)
    assert (life.state, life.probes) == ("bound", 1)
    assert life.sleeps_until("bound").state == "bound"


def test_another_network_that_refuses_gives_a_new_lease() -> None:
    life = bound().link("up", changed=True)
    assert (life.last.requested, life.state) == (ADDRESS, "bound")
    life.hears(Kind.NAK, server="192.168.20.1")
    assert (life.last.kind, life.state) == (Kind.DISCOVER, "waiting_for_lease")
    life.hears(Kind.OFFER, "192.168.20.9", "192.168.20.1").hears(Kind.ACK, "192.168.20.9", "192.168.20.1")
    life.sleeps_until("bound")
    assert lease_view.view(life.holding).subnet == "192.168.20.0/24"


def test_another_network_that_keeps_silent_is_asked_for_any_address_while_the_old_one_stays() -> None:
    life = bound().link("up", changed=True)
    started = life.now
    life.sleeps_until("discovering")
    assert life.now - started == pytest.approx(asking.CONFIRMATIONS * asking.QUICK)
    assert life.state == "bound", "nothing is given up before its replacement is proved"
    life.hears(Kind.OFFER, "192.168.20.9", "192.168.20.1").hears(Kind.ACK, "192.168.20.9", "192.168.20.1")
    assert lease_view.view(life.holding).ip_address == ADDRESS
    life.sleeps_until("bound")
    assert lease_view.view(life.holding).ip_address == "192.168.20.9"


def test_a_rival_on_the_new_network_ends_the_old_address() -> None:
    life = bound().link("up", changed=True).hears(Kind.ACK).happens(Rival(mac_address=OTHER_MAC))
    assert (life.state, life.last.kind) == ("conflict", Kind.DECLINE)


def test_a_pulled_cable_is_told_and_the_lease_kept_until_it_ends() -> None:
    life = bound().link("down")
    assert (life.state, life.holding.reason) == ("bound", "ens37 is down or has no carrier")
    sent = len(life.sent)
    life.sleeps()
    assert (life.state, len(life.sent)) == ("waiting_for_lease", sent), "over, and nobody to ask"
    life.link("up")
    assert (life.last.kind, life.last.requested) == (Kind.REQUEST, ADDRESS)


def test_a_parent_that_is_gone_and_back() -> None:
    life = bound().link("gone")
    assert (life.state, life.holding.reason) == ("no_parent", "there is no interface ens37")
    life.link("up", changed=True)
    assert (life.state, life.last.requested) == ("bound", ADDRESS)


def test_an_unchanged_network_disturbs_nobody() -> None:
    life = bound()
    before, sent = life.holding, len(life.sent)
    life.link("up")
    assert (life.holding, len(life.sent)) == (before, sent)


# ---- the end


def test_release_tells_the_server_alone() -> None:
    life = bound()
    (action,) = asking.farewell(life.holding, life.chance)
    assert isinstance(action, Send)
    query = action.query
    assert (query.kind, query.own, query.server, action.to) == (Kind.RELEASE, ADDRESS, SERVER, life.holding.grant)


def test_what_was_never_granted_needs_no_release() -> None:
    life = Life().link("up")
    assert asking.farewell(life.holding, life.chance) == ()


def test_without_a_link_nobody_is_told() -> None:
    life = bound().link("down")
    assert asking.farewell(life.holding, life.chance) == ()
