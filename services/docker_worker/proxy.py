"""`run_command`: one HTTPS request of the cloud, passed on to a vPLC's own API over its internal bridge.

The caller logs in and carries the runtime's token; the agent holds no credentials. HTTP 200 does not mean done:
the runtime gives results in the body, so the answer is relayed as it is and never judged.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from bus.errors import CommandError
from bus.messages.docker_worker import HttpResponse, RunCommand
from services.docker_worker.proxy_exchange import exchange
from services.docker_worker.proxy_request import prepare
from services.docker_worker.proxy_response import relay

log = logging.getLogger(__name__)

# The runtime serves HTTPS on this port only; 502, 102 and 4840 are field protocols, not HTTP. A list, so that a
# runtime with a second API needs one more number here and nothing else.
RUNTIME_PORTS = frozenset({8443})


class Uploads:
    """The devices that are taking an upload: the runtime compiles one program at a time, and a second upload
    in the middle of the first leaves it with none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._devices: set[str] = set()

    @contextmanager
    def only_one(self, device_id: str) -> Iterator[None]:
        """Hold the device's place for an upload; raises `CommandError` conflict when it is taken."""
        with self._lock:
            if device_id in self._devices:
                raise CommandError("conflict", f"{device_id} is busy with another upload; wait for its answer")
            self._devices.add(device_id)
        try:
            yield
        finally:
            with self._lock:
                self._devices.discard(device_id)


class ProxyContext(Protocol):
    """What the proxy needs to know of the house."""

    @property
    def uploads(self) -> Uploads: ...

    def internal_address(self, device_id: str) -> str:
        """The device's IP address on its internal bridge; raises `CommandError` if there is none."""
        ...


def run_command(context: ProxyContext, request: RunCommand, *, ports: frozenset[int] = RUNTIME_PORTS) -> HttpResponse:
    """Pass `request` on and relay the answer. Never retried: the runtime's starts and uploads may not run twice.

    Raises `CommandError`: `invalid` or `refused` naming the field, `conflict` (an upload is under way), `refused`
    (a body over 4 MiB there or 512 KiB back), `unavailable` (it surely did not run), `timeout` (unknown whether it
    ran, or the API is wedged), and whatever `internal_address` says of the device.
    """
    prepared = prepare(request, ports)
    if prepared.dropped:
        log.info("run_command for %s: headers not passed on: %s", request.device_id, ", ".join(prepared.dropped))
    address = context.internal_address(request.device_id)
    if not request.files:
        return relay(exchange(request.device_id, address, prepared, request.timeout_s))
    with context.uploads.only_one(request.device_id):
        return relay(exchange(request.device_id, address, prepared, request.timeout_s))
