"""The Docker engine: the only module that imports the SDK.

One low-level client per thread (the SDK promises no more), streams on clients of their own, a time limit on every
call, and one exception, `EngineError`, whatever failed. A time-out means "unknown": inspect before deciding.
Everything is addressed by full ids; names go in only where an object is made or looked for.
"""

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import requests.exceptions
import urllib3.exceptions
from docker.api import APIClient
from docker.auth import get_config_header, resolve_repository_name
from docker.errors import APIError, DockerException

from services.docker_worker.errors import EngineError, classify

QUICK = 4.0  # seconds: answers from the engine's memory
SLOW = 60.0  # seconds: makes or starts something; a busy engine takes its time
PULL_INACTIVE = 120.0  # seconds without a line of progress

_EVENTS = ["start", "die", "stop", "destroy", "rename", "update", "pause", "unpause", "health_status"]
_EVENTS += ["connect", "disconnect"]  # of networks

Client = Any  # an APIClient; the SDK's type stubs know only half of what is used here


class Engine:
    """The engine at `docker_host` (`unix:///var/run/docker.sock`). Every method may raise `EngineError`."""

    def __init__(self, docker_host: str) -> None:
        self._host = docker_host
        self._local = threading.local()
        self._version: str | None = None

    # ---- the engine itself

    def negotiate(self) -> tuple[str, str]:
        """Version and API version of the engine that answers now; later clients speak that API version."""
        with _translated():
            client: Client = APIClient(base_url=self._host, version="auto", timeout=int(QUICK))
        try:
            with _translated():
                answer = client.version()
        finally:
            client.close()
        self._version = str(answer["ApiVersion"])
        return str(answer["Version"]), self._version

    def ping(self, limit: float = 2.0) -> None:
        """Returns when the engine answers within `limit` seconds."""
        with self._asking(limit) as client:
            client.ping()

    @property
    def per_network_mac(self) -> bool:
        """Can every network get its own MAC at create (API 1.44, Engine 25)?"""
        return tuple(int(part) for part in (self._version or "1.24").split(".")) >= (1, 44)

    # ---- containers

    def owned_containers(self, label: str) -> list[dict[str, Any]]:
        """Short form of all containers, running or not, that carry the label key."""
        with self._asking(QUICK) as client:
            found: list[dict[str, Any]] = client.containers(all=True, filters={"label": label})
        return found

    def all_containers(self) -> list[dict[str, Any]]:
        """Short form of every container of the engine, whoever made it."""
        with self._asking(QUICK) as client:
            found: list[dict[str, Any]] = client.containers(all=True)
        return found

    def find_container(self, name: str, limit: float = QUICK) -> str | None:
        """Full id of the container of exactly this name."""
        with self._asking(limit) as client:
            # The filter is a regular expression over names with a slash in front; compare ourselves as well.
            found = client.containers(all=True, filters={"name": f"^/{re.escape(name)}$"})
        for container in found:
            if f"/{name}" in container["Names"]:
                return str(container["Id"])
        return None

    def inspect_container(self, identity: str, limit: float = QUICK) -> dict[str, Any] | None:
        """Everything about a container, None when it is gone."""
        try:
            with self._asking(limit) as client:
                answer: dict[str, Any] = client.inspect_container(identity)
        except EngineError as problem:
            if problem.kind == "not_found":
                return None
            raise
        return answer

    def create_container(self, name: str, config: Mapping[str, Any]) -> str:
        """Make a container from the engine's own create body; returns its id."""
        with self._asking(SLOW) as client:
            return str(client.create_container_from_config(dict(config), name)["Id"])

    def start_container(self, identity: str) -> None:
        """Starting what runs is fine."""
        with self._asking(SLOW) as client:
            client.start(identity)

    def stop_container(self, identity: str, grace: float) -> None:
        """Ask it to end, kill it after `grace` seconds; stopping what does not run is fine."""
        with self._asking(SLOW + grace) as client:
            client.stop(identity, timeout=max(0, round(grace)))

    def set_restart_policy(self, identity: str, policy: str) -> None:
        """`always` or `no`, from now on."""
        with self._asking(SLOW) as client:
            client.update_container(identity, restart_policy={"Name": policy, "MaximumRetryCount": 0})

    def remove_container(self, identity: str) -> None:
        """Remove it, running or not, and leave its volumes. Already gone or going is fine."""
        with self._tolerating("not_found", "removing"), self._asking(SLOW) as client:
            client.remove_container(identity, force=True, v=False)

    def run_once(self, name: str, config: Mapping[str, Any], limit: float) -> tuple[int, str]:
        """Run a container to its end and remove it; its exit code and what it said. `limit`: seconds to its end."""
        identity = self.create_container(name, config)
        try:
            self.start_container(identity)
            with self._asking(limit) as client:
                code = int(client.wait(identity, timeout=limit)["StatusCode"])
            with self._asking(QUICK) as client:
                said: bytes = client.logs(identity, tail=10)
            return code, said.decode(errors="replace")
        finally:
            with self._tolerating("not_found", "removing"), self._asking(SLOW) as client:
                client.remove_container(identity, force=True, v=True)

    # ---- networks and volumes

    def networks(self) -> list[dict[str, Any]]:
        """All networks of the engine."""
        with self._asking(QUICK) as client:
            found: list[dict[str, Any]] = client.networks()
        return found

    def create_network(self, body: Mapping[str, Any]) -> str:
        """Make a network from the engine's own create body; returns its id."""
        with self._asking(SLOW) as client:
            answer = client.post(client._url("/networks/create"), json=dict(body), timeout=SLOW)
            client._raise_for_status(answer)
            return str(answer.json()["Id"])

    def remove_network(self, identity: str) -> None:
        """Already gone is fine; `in_use` when a running container is on it."""
        with self._tolerating("not_found"), self._asking(SLOW) as client:
            client.remove_network(identity)

    def connect(self, network: str, container: str, ip_address: str | None, mac_address: str | None = None) -> None:
        """Put a container on a network. Engines of our days ignore the MAC here; later ones honour it."""
        with self._tolerating("already_connected"), self._asking(SLOW) as client:
            client.connect_container_to_network(container, network, ipv4_address=ip_address, mac_address=mac_address)

    def disconnect(self, network: str, container: str) -> None:
        """Take a container off a network, also off one that is gone (then `network` is its name)."""
        with self._tolerating("not_connected", "not_found"), self._asking(SLOW) as client:
            client.disconnect_container_from_network(container, network, force=True)

    def create_volume(self, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
        """The new volume, or, untouched, the one that has this name already."""
        with self._asking(SLOW) as client:
            answer: dict[str, Any] = client.create_volume(name, labels=dict(labels))
        return answer

    # ---- images

    def image_id(self, reference: str) -> str | None:
        """Id (`sha256:...`) of a local image, None when it is not here."""
        try:
            with self._asking(QUICK) as client:
                return str(client.inspect_image(reference)["Id"])
        except EngineError as problem:
            if problem.kind == "not_found":
                return None
            raise

    def local_images(self, repository: str) -> list[dict[str, Any]]:
        """Short form of the local images of a repository."""
        with self._asking(QUICK) as client:
            found: list[dict[str, Any]] = client.images(name=repository)
        return found

    # ---- streams

    def events(self, seconds: int) -> Iterator[dict[str, Any]]:
        """What happens to containers and networks in the next `seconds`; the iterator ends then, and when the engine
        ends. The stream is open when this returns. Events are hints only: some are lost."""
        client = self._new_client(SLOW)
        with _translated():
            stream = client.events(
                until=int(time.time()) + seconds,
                filters={"type": ["container", "network"], "event": _EVENTS},
                decode=True,
            )
        return _closing(client, stream)

    def pull(self, repository: str, tag: str) -> Iterator[dict[str, Any]]:
        """Pull an image; yields the engine's progress records. Close the iterator to give the pull up."""
        client = self._new_client(PULL_INACTIVE)
        try:
            registry, _ = resolve_repository_name(repository)
            header = get_config_header(client, registry)
            # The SDK's own pull() has no time limit at all.
            with _translated():
                answer = client.post(
                    client._url("/images/create"),
                    params={"fromImage": repository, "tag": tag},
                    headers={"X-Registry-Auth": header} if header else {},
                    stream=True,
                    timeout=PULL_INACTIVE,
                )
                client._raise_for_status(answer)
                for line in client._stream_helper(answer, decode=True):
                    if "error" in line:  # the HTTP status is 200 all the same
                        raise EngineError("other", 200, str(line["error"]))
                    yield line
                answer.close()
        finally:
            client.close()

    # ---- the rooms below

    def _new_client(self, limit: float) -> Client:
        with _translated():
            return APIClient(base_url=self._host, version=self._version or "auto", timeout=max(1, round(limit)))

    @contextmanager
    def _asking(self, limit: float) -> Iterator[Client]:
        client: Client = getattr(self._local, "client", None)
        if client is None or self._local.version != self._version:
            client = self._new_client(limit)
            self._local.client, self._local.version = client, self._version
        client.timeout = limit
        with _translated():
            yield client

    @contextmanager
    def _tolerating(self, *kinds: str) -> Iterator[None]:
        try:
            yield
        except EngineError as problem:
            if problem.kind not in kinds:
                raise


def _closing(client: Client, stream: Iterator[Any]) -> Iterator[dict[str, Any]]:
    try:
        with _translated():
            yield from stream
    finally:
        client.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except APIError as problem:
        text = str(problem.explanation or problem)
        raise EngineError(classify(problem.status_code or 0, text), problem.status_code or 0, text) from problem
    except requests.exceptions.Timeout as problem:
        raise EngineError("timeout", 0, "no answer in time") from problem
    except (
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        DockerException,
        OSError,
    ) as problem:
        raise EngineError("unreachable", 0, _short(problem)) from problem


def _short(problem: BaseException) -> str:
    """The innermost reason: SDK, requests and urllib3 each wrap it once more."""
    reasons: Sequence[str] = re.findall(
        r"(No such file or directory|Connection refused|Permission denied)", str(problem)
    )
    return reasons[-1].lower() if reasons else type(problem).__name__
