"""Failures: the seconds in them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from resilience.failures import Advice, Failure, Kind

TIMES = ["retry_after", "reset_after"]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("good", [0.0, 0.5, 0, 3, timedelta(0)])
def test_seconds_from_nothing_up(name: str, good: Any) -> None:
    """No time at all is a time."""
    assert getattr(Failure(Kind.RATE_LIMIT, Advice.WAIT, **{name: good}), name) == good


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("bad", [-0.5, -1, math.inf, math.nan])
def test_seconds_that_are_none(name: str, bad: Any) -> None:
    """Neither less than nothing nor endless; the message names the field."""
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        Failure(Kind.RATE_LIMIT, Advice.WAIT, **{name: bad})
