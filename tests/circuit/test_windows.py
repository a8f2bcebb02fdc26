"""How many of the latest calls were bad: by time and by number."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from resilience.circuit.window import CallWindow, TimeWindow


@pytest.mark.parametrize(
    "make", [lambda: TimeWindow(10), lambda: CallWindow(7)], ids=["time", "calls"]
)
def test_windows_agree_with_a_list(make: Any) -> None:
    """Whatever comes when: the sums are those of the calls that a list says are in the window."""
    chance, window = Random(5), make()
    now, calls = 0.0, []
    for _ in range(3000):
        now += chance.choice([0, 0.1, 0.9, 3, 25]) if chance.random() < 0.3 else 0
        bad = chance.random() < 0.4
        calls.append((now, bad))
        window.add(now, bad)
        if isinstance(window, TimeWindow):
            inside = [b for at, b in calls if at // 1 > now // 1 - 10]
        else:
            inside = [b for _, b in calls[-7:]]
        assert (window.calls, window.bad) == (len(inside), sum(inside))


def test_a_window_of_one_call() -> None:
    """It holds the last one."""
    window = CallWindow(1)
    for bad, held in [(True, 1), (True, 1), (False, 0), (True, 1)]:
        window.add(0.0, bad)
        assert (window.calls, window.bad) == (1, held)


def test_a_window_of_one_second_is_as_long_as_it_says() -> None:
    """A call is in it for nine tenths at least, and not for more than all of it."""
    window = TimeWindow(1.0)
    window.good(0.55)
    window.turn(1.45)
    assert window.calls == 1
    window.turn(1.55)
    assert window.calls == 0
