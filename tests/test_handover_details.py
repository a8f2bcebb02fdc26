"""An awaitable that was handed over: for which call it is good, and how it is let go."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest

from resilience._core.handover import Ready, Resumed

ONE, TWO, KEY = object(), object(), object()


def fresh(**content: Any) -> dict[str, Any]:
    """A dict that is not the same object as any other."""
    return dict(content)


@pytest.mark.parametrize(
    ("args", "kwargs", "good"),
    [
        ((ONE,), {"key": KEY, "options": fresh(a=1, b=fresh(c=ONE))}, True),
        ((), {"key": KEY, "options": fresh(a=1, b=fresh(c=ONE))}, False),
        ((ONE, TWO), {"key": KEY, "options": fresh(a=1, b=fresh(c=ONE))}, False),
        ((TWO,), {"key": KEY, "options": fresh(a=1, b=fresh(c=ONE))}, False),
        ((ONE,), {"key": TWO, "options": fresh(a=1, b=fresh(c=ONE))}, False),
        ((ONE,), {"key": KEY}, False),
        ((ONE,), {"key": KEY, "option": fresh(a=1, b=fresh(c=ONE))}, False),
        ((ONE,), {"key": KEY, "options": fresh(a=1, b=fresh(c=TWO))}, False),
        ((ONE,), {"key": KEY, "options": fresh(a=2, b=fresh(c=ONE))}, False),
        ((ONE,), {"key": KEY, "options": fresh(a=1)}, False),
        ((ONE,), {"key": KEY, "options": fresh(a=1, b=ONE)}, False),
        ((ONE,), {"key": KEY, "options": ONE}, False),
    ],
)
def test_it_is_good_for_the_same_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], good: bool
) -> None:
    """The same objects, or dicts of the same: overrides are merged anew for each attempt."""
    ready = Ready(None, (ONE,), {"key": KEY, "options": fresh(a=1, b=fresh(c=ONE))})

    assert ready.serves(args, kwargs) is good


def test_what_only_looks_like_a_dict_is_compared_as_an_object() -> None:
    """Two equal lists, or a dict where a list was, are not the same argument."""
    ready = Ready(None, ([1], {"a": 1}), {})

    assert not ready.serves(([1], {"a": 1}), {})
    assert not ready.serves(({"a": 1}, {"a": 1}), {})


class Begun:
    """Something awaitable that has been begun, and can be ended in some ways."""

    def __init__(self, *verbs: str) -> None:
        self.done: list[str] = []
        for verb in verbs:
            setattr(self, verb, lambda verb=verb: self.done.append(verb))


@pytest.mark.parametrize(
    ("verbs", "done"),
    [
        (["close"], ["close"]),
        (["cancel"], ["cancel"]),
        (["cancel", "close"], ["close"]),
        ([], []),
    ],
)
def test_what_is_not_needed_is_ended(verbs: list[str], done: list[str]) -> None:
    """A coroutine is closed, a future cancelled; once, and it is gone then."""
    begun = Begun(*verbs)
    ready = Ready(begun, (), {})
    ready.discard()
    ready.discard()

    assert begun.done == done
    assert ready.take() is None


def test_a_coroutine_that_nobody_awaits_is_not_warned_of() -> None:
    """It is closed when the call that holds it is dropped."""

    async def never() -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coroutine = never()
        ready = Ready(coroutine, (), {})
        del ready
        gc.collect()

    assert coroutine.cr_frame is None


def test_a_first_attempts_outcome_is_delivered_once() -> None:
    """A result is returned, an error raised; nothing of either is kept."""
    error = ValueError("mine")
    resumed = Resumed(3, 1.5, None, error)

    assert (resumed.epoch, resumed.started) == (3, 1.5)
    with pytest.raises(ValueError, match="mine") as caught:
        resumed.deliver()
    assert caught.value is error
    assert resumed.deliver() is None

    resumed = Resumed(0, 0.0, "result", None)
    assert resumed.deliver() == "result"
    assert resumed.deliver() is None
