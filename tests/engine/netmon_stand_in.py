"""Plays netmon for tests of docker_worker: tells the interfaces that its one argument, a JSON list, describes."""

import sys

import msgspec

from bus.messages.netmon import Interface, NetworkDiscovered
from bus.service import Service
from common.settings import load


def main() -> None:
    interfaces = msgspec.json.decode(sys.argv[1], type=tuple[Interface, ...])
    service = Service("netmon", load(), {}, None)
    service.publish(NetworkDiscovered(interfaces=interfaces, timestamp="2026-01-01T00:00:00+00:00"))
    service.ready()
    service.run()


if __name__ == "__main__":
    main()
