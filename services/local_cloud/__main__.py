"""`python -m services.local_cloud`: wires the local cloud together and serves until it is told to stop."""

import argparse
import asyncio
import logging
import signal
import sqlite3
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

from cryptography import x509

from common import log as logs
from common import settings as house
from services.local_cloud.agents import Agents
from services.local_cloud.api import Api
from services.local_cloud.authority import (
    Authority,
    AuthorityBroken,
    certificate_pem,
    ensure_server_certificate,
    open_authority,
)
from services.local_cloud.clients import ClientRegister
from services.local_cloud.inventory import Inventory, InventoryBroken
from services.local_cloud.ports import Ports, StartFailed, open_directory
from services.local_cloud.provisioning import PendingIds, Provisioning
from services.local_cloud.sessions import Sessions
from services.local_cloud.tls import agent_context, server_context, trust
from services.local_cloud.tokens import read_or_make

log = logging.getLogger("services.local_cloud")

RENEWAL_CHECK_SECONDS = 12 * 3600.0
STOP_SECONDS = 1.9


async def serve(settings: house.Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `StartFailed`, `AuthorityBroken`, `InventoryBroken`."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    directory, started = settings.local_cloud_dir.absolute(), time.monotonic()
    authority = open_authority(directory)
    ensure_server_certificate(authority, settings.local_cloud_names)
    register = ClientRegister(directory / "clients.json", authority)
    inventory = Inventory(directory / "inventory.db")
    agents = Agents(await inventory.agents(), register.agent_ids())
    sessions = Sessions(agents, register, inventory)
    agent_tls, api_tls = agent_context(authority, register.pinned()), server_context(authority)
    listening: dict[str, str] = {}

    def health() -> dict[str, Any]:
        uptime = round(time.monotonic() - started, 1)
        return {"uptime_s": uptime, "listening": listening, "lost_inventory_rows": inventory.lost_rows}

    def enrolled(agent_id: str, certificate: x509.Certificate, kind: Literal["issued", "pinned"]) -> None:
        agents.enrolled(agent_id)
        inventory.enrolled(agent_id)
        if kind == "pinned":
            trust(agent_tls, certificate_pem(certificate))

    ids = PendingIds(register.agent_ids)
    provisioning = Provisioning(
        authority=authority,
        register=register,
        ids=ids,
        token=read_or_make(directory / "enrol.token"),
        enrolled=enrolled,
    )
    api = Api(agents=agents, sessions=sessions, inventory=inventory, health=health)
    public = api.public_application(read_or_make(directory / "api.token"), provisioning.routes())
    ports = Ports()
    try:
        name, address = settings.local_cloud_names[0], settings.local_cloud_bind
        agent_port = await ports.tcp(sessions.application(), address, settings.local_cloud_port, agent_tls, cut=True)
        api_port = await ports.tcp(public, address, settings.local_cloud_api_port, api_tls)
        listening.update(agents=f"https://{name}:{agent_port}", api=f"https://{name}:{api_port}")
        # Last, so that whoever finds the unix socket answering finds everything else answering too.
        await ports.unix(api.local_application(), directory / "api.sock")
        log.info("serving agents at %s, the API at %s; CA file %s", *listening.values(), authority.certificate_file)
        await _until(stop, lambda: _renew(authority, settings.local_cloud_names, agent_tls, api_tls))
        log.info("stopping; %d agents connected", len(agents.live()))
        # The hard limit: whatever hangs, this signal ends the process.
        signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)
    finally:
        agents.release_subscribers()
        await sessions.stop()
        await ports.close()
        await inventory.close()


async def _until(stop: asyncio.Event, each_half_day: Callable[[], None]) -> None:
    while not stop.is_set():
        try:
            async with asyncio.timeout(RENEWAL_CHECK_SECONDS):
                await stop.wait()
        except TimeoutError:
            each_half_day()


def _renew(authority: Authority, names: tuple[str, ...], *contexts: ssl.SSLContext) -> None:
    """A new server certificate in time; connections that are up keep theirs."""
    try:
        if ensure_server_certificate(authority, names):
            for context in contexts:
                context.load_cert_chain(authority.server_file)
    except OSError as problem:
        log.error("cannot renew the server certificate: %s", problem)


def main() -> int:
    """Read the settings, serve, and turn what stops a start into one line."""
    parser = argparse.ArgumentParser(prog="services.local_cloud", description="The cloud's side, served on site.")
    parser.add_argument("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], help="instead of the setting")
    arguments = parser.parse_args()
    try:
        settings = house.load()
        logs.configure("local-cloud", settings, arguments.log_level)
        _lock = open_directory(settings.local_cloud_dir)
        asyncio.run(serve(settings))
    except (house.SettingsError, StartFailed, AuthorityBroken, InventoryBroken) as problem:
        return _fail(str(problem))
    except (OSError, sqlite3.Error) as problem:
        return _fail(f"{type(problem).__name__}: {problem}")
    return 0


def _fail(why: str) -> int:
    sys.stderr.write(f"local cloud: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
