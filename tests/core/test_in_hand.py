"""What a call on the full path begins with: an outcome, or an awaitable that is to be awaited."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest

from resilience.policy import InHand

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
def test_an_awaitable_serves_the_same_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], good: bool
) -> None:
    """The same objects, or dicts of the same: overrides are merged anew for each attempt."""
    in_hand = InHand((ONE,), {"key": KEY, "options": fresh(a=1, b=fresh(c=ONE))}, ready=Begun())

    assert in_hand.serves(args, kwargs) is good


def test_what_only_looks_like_a_dict_is_compared_as_an_object() -> None:
    """Two equal lists, or a dict where a list was, are not the same argument."""
    in_hand = InHand(([1], {"a": 1}), {}, ready=Begun())

    assert not in_hand.serves(([1], {"a": 1}), {})
    assert not in_hand.serves(({"a": 1}, {"a": 1}), {})


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
def test_an_awaitable_that_is_not_needed_is_ended(verbs: list[str], done: list[str]) -> None:
    """A coroutine is closed, a future cancelled; once, and it is gone then."""
    begun = Begun(*verbs)
    in_hand = InHand((), {}, ready=begun)
    assert not in_hand.made
    in_hand.discard()
    in_hand.discard()

    assert begun.done == done
    assert in_hand.take() is None


def test_an_awaitable_is_taken_once() -> None:
    """In the function's place it serves any arguments, for the chain has asked before."""
    begun = Begun("close")
    in_hand = InHand((), {}, ready=begun)

    assert in_hand.serve(1, size=2) is begun
    in_hand.discard()
    assert begun.done == []


def test_a_coroutine_that_nobody_awaits_is_not_warned_of() -> None:
    """It is closed when the call that holds it is dropped."""

    async def never() -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coroutine = never()
        in_hand = InHand((), {}, ready=coroutine)
        del in_hand
        gc.collect()

    assert coroutine.cr_frame is None


def test_an_outcome_is_delivered_once() -> None:
    """A result is returned, an error raised; nothing of either is kept."""
    error = ValueError("mine")
    in_hand = InHand((), {}, error=error, epoch=3, started=1.5)

    assert in_hand.made
    assert (in_hand.epoch, in_hand.started) == (3, 1.5)
    with pytest.raises(ValueError, match="mine") as caught:
        in_hand.deliver()
    assert caught.value is error
    assert in_hand.deliver() is None

    in_hand = InHand((), {}, result="result")
    assert in_hand.deliver() == "result"
    assert in_hand.deliver() is None
