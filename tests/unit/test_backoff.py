"""Back-off: never beyond the cap, spread over the whole range."""

import random

from hypothesis import given
from hypothesis import strategies as st

from common.backoff import doubling, full_jitter


@given(st.integers(0, 10_000), st.integers())
def test_full_jitter_stays_within_its_bounds(attempt: int, seed: int) -> None:
    waited = full_jitter(attempt, base=1.0, cap=60.0, chance=random.Random(seed))
    assert 0.0 <= waited <= min(60.0, 2.0 ** min(attempt, 32))


def test_full_jitter_uses_the_whole_range() -> None:
    chance = random.Random(1)
    waits = [full_jitter(20, base=1.0, cap=60.0, chance=chance) for _ in range(1000)]
    assert min(waits) < 5.0 and max(waits) > 55.0
    assert 25.0 < sum(waits) / len(waits) < 35.0


def test_doubling_doubles_up_to_the_cap() -> None:
    assert [doubling(attempt, base=1.0, cap=10.0) for attempt in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
