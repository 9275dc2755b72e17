"""Runs inside supervisord: passes the programs' output on to its own, and makes it react at once.

supervisord looks after its children once a second. A byte in a pipe, written by Python itself when SIGCHLD
comes (`signal.set_wakeup_fd`) and by us when a state changes, ends that wait early: a killed service is started
again after milliseconds, and the first start need not wait either. Output goes to a file each (for
`supervisorctl tail`) and, from here, to supervisord's stdout as well (for `docker logs`).
"""

import os
import signal
import sys
from typing import Any

from supervisor import events


class Bell:
    """The readable end of a pipe, in the shape that supervisord's loop expects of a socket."""

    def __init__(self) -> None:
        self.fd, self._ringer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self, _event: object = None) -> None:
        """End the present wait of supervisord's loop."""
        try:
            os.write(self._ringer, b".")
        except BlockingIOError:
            return  # thousands of rings are already waiting to be heard

    def listen_to_signals(self) -> None:
        """Let every signal (SIGCHLD above all) ring."""
        signal.set_wakeup_fd(self._ringer, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Asked by the loop: always."""
        return True

    def writable(self) -> bool:
        """Asked by the loop: never."""
        return False

    def handle_read_event(self) -> None:
        """Called by the loop: empty the pipe."""
        while True:
            try:
                if not os.read(self.fd, 4096):
                    return
            except BlockingIOError:
                return

    def handle_error(self) -> None:
        """Called by the loop when the above failed; the once-a-second look goes on without us."""
        print("supervisord's bell failed; reactions may take a second", file=sys.stderr)


class NoCommands:
    """supervisord wants an object whose methods become remote calls; we add none."""


def pass_on(event: Any) -> None:
    """Write a program's output to our own stdout; whoever reads that may have gone."""
    try:
        sys.stdout.buffer.write(event.data if isinstance(event.data, bytes) else event.data.encode())
        sys.stdout.buffer.flush()
    except OSError:
        events.unsubscribe(events.ProcessLogStdoutEvent, pass_on)


def make_agent_interface(supervisord: Any) -> NoCommands:
    """The factory named in supervisord.conf; called once at start, before the loop runs."""
    bell = Bell()
    supervisord.options.get_socket_map()[bell.fd] = bell
    bell.listen_to_signals()
    for kind in (events.ProcessStateEvent, events.SupervisorStateChangeEvent):
        events.subscribe(kind, bell.ring)
    events.subscribe(events.ProcessLogStdoutEvent, pass_on)
    return NoCommands()
