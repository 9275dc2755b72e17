"""Gives vNICs their MAC where Docker did not: it ignores one at `network connect`, and engines below 25 give a
container one MAC only.

A short-lived container of the device's own image goes into the vPLC's network namespace, corrects the interface and
ends. The engine knows nothing of it: `inspect` goes on showing its own MAC, and after a restart of the container by
the engine it has that one until we correct it again.
"""

import logging
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from common.backoff import doubling
from services.docker_worker import mac_program, spec
from services.docker_worker.container import Container
from services.docker_worker.corrections import Corrected, life_of
from services.docker_worker.errors import EngineError
from services.docker_worker.job import Job
from services.docker_worker.place import Place

log = logging.getLogger(__name__)

PROGRAM = Path(mac_program.__file__).read_text(encoding="utf-8")
WITHIN = 20.0  # seconds
BASE, CAP = 2.0, 300.0  # seconds until the next try of what failed
CAPABILITIES = ("NET_ADMIN", "NET_RAW")  # to set the MAC, and to announce it


def correct(job: Job, container: Container, placed: Sequence[Place]) -> float | None:
    """Correct every vNIC of a running container whose MAC differs. Returns the seconds until a failed one is due."""
    due = [_correct_one(job, container, one) for one in placed if one.decision == "take"]
    return min((seconds for seconds in due if seconds is not None), default=None)


def _correct_one(job: Job, container: Container, one: Place) -> float | None:
    vnic = one.vnic
    endpoint = next((each for each in container.endpoints.values() if each.ip_address == vnic.ip_address), None)
    if endpoint is None or vnic.mac_address in (None, endpoint.mac_address):
        return None
    before = job.worker.corrections.get(container, vnic.name, endpoint)
    if before is not None and before.mac_address == vnic.mac_address:
        return None
    if before is not None and time.monotonic() < before.again_at:
        return before.again_at - time.monotonic()
    job.still_wanted()
    mac, problem = _run(job, container, endpoint.ip_address, vnic.mac_address or "")
    failures = before.failures if before else 0
    pause = doubling(failures, base=BASE, cap=CAP)
    done = Corrected(
        life=life_of(container, endpoint),
        mac_address=mac,
        problem=problem,
        failures=failures + 1 if problem else 0,
        again_at=time.monotonic() + pause,
    )
    job.worker.corrections.put(container, vnic.name, done)
    if problem:
        log.warning("%s: %s does not get its MAC %s: %s", job.name, vnic.name, vnic.mac_address, problem)
        return pause
    return None


def _run(job: Job, container: Container, address: str, mac: str) -> tuple[str, str]:
    """The MAC that was read back, or why not."""
    config = helper_config(container, job.worker.owner.id, address, mac)
    try:
        code, output = job.engine.run_once(f"{job.name}-mac-{secrets.token_hex(3)}", config, WITHIN)
    except EngineError as problem:
        return "", problem.text
    said = output.strip().rpartition("\n")[2]
    return (said, "") if code == 0 and said == mac else ("", said or f"the helper ended with exit code {code}")


def helper_config(container: Container, owner: str, address: str, mac: str) -> dict[str, object]:
    """The body of create for the helper: nothing but two capabilities in the namespace of the vPLC."""
    return {
        "Image": container.image_id,
        "User": "0",
        "Entrypoint": ["python3", "-I", "-c", PROGRAM],
        "Cmd": [address, mac],
        "Labels": {spec.OWNER: owner, spec.HELPER: container.name, spec.VERSION: spec.LABELS_VERSION},
        "HostConfig": {
            "NetworkMode": f"container:{container.id}",
            "CapDrop": ["ALL"],
            "CapAdd": list(CAPABILITIES),
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "LogConfig": {"Type": "json-file"},
        },
    }
