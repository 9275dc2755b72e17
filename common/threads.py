"""Threads that cannot die in silence: an uncaught exception in any of ours ends the process.

A half-dead service is worse than a restarted one: supervisord starts the process again within seconds.
"""

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


def spawn(name: str, work: Callable[[], None]) -> threading.Thread:
    """Run `work` in a daemon thread; if it raises, log the traceback and end the process with code 1."""

    def run() -> None:
        try:
            work()
        except Exception:
            log.critical("thread %s failed; the service ends and will be restarted", name, exc_info=True)
            logging.shutdown()
            os._exit(1)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
