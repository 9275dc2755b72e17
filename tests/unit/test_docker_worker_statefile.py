"""The desired state survives power cuts, damage and old versions of itself."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contracts.vnic import Vnic
from services.docker_worker import statefile
from services.docker_worker.desired import DesiredState, Device, DeviceSpec

IMAGE = "runtime:latest"
VNIC = Vnic(name="eth0", parent_interface="ens37", mode="manual", ip_address="192.168.10.60", subnet="192.168.10.0/24")


def device(name: str, **fields: object) -> Device:
    return Device(**{"name": name, "power": "running", "spec": DeviceSpec(image=IMAGE, vnics=(VNIC,)), **fields})


@pytest.fixture
def state(tmp_path: Path) -> Callable[[], DesiredState]:
    return lambda: DesiredState(tmp_path, IMAGE)


names = st.from_regex(r"[a-z0-9][a-z0-9_.-]{1,20}", fullmatch=True)
devices = st.builds(
    Device,
    name=names,
    power=st.sampled_from(["running", "stopped", "absent"]),
    spec=st.builds(
        DeviceSpec,
        vnics=st.just((VNIC,)) | st.just(()),
        image=st.just(IMAGE),
        environment=st.dictionaries(names, st.text(max_size=30), max_size=3),
    ),
    image_id=st.none() | st.text(max_size=20),
    without=st.just(()) | st.just(("init",)),
    grace=st.floats(0.1, 30),
)


@given(st.lists(devices, unique_by=lambda one: one.name, max_size=5))
def test_what_is_written_is_read(kept: list[Device]) -> None:
    assert sorted(statefile.decode(statefile.encode(kept), Device, IMAGE), key=lambda one: one.name) == sorted(
        kept, key=lambda one: one.name
    )


@settings(max_examples=200)
@given(st.integers(0), st.integers(0, 255))
def test_a_changed_byte_is_never_believed(place: int, value: int) -> None:
    kept = [device("plc-001", image_id="sha256:1")]
    content = bytearray(statefile.encode(kept))
    content[place % len(content)] = value
    try:
        believed = statefile.decode(bytes(content), Device, IMAGE)
    except statefile.UnusableError:
        return
    assert believed == kept  # white space, or the same byte again


@given(st.integers(0, 600))
def test_a_truncated_file_is_never_believed(length: int) -> None:
    content = statefile.encode([device("plc-001")])
    with pytest.raises(statefile.UnusableError):
        statefile.decode(content[: min(length, len(content) - 2)], Device, IMAGE)


def test_a_damaged_file_gives_way_to_the_one_before(tmp_path: Path, state: Callable[[], DesiredState]) -> None:
    desired = state()
    desired.command(device("plc-001"))
    desired.command(device("plc-002"))
    (tmp_path / statefile.NAME).write_bytes(b'{"schema": 2, "devi')
    assert [one.name for one in state().all()] == ["plc-001"]


def test_without_any_file_there_is_nothing(tmp_path: Path, state: Callable[[], DesiredState]) -> None:
    desired = state()
    desired.command(device("plc-001"))
    (tmp_path / statefile.NAME).write_bytes(b"")
    assert state().all() == []


def test_the_first_shape_is_adopted(tmp_path: Path, state: Callable[[], DesiredState]) -> None:
    vnic = {
        "name": "eth0",
        "parent_interface": "ens37",
        "network_mode": "manual",
        "ip_address": "192.168.10.60",
        "subnet": "255.255.255.0",
        "mac_address": "02:42:AC:11:00:02",
    }
    (tmp_path / statefile.NAME).write_text(json.dumps({"plc-001": [vnic]}))
    (adopted,) = state().all()
    assert (adopted.name, adopted.power, adopted.spec.image) == ("plc-001", "running", IMAGE)
    assert adopted.vnics == (
        Vnic(
            name="eth0",
            parent_interface="ens37",
            mode="manual",
            ip_address="192.168.10.60",
            mac_address="02:42:ac:11:00:02",
        ),
    )


def test_a_technician_can_read_it(tmp_path: Path, state: Callable[[], DesiredState]) -> None:
    state().command(device("plc-001"))
    text = (tmp_path / statefile.NAME).read_text()
    assert '"ip_address": "192.168.10.60"' in text
    assert text.count("\n") > 10


def test_what_does_not_change_is_not_written(tmp_path: Path, state: Callable[[], DesiredState]) -> None:
    desired = state()
    revision = desired.command(device("plc-001"))
    before = (tmp_path / statefile.NAME).stat().st_ino
    desired.amend("plc-001", revision, power="running")
    desired.command(device("plc-001"))
    assert (tmp_path / statefile.NAME).stat().st_ino == before


def test_work_on_an_outdated_revision_leaves_no_trace(state: Callable[[], DesiredState]) -> None:
    desired = state()
    old = desired.command(device("plc-001"))
    new = desired.command(device("plc-001", power="absent"))
    assert desired.amend("plc-001", old, image_id="sha256:old") is None
    assert not desired.forget("plc-001", old)
    assert desired.get("plc-001") == device("plc-001", power="absent")
    assert desired.forget("plc-001", new)
    assert state().all() == []


def test_an_adopted_device_does_not_replace_a_known_one(state: Callable[[], DesiredState]) -> None:
    desired = state()
    desired.command(device("plc-001", power="stopped"))
    desired.adopt(device("plc-001"))
    known = desired.get("plc-001")
    assert known is not None
    assert known.power == "stopped"
