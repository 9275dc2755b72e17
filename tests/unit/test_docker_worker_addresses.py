"""vNICs are resolved against the host, and refused before anything is made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import CommandError
from bus.messages.netmon import Interface, Ipv4Address
from common.contracts.vnic import MAC_ADDRESS, Vnic
from services.docker_worker.addresses import random_mac, resolve


def interface(name: str, *subnets: str, gateway: str | None = None, physical: bool = True) -> Interface:
    addresses = []
    for subnet in subnets:
        network, _, prefixlen = subnet.partition("/")
        host = network.rpartition(".")[0] + ".5"
        addresses.append(Ipv4Address(address=host, prefixlen=int(prefixlen), subnet=subnet, network_address=network))
    return Interface(
        name=name,
        index=2,
        mac_address="52:54:00:00:00:01",
        operstate="UP",
        carrier=True,
        physical=physical,
        ipv4_addresses=tuple(addresses),
        gateway=gateway,
    )


HOST = (
    interface("ens37", "192.168.10.0/24", gateway="192.168.10.1"),
    interface("ens38", "10.0.0.0/24", "10.1.0.0/24", gateway="10.0.0.1"),
    interface("ens39"),
    interface("docker0", "172.17.0.0/16", physical=False),
)


def vnic(address: str, parent: str = "ens37", name: str = "eth0", **fields: str | None) -> Vnic:
    return Vnic(name=name, parent_interface=parent, mode="manual", ip_address=address, **fields)


def dhcp(parent: str = "ens37", name: str = "eth0", **fields: str | None) -> Vnic:
    return Vnic(name=name, parent_interface=parent, mode="dhcp", **fields)


def one(vnic: Vnic, *others: tuple[str, Vnic]) -> Vnic:
    (resolved,) = resolve((vnic,), HOST, others, per_network_mac=False)
    return resolved


def refused(*vnics: Vnic, others: tuple[tuple[str, Vnic], ...] = (), per_network_mac: bool = False) -> CommandError:
    with pytest.raises(CommandError) as problem:
        resolve(vnics, HOST, others, per_network_mac=per_network_mac)
    return problem.value


def test_subnet_and_gateway_come_from_the_parent() -> None:
    resolved = one(vnic("192.168.10.60"))
    assert (resolved.subnet, resolved.gateway) == ("192.168.10.0/24", "192.168.10.1")


def test_the_parents_fitting_subnet_is_taken_and_its_gateway_only_there() -> None:
    resolved = one(vnic("10.1.0.60", "ens38"))
    assert (resolved.subnet, resolved.gateway) == ("10.1.0.0/24", None)


def test_what_is_given_is_kept() -> None:
    resolved = one(vnic("10.9.0.60", subnet="10.9.0.0/24", gateway="10.9.0.1", mac_address="06:00:00:00:00:01"))
    assert (resolved.subnet, resolved.gateway, resolved.mac_address) == ("10.9.0.0/24", "10.9.0.1", "06:00:00:00:00:01")


def test_another_subnet_than_the_parents_has_no_gateway_unless_given() -> None:
    assert one(vnic("10.9.0.60", subnet="10.9.0.0/24")).gateway is None


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        (vnic("192.168.10.60", "eth9"), "invalid", "$.vnic_configs[0].parent_interface: expected a physical interface"),
        (vnic("172.17.0.60", "docker0"), "invalid", "(ens37, ens38, ens39)"),
        (vnic("10.9.0.60"), "invalid", "$.vnic_configs[0].ip_address: expected an address in the network of ens37"),
        (vnic("10.9.0.60", "ens39"), "invalid", "$.vnic_configs[0].subnet"),
        (vnic("192.168.10.5"), "conflict", "this host's own"),
        (vnic("192.168.10.1"), "conflict", "the gateway's"),
        (vnic("192.168.10.255"), "invalid", "the network's"),
        (vnic("192.168.10.60", gateway="10.0.0.1"), "invalid", "$.vnic_configs[0].gateway"),
        (dhcp("eth9"), "invalid", "$.vnic_configs[0].parent_interface: expected a physical interface"),
    ],
)
def test_what_cannot_work_is_refused_with_the_field(wrong: Vnic, code: str, words: str) -> None:
    problem = refused(wrong)
    assert problem.code == code
    assert words in problem.message


def test_another_devices_address_or_mac_is_a_conflict() -> None:
    other = ("plc-002", one(vnic("192.168.10.60", mac_address="06:00:00:00:00:01")))
    assert "plc-002" in refused(vnic("192.168.10.60"), others=(other,)).message
    assert "plc-002" in refused(vnic("192.168.10.61", mac_address="06:00:00:00:00:01"), others=(other,)).message


def test_two_vnics_cannot_share_a_network() -> None:
    assert refused(vnic("192.168.10.60"), vnic("192.168.10.61", name="eth1")).code == "invalid"


TWO = (vnic("192.168.10.60"), vnic("10.0.0.60", "ens38", "eth1"))
TWO_WITH_MACS = (
    vnic("192.168.10.60", mac_address="06:00:00:00:00:01"),
    vnic("10.0.0.60", "ens38", "eth1", mac_address="06:00:00:00:00:02"),
)


def test_a_dhcp_vnic_gets_a_mac_of_its_own_and_leaves_all_else_to_the_lease() -> None:
    first, second = resolve(
        (dhcp(), dhcp("ens38", "eth1", subnet="10.0.0.0/24")), HOST, (("plc-002", one(dhcp())),), per_network_mac=False
    )
    assert (second.ip_address, second.subnet, second.gateway) == (None, None, None)
    macs = {first.mac_address, second.mac_address}
    assert len(macs) == 2
    assert all(MAC_ADDRESS.fullmatch(mac or "") for mac in macs)
    assert one(dhcp(mac_address="06:00:00:00:00:01")).mac_address == "06:00:00:00:00:01"


@pytest.mark.parametrize("pair", [(dhcp(), dhcp(name="eth1")), (dhcp(), vnic("192.168.10.60", name="eth1"))])
def test_beside_a_dhcp_vnic_there_is_no_other_on_its_parent(pair: tuple[Vnic, Vnic]) -> None:
    for vnics in (pair, pair[::-1]):
        problem = refused(*vnics)
        assert (problem.code, "$.vnic_configs[1].parent_interface" in problem.message) == ("invalid", True)


def test_on_an_old_engine_the_first_vnic_has_a_mac() -> None:
    first, second = resolve(TWO, HOST, (), per_network_mac=False)
    assert first.mac_address is not None
    assert second.mac_address is None


def test_on_an_old_engine_it_is_the_one_that_asks_for_it() -> None:
    first, second = resolve((TWO[0], TWO_WITH_MACS[1]), HOST, (), per_network_mac=False)
    assert (first.mac_address, second.mac_address) == (None, "06:00:00:00:00:02")


def test_a_new_engine_gives_a_mac_to_every_vnic() -> None:
    assert all(one.mac_address for one in resolve(TWO, HOST, (), per_network_mac=True))
    assert resolve(TWO_WITH_MACS, HOST, (), per_network_mac=True)[1].mac_address == "06:00:00:00:00:02"


@given(st.integers(1, 20))
def test_our_macs_are_local_of_one_device_and_no_two_alike(count: int) -> None:
    macs: set[str | None] = set()
    for _ in range(count):
        mac = random_mac(macs)
        assert MAC_ADDRESS.fullmatch(mac)
        assert int(mac[:2], 16) & 0b11 == 0b10
        assert mac not in macs
        macs.add(mac)
