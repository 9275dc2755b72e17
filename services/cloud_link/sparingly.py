"""Warnings that a flood of bad commands cannot turn into a flood of lines; what is left out is counted and told."""

import logging
import time


class Sparingly:
    """At most `most` lines within `seconds`; the first line after that says how many were left out."""

    def __init__(self, log: logging.Logger, most: int = 20, seconds: float = 10.0) -> None:
        self._log, self._most, self._seconds = log, most, seconds
        self._since, self._written, self._left_out = time.monotonic(), 0, 0

    def warning(self, line: str, *arguments: object) -> None:
        """Log a warning, or count it."""
        now = time.monotonic()
        if now - self._since >= self._seconds:
            if self._left_out:
                self._log.warning("%d more warnings like those were left out", self._left_out)
            self._since, self._written, self._left_out = now, 0, 0
        if self._written < self._most:
            self._written += 1
            self._log.warning(line, *arguments)
        else:
            self._left_out += 1
