"""The agents as this server sees them now: who is connected, its last heartbeat, its recent device events.

Everything kept per agent is bounded, so that no agent can fill the memory of this process.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from services.local_cloud.clock import now_iso
from services.local_cloud.inventory import KnownAgent

log = logging.getLogger(__name__)

MOST_EVENTS = 256
MOST_PAYLOAD_BYTES = 16 * 1024
_MOST_NAMES_LOGGED = 20
_SUBSCRIBER_QUEUE = 256


@dataclass(slots=True, eq=False)
class Session:
    """One live Socket.IO session. `environ` is Socket.IO's, `waiting` the commands not answered yet."""

    agent_id: str
    sid: str
    address: str
    environ: dict[str, Any]
    connected_at: str = field(default_factory=now_iso)
    waiting: set[asyncio.Future[Any]] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Agent:
    """One agent, connected or not. `events` holds `{seq, received_at, event}`, oldest first; times ISO 8601."""

    agent_id: str
    enrolled_at: str | None = None
    connected_at: str | None = None
    disconnected_at: str | None = None
    address: str | None = None
    session: Session | None = None
    heartbeat: dict[str, Any] | None = None
    heartbeat_at: str | None = None
    heartbeats: int = 0
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    last_seq: int = 0
    sessions: int = 0
    unknown_events: int = 0
    refused_payloads: int = 0
    names_logged: set[str] = field(default_factory=set)
    subscribers: set[asyncio.Queue[dict[str, Any] | None]] = field(default_factory=set)


class Agents:
    """The register of agents and live sessions; one live session per agent."""

    def __init__(self, known: Iterable[KnownAgent], enrolled: Iterable[str]) -> None:
        self._agents = {record.agent_id: _from_inventory(record) for record in known}
        self._by_sid: dict[str, Session] = {}
        for agent_id in enrolled:
            self.know(agent_id)

    def know(self, agent_id: str) -> Agent:
        """The agent, from now on in the register."""
        return self._agents.setdefault(agent_id, Agent(agent_id))

    def enrolled(self, agent_id: str) -> None:
        """The agent just got a certificate."""
        self.know(agent_id).enrolled_at = now_iso()

    def get(self, agent_id: str) -> Agent | None:
        """The agent, if it was ever enrolled or connected."""
        return self._agents.get(agent_id)

    def all(self) -> list[Agent]:
        """Every agent, by id."""
        return [self._agents[agent_id] for agent_id in sorted(self._agents)]

    def live(self) -> list[Session]:
        """The live sessions."""
        return list(self._by_sid.values())

    def connect(self, session: Session) -> Session | None:
        """Take a new session in; the older one of the same agent, no longer live, if there was one."""
        agent = self.know(session.agent_id)
        older, agent.session = agent.session, session
        agent.connected_at, agent.address, agent.disconnected_at = session.connected_at, session.address, None
        agent.sessions += 1
        self._by_sid[session.sid] = session
        if older is not None:
            self._by_sid.pop(older.sid, None)
        return older

    def disconnect(self, sid: str) -> Session | None:
        """The session ended; None when it had been replaced already."""
        session = self._by_sid.pop(sid, None)
        if session is not None:
            agent = self._agents[session.agent_id]
            agent.session, agent.disconnected_at = None, now_iso()
        return session

    def heartbeat(self, sid: str, payload: Any) -> bool:
        """Keep the agent's last heartbeat. False when it is no object, too big, or from a replaced session."""
        agent = self._agent_of(sid)
        if agent is None or not _acceptable(agent, "heartbeat", payload):
            return False
        agent.heartbeat, agent.heartbeat_at = payload, now_iso()
        agent.heartbeats += 1
        return True

    def device_event(self, sid: str, payload: Any) -> None:
        """Keep a device event and pass it on to who is listening."""
        agent = self._agent_of(sid)
        if agent is None or not _acceptable(agent, "device_event", payload):
            return
        agent.last_seq += 1
        kept = {"seq": agent.last_seq, "received_at": now_iso(), "event": payload}
        agent.events.append(kept)
        for queue in agent.subscribers:
            if queue.full():
                # A listener that does not read loses the oldest; `seq` shows it the gap.
                queue.get_nowait()
            queue.put_nowait(kept)

    def unknown_event(self, sid: str, name: str) -> None:
        """Count an event that is not in the protocol; log each name once per agent."""
        agent = self._agent_of(sid)
        if agent is None:
            return
        agent.unknown_events += 1
        if name not in agent.names_logged and len(agent.names_logged) < _MOST_NAMES_LOGGED:
            agent.names_logged.add(name[:64])
            log.warning("agent %s sends %r, which is not in the protocol; ignored", agent.agent_id, name[:64])

    def subscribe(self, agent: Agent) -> asyncio.Queue[dict[str, Any] | None]:
        """A bounded queue of the agent's further events; None means that the server stops."""
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_SUBSCRIBER_QUEUE)
        agent.subscribers.add(queue)
        return queue

    def release_subscribers(self) -> None:
        """Tell every listener that there will be no more."""
        for agent in self._agents.values():
            for queue in agent.subscribers:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(None)

    def _agent_of(self, sid: str) -> Agent | None:
        session = self._by_sid.get(sid)
        return self._agents[session.agent_id] if session else None


def view(agent: Agent) -> dict[str, Any]:
    """The agent as the API shows it; times ISO 8601 UTC, null for never."""
    session = agent.session
    return {
        "id": agent.agent_id,
        "online": session is not None,
        "sid": session.sid if session else None,
        "address": agent.address,
        "enrolled_at": agent.enrolled_at,
        "connected_at": agent.connected_at,
        "disconnected_at": agent.disconnected_at,
        "heartbeat_at": agent.heartbeat_at,
        "heartbeats": agent.heartbeats,
        "sessions": agent.sessions,
        "waiting_commands": len(session.waiting) if session else 0,
        "last_event_seq": agent.last_seq,
        "unknown_events": agent.unknown_events,
        "refused_payloads": agent.refused_payloads,
        "heartbeat": agent.heartbeat,
    }


def _from_inventory(record: KnownAgent) -> Agent:
    return Agent(
        record.agent_id,
        enrolled_at=record.enrolled_at,
        connected_at=record.last_connected_at,
        disconnected_at=record.last_disconnected_at or record.last_connected_at,
        address=record.address,
    )


def _acceptable(agent: Agent, topic: str, payload: Any) -> bool:
    """Whether a payload is an object of a size we keep; else it is counted, and the first one told."""
    if isinstance(payload, dict):
        try:
            if len(json.dumps(payload)) <= MOST_PAYLOAD_BYTES:
                return True
        except (TypeError, ValueError, RecursionError):
            pass  # counted and told below, like every other payload that is not kept
    if agent.refused_payloads == 0:
        log.warning("agent %s sent a %s that is no object, or too big; not kept", agent.agent_id, topic)
    agent.refused_payloads += 1
    return False
