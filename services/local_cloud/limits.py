"""A simple rate limit: a bucket of tokens for each address, refilled with time."""

import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_ADDRESSES = 4096


class RateLimit:
    """At most `burst` at once and `per_second` in the long run, for each key. Memory is bounded: the least
    recently seen key is forgotten first."""

    def __init__(self, *, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_for(self, key: str, cost: float = 1.0) -> float:
        """Take `cost` for `key`: 0 when allowed, else the seconds until it would be (and nothing is taken)."""
        tokens = self._tokens(key)
        if tokens < cost:
            return (cost - tokens) / self._per_second
        self._store(key, tokens - cost)
        return 0.0

    def charge(self, key: str, cost: float) -> None:
        """Take `cost` for `key` in any case, down to an empty bucket: the price of a wrong guess."""
        self._store(key, max(0.0, self._tokens(key) - cost))

    def _tokens(self, key: str) -> float:
        tokens, since = self._buckets.get(key, (self._burst, self._clock()))
        return min(self._burst, tokens + (self._clock() - since) * self._per_second)

    def _store(self, key: str, tokens: float) -> None:
        self._buckets[key] = (tokens, self._clock())
        self._buckets.move_to_end(key)
        while len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)
