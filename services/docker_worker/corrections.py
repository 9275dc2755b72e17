"""What became of the vNICs whose MAC Docker did not set: see `mac_correction`."""

import msgspec

from services.docker_worker.container import Container, Endpoint


class Corrected(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a vNIC of one life of its container. `mac_address`: read back, empty when the try failed."""

    life: tuple[str, str]
    mac_address: str = ""
    problem: str = ""
    failures: int = 0
    again_at: float = 0.0


class Corrections:
    """By device and vNIC. Lost with our process: then one look into each namespace finds it right."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, str], Corrected] = {}

    def get(self, container: Container, vnic: str, endpoint: Endpoint) -> Corrected | None:
        """What was done since the endpoint is as it is."""
        done = self._done.get((container.name, vnic))
        return done if done is not None and done.life == life_of(container, endpoint) else None

    def put(self, container: Container, vnic: str, done: Corrected) -> None:
        self._done[container.name, vnic] = done

    def forget(self, device: str) -> None:
        self._done = {key: done for key, done in self._done.items() if key[0] != device}


def life_of(container: Container, endpoint: Endpoint) -> tuple[str, str]:
    """Another one after every start and every connect."""
    return container.started_at, endpoint.id
