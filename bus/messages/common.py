"""What every service answers and publishes; the names are prefixed with the owner, as in `netmon.ping`."""

from typing import Any, Literal

from bus.messages.base import Body, Event, Request, event, request

Health = Literal["starting", "ready", "degraded"]


class Pong(Body, frozen=True, kw_only=True):
    """I am here. `run` changes with every start of the process."""

    owner: str
    run: str


@request("ping", deadline=2.0, changes=False, inline=True)
class Ping(Request[Pong], frozen=True, kw_only=True):
    """Is the service there?"""


class ServiceInfo(Body, frozen=True, kw_only=True):
    """Who the service is and how it is. `started_at`: unix seconds; `uptime`: seconds; `detail`: the service's own."""

    owner: str
    run: str
    pid: int
    version: str
    started_at: float
    uptime: float
    health: Health
    reasons: list[str]
    requests: list[str]
    detail: dict[str, Any]


@request("info", deadline=2.0, changes=False, inline=True)
class Info(Request[ServiceInfo], frozen=True, kw_only=True):
    """Who the service is, since when it runs, what it answers and why it is degraded, if it is."""


class ServiceStats(Body, frozen=True, kw_only=True):
    """Counters since the start of the process. `rss`: bytes; `queue`: requests waiting now."""

    owner: str
    run: str
    uptime: float
    answered: dict[str, int]
    errors: dict[str, int]
    published: dict[str, int]
    dropped: dict[str, int]
    queue: int
    workers_busy: int
    threads: int
    descriptors: int
    rss: int


@request("stats", deadline=2.0, changes=False, inline=True)
class Stats(Request[ServiceStats], frozen=True, kw_only=True):
    """What the service has done since it started, and what it uses now."""


@event("alive", state_key="", period=2.0)
class Alive(Event, frozen=True, kw_only=True):
    """The service's pulse, every 2 s. `reasons` says in sentences why it is not ready."""

    owner: str
    pid: int
    health: Health
    reasons: list[str]
