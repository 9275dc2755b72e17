"""cloud_link: the session to the cloud and the commands that come through it."""

from typing import Any, Literal

from bus.messages.base import Event, event

SessionState = Literal["starting", "identity_problem", "connecting", "online", "offline"]


@event("cloud_link.session.changed", state_key="")
class SessionChanged(Event, frozen=True, kw_only=True):
    """The session's state. `reason`: a sentence (why offline, which identity problem); `session_id`: Socket.IO's id,
    only while online; `since`: unix seconds; `attempt`: failed attempts since the last session."""

    state: SessionState
    reason: str
    server_url: str
    agent_id: str | None
    session_id: str | None
    since: float
    attempt: int


@event("cloud_link.command.received")
class CommandReceived(Event, frozen=True, kw_only=True):
    """A command has come from the cloud; the payload stays out, it may hold secrets."""

    topic: str
    correlation_id: Any


@event("cloud_link.command.answered")
class CommandAnswered(Event, frozen=True, kw_only=True):
    """A command was answered. `code` is set when `status` is error; `duration`: seconds."""

    topic: str
    correlation_id: Any
    status: str
    code: str | None
    duration: float


@event("cloud_link.heartbeat.sent", period=5.0)
class HeartbeatSent(Event, frozen=True, kw_only=True):
    """A heartbeat went out. `stale`: metrics is silent, the last known figures were sent."""

    stale: bool
