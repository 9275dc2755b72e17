"""Where a vNIC shall be now: on its LAN with a proved address, off it, or as it is while nothing is known.

Decided from what netmon says of a lease or of an address. Nothing here acts, waits or remembers.
"""

from ipaddress import IPv4Address, IPv4Network
from typing import Literal

import msgspec

from bus.messages.docker_worker import VnicState
from bus.messages.netmon import Lease
from common.contracts.vnic import Vnic

PREFIXES = range(8, 31)  # bits of the networks that Docker can give addresses of

Decision = Literal["take", "keep", "leave"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """`decision`: "take" the address of `vnic`; "keep" what the container has, and take nothing new; "leave" the LAN.

    `state` and `reason` tell why, where the vNIC is not simply up. `soon`: the answer usually comes within a second.
    `again`: look again after so many seconds, because nobody tells when it is time.
    """

    vnic: Vnic
    decision: Decision
    state: VnicState = "up"
    reason: str = ""
    soon: bool = False
    again: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What asking the LAN for an address has brought: `taken_by` another device (its MAC), a `problem` in the way of
    asking (a sentence), or neither: it is free. `again`: seconds until the next try."""

    taken_by: str | None = None
    problem: str = ""
    again: float = 0.0


def without_parent(vnic: Vnic) -> Place:
    """Its interface is not in this host. A container that has it in its configuration could not be started."""
    parent = vnic.parent_interface
    reason = f"{parent} is not among this host's physical interfaces, nor does the setting `interfaces` name it"
    return Place(vnic=vnic, decision="leave", state="no_parent", reason=reason)


def of_lease(vnic: Vnic, lease: Lease | None, problem: str = "") -> Place:
    """The place of a `dhcp` vNIC. `lease` None: netmon has not told yet, `problem` says why, if that is known."""
    if lease is None:
        reason = problem or "netmon has not been heard of its lease yet"
        return Place(vnic=vnic, decision="keep", state="waiting_for_lease", reason=reason, soon=True)
    if lease.state == "no_parent":
        return Place(vnic=vnic, decision="leave", state="no_parent", reason=lease.reason)
    if lease.state != "bound" or lease.ip_address is None or lease.subnet is None:
        # A conflict is that of one offer: netmon declines it and asks for another address.
        state: VnicState = "conflict" if lease.state == "conflict" else "waiting_for_lease"
        return Place(vnic=vnic, decision="leave", state=state, reason=lease.reason, soon=lease.state != "conflict")
    subnet = IPv4Network(lease.subnet)
    if subnet.prefixlen not in PREFIXES:
        reason = f"the DHCP server gives {lease.ip_address}/{subnet.prefixlen}: Docker has no networks of that size"
        return Place(vnic=vnic, decision="leave", state="error", reason=reason)
    inside = lease.gateway is not None and IPv4Address(lease.gateway) in subnet
    given = msgspec.structs.replace(
        vnic,
        ip_address=lease.ip_address,
        subnet=lease.subnet,
        gateway=lease.gateway if inside else None,
        dns=vnic.dns or lease.dns,
    )
    return Place(vnic=given, decision="take", reason=lease.reason)


def of_address(vnic: Vnic, verdict: Verdict | None, *, held: bool) -> Place:
    """The place of a `manual` vNIC. `held`: the container has the address already. `verdict` None: still asking."""
    if held:
        return Place(vnic=vnic, decision="take")
    if verdict is None:
        reason = f"asking the LAN whether another device has {vnic.ip_address}"
        return Place(vnic=vnic, decision="leave", state="probing", reason=reason, soon=True)
    if verdict.taken_by:
        reason = f"{vnic.ip_address} is used by another device, {verdict.taken_by}; it is asked again and again"
        return Place(vnic=vnic, decision="leave", state="conflict", reason=reason, again=verdict.again)
    if verdict.problem:
        reason = f"{vnic.ip_address} is not used before the LAN was asked for it: {verdict.problem}"
        return Place(vnic=vnic, decision="leave", state="pending", reason=reason, again=verdict.again)
    return Place(vnic=vnic, decision="take")
