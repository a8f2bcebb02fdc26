"""Clocks and chance as the world around the caller has them."""

from __future__ import annotations

import time

from resilience import Pipeline, Retry
from resilience._core import clock as clocks
from resilience.testing import virtual_time
from support.policies import Busy


def look() -> tuple[float, float, float]:
    return clocks.now(), clocks.wall(), clocks.chance()


def test_outside_of_virtual_time_the_clocks_are_real() -> None:
    """Seconds that pass, the date, and chance; inside a call as well."""
    for now, wall, chance in (look(), Pipeline(Retry()).call(look), Pipeline(Busy()).call(look)):
        assert abs(now - time.monotonic()) < 60
        assert abs(wall - time.time()) < 60
        assert 0 <= chance < 1
    assert len({clocks.chance() for _ in range(9)}) > 1


def test_inside_virtual_time_they_are_virtual() -> None:
    """In a call and outside of one."""
    with virtual_time(start=5.0, wall=7.0) as clock:
        clock.random = lambda: 0.5  # type: ignore[method-assign]
        assert Pipeline(Retry()).wrap(look)() == (5.0, 7.0, 0.5)
        assert look() == (5.0, 7.0, 0.5)
