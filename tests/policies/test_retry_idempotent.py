"""`Retry(idempotent=)` as a function of the call: which requests may be sent twice."""

from __future__ import annotations

from typing import Any

import pytest
import tenacity

from conftest import World
from resilience import Model, ModelFallback, Pipeline, Retry
from support.calling import error_of

MAYBE = TimeoutError
"""After it nobody knows whether the request was executed."""
NEVER = ConnectionRefusedError
"""After it the request was surely not executed."""


def reads(name: str, **more: Any) -> bool:
    return name.startswith("get_")


@pytest.mark.fault(288)
@pytest.mark.parametrize(
    ("error", "name", "attempts"),
    [(MAYBE, "get_order", 3), (MAYBE, "place_order", 1), (NEVER, "place_order", 3)],
)
def test_it_goes_by_the_arguments(world: World, error: Any, name: str, attempts: int) -> None:
    """What only reads is repeated; what does something, only if it was surely not executed."""
    fn = Pipeline(Retry(wait=0, idempotent=reads)).wrap(world.function(error))

    error_of(world, fn, name, amount=5)
    assert world.calls == [((name,), {"amount": 5})] * attempts


def test_it_is_asked_of_each_attempt(world: World) -> None:
    """With the arguments that this attempt had: a model's, or those that `adjust` has made."""
    asked: list[Any] = []

    def ask(*args: Any, **kwargs: Any) -> bool:
        asked.append((args, kwargs))
        return True

    def adjust(attempt: Any, args: Any, kwargs: Any) -> Any:
        return (args[0] + 1,), kwargs

    retry = Retry(wait=0, attempts=3, idempotent=ask, adjust=adjust)
    fn = Pipeline(ModelFallback(Model("m", size=2)), retry).wrap(world.function(MAYBE))
    error_of(world, fn, 1)
    assert asked == [((n,), {"model": "m", "size": 2}) for n in (1, 2, 3)]


@pytest.mark.fault(288)
def test_one_that_raises_says_no(world: World) -> None:
    """The call's own error comes out, and its note names the problem without its text."""

    def broken(*args: Any) -> bool:
        raise LookupError("secret")

    error = error_of(world, Pipeline(Retry(wait=0, idempotent=broken)).wrap(world.function(MAYBE)))
    assert type(error) is MAYBE
    assert len(world.calls) == 1
    (note,) = error.__notes__
    assert "LookupError" in note
    assert "secret" not in note


def test_it_holds_for_results(world: World) -> None:
    """A result that tenacity's predicate wants again has been executed."""
    wanted = tenacity.retry_if_result(lambda result: True)
    for name, attempts in (("get_order", 3), ("place_order", 1)):
        world.calls.clear()
        retry = Retry(on=wanted, wait=0, idempotent=reads)
        world.run(Pipeline(retry).wrap(world.function("again")), name)
        assert len(world.calls) == attempts


def test_as_text() -> None:
    """It prints by its name."""
    assert repr(Retry(idempotent=reads)) == "Retry(idempotent=reads)"
