"""The closed list of error codes, and the three ways in which a request can fail."""

from typing import Literal, get_args

Code = Literal["invalid", "unknown_command", "not_found", "conflict", "refused", "unavailable", "timeout", "internal"]
CODES: tuple[str, ...] = get_args(Code)


class CallFailed(Exception):
    """A request did not succeed. `code` is one of `CODES`, `message` a sentence a person can act on."""

    code: Code

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CommandError(CallFailed):
    """The service answered no."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(CallFailed):
    """Nobody is there, or the queue is full: the request surely did not run."""

    code: Code = "unavailable"


class Timeout(CallFailed):
    """No answer in time, or the service died with the request in hand: unknown whether it ran."""

    code: Code = "timeout"
