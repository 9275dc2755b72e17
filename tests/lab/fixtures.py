"""Fixtures on the simulated edge host, for `pytest_plugins` of the tests' conftest.

`edge` is one host with its engine for the whole session: a test leaves it as it found it. `new_edge_host`
makes hosts of a test's own, for what can not be left as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.lab import image
from tests.lab.host import EdgeHost, edge_host
from tests.lab.lan import Lan, Outsider


@dataclass(frozen=True, kw_only=True)
class Site:
    """A LAN of the session's host with a PC on it, and the host's NIC there."""

    lan: Lan
    pc: Outsider
    nic: str


@pytest.fixture(scope="session")
def edge() -> Iterator[EdgeHost]:
    """One host with an engine and the base image (`image.BASE_TAG`)."""
    with edge_host() as host:
        host.start_engine()
        host.load_image(image.base_image(), image.BASE_TAG)
        yield host


@pytest.fixture(scope="session")
def plant(edge: EdgeHost) -> Site:
    """192.168.10.0/24: host at .5 on ens37, with the default route; PC at .50."""
    return _site(edge, "plant", "ens37", "192.168.10", gateway="192.168.10.1")


@pytest.fixture(scope="session")
def office(edge: EdgeHost) -> Site:
    """192.168.20.0/24: host at .5 on ens38; PC at .50."""
    return _site(edge, "office", "ens38", "192.168.20", gateway=None)


@pytest.fixture
def new_edge_host() -> Iterator[Callable[[], EdgeHost]]:
    """Call it for a new, empty host; all of them end with the test."""
    with ExitStack() as hosts:
        yield lambda: hosts.enter_context(edge_host())


def _site(edge: EdgeHost, name: str, nic: str, net: str, gateway: str | None) -> Site:
    lan = edge.lan(name, f"{net}.0/24")
    edge.nic(nic, lan, address=f"{net}.5/24", gateway=gateway)
    return Site(lan=lan, pc=lan.pc("pc", f"{net}.50"), nic=nic)
