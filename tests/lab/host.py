"""The edge host: a namespace with NICs on plant LANs, a firewall as strict as real hosts have, an engine.

    with edge_host() as edge:
        plant = edge.lan("plant", "192.168.10.0/24")
        edge.nic("ens37", plant, address="192.168.10.5/24", gateway="192.168.10.1")
        pc = plant.pc("pc", "192.168.10.50")
        edge.start_engine()

Nothing of it touches the machine's own network, and nothing of it is left after the block.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from tests.lab import image, netns
from tests.lab.cleanup import Lab, claimed_lab
from tests.lab.engine import Engine
from tests.lab.lan import BRIDGE, Lan
from tests.lab.process import run
from tests.lab.tools import ensure_tools

# A program on the host sees the host's NICs in /sys/class/net. /sys belongs to the namespace that mounted
# it, so it is mounted afresh for the program, and the machine's cgroups are put back below it.
HOST_SYSFS = (
    'mount --rbind /sys/fs/cgroup "$0" && mount -t sysfs sysfs /sys && mount --move "$0" /sys/fs/cgroup && exec "$@"'
)
STOP_WITHIN = 10.0


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A network card of the edge host."""

    name: str
    mac: str


@dataclass(kw_only=True)
class EdgeHost:
    """Made by `edge_host`."""

    lab: Lab
    _engine: Engine | None = None
    _lans: dict[str, Lan] = field(default_factory=dict)
    _plugged: dict[str, Lan] = field(default_factory=dict)  # NIC name -> where its cable ends
    _programs: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def ns(self) -> str:
        return self.lab.namespace("edge")

    @property
    def dir(self) -> Path:
        """A folder for the test's own files, too; it goes with the host."""
        return self.lab.dir

    def ip(self, *words: str) -> str:
        """`ip` on the host; returns what it printed."""
        return netns.ip(self.ns, *words)

    # --- network ---

    def lan(self, name: str, network: str, *, dhcp: bool = True) -> Lan:
        """A new LAN with a router at the first address, and a DHCP server unless told otherwise."""
        lan = Lan(lab=self.lab, name=name, network=IPv4Network(network))
        self._lans[name] = lan
        lan.set_up()
        if dhcp:
            lan.start_dhcp()
        return lan

    def nic(
        self, name: str, lan: Lan, *, address: str | None = None, gateway: str | None = None, metric: int = 100
    ) -> Nic:
        """A new NIC with its cable in `lan`; `address` with prefix length ("192.168.10.5/24")."""
        lan.plug_in(_port(name), name, self.ns)
        self._plugged[name] = lan
        if address:
            self.set_address(name, address, gateway=gateway, metric=metric)
        link = json.loads(self.ip("-json", "link", "show", name))[0]
        return Nic(name=name, mac=link["address"])

    def set_address(self, nic: str, address: str | None, *, gateway: str | None = None, metric: int = 100) -> None:
        """Give the NIC this address in place of those it has; None takes them away."""
        self.ip("address", "flush", "dev", nic)
        if address:
            self.ip("address", "add", address, "broadcast", "+", "dev", nic)
        if gateway:
            self.ip("route", "replace", "default", "via", gateway, "dev", nic, "metric", str(metric))

    def move_cable(self, nic: str, lan: Lan) -> None:
        """Plug the NIC into another LAN: its carrier goes and comes, addresses stay as they are."""
        netns.ip(self._plugged[nic].ns, "link", "set", _port(nic), "netns", lan.ns)
        netns.ip(lan.ns, "link", "set", _port(nic), "master", BRIDGE, "up")
        self._plugged[nic] = lan

    def cable(self, nic: str, *, up: bool) -> None:
        """Pull the cable at the switch, or put it back."""
        netns.ip(self._plugged[nic].ns, "link", "set", _port(nic), "up" if up else "down")

    def remove_nic(self, nic: str) -> None:
        """The card is gone, as when a USB adapter is pulled out."""
        self.ip("link", "delete", nic)
        del self._plugged[nic]

    # --- programs ---

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 60.0,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host to its end; raises `CommandFailed` unless `check` is false."""
        return run(self._on_host(argv), env=env, check=check, timeout=timeout, cwd=cwd)

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program on the host; `.pid` is the program's own. It is killed with the host at the latest.

        Output goes to the file `log` when given, else to the pipe `.stdout` (which the test must read: a
        full pipe stops the program). The program has a session of its own, and sees mounts as of now.
        """
        output = log.open("a") if log else subprocess.PIPE
        try:
            program = subprocess.Popen(
                self._on_host(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            if not isinstance(output, int):
                output.close()
        self._programs.append(program)
        return program

    def _on_host(self, argv: Sequence[str | Path]) -> list[str]:
        own_mounts = ["unshare", "--mount", "--propagation", "slave", "--"]
        return netns.command_in(self.ns, [*own_mounts, "sh", "-c", HOST_SYSFS, self.dir / "cgroup", *argv])

    # --- engine ---

    @property
    def engine(self) -> Engine:
        """The host's engine; raises RuntimeError before the first `start_engine`."""
        if self._engine is None:
            raise RuntimeError("the host has no engine yet: start_engine() first")
        return self._engine

    def start_engine(self, *extra: str) -> Engine:
        """Start the engine, or start it again after a stop or a kill; `extra` are options of dockerd."""
        if self._engine is None:
            self._engine = Engine(ns=self.ns, dir=self.dir)
        self._engine.start(*extra)
        return self._engine

    def load_image(self, source: Path, tag: str) -> None:
        """See `image.load`."""
        image.load(self.engine.docker_host, source, tag)

    # --- beginning and end ---

    def set_up(self) -> None:
        netns.add(self.ns)
        (self.dir / "cgroup").mkdir()
        netns.run_in(self.ns, ["iptables", "--wait", "--policy", "FORWARD", "DROP"])

    def close(self) -> None:
        """End what this process started, so that no zombie stays; `cleanup.clear` does the rest."""
        if self._engine is not None:
            self._engine.close()
        for lan in self._lans.values():
            lan.stop_dhcp()
        for program in self._programs:
            program.kill()
            program.wait(STOP_WITHIN)
            if program.stdout:
                program.stdout.close()


@contextmanager
def edge_host() -> Iterator[EdgeHost]:
    """A new edge host without NICs; see the head of this module. Also clears what killed runs left."""
    ensure_tools()
    with claimed_lab() as lab:
        host = EdgeHost(lab=lab)
        try:
            host.set_up()
            yield host
        finally:
            host.close()


def _port(nic: str) -> str:
    """The switch port at the other end of the NIC's cable."""
    return f"p-{nic}"
