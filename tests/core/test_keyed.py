"""What a policy keeps for each value of its key: made once, forgotten when unused."""

from __future__ import annotations

from typing import Any

import pytest

from resilience._core.keyed import Keyed, key_reader
from support.arriving import Arrival


class Thing:
    """What is kept for one value of a key."""

    def __init__(self, value: Any) -> None:
        self.value = value


def never(thing: Thing, now: float, crowded: bool) -> bool:
    """Nothing is unused."""
    return False


@pytest.mark.fault(33)
@pytest.mark.parametrize("keep", [None, 5])
def test_one_that_a_handler_makes_in_between_is_the_one(keep: int | None) -> None:
    """There are no two for one value."""
    made: list[Thing] = []
    keyed = Keyed("Retry", "model", Thing, never, keep)
    keyed._lock = Arrival(keyed._lock, lambda: made.append(keyed.at("a", 0.0)), 1, leaving=False)
    assert [keyed.at("a", 0.0)] == made
    assert keyed.all() == {"a": made[0]}


@pytest.mark.fault(33)
def test_one_that_a_handler_drops_in_between_is_used_to_the_end() -> None:
    """By the call that has found it; it is not kept again."""
    keyed = Keyed("Retry", "model", Thing, never, keep=5)
    found = keyed.at("a", 0.0)
    keyed._lock = Arrival(keyed._lock, lambda: keyed.drop(found), 1, leaving=False)
    assert keyed.at("a", 0.0) is found
    assert keyed.all() == {}


@pytest.mark.fault(33)
def test_one_that_a_handler_drops_while_it_is_looked_at_stays_away() -> None:
    """Whatever was said of it."""

    def in_use(thing: Thing, now: float, crowded: bool) -> bool:
        keyed.drop(thing)
        return False

    keyed = Keyed("Retry", "model", Thing, in_use)
    keyed.at("a", 0.0)
    fresh = keyed.at("b", 0.0)
    assert keyed.all() == {"b": fresh}


def test_a_key_that_can_only_be_given_by_position() -> None:
    """It is read like any other."""

    def ask(prompt: str, model: str = "a", /) -> None:
        """Never called."""

    read = key_reader("model", ask)
    assert [read(("hi", "b"), {}), read(("hi",), {})] == ["b", "a"]
