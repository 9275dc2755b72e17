"""The runtime's image: what is local wins at once, else it is pulled, else the newest local tag has to do."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from common import threads
from services.docker_worker.engine import PULL_INACTIVE, Engine
from services.docker_worker.errors import EngineError, StepFailed

log = logging.getLogger(__name__)

PULL_TOTAL = 1800.0  # seconds
_LOOK = 0.5  # seconds between looks whether the image is still wanted


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """An image, by its id, and a sentence where it is not the one that was asked for."""

    image_id: str
    note: str = ""


Progress = Callable[[int | None, str], None]


def choose(engine: Engine, reference: str, begin: Callable[[], None], progress: Progress) -> Chosen:
    """The image for `repository:tag`.

    `begin` is called before a pull, `progress` with percent and text while it goes on; what either raises ends the
    pull and goes through. Raises `StepFailed` when there is no image, `EngineError`.
    """
    local = engine.image_id(reference)
    if local is not None:
        return Chosen(image_id=local)
    repository, _, tag = reference.rpartition(":")
    begin()
    try:
        for line in _pull(engine, repository, tag, progress):
            log.debug("pull %s: %s", reference, line)
    except EngineError as problem:
        return _substitute(engine, repository, reference, problem)
    pulled = engine.image_id(reference)
    if pulled is None:
        raise StepFailed("unavailable", f"the image {reference} was pulled, but is not there")
    return Chosen(image_id=pulled)


def _substitute(engine: Engine, repository: str, reference: str, problem: EngineError) -> Chosen:
    images = sorted(engine.local_images(repository), key=lambda image: image["Created"], reverse=True)
    if not images:
        raise StepFailed(
            "unavailable",
            f"the image {reference} cannot be pulled ({problem.text}) and no {repository} is on this host",
        )
    newest = images[0]
    names = ", ".join(newest.get("RepoTags") or ()) or newest["Id"][:19]
    note = f"the image {reference} cannot be pulled ({problem.text}); using the newest on this host, {names}"
    log.warning("%s", note)
    return Chosen(image_id=newest["Id"], note=note)


def _pull(engine: Engine, repository: str, tag: str, progress: Progress) -> Iterator[str]:
    """The pull runs in a thread of its own: a registry that does not answer must not keep us from noticing that
    nobody wants the image any more."""
    lines: queue.SimpleQueue[dict[str, Any] | EngineError | None] = queue.SimpleQueue()
    given_up = threading.Event()

    def work() -> None:
        try:
            stream = engine.pull(repository, tag)
            for line in stream:
                if given_up.is_set():
                    return
                lines.put(line)
            lines.put(None)
        except EngineError as problem:
            lines.put(problem)

    threads.spawn(f"pull {repository}:{tag}", work)
    layers = Layers()
    end, heard = time.monotonic() + PULL_TOTAL, time.monotonic()
    percent: int | None = None
    try:
        while True:
            try:
                line = lines.get(timeout=_LOOK)
            except queue.Empty:
                now = time.monotonic()
                if now > end or now - heard > PULL_INACTIVE:
                    raise EngineError("timeout", 0, "the pull made no progress in time") from None
                progress(percent, "")
                continue
            heard = time.monotonic()
            if line is None:
                return
            if isinstance(line, EngineError):
                raise line
            percent = layers.percent(line)
            progress(percent, line.get("status", ""))
            yield line.get("status", "")
    finally:
        given_up.set()


class Layers:
    """Adds up the progress of an image's layers; a download counts for three quarters, unpacking for the rest."""

    def __init__(self) -> None:
        self._done: dict[str, float] = {}

    def percent(self, line: dict[str, Any]) -> int | None:
        """Of the whole, after this line; None while nothing is known."""
        layer, status, detail = line.get("id", ""), line.get("status", ""), line.get("progressDetail") or {}
        share = detail["current"] / detail["total"] if detail.get("total") else 0.0
        known = {
            "Pulling fs layer": 0.0,
            "Downloading": 0.75 * share,
            "Download complete": 0.75,
            "Extracting": 0.75 + 0.25 * share,
            "Pull complete": 1.0,
            "Already exists": 1.0,
        }
        if status in known:
            self._done[layer] = max(known[status], self._done.get(layer, 0.0))
        return round(100 * sum(self._done.values()) / len(self._done)) if self._done else None
