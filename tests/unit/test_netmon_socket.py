"""`netmon.sock`: the seed's lines, and many clients that cannot harm each other."""

import asyncio
import json
import os
import re
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.errors import CommandError
from bus.messages.base import Event
from bus.messages.netmon import GetHostInterfaces, Interface, Ipv4Address
from services.netmon.announcer import Announcer
from services.netmon.interfaces import diff
from services.netmon.seed_lines import changes, discovery
from services.netmon.socket_server import BACKLOG, CLIENTS, SocketServer
from services.netmon.views import get_host_interfaces

ADDRESS = Ipv4Address(address="192.168.1.50", prefixlen=24, subnet="192.168.1.0/24", network_address="192.168.1.0")
NIC = Interface(
    name="ens37",
    index=2,
    mac_address="02:00:00:00:00:01",
    operstate="UP",
    carrier=True,
    physical=True,
    ipv4_addresses=(ADDRESS,),
    gateway="192.168.1.1",
)
MOMENT = "2025-11-20T20:30:45.123456"


def nic(**fields: object) -> Interface:
    return msgspec.structs.replace(NIC, **fields)


def told(before: list[Interface], after: list[Interface]) -> list[dict[str, Any]]:
    messages = [json.loads(line) for line in changes(diff(before, after), MOMENT)]
    assert {message["type"] for message in messages} <= {"network_change"}
    return [message["data"] for message in messages]


def test_discovery_has_the_shape_of_the_seed() -> None:
    line = discovery([NIC], MOMENT)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "type": "network_discovery",
        "data": {
            "interfaces": [
                {
                    "interface": "ens37",
                    "index": 2,
                    "operstate": "UP",
                    "ipv4_addresses": [
                        {
                            "address": "192.168.1.50",
                            "prefixlen": 24,
                            "subnet": "192.168.1.0/24",
                            "network_address": "192.168.1.0",
                        }
                    ],
                    "gateway": "192.168.1.1",
                    "timestamp": MOMENT,
                }
            ],
            "timestamp": MOMENT,
        },
    }


def test_a_change_has_the_shape_of_the_seed() -> None:
    (change,) = told([NIC], [nic(gateway=None)])
    assert change == json.loads(discovery([nic(gateway=None)], MOMENT))["data"]["interfaces"][0]


@pytest.mark.parametrize("fields", [{"ipv4_addresses": ()}, {"operstate": "DOWN"}, {"physical": False}])
def test_discovery_lists_only_physical_interfaces_that_are_up_with_an_address(fields: dict[str, object]) -> None:
    assert json.loads(discovery([nic(**fields)], MOMENT))["data"]["interfaces"] == []


def test_what_was_lost_is_told_with_what_is_left() -> None:
    (change,) = told([NIC], [nic(ipv4_addresses=(), gateway=None)])
    assert (change["operstate"], change["ipv4_addresses"], change["gateway"]) == ("UP", [], None)
    (change,) = told([NIC], [nic(operstate="LOWERLAYERDOWN", carrier=False)])
    assert (change["operstate"], len(change["ipv4_addresses"])) == ("LOWERLAYERDOWN", 1)


def test_a_nic_that_is_gone_is_down_and_without_addresses() -> None:
    (change,) = told([NIC], [])
    assert (change["interface"], change["operstate"], change["ipv4_addresses"]) == ("ens37", "DOWN", [])


def test_a_renamed_nic_goes_under_one_name_and_comes_under_the_other() -> None:
    old, new = told([NIC], [nic(name="lan0")])
    assert (old["interface"], old["operstate"], old["ipv4_addresses"]) == ("ens37", "DOWN", [])
    assert (new["interface"], new["operstate"], len(new["ipv4_addresses"])) == ("lan0", "UP", 1)


def test_interfaces_that_never_were_active_are_no_news() -> None:
    idle = nic(ipv4_addresses=())
    assert told([idle], []) == told([], [idle]) == told([idle], [nic(ipv4_addresses=(), operstate="DOWN")]) == []
    assert len(told([idle], [NIC])) == len(told([], [NIC])) == 1


def test_the_first_state_is_told_whole_and_then_only_what_changes() -> None:
    events: list[Event] = []
    lines: list[bytes] = []
    announcer = Announcer(events.append, lines.append)
    assert announcer.greeting() is None
    announcer.tell((NIC,))
    announcer.tell((NIC,))
    announcer.tell((NIC, nic(index=7, physical=False)))
    assert [type(event).__name__ for event in events] == ["NetworkDiscovered"]
    announcer.tell((nic(index=8),))
    names = [type(event).__name__ for event in events[1:]]
    assert names == ["NetworkDiscovered", "InterfaceRemoved", "InterfaceAdded"]
    assert [json.loads(line)["type"] for line in lines] == ["network_discovery", "network_change", "network_change"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", json.loads(lines[0])["data"]["timestamp"])


def test_the_view_for_the_cloud() -> None:
    announcer = Announcer(lambda _: None, lambda _: None)
    with pytest.raises(CommandError) as caught:
        get_host_interfaces(announcer, GetHostInterfaces())
    assert caught.value.code == "unavailable"
    announcer.tell(
        (nic(name="docker0", index=3, physical=False, gateway=None), NIC, nic(name="idle", ipv4_addresses=()))
    )
    full, idle = get_host_interfaces(announcer, GetHostInterfaces()).interfaces
    assert msgspec.to_builtins(full) == {
        "name": "ens37",
        "ip_address": "192.168.1.50",
        "operstate": "UP",
        "gateway": "192.168.1.1",
        "mac_address": "02:00:00:00:00:01",
        "subnet": "192.168.1.0/24",
        "ipv4_addresses": ("192.168.1.50/24",),
    }
    assert (idle.name, idle.ip_address, idle.subnet) == ("idle", None, None)
    brief = get_host_interfaces(announcer, GetHostInterfaces(detailed=False)).interfaces[0]
    assert (brief.name, brief.ip_address, brief.mac_address, brief.ipv4_addresses) == (
        "ens37",
        "192.168.1.50",
        None,
        (),
    )
    everything = get_host_interfaces(announcer, GetHostInterfaces(include_virtual=True)).interfaces
    assert [each.name for each in everything] == ["docker0", "ens37", "idle"]


# ---- the server


async def until(condition: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for is not asyncio's
            await asyncio.sleep(0.005)


@asynccontextmanager
async def served(path: Path, mode: int = 0o660, greeting: bytes | None = b"hello\n") -> AsyncIterator[SocketServer]:
    server = SocketServer(lambda: greeting)
    reports: dict[str, str | None] = {}
    task = asyncio.create_task(server.serve(path, mode, reports.__setitem__))
    await until(lambda: reports)
    assert reports == {"netmon.sock": None}
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=5)


async def client(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await asyncio.wait_for(reader.readline(), 5) == b"hello\n"
    return reader, writer


@pytest.mark.parametrize("mode", [0o660, 0o666])
def test_the_socket_has_the_mode_of_the_settings_and_replaces_a_stale_one(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "state" / "netmon.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def story() -> None:
        async with served(path, mode):
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert [entry.name for entry in path.parent.iterdir()] == ["netmon.sock"]
            await client(path)

    asyncio.run(story())


def test_every_client_hears_every_line_and_what_clients_say_is_ignored(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path / "netmon.sock") as server:
            clients = [await client(tmp_path / "netmon.sock") for _ in range(20)]
            for _, writer in clients:
                writer.write(b'{"type": "shutdown"}\n' + os.urandom(10_000))
                await writer.drain()
            for number in range(50):
                server.send(b"%d\n" % number)
            for reader, _ in clients:
                lines = [await asyncio.wait_for(reader.readline(), 5) for _ in range(50)]
                assert lines == [b"%d\n" % number for number in range(50)]

    asyncio.run(story())


def test_a_client_that_does_not_read_is_dropped_and_the_others_hear_everything(tmp_path: Path) -> None:
    line = b"x" * 9_999 + b"\n"
    count = 4 * BACKLOG // len(line)

    async def story() -> None:
        async with served(tmp_path / "netmon.sock") as server:
            reader, _writer = await client(tmp_path / "netmon.sock")
            with socket.socket(socket.AF_UNIX) as stuck:
                stuck.connect(str(tmp_path / "netmon.sock"))
                await until(lambda: server.clients == 2)
                for _ in range(count):
                    server.send(line)
                    assert await asyncio.wait_for(reader.readexactly(len(line)), 5) == line
                assert (server.clients, server.dropped) == (1, 1)

    asyncio.run(story())


def test_clients_that_have_gone_are_forgotten_without_a_change_to_tell(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path / "netmon.sock") as server:
            for _ in range(100):
                _, writer = await client(tmp_path / "netmon.sock")
                writer.close()
            await until(lambda: server.clients == 0)
            server.send(b"nobody\n")
            assert server.dropped == 0

    asyncio.run(story())


def test_too_many_clients_are_turned_away(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path / "netmon.sock") as server:
            held = [await client(tmp_path / "netmon.sock") for _ in range(CLIENTS)]
            reader, _ = await asyncio.open_unix_connection(str(tmp_path / "netmon.sock"))
            assert await asyncio.wait_for(reader.read(), 5) == b""
            assert (server.clients, len(held)) == (CLIENTS, CLIENTS)

    asyncio.run(story())


def test_a_client_before_the_first_look_hears_the_discovery_when_it_comes(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path / "netmon.sock", greeting=None) as server:
            reader, _ = await asyncio.open_unix_connection(str(tmp_path / "netmon.sock"))
            await until(lambda: server.clients == 1)
            server.send(b"discovery\n")
            assert await asyncio.wait_for(reader.readline(), 5) == b"discovery\n"

    asyncio.run(story())


def test_a_socket_that_cannot_be_served_is_reported(tmp_path: Path) -> None:
    (tmp_path / "netmon.sock").mkdir()

    async def story() -> None:
        reports: dict[str, str | None] = {}
        server = SocketServer(lambda: None)
        task = asyncio.create_task(server.serve(tmp_path / "netmon.sock", 0o660, reports.__setitem__))
        await until(lambda: reports)
        assert "cannot be served" in (reports["netmon.sock"] or "")
        task.cancel()

    asyncio.run(story())
