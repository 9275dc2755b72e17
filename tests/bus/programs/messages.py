"""Messages of the service that the bus tests run."""

from bus.messages.base import Body, Event, Request, event, request


class Said(Body, frozen=True, kw_only=True):
    """What was said, and how often `Say` has run in this process."""

    text: str
    times: int


@request("echo.say_text", deadline=2.0, changes=False)
class Say(Request[Said], frozen=True, kw_only=True):
    """Answer `text` after `delay` seconds; misbehave when `how` says so."""

    text: str
    delay: float = 0.0
    how: str = "well"
    password: str = ""


@request("echo.say_quickly", deadline=2.0, changes=True, inline=True)
class SayQuickly(Request[Said], frozen=True, kw_only=True):
    """Answer at once, from memory."""

    text: str


@request("echo.nobody_home", deadline=2.0, changes=False)
class NobodyHome(Request[Said], frozen=True, kw_only=True):
    """Declared, but answered by no handler."""


@request("echo.publish_numbers", deadline=20.0, changes=True)
class PublishNumbers(Request[Said], frozen=True, kw_only=True):
    """Publish `Counted` from 0 to `upto`, at most `per_second`."""

    upto: int
    per_second: int = 20_000


@event("echo.number.counted")
class Counted(Event, frozen=True, kw_only=True):
    """A number."""

    number: int
    padding: str = ""


@event("echo.lamp.switched", state_key="lamp")
class Switched(Event, frozen=True, kw_only=True):
    """A lamp is on or off."""

    lamp: str
    on: bool
