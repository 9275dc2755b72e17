"""Agents' sessions: who may connect, how commands are answered, and what everybody sees when they are not."""

import asyncio
import contextlib
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
import socketio
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.local_cloud_rig import (
    LocalCloud,
    certificate,
    connected,
    local_cloud,
    soon,
    tls,
    write_pair,
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with local_cloud(tmp_path_factory.mktemp("lc")) as running:
        yield running


@pytest.fixture
def mtls(tmp_path: Path) -> Path:
    return tmp_path / "mtls"


@pytest.fixture
def agent_id(cloud: LocalCloud, mtls: Path) -> str:
    return cloud.enrol(mtls)


async def silent(_topic: str, _arguments: list[Any]) -> Any:
    await asyncio.sleep(60)


def test_a_command_is_answered_by_the_acknowledgement(cloud: LocalCloud, mtls: Path, agent_id: str) -> None:
    async def scenario() -> None:
        async with connected(cloud, mtls):
            status, first = await asyncio.to_thread(cloud.command, agent_id, "get_device_status", {"device_id": "plc1"})
            _, second = await asyncio.to_thread(cloud.command, agent_id, "get_host_interfaces")
            sent = first["got"][0]
            assert status == 200 and first["status"] == "success"
            assert sent["action"] == "get_device_status" and sent["device_id"] == "plc1" and sent["requested_at"]
            assert second["got"][0]["correlation_id"] > sent["correlation_id"]
            _, logged = await asyncio.to_thread(cloud.ask, "GET", f"/api/commands?limit=2&agent={agent_id}")
            assert [record["topic"] for record in logged["commands"]] == ["get_host_interfaces", "get_device_status"]
            assert logged["commands"][0]["outcome"] == "answered" and logged["commands"][0]["status"] == "success"

    asyncio.run(scenario())


@pytest.mark.parametrize("payload", [None, [1, 2], "text", 7, {"deep": [[]]}])
def test_a_raw_payload_travels_untouched(cloud: LocalCloud, mtls: Path, agent_id: str, payload: Any) -> None:
    async def scenario() -> None:
        async with connected(cloud, mtls) as agent:
            body = {"topic": "any thing", "payload": payload, "raw": True}
            status, _ = await asyncio.to_thread(cloud.ask, "POST", f"/api/agents/{agent_id}/commands", body)
            assert status == 200 and agent.heard == [("any thing", [payload])]

    asyncio.run(scenario())


def test_who_cannot_answer_is_reported_as_such(cloud: LocalCloud, mtls: Path, agent_id: str) -> None:
    status, answer = cloud.command(agent_id, "get_host_interfaces")
    assert (status, answer["code"]) == (409, "unavailable")
    status, answer = cloud.command("nobody", "get_host_interfaces")
    assert (status, answer["code"]) == (404, "not_found")

    async def scenario() -> None:
        async with connected(cloud, mtls, silent) as agent:
            status, answer = await asyncio.to_thread(cloud.command, agent_id, "stop_device", timeout_s=0.2)
            assert (status, answer["code"]) == (504, "timeout")
            waiting = asyncio.create_task(asyncio.to_thread(cloud.command, agent_id, "stop_device", timeout_s=30))
            await soon(lambda: cloud.agent(agent_id)["waiting_commands"] == 1)
            started = time.monotonic()
            await agent.client.disconnect()
            status, answer = await waiting
            assert (status, answer["code"]) == (504, "unavailable") and "whether the command ran" in answer["error"]
            assert time.monotonic() - started < 2

    asyncio.run(scenario())
    outcomes = [record["outcome"] for record in cloud.ask("GET", f"/api/commands?agent={agent_id}")[1]["commands"]]
    assert outcomes == ["disconnected", "no_answer", "offline"]


def test_the_newest_session_of_an_agent_wins(cloud: LocalCloud, mtls: Path, agent_id: str) -> None:
    async def scenario() -> None:
        async with connected(cloud, mtls, silent) as older:
            waiting = asyncio.create_task(asyncio.to_thread(cloud.command, agent_id, "stop_device"))
            await soon(lambda: cloud.agent(agent_id)["waiting_commands"] == 1)
            async with connected(cloud, mtls) as newer:
                assert (await waiting)[0] == 504
                await soon(lambda: not older.client.connected)
                assert cloud.agent(agent_id)["sid"] == newer.client.get_sid()
                status, _ = await asyncio.to_thread(cloud.command, agent_id, "get_serial_devices")
                assert status == 200 and newer.heard[0][0] == "get_serial_devices"
        await soon(lambda: not cloud.agent(agent_id)["online"])

    asyncio.run(scenario())


def test_a_kick_is_polite_and_only_for_administrators(cloud: LocalCloud, mtls: Path, agent_id: str) -> None:
    headers = {"Authorization": f"Bearer {cloud.token('api')}"}
    url = f"{cloud.api_url}/api/agents/{agent_id}/kick"
    assert requests.post(url, headers=headers, verify=str(cloud.ca), timeout=5).status_code == 404
    assert cloud.ask("POST", f"/api/agents/{agent_id}/kick")[0] == 409

    async def scenario() -> None:
        async with connected(cloud, mtls) as agent:
            status, _ = await asyncio.to_thread(cloud.ask, "POST", f"/api/agents/{agent_id}/kick")
            await soon(lambda: not agent.client.connected)
            assert status == 200 and not cloud.agent(agent_id)["online"]

    asyncio.run(scenario())


def test_heartbeats_and_events_are_kept_and_bounded(cloud: LocalCloud, mtls: Path, agent_id: str) -> None:
    async def scenario() -> None:
        async with connected(cloud, mtls) as agent:
            await agent.client.emit("heartbeat", {"agent_id": "another", "cpu_usage": 12.5, "status": "online"})
            await soon(lambda: agent.heard)
            assert agent.heard[0][0] == "heartbeat_ack" and "timestamp" in agent.heard[0][1][0]
            for number in range(300):
                await agent.client.emit("device_event", {"device_id": "plc1", "event": "step", "number": number})
            for bad in ("text", None, {"big": "x" * 20000}):
                await agent.client.emit("device_event", bad)
                await agent.client.emit("heartbeat", bad)
            await agent.client.emit("weather", {"rain": True})
            seen = await soon(lambda: (view := cloud.agent(agent_id))["unknown_events"] and view)
            assert seen["heartbeat"]["cpu_usage"] == 12.5 and seen["heartbeats"] == 1
            assert seen["refused_payloads"] == 6 and seen["last_event_seq"] == 300

    asyncio.run(scenario())
    events = cloud.ask("GET", f"/api/agents/{agent_id}/events")[1]["events"]
    assert [event["event"]["number"] for event in events] == list(range(44, 300))
    assert cloud.ask("GET", "/api/agents/another")[0] == 404, "a payload says nothing about who it is from"


def test_events_stream_as_they_come(cloud: LocalCloud, mtls: Path, agent_id: str) -> None:
    async def scenario() -> None:
        async with connected(cloud, mtls) as agent:
            await agent.client.emit("device_event", {"n": 1})
            await soon(lambda: cloud.agent(agent_id)["last_event_seq"] == 1)
            url = f"http://local/api/agents/{agent_id}/events"
            connector = aiohttp.UnixConnector(str(cloud.directory / "api.sock"))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(url, headers={"Accept": "text/event-stream"}) as response,
            ):
                numbers = []
                await agent.client.emit("device_event", {"n": 2})
                async with asyncio.timeout(5):
                    async for line in response.content:
                        if line.startswith(b"data: "):
                            numbers.append(json.loads(line[6:])["event"]["n"])
                        if len(numbers) == 2:
                            break
                assert numbers == [1, 2]

    asyncio.run(scenario())


def refused(cloud: LocalCloud, mtls: Path | None) -> None:
    async def attempt() -> None:
        async with connected(cloud, mtls):
            pass

    with pytest.raises(socketio.exceptions.ConnectionError):
        asyncio.run(attempt())


def test_only_our_own_certificates_open_a_session(cloud: LocalCloud, tmp_path: Path, mtls: Path, agent_id: str) -> None:
    key, foreign = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    write_pair(tmp_path / "foreign", key, certificate(agent_id, key, issuer="other ca", signer=foreign))
    write_pair(tmp_path / "self", key, certificate(agent_id, key))
    refused(cloud, None)
    refused(cloud, tmp_path / "foreign")
    refused(cloud, tmp_path / "self")
    assert not cloud.agent(agent_id)["online"]
    assert "TLS handshake failed" in cloud.log


def test_a_self_signed_certificate_is_pinned_and_vouches_for_nobody_else(cloud: LocalCloud, tmp_path: Path) -> None:
    key, agent_id = ec.generate_private_key(ec.SECP256R1()), cloud.new_id()
    own = certificate(agent_id, key, ca=True)
    assert cloud.provision("POST", "certificate", files={"certificate": own}, data={"id": agent_id}).status_code == 200
    write_pair(tmp_path / "own", key, own)

    async def scenario() -> None:
        async with connected(cloud, tmp_path / "own"):
            assert (await asyncio.to_thread(cloud.agent, agent_id))["online"]

    asyncio.run(scenario())
    other = ec.generate_private_key(ec.SECP256R1())
    write_pair(tmp_path / "minted", other, certificate("00000001", other, issuer=agent_id, signer=key))
    refused(cloud, tmp_path / "minted")
    assert cloud.ask("GET", "/api/agents/00000001")[0] == 404


def test_polling_works_and_a_session_stays_with_its_certificate(
    cloud: LocalCloud, tmp_path: Path, mtls: Path, agent_id: str
) -> None:
    cloud.enrol(tmp_path / "thief")

    async def scenario() -> None:
        async with connected(cloud, mtls, transport="polling") as agent:
            status, _ = await asyncio.to_thread(cloud.command, agent_id, "get_host_interfaces")
            assert status == 200
            connector = aiohttp.TCPConnector(ssl=tls(cloud, tmp_path / "thief"))
            async with aiohttp.ClientSession(connector=connector) as thief:
                url = f"{cloud.agents_url}/socket.io/?EIO=4&transport=polling&sid={agent.client.eio.sid}"
                async with thief.post(url, data='42["heartbeat",{"stolen":true}]') as response:
                    assert response.status == 403
            assert cloud.agent(agent_id)["heartbeat"] is None

    asyncio.run(scenario())


def test_garbage_on_the_wire_ends_nothing_but_its_own_session(cloud: LocalCloud, tmp_path: Path, mtls: Path) -> None:
    good, bad = cloud.enrol(mtls), cloud.enrol(tmp_path / "bad")

    async def scenario() -> None:
        async with connected(cloud, mtls):
            for garbage in ("x", "4x", "44", '42["heartbeat"', "43[]", '4399["late"]', "451-[]", "9" * 100):
                connector = aiohttp.TCPConnector(ssl=tls(cloud, tmp_path / "bad"))
                async with (
                    aiohttp.ClientSession(connector=connector) as session,
                    session.ws_connect(f"{cloud.agents_url}/socket.io/?EIO=4&transport=websocket") as ws,
                ):
                    await ws.send_str("40")
                    await soon(lambda: cloud.agent(bad)["online"])
                    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                        await ws.send_str(garbage)
                        await ws.send_str('42["heartbeat",{}]')
            status, _ = await asyncio.to_thread(cloud.command, good, "get_host_interfaces")
            assert status == 200
        await soon(lambda: not cloud.agent(bad)["online"])

    asyncio.run(scenario())
    assert "no Engine.IO" in cloud.log and "Traceback" not in cloud.log


def test_files_and_socket_are_for_their_owner_only(cloud: LocalCloud) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(cloud.directory) == 0o700
    for name in ("api.sock", "ca.key", "server.pem", "enrol.token", "api.token"):
        assert mode(cloud.directory / name) == 0o600, name
