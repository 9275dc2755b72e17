"""A plant LAN: one namespace with a switch (a bridge), a router's address and a DHCP server, and PCs on it."""

import http.client
import json
import re
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.lab import netns
from tests.lab.cleanup import Lab
from tests.lab.process import tail, wait_until

BRIDGE = "br0"


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One line of the DHCP server's lease file."""

    mac: str
    address: str
    hostname: str | None
    client_id: str | None


@dataclass(frozen=True, kw_only=True)
class Outsider:
    """A PC on the LAN that knows nothing of the edge host: what it sees is what the plant sees."""

    ns: str
    address: str
    mac: str

    def run(
        self, argv: Sequence[str | Path], *, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the PC; raises `CommandFailed` unless `check` is false."""
        return netns.run_in(self.ns, argv, check=check, timeout=timeout)

    def ping(self, address: str, within: float = 1.0) -> bool:
        """Does `address` answer one ICMP echo within that many (whole) seconds?"""
        return self.run(["busybox", "ping", "-c1", f"-W{within:.0f}", address], check=False).returncode == 0

    def arp(self, address: str) -> str | None:
        """The MAC address that answers for `address` now (asked on the wire, not taken from a cache)."""
        asked = self.run(["busybox", "arping", "-c1", "-w1", "-I", "eth0", address], check=False)
        answer = re.search(r"\[([0-9a-f:]{17})\]", asked.stdout)
        return answer[1] if answer else None

    def https_get(self, address: str, port: int = 8443, path: str = "/", timeout: float = 5.0) -> tuple[int, bytes]:
        """Status and body of one GET; any certificate will do. Raises OSError when there is no answer."""

        def get() -> tuple[int, bytes]:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(address, port, timeout=timeout, context=context)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        return netns.call_in(self.ns, get)


@dataclass(kw_only=True)
class Lan:
    """Use `EdgeHost.lan` to make one. The router has the network's first address, DHCP gives .100 to .199
    (of a /24), leases last two minutes, the shortest that dnsmasq gives."""

    lab: Lab
    name: str
    network: IPv4Network
    server: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def ns(self) -> str:
        return self.lab.namespace(self.name)

    @property
    def gateway(self) -> IPv4Address:
        return self.network[1]

    @property
    def dir(self) -> Path:
        return self.lab.dir / f"lan-{self.name}"

    @property
    def dhcp_log(self) -> Path:
        return self.dir / "dnsmasq.log"

    def set_up(self) -> None:
        netns.add(self.ns)
        netns.ip(self.ns, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
        netns.ip(self.ns, "address", "add", f"{self.gateway}/{self.network.prefixlen}", "dev", BRIDGE)
        netns.ip(self.ns, "link", "set", BRIDGE, "up")
        self.dir.mkdir()

    def start_dhcp(self, *extra: str) -> None:
        """Start the DHCP server; returns when it listens. Leases of an earlier start are still known. `extra`:
        options of dnsmasq."""
        self.server = subprocess.Popen(
            netns.command_in(self.ns, [*self._dnsmasq(), *extra]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._dhcp_listens, 10, f"a DHCP server on {self.name}: {tail(self.dhcp_log)}")

    def stop_dhcp(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(10)
            self.server = None

    def leases(self) -> list[Lease]:
        """What the server has given out and not got back."""
        file = self.dir / "leases"
        lines = file.read_text().splitlines() if file.exists() else []
        return [_lease(*line.split()[:5]) for line in lines]

    def pc(self, name: str, address: str) -> Outsider:
        """Put a PC with a fixed address on the LAN."""
        ns = self.lab.namespace(self.name, name)
        netns.add(ns)
        self.plug_in(name, "eth0", ns)
        netns.ip(ns, "address", "add", f"{address}/{self.network.prefixlen}", "dev", "eth0")
        link = json.loads(netns.ip(ns, "-json", "link", "show", "eth0"))[0]
        return Outsider(ns=ns, address=address, mac=link["address"])

    def plug_in(self, port: str, nic: str, ns: str) -> None:
        """A cable from the switch's `port` to a new interface `nic` in `ns`."""
        netns.ip(self.ns, "link", "add", port, "type", "veth", "peer", "name", nic, "netns", ns)
        netns.ip(self.ns, "link", "set", port, "master", BRIDGE, "up")
        netns.ip(ns, "link", "set", nic, "up")

    def _dhcp_listens(self) -> bool:
        if self.server is not None and self.server.poll() is not None:
            raise RuntimeError(f"dnsmasq ended with {self.server.returncode}: {tail(self.dhcp_log)}")
        sockets = netns.run_in(self.ns, ["cat", "/proc/net/udp"]).stdout
        return ":0043 " in sockets  # port 67

    def _dnsmasq(self) -> list[str]:
        first, last = (self.network[self.network.num_addresses * share // 256] for share in (100, 199))
        return [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0"),
            *(f"--interface={BRIDGE}", "--bind-interfaces", "--except-interface=lo"),
            f"--dhcp-range={first},{last},2m",
            f"--dhcp-option=option:router,{self.gateway}",
            f"--dhcp-option=option:dns-server,{self.gateway}",
            # Authoritative: a host that comes from another LAN hears "no" at once. Without no-ping each
            # first lease takes three seconds.
            *("--dhcp-authoritative", "--no-ping", "--log-dhcp"),
            *(f"--dhcp-leasefile={self.dir / 'leases'}", f"--log-facility={self.dhcp_log}"),
            f"--pid-file={self.dir / 'dnsmasq.pid'}",
        ]


def _lease(_expires: str, mac: str, address: str, hostname: str, client_id: str) -> Lease:
    return Lease(mac=mac, address=address, hostname=_known(hostname), client_id=_known(client_id))


def _known(word: str) -> str | None:
    return None if word == "*" else word
