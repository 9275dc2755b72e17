"""How ctl speaks with the local cloud: JSON over HTTP on its unix socket, with a deadline on everything."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

_MARGIN_SECONDS = 10.0
# The stream sends a sign of life every 15 seconds.
_SILENCE_SECONDS = 60.0


class Unreachable(Exception):
    """The local cloud does not answer; the text says where it was looked for and what to try."""


class Refused(Exception):
    """The local cloud answered an error: HTTP `status`, and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cloud:
    """The local cloud behind the unix socket `path`. All methods raise `Unreachable` and `Refused`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        with self._exchange("GET", path, timeout_s=_MARGIN_SECONDS) as response:
            return _decoded(response)

    def send(self, agent_id: str, topic: str, payload: Any, timeout_s: float, *, raw: bool = False) -> Any:
        """The agent's acknowledgement of a command; `raw` sends the payload untouched, whatever it is."""
        body = {"topic": topic, "payload": payload, "timeout_s": timeout_s, "raw": raw}
        path = f"/api/agents/{quote(agent_id, safe='')}/commands"
        with self._exchange("POST", path, body=body, timeout_s=timeout_s + _MARGIN_SECONDS) as response:
            return _decoded(response)

    def follow(self, agent_id: str) -> Iterator[dict[str, Any]]:
        """The agent's device events, recent ones first, then as they come, until the local cloud stops."""
        path = f"/api/agents/{quote(agent_id, safe='')}/events"
        with self._exchange("GET", path, accept="text/event-stream", timeout_s=_SILENCE_SECONDS) as response:
            if response.status != 200:
                _decoded(response)
            for line in response:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    @contextmanager
    def _exchange(
        self, method: str, path: str, *, timeout_s: float, body: Any = None, accept: str = "application/json"
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("local-cloud", timeout=timeout_s)
        try:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(timeout_s)
            connection.sock.connect(str(self._path))
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, {"Accept": accept})
            yield connection.getresponse()
        except PermissionError:
            raise Unreachable(f"{self._path} may not be opened by this user: try it with sudo") from None
        except (OSError, http.client.HTTPException) as problem:
            raise Unreachable(
                f"the local cloud does not answer at {self._path} ({_reason(problem)}): is it running?"
                " try `python -m services.local_cloud`, or --dir for another directory"
            ) from None
        finally:
            connection.close()


def _decoded(response: http.client.HTTPResponse) -> Any:
    content = response.read()
    try:
        value = json.loads(content)
    except ValueError:
        raise Refused(response.status, f"the local cloud answered HTTP {response.status} and no JSON") from None
    if response.status != 200:
        message = value.get("error") if isinstance(value, dict) else None
        raise Refused(response.status, message or f"the local cloud answered HTTP {response.status}")
    return value


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
