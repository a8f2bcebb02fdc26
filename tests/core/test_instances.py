"""The objects of one class that exist, and what becomes of them in a forked child."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest

from resilience._core.instances import Instances


class One:
    """Something of which there may be several."""


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is to be called in a child."""
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr(
        os, "register_at_fork", lambda *, after_in_child: hooks.append(after_in_child)
    )
    return hooks


def test_those_that_are_in_use(forked: list[Callable[[], None]]) -> None:
    """They are not kept alive; where nothing is to be done in a child, nothing is called there."""
    all_: Instances[One] = Instances()
    first, second = One(), One()
    for one in (first, second):
        all_.add(one)
    assert set(all_) == {first, second}
    del one, first
    gc.collect()
    assert list(all_) == [second]
    assert not forked


def test_each_is_told_of_a_fork(forked: list[Callable[[], None]]) -> None:
    """In the child."""
    told: list[One] = []
    all_ = Instances(told.append)
    one = One()
    all_.add(one)
    assert told == []
    (in_child,) = forked
    in_child()
    assert told == [one]


def test_a_system_that_cannot_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as Windows: there is no child to be told of."""
    monkeypatch.delattr(os, "register_at_fork")
    one, all_ = One(), Instances(print)
    all_.add(one)
    assert list(all_) == [one]
