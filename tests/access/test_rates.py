"""How often a caller may come, and when it is told to come again."""

from __future__ import annotations

import asyncio
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.access import Rate
from comfyserve.access.rates import Rates, seconds_until_free
from comfyserve.denials import RateLimited


async def spend_all(rates: Rates, owner: str, rate: Rate) -> RateLimited:
    """Come again and again until it is refused, which has to be soon."""
    for _ in range(2 * rate.amount + 1):
        try:
            await rates.spend(owner, rate)
        except RateLimited as refused:
            return refused
    raise AssertionError(f"{rate} was never used up")


async def test_who_waits_as_told_may_come_again() -> None:
    """After the seconds that the refusal names there is room."""
    rates, rate = Rates(), Rate(5, 1)

    refused = await spend_all(rates, "ann", rate)
    await asyncio.sleep(refused.retry_after)
    await rates.spend("ann", rate)

    assert 1 <= refused.retry_after <= 2
    assert refused.details == {"rate": "5/s", "retry_after": refused.retry_after}


async def test_one_callers_rate_is_no_others() -> None:
    """Who used up its rate keeps nobody else from coming."""
    rates, rate = Rates(), Rate(3, 86400)

    refused = await spend_all(rates, "ann", rate)
    for _ in range(3):
        await rates.spend("bob", rate)

    with pytest.raises(RateLimited):
        await rates.spend("bob", rate)
    assert 1 <= refused.retry_after <= 86401


async def test_many_at_once_get_no_more_than_one_by_one() -> None:
    """However many come together, the rate holds."""
    rates, rate = Rates(), Rate(10, 86400)

    tries = [rates.spend("ann", rate) for _ in range(50)]
    told = await asyncio.gather(*tries, return_exceptions=True)

    assert sum(each is None for each in told) == 10
    assert all(each is None or isinstance(each, RateLimited) for each in told)


@given(
    amount=st.integers(1, 50),
    seconds=st.sampled_from([1, 60, 3600]),
    eighths=st.integers(1, 8 * 3600),
    before=st.integers(0, 50),
    current=st.integers(0, 50),
)
def test_the_time_told_is_the_first_whole_second_with_room(
    amount: int, seconds: int, eighths: int, before: int, current: int
) -> None:
    """Who comes then is let in; a second before, it would not be."""
    left = min(eighths / 8, seconds)
    before, current = min(before, amount), min(current, amount)
    rate = Rate(amount, seconds)

    def has_room(after: float) -> bool:
        if after < left:
            weighted = before * (left - after) / seconds + current
        else:
            weighted = current * max(0.0, left + seconds - after) / seconds
        return floor(weighted) + 1 <= amount

    if has_room(0):
        return
    wait = seconds_until_free(rate, before, left if before else 0.0, current, left + seconds)

    assert has_room(wait + 1e-6)
    assert wait == 1 or not has_room(wait - 1 - 1e-6)
