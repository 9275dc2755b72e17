"""The REST API: agents, their events, and commands. Over TCP a bearer token, over the unix socket its file mode.

The unix socket's application has two things more, for administration and tests: `kick`, and raw payloads.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from services.local_cloud.agents import Agent, Agents, view
from services.local_cloud.inventory import Inventory, Outcome
from services.local_cloud.sessions import CommandFailed, Sessions
from services.local_cloud.stream import follow_events, wants_stream
from services.local_cloud.tokens import bearer_matches
from services.local_cloud.web import ApiError, Code, Handler, answer, errors_as_json

MOST_BODY_BYTES = 16 * 1024 * 1024
MOST_TIMEOUT_SECONDS = 900.0
_LIMIT = re.compile(r"[0-9]{1,4}")
_TOPIC = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

_FAILURES: Mapping[Outcome, tuple[int, Code]] = {
    "offline": (409, "unavailable"),
    "busy": (429, "busy"),
    "no_answer": (504, "timeout"),
    "disconnected": (504, "unavailable"),
    "failed": (400, "invalid"),
}

INDEX = {
    "GET /api/health": "whether the local cloud works, where it listens, how many agents are online",
    "GET /api/agents": "every agent: online, last heartbeat",
    "GET /api/agents/{id}": "one agent",
    "POST /api/agents/{id}/commands": "send {topic, payload, timeout_s?}; the answer is the agent's acknowledgement",
    "GET /api/agents/{id}/events": "recent device events; a live stream with Accept: text/event-stream",
    "GET /api/commands?limit=&agent=": "the command log, newest first",
}
_PROVISIONING_INDEX = {
    "GET /orchestrators/id": "an id for a new agent (enrolment token)",
    "POST /orchestrators/enroll": "multipart csr -> a certificate (enrolment token)",
    "POST /orchestrators/certificate": "multipart certificate and id: a self-signed certificate (enrolment token)",
}
_ADMIN_INDEX = {"POST /api/agents/{id}/kick": "end the agent's session politely"}


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a command. `payload` is an object; with `raw` (unix socket only) it is anything, sent untouched."""

    topic: str
    payload: Any = {}
    timeout_s: float = 30.0
    raw: bool = False


class Api:
    """The REST handlers over the register of agents, the sessions and the inventory."""

    def __init__(
        self, *, agents: Agents, sessions: Sessions, inventory: Inventory, health: Callable[[], dict[str, Any]]
    ) -> None:
        self._agents, self._sessions, self._inventory, self._health = agents, sessions, inventory, health

    def public_application(self, api_token: str, provisioning: list[web.RouteDef]) -> web.Application:
        """For the HTTPS port: `/api/` needs the API token, provisioning asks for its own."""
        application = web.Application(
            middlewares=[errors_as_json, _require_token(api_token)], client_max_size=MOST_BODY_BYTES
        )
        application.add_routes([*self._routes(_PROVISIONING_INDEX, self.command), *provisioning])
        return application

    def local_application(self) -> web.Application:
        """For the unix socket, where who may open it is an administrator."""
        application = web.Application(middlewares=[errors_as_json], client_max_size=MOST_BODY_BYTES)
        application.add_routes(self._routes(_ADMIN_INDEX, self.any_command))
        application.add_routes([web.post("/api/agents/{id}/kick", self.kick)])
        return application

    def _routes(self, more: Mapping[str, str], command: Handler) -> list[web.RouteDef]:
        async def index(_request: web.Request) -> web.Response:
            return answer({"service": "orchestrator local cloud", "endpoints": {**INDEX, **more}})

        return [
            web.get("/", index),
            web.get("/api/health", self.health),
            web.get("/api/agents", self.agents),
            web.get("/api/agents/{id}", self.agent),
            web.post("/api/agents/{id}/commands", command),
            web.get("/api/agents/{id}/events", self.events),
            web.get("/api/commands", self.commands),
        ]

    async def health(self, _request: web.Request) -> web.Response:
        """`{status, agents_known, agents_online, listening, ...}`"""
        agents = self._agents.all()
        online = sum(agent.session is not None for agent in agents)
        return answer({"status": "ok", "agents_known": len(agents), "agents_online": online, **self._health()})

    async def agents(self, _request: web.Request) -> web.Response:
        """`{agents: [agent...]}`"""
        return answer({"agents": [view(agent) for agent in self._agents.all()]})

    async def agent(self, request: web.Request) -> web.Response:
        """One agent."""
        return answer(view(self._find(request)))

    async def command(self, request: web.Request) -> web.Response:
        """Send a command as an operator does; the answer is the acknowledgement."""
        body = await _body(request)
        if body.raw:
            raise ApiError(403, "refused", "raw: only over the unix socket")
        return await self._send(self._find(request), body)

    async def any_command(self, request: web.Request) -> web.Response:
        """Send a command, raw ones too."""
        return await self._send(self._find(request), await _body(request))

    async def kick(self, request: web.Request) -> web.Response:
        """End the agent's session politely."""
        agent = self._find(request)
        if agent.session is None:
            raise ApiError(409, "unavailable", f"agent {agent.agent_id} is not connected")
        sid = agent.session.sid
        await self._sessions.kick(agent.session)
        return answer({"status": "kicked", "sid": sid})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """`{agent_id, events: [{seq, received_at, event}]}`, oldest first, or the same as a stream."""
        agent = self._find(request)
        if wants_stream(request):
            return await follow_events(request, agent, self._agents.subscribe(agent))
        return answer({"agent_id": agent.agent_id, "events": list(agent.events)})

    async def commands(self, request: web.Request) -> web.Response:
        """`{commands: [command...]}`, newest first; `limit` 1 to 1000 (100), `agent` one id."""
        text = request.query.get("limit", "100")
        if not (_LIMIT.fullmatch(text) and 1 <= int(text) <= 1000):
            raise ApiError(400, "invalid", f"limit: expected a number from 1 to 1000, got {text[:80]!r}")
        records = await self._inventory.commands(int(text), request.query.get("agent"))
        return answer({"commands": records})

    def _find(self, request: web.Request) -> Agent:
        agent_id = request.match_info["id"]
        agent = self._agents.get(agent_id)
        if agent is None:
            raise ApiError(404, "not_found", f"no agent {agent_id!r} is known here; GET /api/agents lists them")
        return agent

    async def _send(self, agent: Agent, body: CommandRequest) -> web.Response:
        try:
            record, acknowledgement = await self._sessions.send_command(
                agent.agent_id, body.topic, body.payload, body.timeout_s, raw=body.raw
            )
        except CommandFailed as problem:
            status, code = _FAILURES[problem.outcome]
            raise ApiError(status, code, problem.message) from None
        headers = {"X-Correlation-Id": str(record.correlation_id), "X-Duration-Ms": str(record.duration_ms)}
        try:
            return answer(acknowledgement, headers=headers)
        except (RecursionError, TypeError, ValueError, msgspec.MsgspecError) as problem:
            raise ApiError(502, "invalid", f"the agent's answer cannot be written as JSON: {problem}") from None


def _require_token(token: str) -> Any:
    @web.middleware
    async def require_token(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/api/") and not bearer_matches(request.headers.get("Authorization", ""), token):
            headers = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, "refused", "the API token is missing or wrong (file api.token)", headers)
        return await handler(request)

    return require_token


async def _body(request: web.Request) -> CommandRequest:
    async with asyncio.timeout(60.0):
        content = await request.read()
    try:
        body = msgspec.json.decode(content, type=CommandRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise ApiError(400, "invalid", f"body: {problem}") from None
    if not 0 < body.timeout_s <= MOST_TIMEOUT_SECONDS:
        raise ApiError(
            400,
            "invalid",
            f"timeout_s: expected more than 0 and at most {MOST_TIMEOUT_SECONDS:g}, got {body.timeout_s}",
        )
    if not body.raw and not _TOPIC.fullmatch(body.topic):
        raise ApiError(400, "invalid", f"topic: expected 1-64 letters, digits, _ . : -, got {body.topic[:80]!r}")
    if not body.raw and not isinstance(body.payload, dict):
        raise ApiError(400, "invalid", f"payload: expected an object, got {type(body.payload).__name__}")
    return body
