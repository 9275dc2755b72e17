"""A small real service: `python -m tests.bus.programs.echo`."""

import time
from dataclasses import dataclass, field

from bus.errors import CommandError
from bus.service import Service, start
from tests.bus.programs.messages import Counted, PublishNumbers, Said, Say, SayQuickly, Switched


@dataclass
class Context:
    said: list[str] = field(default_factory=list)
    service: Service | None = None


def say(context: Context, request: Say) -> Said:
    if request.how == "refuse":
        raise CommandError("conflict", f"will not say {request.text}")
    if request.how == "bug":
        raise RuntimeError(f"a bug with the secret {request.password}")
    if request.how == "huge":
        return Said(text="x" * 5_000_000, times=0)
    context.said.append(request.text)
    time.sleep(request.delay)
    return Said(text=request.text, times=len(context.said))


def say_quickly(context: Context, request: SayQuickly) -> Said:
    return Said(text=request.text, times=len(context.said))


def publish_numbers(context: Context, request: PublishNumbers) -> Said:
    assert context.service is not None
    began = time.monotonic()
    for number in range(request.upto):
        context.service.publish(Counted(number=number, padding="." * 200))
        ahead = number / request.per_second - (time.monotonic() - began)
        if ahead > 0.001:
            time.sleep(ahead)
    return Said(text=f"{time.monotonic() - began:.3f}", times=request.upto)


def main() -> None:
    context = Context()
    handlers = {Say: say, SayQuickly: say_quickly, PublishNumbers: publish_numbers}
    service = context.service = Service("echo", start("echo"), handlers, context, workers=2)
    for lamp, on in (("red", True), ("green", False), ("red", False)):
        service.publish(Switched(lamp=lamp, on=on))
    service.ready()
    service.run()


if __name__ == "__main__":
    main()
