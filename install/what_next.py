"""What to type when `make run` has the agent online."""

import shlex
import sys
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path

from common import settings as house
from services.local_cloud.ctl_client import Cloud, Refused, Unreachable


def write_environment(file: Path, environment: Mapping[str, str]) -> None:
    """Write what a second terminal sources to speak to this agent and no other."""
    lines = [f"export {key}={shlex.quote(value)}" for key, value in sorted(environment.items()) if _is_ours(key)]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _is_ours(key: str) -> bool:
    return key.startswith("ORCHESTRATOR_") or key == "DOCKER_HOST"


def tell(var: Path, settings: house.Settings, agent_id: str, *, simulated: bool) -> None:
    """Print the next commands, with a parent interface and an address that fit this host."""
    parent, address = _example(settings, agent_id)
    conf = "" if settings.run_dir == house.Settings().run_dir else f" -c {var / 'supervisord.conf'}"
    print(
        f"""
Agent {agent_id} is ready. In a second terminal:
  cd {Path.cwd()} && . {var / "env.sh"}
  python -m services.local_cloud.ctl create plc1 --parent {parent} --ip {address} --wait
  python -m services.local_cloud.ctl status plc1
  python -m bus.tap tail                 what goes on between the services
  supervisorctl{conf} status             and tail -f cloud-link, restart docker-worker, ...
Logs: {settings.state_dir}/logs. Ctrl-C here stops everything."""
    )
    if simulated:
        print("The runtime image is SIMULATED: it answers like an OpenPLC runtime but executes no PLC program.")
    print(flush=True)


def _example(settings: house.Settings, agent_id: str) -> tuple[str, str]:
    """A parent interface of this host and an address on its LAN, to show the form of the command."""
    try:
        answer = Cloud(settings.local_cloud_dir / "api.sock").send(agent_id, "get_host_interfaces", {}, timeout_s=5.0)
    except (Unreachable, Refused):
        answer = {}
    for interface in answer.get("interfaces", []):
        if interface.get("subnet"):
            subnet = IPv4Network(interface["subnet"])
            free = subnet[-16] if subnet.num_addresses > 32 else subnet[-2]  # high up, where few devices are
            return interface["name"], f"{free}/{subnet.prefixlen}"
    return "eth0", "192.168.1.240/24"
