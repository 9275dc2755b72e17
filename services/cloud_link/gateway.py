"""From a command of the cloud to its answer, always: whatever the payload, the services or our own code do."""

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from bus.errors import CallFailed
from bus.messages.base import Event, Request
from bus.messages.cloud_link import CommandAnswered, CommandReceived
from common import trace
from common.contracts.decode import ContractError, decode
from services.cloud_link.answers import Fields, correlation_of, echo, error, packed
from services.cloud_link.sparingly import Sparingly
from services.cloud_link.topics import TOPICS, Topic
from services.cloud_link.turns import Turns

log = logging.getLogger(__name__)

MOST_IN_HAND = 256  # commands; beyond it the answer is "busy", at once
PATIENCE = 3.0  # seconds, from a command's arrival, for a service that is just being restarted
ANSWER_WITHIN = 4.8  # seconds for every command that does not say a longer time itself


class Call(Protocol):
    """How a service is asked; `bus.async_calls.AsyncCaller.call`."""

    async def __call__(self, request: Request[Any], *, deadline: float, patience: float) -> Any: ...


class Gateway:
    """Answers commands, at most `MOST_IN_HAND` at a time. Lives in one asyncio loop."""

    def __init__(self, call: Call, publish: Callable[[Event], None], topics: Mapping[str, Topic] | None = None) -> None:
        self._call, self._publish = call, publish
        self._topics = TOPICS if topics is None else topics
        self._turns = Turns()
        self._tell = Sparingly(log).warning
        self.in_hand = 0

    async def answer(self, topic: object, *arguments: object) -> Fields:
        """The answer to the event `topic` with its arguments, as the cloud gets it. Never raises."""
        answer: Fields = msgspec.json.decode(await self.answer_json(topic, *arguments))
        return answer

    async def answer_json(self, topic: object, *arguments: object) -> bytes:
        """The answer in JSON, of a size that any server takes. Never raises."""
        begun = time.monotonic()
        action, correlation = echo(topic), correlation_of(arguments)
        with trace.use(secrets.token_hex(4) if correlation is None else str(correlation)):
            self._publish(CommandReceived(topic=action or "", correlation_id=correlation))
            fields = await self._answered(topic, arguments, begun)
            encoded, fields = packed({"action": action, "correlation_id": correlation} | fields)
            duration = time.monotonic() - begun
            self._publish(
                CommandAnswered(
                    topic=action or "",
                    correlation_id=correlation,
                    status=fields["status"],
                    code=fields.get("code"),
                    duration=duration,
                )
            )
            if fields["status"] == "error" and "http_response" not in fields:  # what a device says is its own affair
                self._tell("%s: %s, %s (%.3f s)", action, fields.get("code"), fields.get("error"), duration)
        return encoded

    async def _answered(self, topic: object, arguments: tuple[object, ...], begun: float) -> Fields:
        if self.in_hand >= MOST_IN_HAND:
            return error("unavailable", f"busy: {MOST_IN_HAND} commands are in hand; send it again in a moment")
        self.in_hand += 1
        try:
            return await self._carried_out(topic, arguments, begun)
        except (ContractError, CallFailed) as refusal:
            return error(refusal.code, refusal.message)
        except Exception as bug:
            log.exception("the handler of %s failed", echo(topic))
            return error("internal", f"{type(bug).__name__} while answering; the agent's log tells more")
        finally:
            self.in_hand -= 1

    async def _carried_out(self, topic: object, arguments: tuple[object, ...], begun: float) -> Fields:
        if not isinstance(topic, str):
            return error("invalid", "$: expected the name of a command and one JSON object, got what cannot be read")
        row = self._topics.get(topic)
        if row is None:
            return error("unknown_command", f"no command {echo(topic)!r}; known are {', '.join(self._topics)}")
        if len(arguments) != 1:
            return error("invalid", f"$: expected one JSON object, got {len(arguments)} arguments")
        command = decode(row.contract, arguments[0])
        ask = row.ask(command)
        if not isinstance(ask, Request):
            return ask
        turn = row.turn(command)
        async with self._turns.take(turn):
            if turn is not None:
                log.info("%s %s", topic, turn)
            return row.answer(command, await self._asked(row, ask, begun))

    async def _asked(self, row: Topic, request: Request[Any], begun: float) -> Any:
        spent = time.monotonic() - begun
        deadline = row.deadline(request)
        if row.margin is None:
            deadline = max(0.0, min(deadline, ANSWER_WITHIN - spent))
        return await self._call(request, deadline=deadline, patience=max(0.0, PATIENCE - spent))
