"""netmon against a real kernel: a namespace of its own with nine NICs (veth pairs), and everything done to them that
a plant does. All of it happens to different NICs at once, so the debounce of 3 s is waited for only a few times."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq

from bus.calls import Caller
from bus.events import Subscriber
from bus.messages.base import Event
from bus.messages.netmon import (
    GetHostInterfaces,
    Interface,
    InterfaceAdded,
    InterfaceChanged,
    InterfaceRemoved,
    NetworkDiscovered,
)
from tests.lab import netns
from tests.lab.cleanup import claimed_lab
from tests.lab.process import run, wait_until

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
NICS = range(1, 9)
DEBOUNCE = 3.0
SLACK = 2.0  # seconds that a busy machine may add


@dataclass
class Client:
    """A client of netmon.sock that collects what it reads."""

    connection: socket.socket
    lines: list[dict[str, Any]] = field(default_factory=list)
    rest: bytes = b""

    def read(self, count: int, within: float = 5.0) -> list[dict[str, Any]]:
        """All lines so far, at least `count`."""
        end = time.monotonic() + within
        while len(self.lines) < count:
            self.connection.settimeout(max(0.01, end - time.monotonic()))
            *whole, self.rest = (self.rest + self.connection.recv(65536)).split(b"\n")
            self.lines += [json.loads(line) for line in whole]
        return self.lines


@dataclass
class Bench:
    """The namespace, the service in it and everything it has told."""

    ns: str
    dir: Path
    process: subprocess.Popen[bytes]
    caller: Caller
    subscriber: Subscriber
    clients: list[Client] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def ip(self, *commands: str) -> None:
        run(["ip", "-n", self.ns, "-batch", self._batch(*commands)])

    def _batch(self, *commands: str) -> Path:
        path = self.dir / "batch"
        path.write_text("".join(f"{command}\n" for command in commands))
        return path

    def interfaces(self, **fields: bool) -> dict[str, Any]:
        return {each.name: each for each in self.caller.call(GetHostInterfaces(**fields)).interfaces}

    def hear(self, until: Callable[[list[Event]], bool], within: float) -> list[Event]:
        """The events that came until `until` was true of them."""
        heard: list[Event] = []
        end = time.monotonic() + within
        while not until(heard):
            left = end - time.monotonic()
            assert left > 0, f"heard only {heard}"
            if (found := self.subscriber.receive(left)) and found.record:
                heard.append(found.record)
        self.events += heard
        return heard

    def after(self, *commands: str) -> list[Event]:
        """What is told of these `ip` commands: one state, and the changes up to the last of them."""
        started = time.monotonic()
        self.ip(*commands)
        heard = self.hear(lambda heard: any(isinstance(e, NetworkDiscovered) for e in heard), DEBOUNCE + SLACK)
        while (found := self.subscriber.receive(0.3)) and found.record:
            heard.append(found.record)
        assert time.monotonic() - started > DEBOUNCE
        return heard


def set_up(nic: int) -> list[str]:
    return [
        f"link add ens{nic} type veth peer name cable{nic}",
        f"link set cable{nic} up",
        f"link set ens{nic} up",
        f"addr add 10.0.{nic}.50/24 dev ens{nic}",
        f"route add default via 10.0.{nic}.1 metric {100 + nic}",
    ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory = tmp_path_factory.mktemp("nm")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with claimed_lab() as lab, contextlib.ExitStack() as cleanup:
        cleanup.callback(context.destroy, linger=0)
        ns = lab.namespace("edge")
        netns.add(ns)
        (directory / "setup").write_text("".join(f"{line}\n" for nic in NICS for line in set_up(nic)))
        run(["ip", "-n", ns, "-batch", directory / "setup"])
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")} | {
            "ORCHESTRATOR_RUN_DIR": str(directory / "run"),
            "ORCHESTRATOR_STATE_DIR": str(directory / "state"),
            "ORCHESTRATOR_INTERFACES": "ens*,lan*",
        }
        process = subprocess.Popen(
            netns.command_in(ns, [sys.executable, "-m", "services.netmon"]), env=environment, cwd=ROOT
        )
        cleanup.callback(process.wait, 10)
        cleanup.callback(process.kill)
        caller = Caller(context, directory / "run", "test")
        subscriber = Subscriber(context, directory / "run", ("netmon.network.", "netmon.interface."))
        bench = Bench(ns, directory, process, caller, subscriber)
        bench.hear(lambda heard: len(heard) == 1, within=10)
        for _ in range(10):
            connection = socket.socket(socket.AF_UNIX)
            cleanup.callback(connection.close)
            connection.connect(str(directory / "state" / "netmon.sock"))
            bench.clients.append(Client(connection))
        yield bench


@dataclass
class Told:
    """The changes of one batch, by the interface's name before it."""

    changed: dict[str, InterfaceChanged]
    added: dict[str, Interface]
    removed: dict[str, Interface]
    state: dict[str, Interface]

    @classmethod
    def of(cls, events: list[Event]) -> "Told":
        (state,) = [event for event in events if isinstance(event, NetworkDiscovered)]
        assert events[0] is state, "the whole picture comes before its changes"
        return cls(
            {event.before.name: event for event in events if isinstance(event, InterfaceChanged)},
            {event.interface.name: event.interface for event in events if isinstance(event, InterfaceAdded)},
            {event.interface.name: event.interface for event in events if isinstance(event, InterfaceRemoved)},
            {interface.name: interface for interface in state.interfaces},
        )

    def addresses(self, name: str) -> list[str]:
        return [each.address for each in self.changed[name].interface.ipv4_addresses]


def test_the_first_look_is_told_at_once_and_whole(bench: Bench) -> None:
    (first,) = bench.events
    assert isinstance(first, NetworkDiscovered)
    assert [interface.name for interface in first.interfaces] == [f"ens{nic}" for nic in NICS]
    ens2 = first.interfaces[1]
    assert (ens2.operstate, ens2.carrier, ens2.kind, ens2.gateway) == ("UP", True, "veth", "10.0.2.1")
    assert [(each.address, each.subnet) for each in ens2.ipv4_addresses] == [("10.0.2.50", "10.0.2.0/24")]


def test_the_bus_answers_with_what_the_kernel_says(bench: Bench) -> None:
    found = bench.interfaces()
    assert sorted(found) == [f"ens{nic}" for nic in NICS]
    link = json.loads(netns.ip(bench.ns, "-j", "link", "show", "ens3"))[0]
    assert found["ens3"].mac_address == link["address"]
    assert found["ens3"].ipv4_addresses == ("10.0.3.50/24",)
    assert "cable3" in bench.interfaces(include_virtual=True)
    assert "lo" not in bench.interfaces(include_virtual=True)


@pytest.fixture(scope="module")
def told(bench: Bench) -> Told:
    """What netmon told of eight different accidents to eight NICs, and of a ninth NIC."""
    return Told.of(
        bench.after(
            "addr add 10.0.1.51/24 dev ens1",
            "addr del 10.0.2.50/24 dev ens2",
            "link set cable3 down",
            "link set ens4 down",
            "link set ens5 down",
            "link set ens5 name lan5",
            "link set lan5 up",
            "link del ens6",
            "route replace default via 10.0.7.254 metric 107",
            "link set ens8 address 02:00:00:00:00:08",
            *set_up(9),
        )
    )


def test_a_second_address_is_seen(told: Told) -> None:
    assert told.addresses("ens1") == ["10.0.1.50", "10.0.1.51"]


def test_a_lost_address_takes_its_silent_default_route_along(told: Told) -> None:
    assert told.addresses("ens2") == []
    assert told.changed["ens2"].before.gateway == "10.0.2.1"
    assert told.changed["ens2"].interface.gateway is None


def test_a_pulled_cable_is_seen_though_address_and_route_stay(told: Told) -> None:
    ens3 = told.changed["ens3"].interface
    assert (ens3.carrier, ens3.operstate, ens3.gateway) == (False, "LOWERLAYERDOWN", "10.0.3.1")
    assert told.addresses("ens3") == ["10.0.3.50"]


def test_an_interface_set_down_has_lost_its_default_route_though_no_message_said_so(told: Told) -> None:
    ens4 = told.changed["ens4"].interface
    assert (ens4.operstate, ens4.gateway) == ("DOWN", None)
    assert told.addresses("ens4") == ["10.0.4.50"]


def test_a_renamed_interface_is_the_same_interface(told: Told) -> None:
    change = told.changed["ens5"]
    assert (change.interface.name, change.interface.index) == ("lan5", change.before.index)


def test_a_deleted_interface_is_removed(told: Told) -> None:
    assert list(told.removed) == ["ens6"]
    assert "ens6" not in told.state


def test_another_gateway_alone_is_a_change(told: Told) -> None:
    change = told.changed["ens7"]
    assert (change.before.gateway, change.interface.gateway) == ("10.0.7.1", "10.0.7.254")
    assert change.before.ipv4_addresses == change.interface.ipv4_addresses


def test_another_mac_address_is_a_change(told: Told) -> None:
    assert told.changed["ens8"].interface.mac_address == "02:00:00:00:00:08"


def test_a_new_interface_is_added(told: Told) -> None:
    assert list(told.added) == ["ens9"]
    assert told.added["ens9"].gateway == "10.0.9.1"


def test_the_state_and_the_answer_agree_with_the_changes(bench: Bench, told: Told) -> None:
    assert sorted(bench.interfaces()) == sorted(told.state)
    for change in told.changed.values():
        assert told.state[change.interface.name] == change.interface


def test_the_socket_told_all_of_it_in_the_seeds_words_to_every_client(bench: Bench, told: Told) -> None:
    first, *others = [client.read(10) for client in bench.clients[:5]]
    assert [message["type"] for message in first] == ["network_discovery"] + ["network_change"] * 10
    assert [each["interface"] for each in first[0]["data"]["interfaces"]] == [f"ens{nic}" for nic in NICS]
    assert set(first[1]["data"]) == {"interface", "index", "operstate", "ipv4_addresses", "gateway", "timestamp"}
    by_name = {message["data"]["interface"]: message["data"] for message in first[1:]}
    assert set(by_name) == {"ens1", "ens2", "ens3", "ens4", "ens5", "lan5", "ens6", "ens7", "ens8", "ens9"}
    assert (by_name["ens6"]["operstate"], by_name["ens6"]["ipv4_addresses"]) == ("DOWN", [])
    for other in others:
        assert other[1:] == first[1:]


def test_what_went_down_comes_back(bench: Bench, told: Told) -> None:
    again = Told.of(bench.after("link set cable3 up", "link set ens4 up"))
    assert (again.changed["ens3"].interface.operstate, again.changed["ens3"].interface.carrier) == ("UP", True)
    ens4 = again.changed["ens4"].interface
    assert (ens4.operstate, ens4.gateway) == ("UP", None)  # the kernel does not bring the default route back


def test_a_storm_that_overflows_the_kernels_buffer_ends_in_the_right_state(bench: Bench, told: Told) -> None:
    """The service is frozen while 5,000 changes pass, so messages are surely lost (ENOBUFS)."""
    bench.process.send_signal(signal.SIGSTOP)
    try:
        storm = [
            f"addr {verb} 10.7.{n // 250}.{n % 250 + 1}/24 dev ens7" for n in range(2500) for verb in ("add", "del")
        ]
        bench.ip(*storm, "addr add 10.77.0.1/24 dev ens7")
    finally:
        bench.process.send_signal(signal.SIGCONT)
    heard = bench.hear(lambda heard: bool(heard), within=DEBOUNCE + 2 * SLACK)
    assert isinstance(heard[0], NetworkDiscovered)
    assert bench.interfaces()["ens7"].ipv4_addresses == ("10.0.7.50/24", "10.77.0.1/24")
    logs = "".join(path.read_text() for path in (bench.dir / "state" / "logs").iterdir())
    assert "netlink messages were lost" in logs
    bench.hear(lambda heard: any(isinstance(event, InterfaceChanged) for event in heard), within=SLACK)

    after = Told.of(bench.after("addr del 10.77.0.1/24 dev ens7"))
    assert after.addresses("ens7") == ["10.0.7.50"]


def test_it_ends_when_told_and_takes_its_socket_along(bench: Bench) -> None:
    bench.process.terminate()
    assert bench.process.wait(10) == 0
    wait_until(lambda: not (bench.dir / "state" / "netmon.sock").exists(), 5, "the socket is gone")
