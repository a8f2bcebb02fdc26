"""The `on=` language: edges, and what is said of what is no part of it."""

from __future__ import annotations

from typing import Any

import pytest

from resilience.failures import Advice, Failure, Kind
from resilience.matching import TRANSIENT, as_match, raised, status


@pytest.mark.parametrize(
    ("join", "operator"),
    [
        (lambda: TRANSIENT | 3.5, "|"),
        (lambda: 3.5 | TRANSIENT, "|"),
        (lambda: TRANSIENT & 3.5, "&"),
        (lambda: 3.5 & TRANSIENT, "&"),
    ],
)
def test_a_bad_operand_is_refused_in_the_operators_name(join: Any, operator: str) -> None:
    """What stands beside `|` or `&` is checked like any item, and the message says where."""
    with pytest.raises(TypeError) as caught:
        join()
    assert str(caught.value).startswith(f"{operator} must be an exception class, a status")


@pytest.mark.parametrize("good", [100, 599, range(100, 600)])
def test_the_first_and_the_last_status(good: Any) -> None:
    """100 and 599 are statuses."""
    first = good if isinstance(good, int) else good[0]
    assert status(good)(Failure(Kind.UNKNOWN, Advice.STOP, status=first))


@pytest.mark.parametrize("bad", [99, 600, range(99, 200), range(500, 601), range(200, 200)])
def test_beyond_the_first_and_the_last_status(bad: Any) -> None:
    """99 and 600 are none, alone or as the end of a range."""
    with pytest.raises(ValueError, match=r"^status must be within 100 to 599"):
        status(bad)


class Asks:
    """A function of the failure that has no name of its own."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __call__(self, failure: Failure) -> bool:
        return True

    def __repr__(self) -> str:
        return "asks"


def test_a_list_of_one_is_that_one() -> None:
    """Written either way, it is the same match."""
    assert as_match([ConnectionError]) == as_match(ConnectionError)
    assert as_match({429}) == as_match(429)


def test_how_matches_are_printed() -> None:
    """Classes by their names; a function by its own, or as it prints itself."""
    assert repr(raised(ConnectionError, TimeoutError)) == "raised(ConnectionError, TimeoutError)"
    assert repr(as_match(Asks())) == "asks"
    assert repr(as_match(Asks(__qualname__=3))) == "asks"
    assert repr(as_match(Asks(__qualname__="asks.it"))) == "asks.it"
