"""The program's life: it ends at once, starts again as it was, and says in one line why it cannot start."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import socketio
from cryptography import x509

from services.local_cloud.authority import AuthorityBroken, ensure_server_certificate, open_authority
from services.local_cloud.clients import ClientCertificate, ClientRegister
from services.local_cloud.inventory import Inventory, InventoryBroken
from tests.unit.local_cloud_rig import PROJECT, connected, environment, local_cloud, soon


def test_it_ends_at_once_with_live_sessions_and_comes_back_as_it_was(tmp_path: Path) -> None:
    directory = tmp_path / "lc"

    async def silent(_topic: str, _arguments: list[object]) -> None:
        await asyncio.sleep(60)

    async def scenario() -> tuple[str, int]:
        with local_cloud(directory) as cloud:
            agent_id, polling_id = cloud.enrol(tmp_path / "a"), cloud.enrol(tmp_path / "b")
            async with (
                connected(cloud, tmp_path / "a", silent) as agent,
                connected(cloud, tmp_path / "b", transport="polling"),
            ):
                await soon(lambda: cloud.agent(agent_id)["online"] and cloud.agent(polling_id)["online"])
                waiting = asyncio.create_task(asyncio.to_thread(cloud.command, agent_id, "stop_device"))
                await soon(lambda: cloud.agent(agent_id)["waiting_commands"] == 1)
                idle = socket.create_connection(("127.0.0.1", int(cloud.agents_url.rsplit(":", 1)[1])))
                seconds = await asyncio.to_thread(cloud.stop)
                assert seconds < 2 and cloud.process.returncode == 0, cloud.log
                await soon(lambda: not agent.client.connected)
                status, answer = await waiting
                assert status == 504 and "stopping" in answer["error"]
                idle.close()
                assert not (directory / "api.sock").exists()
                return agent_id, agent.heard[0][1][0]["correlation_id"]  # type: ignore[index]

    agent_id, last = asyncio.run(scenario())
    with local_cloud(directory) as cloud:
        known = cloud.agent(agent_id)
        assert known["enrolled_at"] and known["connected_at"] and known["disconnected_at"] and not known["online"]
        assert "Traceback" not in cloud.log

        async def again() -> None:
            async with connected(cloud, tmp_path / "a"):
                _, answer = await asyncio.to_thread(cloud.command, agent_id, "get_host_interfaces")
                assert answer["got"][0]["correlation_id"] == last + 1

        asyncio.run(again())


def test_correlation_ids_never_repeat_after_a_crash(tmp_path: Path) -> None:
    numbers = []
    for _ in range(2):
        with local_cloud(tmp_path / "lc") as cloud:
            agent_id = cloud.enrol(tmp_path / "a")

            async def ask(cloud=cloud, agent_id=agent_id) -> int:  # type: ignore[no-untyped-def]
                async with connected(cloud, tmp_path / "a"):
                    _, answer = await asyncio.to_thread(cloud.command, agent_id, "get_host_interfaces")
                    return int(answer["got"][0]["correlation_id"])

            numbers.append(asyncio.run(ask()))
            cloud.process.kill()
            cloud.process.wait()
    assert numbers[1] > numbers[0]


def test_a_revoked_certificate_is_refused(tmp_path: Path) -> None:
    with local_cloud(tmp_path / "lc") as cloud:
        agent_id = cloud.enrol(tmp_path / "a")
    register = tmp_path / "lc" / "clients.json"
    (record,) = msgspec.json.decode(register.read_bytes(), type=list[ClientCertificate])
    revoked = msgspec.structs.replace(record, revoked_at="2026-01-01T00:00:00Z")
    register.write_bytes(msgspec.json.encode([revoked]))

    async def attempt() -> None:
        async with connected(cloud, tmp_path / "a"):
            pass

    with local_cloud(tmp_path / "lc") as cloud:
        with pytest.raises(socketio.exceptions.ConnectionError):
            asyncio.run(attempt())
        assert "revoked" in cloud.log and not cloud.agent(agent_id)["online"]


def start(directory: Path, **more: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "services.local_cloud"],
        cwd=PROJECT,
        env=environment(directory, **more),
        capture_output=True,
        text=True,
        timeout=15,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("local cloud:")][-1]


def test_what_prevents_a_start_is_one_clear_line(tmp_path: Path) -> None:
    with local_cloud(tmp_path / "lc") as cloud:
        taken = cloud.api_url.rsplit(":", 1)[1]
        assert start(tmp_path / "lc") == (1, f"local cloud: another local cloud already serves {tmp_path / 'lc'}")
        code, said = start(tmp_path / "other", API_PORT=taken)
        assert code == 1 and taken in said and "listen" in said
        code, said = start(tmp_path / "other", PORT="70000")
        assert code == 1 and "70000" in said


def test_damaged_files_are_told_by_name(tmp_path: Path) -> None:
    authority = open_authority(tmp_path)
    (tmp_path / "clients.json").write_text("[{]")
    with pytest.raises(AuthorityBroken, match=r"clients\.json is damaged"):
        ClientRegister(tmp_path / "clients.json", authority)
    (tmp_path / "inventory.db").write_bytes(b"no database" * 100)
    with pytest.raises(InventoryBroken, match=r"inventory\.db: .* move it away"):
        Inventory(tmp_path / "inventory.db")
    (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(AuthorityBroken, match="chmod 600"):
        open_authority(tmp_path)


def test_the_authority_keeps_itself_and_renews_the_server_certificate(tmp_path: Path) -> None:
    authority = open_authority(tmp_path)
    assert ensure_server_certificate(authority, ["localhost", "127.0.0.1"])
    assert not ensure_server_certificate(authority, ["localhost", "127.0.0.1"])
    assert ensure_server_certificate(authority, ["cloud.plant", "10.0.0.1", "fd00::1"])
    served = x509.load_pem_x509_certificate(authority.server_file.read_bytes())
    names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cloud.plant"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "fd00::1"]
    for names in ([], ["no name"], ["host..plant"], ["ünïcode"]):
        with pytest.raises(AuthorityBroken, match="local_cloud_names"):
            ensure_server_certificate(authority, names)
    assert open_authority(tmp_path).certificate == authority.certificate
    (tmp_path / "ca.key").unlink()
    with pytest.raises(AuthorityBroken, match="backup"):
        open_authority(tmp_path)
