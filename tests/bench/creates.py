"""Create command to running, beside the same sequence of raw Docker API calls."""

import statistics
import threading
import time
from typing import Any

import docker
from docker.types import IPAMConfig, IPAMPool

from install.runtime_image import SIMULATED
from tests.bench.table import Row, beside
from tests.e2e.product import Product

PAIRS = 12
MACVLAN = "macvlan_ens37_192.168.10.0_24"


def rows(product: Product) -> list[Row]:
    """Pairs of one create by command and one by hand; the end is the engine's own `start` event."""
    client = product.edge.engine.client()
    starts = Starts(product)
    ours, raw = [], []
    product.create("bench-anchor", ip="192.168.10.200")  # keeps the MACVLAN network there for both
    try:
        for number in range(PAIRS + 1):
            mine, theirs = _ours(product, starts, number), _raw(client, starts, number)
            if number:  # the first pair warms up
                ours.append(mine)
                raw.append(theirs)
    finally:
        product.delete("bench-anchor")
        client.close()
    return [
        beside("create command to running, p50", "ms", ours, raw, 0.50, "<= 1.10x"),
        Row(
            "  of that, best",
            PAIRS,
            f"{min(ours):.2f} ms",
            f"{min(raw):.2f} ms",
            f"{statistics.median(a / b for a, b in zip(ours, raw, strict=True)):.2f}x",
            "median of pairs",
        ),
    ]


class Starts:
    """When the engine said that a container started, by name, in unix seconds."""

    def __init__(self, product: Product) -> None:
        self._times: dict[str, float] = {}
        self._news = threading.Condition()
        events = product.edge.engine.client(timeout=3600)
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, client: docker.DockerClient) -> None:
        for event in client.events(decode=True, filters={"type": "container", "event": "start"}):
            with self._news:
                self._times[event["Actor"]["Attributes"]["name"]] = event["timeNano"] / 1e9
                self._news.notify_all()

    def of(self, name: str) -> float:
        with self._news:
            if not self._news.wait_for(lambda: name in self._times, 60.0):
                raise TimeoutError(f"{name} never started")
            return self._times[name]


def _ours(product: Product, starts: Starts, number: int) -> float:
    name = f"bench-ours-{number}"
    vnic = {"name": "eth0", "parent_interface": "ens37", "network_mode": "manual", "ip_address": "192.168.10.201"}
    began = time.time()
    product.send("create_new_runtime", {"container_name": name, "vnic_configs": [vnic]})
    milliseconds = 1000 * (starts.of(name) - began)
    product.wait_for_status(name, status="success", is_running=True)
    product.delete(name)
    return milliseconds


def _raw(client: docker.DockerClient, starts: Starts, number: int) -> float:
    api, name = client.api, f"bench-raw-{number}"
    began = time.time()
    pool = IPAMConfig(pool_configs=[IPAMPool(subnet="198.19.0.0/29")])
    network = api.create_network(f"{name}_internal", driver="bridge", internal=True, ipam=pool)["Id"]
    api.create_volume(f"{name}_runtime")
    endpoint: dict[str, Any] = {MACVLAN: api.create_endpoint_config(ipv4_address="192.168.10.202")}
    container = api.create_container(
        f"{SIMULATED}:latest",
        name=name,
        hostname=name,
        environment={"TINI_KILL_PROCESS_GROUP": "1"},
        stop_signal="SIGINT",
        host_config=api.create_host_config(
            restart_policy={"Name": "always"},
            init=True,
            network_mode=MACVLAN,
            binds=[f"{name}_runtime:/var/run/runtime"],
            cap_add=["SYS_NICE", "IPC_LOCK"],
            security_opt=["no-new-privileges"],
            log_config={"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        ),
        networking_config=api.create_networking_config(endpoint),
        mac_address="02:42:c0:a8:0a:ca",
    )["Id"]
    api.connect_container_to_network(container, network)
    api.start(container)
    milliseconds = 1000 * (starts.of(name) - began)
    api.remove_container(container, force=True)
    api.remove_network(network)
    api.remove_volume(f"{name}_runtime")
    return milliseconds
