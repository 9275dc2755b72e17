"""What counts as a NIC, what the house calls it, and what has changed between two looks."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.messages.netmon import Interface, Ipv4Address
from services.netmon.interfaces import diff, interfaces, is_active
from services.netmon.records import Address, DefaultRoute, Dump, Link

NIC = Link(
    index=2,
    name="ens37",
    mac_address="02:00:00:00:00:01",
    operstate="UP",
    carrier=True,
    ethernet=True,
    kind="",
    has_device=True,
)


def link(**fields: object) -> Link:
    return msgspec.structs.replace(NIC, **fields)


def dump(*links: Link, addresses: tuple[Address, ...] = (), routes: tuple[DefaultRoute, ...] = ()) -> Dump:
    return Dump(links=links, addresses=addresses, routes=routes)


def is_physical(candidate: Link, *patterns: str) -> bool:
    (interface,) = interfaces(dump(candidate), patterns)
    return interface.physical


def test_a_nic_is_physical_whatever_its_name() -> None:
    assert is_physical(link(name="ens37"))
    assert is_physical(link(name="veth0"))


@pytest.mark.parametrize(
    "candidate",
    [
        link(name="docker0", kind="bridge", has_device=False),
        link(name="br-1234", kind="bridge", has_device=False),
        link(name="veth1a2b", kind="veth", has_device=False),
        link(name="ens37.10", kind="vlan"),
        link(name="macvlan0", kind="macvlan"),
        link(name="dummy0", has_device=False),
        link(name="wwan0", ethernet=False),
    ],
    ids=lambda candidate: candidate.name,
)
def test_what_has_no_cable_is_not_physical_unless_it_is_named(candidate: Link) -> None:
    assert not is_physical(candidate)
    assert not is_physical(candidate, "ens3", "other*")
    assert is_physical(candidate, candidate.name[:3] + "*")


def test_the_loopback_is_never_an_interface() -> None:
    assert interfaces(dump(link(name="lo", ethernet=False)), ("*",)) == ()


def test_addresses_go_to_their_interface_in_the_kernels_order() -> None:
    addresses = (
        Address(index=2, address="192.168.1.50", prefixlen=24),
        Address(index=3, address="10.0.0.1", prefixlen=8),
        Address(index=2, address="172.16.5.6", prefixlen=30),
    )
    first, second = interfaces(dump(link(index=2, name="a"), link(index=3, name="b"), addresses=addresses), ())
    assert first.ipv4_addresses == (
        Ipv4Address(address="192.168.1.50", prefixlen=24, subnet="192.168.1.0/24", network_address="192.168.1.0"),
        Ipv4Address(address="172.16.5.6", prefixlen=30, subnet="172.16.5.4/30", network_address="172.16.5.4"),
    )
    assert [each.subnet for each in second.ipv4_addresses] == ["10.0.0.0/8"]


def test_the_gateway_is_that_of_the_default_route_with_the_lowest_metric_through_the_interface() -> None:
    routes = (
        DefaultRoute(index=2, gateway="192.168.1.2", metric=100),
        DefaultRoute(index=2, gateway="192.168.1.1", metric=20),
        DefaultRoute(index=3, gateway="10.0.0.1", metric=0),
    )
    found = interfaces(dump(link(name="a"), link(index=3, name="b"), link(index=4, name="c"), routes=routes), ())
    assert [each.gateway for each in found] == ["192.168.1.1", "10.0.0.1", None]


def nic(**fields: object) -> Interface:
    return msgspec.structs.replace(
        Interface(name="ens37", index=2, mac_address="02:00:00:00:00:01", operstate="UP", carrier=True, physical=True),
        **fields,
    )


@pytest.mark.parametrize(
    ("operstate", "carrier", "active"),
    [("UP", True, True), ("UNKNOWN", True, True), ("UNKNOWN", False, False), ("LOWERLAYERDOWN", False, False)],
)
def test_active_is_up_with_an_address(operstate: str, carrier: bool, active: bool) -> None:
    address = Ipv4Address(address="10.0.0.1", prefixlen=8, subnet="10.0.0.0/8", network_address="10.0.0.0")
    assert is_active(nic(operstate=operstate, carrier=carrier, ipv4_addresses=(address,))) is active
    assert not is_active(nic(operstate=operstate, carrier=carrier))


def test_nothing_new_is_no_change() -> None:
    assert not diff([nic()], [nic()])


@pytest.mark.parametrize(
    "fields", [{"name": "lan0"}, {"mac_address": "02:00:00:00:00:99"}, {"gateway": "10.0.0.1"}, {"carrier": False}]
)
def test_an_interface_that_stays_itself_is_changed(fields: dict[str, object]) -> None:
    changes = diff([nic()], [nic(**fields)])
    assert changes.changed == ((nic(), nic(**fields)),)
    assert not changes.added
    assert not changes.removed


def test_another_nic_under_the_same_index_is_another_nic() -> None:
    other = nic(name="ens38", mac_address="02:00:00:00:00:02")
    changes = diff([nic()], [other])
    assert (changes.removed, changes.changed, changes.added) == ((nic(),), (), (other,))


def test_a_nic_that_came_back_is_removed_and_added() -> None:
    changes = diff([nic()], [nic(index=9)])
    assert (changes.removed, changes.added) == ((nic(),), (nic(index=9),))


def test_virtual_interfaces_change_in_silence() -> None:
    assert not diff([nic(physical=False)], [nic(physical=False, operstate="DOWN"), nic(index=5, physical=False)])


STATES = st.lists(
    st.builds(
        nic,
        index=st.integers(1, 4),
        name=st.sampled_from(["a", "b"]),
        mac_address=st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"]),
        gateway=st.sampled_from([None, "10.0.0.1"]),
        physical=st.booleans(),
    ),
    unique_by=lambda interface: interface.index,
)


@given(STATES, STATES)
def test_the_changes_lead_from_one_state_to_the_other(before: list[Interface], after: list[Interface]) -> None:
    changes = diff(before, after)
    state = {interface.index: interface for interface in before if interface.physical}
    for gone in changes.removed:
        assert state.pop(gone.index) == gone
    for old, new in changes.changed:
        assert state[old.index] == old
        state[new.index] = new
    for new in changes.added:
        assert new.index not in state
        state[new.index] = new
    assert state == {interface.index: interface for interface in after if interface.physical}
