"""Full-jitter exponential back-off: a fleet that lost its cloud must not come back in lock-step."""

import random


def full_jitter(attempt: int, *, base: float, cap: float, chance: random.Random | None = None) -> float:
    """Seconds to wait before retry number `attempt` (0 is the first): uniform in [0, min(cap, base * 2^n)]."""
    ceiling = min(cap, base * 2.0 ** min(attempt, 32))
    return (chance or random).uniform(0.0, ceiling)


def doubling(attempt: int, *, base: float, cap: float) -> float:
    """Seconds before retry number `attempt` where one waiter needs no jitter: base, 2 base, 4 base ... cap."""
    return float(min(cap, base * 2.0 ** min(attempt, 32)))
