"""Fallback: a value, or a function's result, in place of an error."""

from __future__ import annotations

import threading
from collections import defaultdict
from inspect import signature
from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    PolicyOrderWarning,
    Retry,
    Timeout,
    served_by,
)
from resilience.failures import Failure, Kind
from support.calling import error_of
from support.errors import note_of


@pytest.mark.parametrize(
    "value", ["sorry", None, 0, (), frozenset(), ValueError("a value, not raised")], ids=repr
)
def test_a_value_stands_for_the_error(world: World, value: Any) -> None:
    """Any value does, None and false ones included; an exception given as a value is a value."""
    assert world.run(Pipeline(Fallback(value)).wrap(world.function(KeyError))) is value


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, []], ids=repr)
def test_a_list_dict_or_set_is_copied_for_each_caller(world: World, value: Any) -> None:
    """What one caller does with it is not seen by the next, nor by the policy."""
    before = type(value)(value)
    guarded = Pipeline(Fallback(value)).wrap(world.function(KeyError))
    first, second = world.run(guarded), world.run(guarded)

    assert first == second == before
    assert type(first) is type(value)
    assert len({id(first), id(second), id(value)}) == 3
    first.clear()
    assert value == second == world.run(guarded) == before


@pytest.mark.fault(280)
def test_what_is_in_it_is_copied_too(world: World) -> None:
    """A caller that changes a part changes its own; what cannot be copied is shared."""
    lock = threading.Lock()
    for value in ([{"choices": []}], defaultdict(list, choices=[])):
        guarded = Pipeline(Fallback(value)).wrap(world.function(KeyError))
        first = world.run(guarded)
        (first[0] if type(first) is list else first)["choices"].append("mine")
        assert world.run(guarded) == value
        assert "mine" not in str(value)
    shared = world.run(Pipeline(Fallback([lock])).wrap(world.function(KeyError)))
    assert shared == [lock]


def test_success_passes(world: World) -> None:
    """Nothing is replaced where nothing failed, and the arguments go through."""
    guarded = Pipeline(Fallback("sorry"), Retry()).wrap(world.function("fine"))

    assert world.run(guarded, 1, 2, size=3) == "fine"
    assert world.calls == [((1, 2), {"size": 3})]


def test_a_function_gets_the_failure_and_the_arguments(world: World) -> None:
    """`call=` is called with what went wrong, then the call's own arguments."""
    seen: list[Any] = []

    def instead(failure: Failure, *args: Any, **kwargs: Any) -> str:
        seen.append((failure, args, kwargs))
        return "instead"

    error = ConnectionError()
    guarded = Pipeline(Fallback(call=instead)).wrap(world.function(error))

    assert world.run(guarded, 1, two=2) == "instead"
    ((failure, args, kwargs),) = seen
    assert failure.kind is Kind.CONNECTION
    assert failure.error is error
    assert (args, kwargs) == ((1,), {"two": 2})


def test_an_async_function_is_awaited_in_async_calls(world: World) -> None:
    """An async `call=` works where the call is async, and is a clear TypeError where it is not."""

    async def instead(failure: Failure) -> str:
        return "instead"

    guarded = Pipeline(Fallback(call=instead)).wrap(world.function(KeyError))
    if world.asynchronous:
        assert world.run(guarded) == "instead"
    else:
        with pytest.raises(TypeError, match="async"):
            world.run(guarded)


class Promise:
    """An awaitable that can be neither closed nor cancelled."""

    def __await__(self) -> Any:
        return iter(())


async def _instead(failure: Failure) -> str:
    return "instead"


@pytest.mark.parametrize("instead", [_instead, lambda failure: Promise()])
def test_an_async_function_has_no_place_in_a_sync_call(instead: Any) -> None:
    """It is refused by its name and with advice, and a coroutine is not left unawaited."""
    with pytest.raises(TypeError, match="asynchronous=True") as caught:
        Pipeline(Fallback(call=instead)).call(lambda: 1 / 0)
    assert instead.__qualname__ in str(caught.value)


def test_what_the_function_raises_comes_out(world: World) -> None:
    """The last resort has no last resort: its own error comes out, the first one its context."""
    fallback = Fallback(call=lambda failure: {}["gone"])

    with pytest.raises(KeyError, match="gone"):
        world.run(Pipeline(fallback).wrap(world.function(ConnectionError)))


@pytest.mark.parametrize(
    ("on", "handled"),
    [(LookupError, True), (OSError, False), ([OSError, KeyError], True), (Kind.UNKNOWN, True)],
)
def test_on_chooses_which_failures(world: World, on: Any, handled: bool) -> None:
    """`on=` is the same language as everywhere; what it leaves out comes out."""
    guarded = Pipeline(Fallback("sorry", on=on)).wrap(world.function(KeyError))
    if handled:
        assert world.run(guarded) == "sorry"
    else:
        with pytest.raises(KeyError):
            world.run(guarded)


def test_on_is_asked_about_the_own_error_not_the_rejection(world: World) -> None:
    """After an attempt was made `on` sees that attempt's error, as it is the one coming out."""
    breaker = CircuitBreaker()
    retry = Retry(adjust=lambda attempt, args, kwargs: (breaker.open(), (args, kwargs))[1])
    pipeline = Pipeline(Fallback("sorry", on=ConnectionError), retry, breaker)

    assert world.run(pipeline.wrap(world.function(ConnectionError))) == "sorry"


@pytest.mark.parametrize(
    ("on", "kind"), [(CircuitOpenError, Kind.REJECTED), (DeadlineExceededError, Kind.TIMEOUT)]
)
def test_our_own_errors_are_handled_too(world: World, on: Any, kind: Kind) -> None:
    """A rejection and a time limit are failures to the last resort."""
    breaker = CircuitBreaker()
    if kind is Kind.REJECTED:
        breaker.open()
    seen: list[Kind] = []

    def instead(failure: Failure) -> str:
        seen.append(failure.kind)
        return "sorry"

    pipeline = Pipeline(Fallback(call=instead, on=on), Timeout(5), breaker, Timeout(1))

    assert world.run(pipeline.wrap(world.function(Takes(9)))) == "sorry"
    assert seen == [kind]


def test_a_predicate_that_raises_lets_the_error_out(world: World) -> None:
    """A broken `on` does not swallow the call's own error; the note names what it raised."""
    guarded = Pipeline(Fallback("sorry", on=lambda failure: 1 / 0)).wrap(world.function(KeyError))

    error = error_of(world, guarded)
    assert type(error) is KeyError
    assert "ZeroDivisionError" in note_of(error)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_control_flow_has_no_fallback(world: World, error: type[BaseException]) -> None:
    """Ctrl-C and exits are not failures."""
    with pytest.raises(BaseException) as info:  # noqa: PT011
        world.run(Pipeline(Fallback("sorry")).wrap(world.function(error)))
    assert type(info.value) is error


def test_the_outcome_is_degraded(world: World) -> None:
    """An outcome tells that something other than the first choice stands there."""
    pipeline = Pipeline(Fallback("sorry"), Retry(wait=1))
    outcome = world.run(pipeline.outcome, world.function(ConnectionError))

    assert (outcome.value, outcome.error, outcome.degraded) == ("sorry", None, True)
    assert len(outcome.attempts) == 3
    assert outcome.served_by is None


def test_no_model_served_a_fallback(world: World) -> None:
    """When every model failed, no model answered."""
    told: list[str | None] = []

    def call() -> None:
        told.append(served_by())

    fn = world.function(ConnectionError)
    guarded = Pipeline(Fallback("sorry"), ModelFallback("a", "b")).wrap(fn)

    async def amain() -> None:
        assert await guarded() == "sorry"
        call()

    def main() -> None:
        assert guarded() == "sorry"
        call()

    world.run(amain if world.asynchronous else main)
    assert told == [None]


def test_it_may_stand_inside_a_retry(world: World) -> None:
    """Inside Retry it answers at once, so nothing is retried."""
    fn = world.function(ConnectionError)
    with pytest.warns(PolicyOrderWarning, match="hides"):
        pipeline = Pipeline(Retry(), Fallback("sorry"))

    assert world.run(pipeline.wrap(fn)) == "sorry"
    assert len(world.calls) == 1


def test_help_shows_that_there_is_no_default() -> None:
    """In a signature: None would be a value to return."""
    assert str(signature(Fallback)).startswith("(value: 'Any' = <nothing>, ")


@pytest.mark.parametrize(
    ("fallback", "text"),
    [
        (lambda: Fallback("sorry"), "Fallback(<str>)"),
        (lambda: Fallback(None), "Fallback(None)"),
        (lambda: Fallback(call=_instead), "Fallback(call=_instead)"),
        (lambda: Fallback(1, on=OSError), "Fallback(1, on=raised(OSError))"),
    ],
)
def test_repr(fallback: Any, text: str) -> None:
    """It reads like the code that makes it, without a value that may be an answer."""
    assert repr(fallback()) == text
