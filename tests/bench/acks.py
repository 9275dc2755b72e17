"""Acknowledgement round trips: cloud -> cloud_link -> netmon -> back, beside a bare Socket.IO acknowledgement."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import zmq

from tests.bench.table import Row, beside, percentile
from tests.e2e.product import ROOT, Product
from tests.lab.process import wait_until

PAIRS, BLOCK = 40, 50

ROUTER = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.bind(sys.argv[1])
while True:
    router.send_multipart(router.recv_multipart())
"""


def rows(product: Product) -> list[Row]:
    """Blocks of ours and bare in turn; durations as the server that waits for them logged them."""
    with bare_agent(product) as bare:
        for agent in (product.agent_id, bare):
            _durations(product, agent, BLOCK)  # warm up
        ours, theirs = [], []
        for _ in range(PAIRS):
            ours += _durations(product, product.agent_id, BLOCK)
            theirs += _durations(product, bare, BLOCK)
    return [
        floor(),
        beside("ack of get_host_interfaces, p50", "ms", ours, theirs, 0.50, "<= 1.5x"),
        beside("ack of get_host_interfaces, p99", "ms", ours, theirs, 0.99, "<= 2x"),
    ]


def floor() -> Row:
    """What the transport alone costs here: a DEALER and a ROUTER in two processes, 200 bytes there and back, at the
    pace of the commands above. The acknowledgement cannot be quicker than the bare one plus this."""
    with TemporaryDirectory() as directory:
        endpoint = f"ipc://{directory}/floor"
        peer = subprocess.Popen([sys.executable, "-c", ROUTER, endpoint])
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        dealer.connect(endpoint)
        times = []
        for _ in range(PAIRS * BLOCK // 4):
            time.sleep(0.003)  # the pace: an idle processor takes longer to wake up
            began = time.perf_counter()
            dealer.send(b"." * 200)
            dealer.recv()
            times.append(1000 * (time.perf_counter() - began))
        peer.kill()
        peer.wait(5)
        context.destroy(linger=0)
    return Row("(bare DEALER/ROUTER over ipc, p50)", len(times), "", f"{percentile(times, 0.5):.2f} ms", "", "")


def _durations(product: Product, agent: str, number: int) -> list[float]:
    for _ in range(number):
        product.cloud.send(agent, "get_host_interfaces", {}, 10.0)
    logged: list[dict[str, object]] = []

    def written() -> bool:
        found = product.cloud.get(f"/api/commands?limit={number}")["commands"]
        logged[:] = [entry for entry in found if entry["agent_id"] == agent]
        return len(logged) == number

    wait_until(written, 10.0, "the command log is written")
    return [float(str(entry["duration_ms"])) for entry in logged]


@contextmanager
def bare_agent(product: Product) -> Iterator[str]:
    """A second identity, enrolled and online with the bare client; its id."""
    mtls, cloud = product.dir / "bare-mtls", product.dir / "local-cloud"
    enrol = [sys.executable, "-m", "install.enrol", "--provisioning", "https://localhost:7444"]
    enrol += ["--ca", str(cloud / "ca.crt"), "--token-file", str(cloud / "enrol.token"), "--mtls-dir", str(mtls)]
    product.edge.run(enrol, env=product.environment, cwd=ROOT)
    known = {agent["id"] for agent in product.cloud.get("/api/agents")["agents"]}
    (bare,) = known - {product.agent_id}
    identity = [str(cloud / "ca.crt"), str(mtls / "client.crt"), str(mtls / "client.key")]
    client = product.edge.popen(
        [sys.executable, "-m", "tests.bench.bare_client", "https://localhost:7443", *identity],
        env=product.environment,
        cwd=ROOT,
        log=product.dir / "bare.log",
    )
    try:
        wait_until(lambda: product.cloud.get(f"/api/agents/{bare}")["online"], 15.0, "the bare client is online")
        yield bare
    finally:
        client.terminate()
        client.wait(10)
