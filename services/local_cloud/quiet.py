"""The Socket.IO library's own log, made fit for a plant: no payloads, no tracebacks for what a peer did wrong.

At its INFO level the library writes every message with its content; at ERROR a traceback for each packet that it
cannot read, which any agent could use to fill the disk. Here: errors only, one line each, a few a minute.
"""

import logging

from services.local_cloud.limits import RateLimit


class _Sparingly(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._limit = RateLimit(burst=10, per_second=0.1)
        self._unsaid = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if self._limit.wait_for("all"):
            self._unsaid += 1
            return False
        problem = record.exc_info[1] if record.exc_info else None
        unsaid = f"; {self._unsaid} more were not logged" if self._unsaid else ""
        record.msg, record.args = f"{record.getMessage()}: {problem!r:.200}{unsaid}", None
        record.exc_info, self._unsaid = None, 0
        return True


def library_log() -> logging.Logger:
    """The logger to hand to the library; a logger of its own level keeps its INFO calls off the hot path."""
    logger = logging.getLogger("services.local_cloud.socketio")
    logger.setLevel(logging.ERROR)
    if not logger.filters:
        logger.addFilter(_Sparingly())
    return logger
