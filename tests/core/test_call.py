"""A call on its way inward: changed copies, and what a policy may ask of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from conftest import World
from resilience import (
    Attempt,
    CircuitBreaker,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    history,
    resilient,
)
from resilience._core.context import get_ambient
from resilience.failures import Advice, Failure, Kind
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.testing import disabled
from support.calling import error_of, passing


class Spy(Policy):
    """Does something with each call before it goes on with it, or with what that gives."""

    def __init__(self, look: Callable[[Call, Runtime], Call | None]) -> None:
        self.look = look

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def spy(call: Call) -> Any:
            return await inner(self.look(call, runtime) or call)

        return spy


def spied(world: World, *policies: Any, function: Any = None) -> list[Call]:
    """The calls that a policy has met innermost."""
    seen: list[Call] = []
    fn = Pipeline(*policies, Spy(lambda call, runtime: seen.append(call))).wrap(
        function or world.function("ok")
    )
    world.run(fn, 1, size=2)
    return seen


# Changed copies


def test_a_changed_copy_leaves_the_call_as_it_is(world: World) -> None:
    """It shares the journal and the branch, and has the rest of the call but for the changes."""
    (call,) = spied(world, ModelFallback("a"))
    other = call.replace(args=(7,), kwargs={"x": 1}, model="z")

    assert (call.args, call.kwargs, call.model) == ((1,), {"size": 2, "model": "a"}, "a")
    assert (other.args, other.kwargs, other.model) == ((7,), {"x": 1}, "z")
    assert other.fn is call.fn
    assert other.journal is call.journal
    assert other.branch is call.branch
    assert other.deadline is call.deadline
    with pytest.raises(AttributeError):
        call.replace(argz=())


def test_a_changed_copy_is_what_is_called(world: World) -> None:
    """Other arguments, another function; one attempt at a time sees its own."""

    def instead(*args: Any, **kwargs: Any) -> Any:
        return "instead", args, kwargs

    async def ainstead(*args: Any, **kwargs: Any) -> Any:
        return instead(*args, **kwargs)

    fn = ainstead if world.asynchronous else instead
    pipeline = Pipeline(Spy(lambda call, runtime: call.replace(fn=fn, args=(2,), kwargs={"b": 1})))

    assert world.run(pipeline.call, world.function("never"), 1) == ("instead", (2,), {"b": 1})
    assert world.calls == []


def test_each_attempt_of_a_chain_has_arguments_of_its_own(world: World) -> None:
    """What one policy changes for a turn is not there in the next."""
    seen: list[Any] = []

    def look(call: Call, runtime: Runtime) -> Call:
        seen.append((call.model, dict(call.kwargs)))
        return call.replace(kwargs={**call.kwargs, "more": len(seen)})

    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=0), Spy(look))
    error_of(world, pipeline.call, world.function(ConnectionError))

    assert seen == [
        ("a", {"model": "a"}),
        ("a", {"model": "a"}),
        ("b", {"model": "b"}),
        ("b", {"model": "b"}),
    ]
    assert [kwargs["more"] for _, kwargs in world.calls] == [1, 2, 3, 4]


def test_a_judge_turns_a_result_into_an_error(world: World) -> None:
    """For every policy outside; the attempt that gave it has failed."""
    bad = KeyError("bad")

    def look(call: Call, runtime: Runtime) -> Call:
        return call.replace(judge=lambda result: bad if result == "bad" else None)

    pipeline = Pipeline(Retry(attempts=3, wait=0, on=KeyError), Spy(look))

    assert world.run(pipeline.call, world.function("bad", "good")) == "good"
    error = error_of(world, pipeline.call, world.function("bad"))
    assert error is bad
    assert [a.failure and a.failure.error for a in history(error)] == [bad] * 3


class Branching(Policy):
    """Gives each of its attempts a branch."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def branching(call: Call) -> Any:
            (branch,) = call.branches(1)
            return await inner(branch)

        return branching


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_what_is_reported_in_a_branch_is_known_further_out(world: World) -> None:
    """Retries inside and outside of it do not multiply."""
    pipeline = Pipeline(Retry(attempts=2), Branching(), Retry(attempts=2))
    error_of(world, pipeline.wrap(world.function(ConnectionError)))
    assert len(world.calls) == 2


# Asking


def test_a_call_knows_what_is_around_it(world: World) -> None:
    """Its world, whether policies are off, and that it is the attempt under way."""
    seen: list[Any] = []

    def look(*args: Any, **kwargs: Any) -> None:
        seen.append(get_ambient())

    (call,) = spied(world, function=world.function(look))
    (here,) = seen
    assert here is not None
    assert isinstance(here, Call)
    assert here.attempt is here
    assert here.journal is call.journal
    assert (here.args, here.kwargs) == ((1,), {"size": 2})
    assert here.world is world.clock
    assert here.disabled is False


def test_switched_off_inside_stays_off(world: World) -> None:
    """A call that is made with policies off is no `Call` of theirs, nor are those inside it."""
    inner = Pipeline(Retry(wait=0)).wrap(world.function(ConnectionError))

    def off() -> Any:
        with disabled():
            return inner()

    async def aoff() -> Any:
        with disabled():
            return await inner()

    error_of(world, Pipeline(Retry(attempts=1)).call, aoff if world.asynchronous else off)
    assert len(world.calls) == 1


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_the_room_until_the_nearest_deadline(world: World) -> None:
    """Infinite without one."""
    seen: list[float] = []

    def look(call: Call, runtime: Runtime) -> None:
        seen.append(call.room(runtime.now()))

    for policies in ((), (Timeout(9),), (Timeout(9), Timeout(5)), (Timeout(5), Timeout(9))):
        world.run(Pipeline(*policies, Spy(look)).call, world.function("ok"))
    assert seen == [math.inf, 9, 5, 5]


class Closed(Policy):
    """A gate of a user's that would refuse calls for a model, and has its time."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner

    def refuses(self, call: Call) -> bool:
        return call.model == "a"

    def free_in(self, call: Call) -> float:
        return 7.0 if call.model == "a" else 3.0


def test_a_call_asks_all_policies_whether_they_would_refuse_it(world: World) -> None:
    """Those of nested pipelines, too; and how long it would have to wait for all of them."""
    breaker = CircuitBreaker(key="model", reset_after=60)
    breaker.circuit("b").open()
    (call,) = spied(world, Pipeline(Closed()), Pipeline(breaker), function=_named(world, "c"))
    found = {
        model: (
            call.replace(model=model, kwargs={"model": model}).refuses(),
            call.replace(model=model, kwargs={"model": model}).free_in(),
        )
        for model in "abc"
    }

    assert found == {"a": (True, 7.0), "b": (True, 60.0), "c": (False, 3.0)}
    (alone,) = spied(world)
    assert (alone.refuses(), alone.free_in()) == (False, 0.0)
    assert Pipeline().free_in(call) == 0


def _named(world: World, model: str) -> Any:
    def fn(*args: Any, model: str = model, **kwargs: Any) -> None: ...

    async def afn(*args: Any, model: str = model, **kwargs: Any) -> None: ...

    return afn if world.asynchronous else fn


def test_the_failure_and_the_last_attempt(world: World) -> None:
    """An error is what the attempt's failure says; before any attempt has ended it is read."""
    seen: list[Any] = []

    class Looking(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def looking(call: Call) -> Any:
                seen.append((call.last_attempt(), call.failure(ConnectionError()).kind))
                try:
                    return await inner(call)
                except Exception as error:
                    last = call.last_attempt()
                    seen.append((last.number, call.failure(error) is last.failure))
                    raise

            return looking

    error_of(world, Pipeline(Looking(), Retry(attempts=2, wait=0)).call, world.function(OSError))
    error_of(
        world, Pipeline(Looking(), Retry(attempts=2, wait=0)).call, world.function(TimeoutError)
    )
    assert seen == [
        (Attempt(), Kind.CONNECTION),
        (1, True),
        (Attempt(), Kind.CONNECTION),
        (2, True),
    ]


def test_a_predicate_that_raises_says_no(world: World) -> None:
    """And so does one that is asked of a mistake in the program; what it raises is remarked on."""
    (call,) = spied(world)
    failure = Failure(Kind.SERVER, Advice.RETRY, error=ConnectionError())

    assert call.matches(lambda failure: "yes", failure) is True
    assert call.matches(lambda failure: 0, failure) is False
    assert call.journal.remarks == ()
    assert call.matches(lambda failure: 1 / 0, failure) is False
    assert len(call.journal.remarks) == 1
    assert "ZeroDivisionError" in call.journal.remarks[0]


def test_a_call_is_inside_of_those_that_it_was_made_in(world: World) -> None:
    """Through any number of guarded functions; not of one that was made before or after."""
    calls: list[Call] = []
    keeping = Spy(lambda call, runtime: calls.append(call))
    inside: list[bool] = []

    def look(call: Call, runtime: Runtime) -> None:
        inside.extend(call.is_inside(each.journal) for each in calls)

    inner = Pipeline(Spy(look)).wrap(world.function("ok"))
    middle = resilient(Retry(), keeping)(passing(world, inner))
    outer = Pipeline(keeping).wrap(passing(world, middle))
    world.run(outer)
    assert inside == [True, True]

    inside.clear()
    world.run(inner)
    assert inside == [False, False]
    assert calls[0].is_inside(calls[0].journal)
    assert not calls[0].is_inside(calls[1].journal)


# What a chain offers


def test_a_chain_tells_when_another_model_is_free(world: World) -> None:
    """0 where one is, infinite where none will do; None without a chain."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("c").open()
    calls = spied(world, ModelFallback("a", "b", "c"), breaker)
    (alone,) = spied(world)
    (only,) = spied(world, ModelFallback("a"))
    failure = Failure(Kind.RATE_LIMIT, Advice.WAIT)

    offers = calls[0].alternatives
    assert offers is not None
    assert offers(failure) == 0
    breaker.circuit("b").open()
    assert offers(failure) > 0
    assert alone.alternatives is None
    assert only.alternatives is None or only.alternatives(failure) == math.inf
