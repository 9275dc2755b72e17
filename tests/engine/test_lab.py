"""The lab keeps its promises: a real engine on a host of its own, seen from its LAN, and nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from tests.lab import netns
from tests.lab.cleanup import LABS
from tests.lab.fixtures import Site
from tests.lab.host import EdgeHost, edge_host
from tests.lab.image import BASE_TAG, base_image
from tests.lab.process import is_running, wait_until

pytestmark = pytest.mark.engine

NewEdgeHost = Callable[[], EdgeHost]
PLC_ADDRESS = "192.168.10.68"
PLC_MAC = "02:00:5e:10:00:68"
HTTPS_SERVER = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=plc -keyout /tmp/key "
    "-out /tmp/certificate && exec openssl s_server -accept 8443 -key /tmp/key -cert /tmp/certificate -www"
)


# --- the engine ---


def test_the_engine_and_its_bridge_are_inside_the_host(edge: EdgeHost) -> None:
    with closing(edge.engine.client()) as engine:
        assert engine.version()["Version"]
    assert "docker0" in edge.ip("-brief", "link")
    assert str(edge.dir) in edge.engine.docker_host


def test_the_host_forwards_only_what_the_engine_allows(edge: EdgeHost) -> None:
    assert "-P FORWARD DROP" in edge.run(["iptables", "-S", "FORWARD"]).stdout


def test_containers_outlive_a_killed_engine(new_edge_host: NewEdgeHost) -> None:
    host = new_edge_host()
    host.start_engine("--live-restore")
    host.load_image(base_image(), BASE_TAG)
    before = container_process(host)

    host.engine.kill()
    assert not host.engine.answers()
    assert is_running(before)

    host.start_engine("--live-restore")
    with closing(host.engine.client()) as engine:
        assert engine.containers.list()[0].attrs["State"]["Pid"] == before.pid


def test_a_stopped_engine_ends_its_containers_and_can_start_again(new_edge_host: NewEdgeHost) -> None:
    host = new_edge_host()
    host.start_engine()
    host.load_image(base_image(), BASE_TAG)
    process = container_process(host)

    host.engine.stop()
    assert not is_running(process)

    host.start_engine()
    assert host.engine.answers()


def test_a_frozen_engine_answers_again_when_thawed(edge: EdgeHost) -> None:
    edge.engine.freeze()
    try:
        assert not edge.engine.answers()
    finally:
        edge.engine.thaw()
    wait_until(edge.engine.answers, 5, "an answer of the thawed engine")


def test_an_image_comes_from_a_folder_or_from_a_saved_tar(edge: EdgeHost, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "marker").write_text("a file in the image")
    edge.load_image(root, "lab/from-folder:1")
    with closing(edge.engine.client()) as engine:
        saved = tmp_path / "saved.tar"
        saved.write_bytes(b"".join(engine.images.get("lab/from-folder:1").save(named=True)))
        edge.load_image(saved, "lab/from-tar:2")
        assert engine.images.get("lab/from-tar:2").id == engine.images.get("lab/from-folder:1").id
        for tag in ("lab/from-folder:1", "lab/from-tar:2"):
            engine.images.remove(tag)


# --- the LAN ---


def test_the_outsider_reaches_a_macvlan_container_until_its_cable_is_pulled(edge: EdgeHost, plant: Site) -> None:
    with plc_on_the_plant(edge):
        status, page = wait_until(lambda: served(plant), 10, "an HTTPS answer of the container")
        assert (status, b"Ciphers supported" in page) == (200, True)
        assert plant.pc.arp(PLC_ADDRESS) == PLC_MAC

        edge.cable(plant.nic, up=False)
        assert not plant.pc.ping(PLC_ADDRESS)
        assert plant.pc.arp(PLC_ADDRESS) is None

        edge.cable(plant.nic, up=True)
        wait_until(lambda: plant.pc.ping(PLC_ADDRESS), 5, "the container is back on the LAN")


def test_a_moved_cable_changes_the_lan_and_nothing_on_the_host(new_edge_host: NewEdgeHost) -> None:
    host = new_edge_host()
    plant, office = host.lan("plant", "192.168.10.0/24"), host.lan("office", "192.168.20.0/24")
    host.nic("ens37", plant, address="192.168.10.5/24", gateway="192.168.10.1")
    before = host.ip("-brief", "address", "show", "dev", "ens37")

    host.move_cable("ens37", office)
    assert host.ip("-brief", "address", "show", "dev", "ens37") == before
    assert not plant.pc("pc", "192.168.10.50").ping("192.168.10.5")

    host.set_address("ens37", "192.168.20.5/24")
    assert office.pc("pc", "192.168.20.50").ping("192.168.20.5")


def test_each_lan_leases_addresses_of_its_own(new_edge_host: NewEdgeHost) -> None:
    host = new_edge_host()
    plant, office = host.lan("plant", "192.168.10.0/24"), host.lan("office", "10.20.30.0/25")
    nic = host.nic("ens37", plant)
    take_lease = ["busybox", "udhcpc", "-f", "-n", "-q", "-i", "ens37", "-s", "/bin/true", "-x", "hostname:edge"]

    for lan, first_three in ((plant, "192.168.10."), (office, "10.20.30.")):
        host.move_cable("ens37", lan)
        host.run(take_lease)
        [lease] = lan.leases()
        assert (lease.mac, lease.hostname) == (nic.mac, "edge")
        assert lease.address.startswith(first_three)

    office.stop_dhcp()
    assert host.run([*take_lease, "-t", "1", "-T", "1"], check=False).returncode != 0
    office.start_dhcp()
    host.run(take_lease)


def test_a_removed_nic_is_gone_for_good(new_edge_host: NewEdgeHost) -> None:
    host = new_edge_host()
    host.nic("ens39", host.lan("plant", "192.168.10.0/24", dhcp=False))
    host.remove_nic("ens39")
    assert "ens39" not in host.ip("-brief", "link")


# --- programs ---


def test_a_program_on_the_host_sees_its_nics_and_the_machines_cgroups(edge: EdgeHost, plant: Site) -> None:
    nics = edge.run(["ls", "/sys/class/net"]).stdout.split()
    assert plant.nic in nics
    assert sorted(nics) == sorted(link["ifname"] for link in json.loads(edge.ip("-json", "link")))
    assert edge.run(["ls", "/sys/fs/cgroup"]).stdout.split() == sorted(
        path.name for path in Path("/sys/fs/cgroup").iterdir()
    )


def test_a_started_program_is_known_by_its_own_pid(edge: EdgeHost) -> None:
    program = edge.popen(["sh", "-c", "echo $$ $GREETING; exec sleep 60"], env={**os.environ, "GREETING": "hello"})
    assert program.stdout is not None
    assert program.stdout.readline().split() == [str(program.pid), "hello"]


def test_a_function_called_in_a_namespace_leaves_the_caller_outside(edge: EdgeHost, plant: Site) -> None:
    mine = Path("/proc/thread-self/ns/net").readlink()
    with netns.call_in(edge.ns, lambda: socket.create_server(("192.168.10.5", 0))) as server:
        port = server.getsockname()[1]
        with netns.call_in(plant.pc.ns, lambda: socket.create_connection(("192.168.10.5", port), 5)) as client:
            assert server.accept()[1] == client.getsockname()
    assert Path("/proc/thread-self/ns/net").readlink() == mine

    with pytest.raises(ZeroDivisionError):
        netns.call_in(edge.ns, lambda: 1 // 0)


# --- the end ---


def test_after_close_nothing_is_left_even_when_the_test_failed() -> None:
    with pytest.raises(ArithmeticError), edge_host() as host:
        name, watched = busy_host(host)
        [container] = (path.name for path in (host.dir / "data/containers").iterdir())
        assert traces(name)
        raise ArithmeticError("a test that fails in the middle")
    assert traces(name) == []
    assert not any(is_running(process) for process in watched)
    assert list(Path("/sys/fs/cgroup").rglob(container)) == []


def test_the_next_lab_clears_what_a_killed_run_left() -> None:
    with other_run("busy_host(host)") as (run_of_others, name):
        run_of_others.send_signal(signal.SIGKILL)
        run_of_others.wait(10)
        assert traces(name)
        with edge_host():
            assert traces(name) == []


def test_a_lab_of_a_living_process_is_not_touched() -> None:
    with other_run('host.lan("plant", "192.168.10.0/24")') as (run_of_others, name):
        with edge_host():
            assert netns.with_prefix(name) == [f"{name}-edge", f"{name}-plant"]
            assert (LABS / name / "lan-plant").is_dir()
        run_of_others.communicate("end\n", timeout=20)
        assert run_of_others.returncode == 0
    assert traces(name) == []


# --- helpers ---


def container_process(host: EdgeHost) -> psutil.Process:
    with closing(host.engine.client()) as engine:
        container = engine.containers.run(BASE_TAG, ["sleep", "600"], detach=True, init=True)
        container.reload()
        return psutil.Process(container.attrs["State"]["Pid"])


def busy_host(host: EdgeHost) -> tuple[str, list[psutil.Process]]:
    """Give the host all that a lab can have; its name, and processes that must end with it."""
    host.nic("ens37", host.lan("plant", "192.168.10.0/24"), address="192.168.10.5/24")
    host.start_engine()
    host.load_image(base_image(), BASE_TAG)
    program = host.popen(["sleep", "600"])
    return host.lab.name, [container_process(host), psutil.Process(program.pid)]


@contextmanager
def other_run(what: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process with a lab of its own that ends it orderly after a line on stdin."""
    lines = [
        "from tests.engine.test_lab import *",
        "with edge_host() as host:",
        f"    {what}",
        "    print(host.lab.name, flush=True)",
        "    sys.stdin.readline()",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            yield other, other.stdout.readline().strip()
        finally:
            other.kill()


def traces(name: str) -> list[str]:
    """Everything on this machine that carries the lab's name: namespaces, mounts, processes, its folder."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    commands = [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if any(name in word for word in process.info["cmdline"] or [])
    ]
    folders = [str(path) for path in LABS.glob(f"*{name}*")]
    return [*netns.with_prefix(name), *mounts, *commands, *folders]


@contextmanager
def plc_on_the_plant(edge: EdgeHost) -> Iterator[Container]:
    with closing(edge.engine.client()) as engine:
        pool = IPAMPool(subnet="192.168.10.0/24", gateway="192.168.10.1")
        network = engine.networks.create(
            "plant-lan", driver="macvlan", options={"parent": "ens37"}, ipam=IPAMConfig(pool_configs=[pool])
        )
        container = engine.containers.create(
            BASE_TAG,
            ["sh", "-c", HTTPS_SERVER],
            init=True,
            mac_address=PLC_MAC,
            network="plant-lan",
            networking_config={"plant-lan": engine.api.create_endpoint_config(ipv4_address=PLC_ADDRESS)},
        )
        container.start()
        try:
            yield container
        finally:
            container.remove(force=True)
            network.remove()


def served(plant: Site) -> tuple[int, bytes] | None:
    try:
        return plant.pc.https_get(PLC_ADDRESS)
    except ConnectionRefusedError:
        return None  # its server is still starting
