"""RetryBudget: which extra calls there are for each call, what is one, and who finds the budget."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import Takes, World, async_worlds
from resilience import (
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    RetryBudget,
    Streaming,
    StreamInterruptedError,
    Timeout,
    health,
    history,
    recording,
)
from resilience._core import guard, hooks, idles
from resilience.events import BudgetSpent, CallFailed, GaveUp, ModelLeft
from resilience.policies import retry_budget as module
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.testing import virtual_time
from support.arriving import arriving, interrupt
from support.calling import error_of, message_of, passing
from support.circuits import rests
from support.errors import note_of
from support.policies import Busy

SPENT = "the retry budget is spent"


def empty(**options: Any) -> RetryBudget:
    """One that has what calls allow for, and nothing else."""
    return RetryBudget(reserve=0, **options)


def full(burst: float, **options: Any) -> RetryBudget:
    """One that has this many extra calls from the start."""
    return RetryBudget(0.01, of="successes", burst=burst, reserve=0, **options)


def left(budget: RetryBudget) -> float:
    return round(budget.snapshot().left, 6)


# What there is


def test_a_tenth_of_the_calls_may_be_repeated(world: World) -> None:
    """Ten calls allow for one extra call; the first ones for none."""
    budget = empty()
    fn = Pipeline(budget, Retry(attempts=2, wait=0)).wrap(world.function(ConnectionError))
    made = []
    for _ in range(40):
        before = len(world.calls)
        error_of(world, fn)
        made.append(len(world.calls) - before)

    assert [number for number, calls in enumerate(made, 1) if calls == 2] == [10, 20, 30, 40]
    assert budget.snapshot().spent == 4
    assert budget.snapshot().refused == 36


def test_a_program_that_makes_few_calls_may_retry(world: World) -> None:
    """By default there are ten extra calls at the start, and one more each second."""
    budget = RetryBudget()
    fn = Pipeline(budget, Retry(attempts=3, wait=0)).wrap(world.function(ConnectionError))
    for _ in range(5):
        error_of(world, fn)
    assert len(world.calls) == 15

    for _ in range(4):  # they allow for 0.9 with those before
        error_of(world, fn)
    assert len(world.calls) == 19
    world.clock.advance(2)
    error_of(world, fn)
    assert len(world.calls) == 22


def test_no_more_than_the_burst_is_saved_up(world: World) -> None:
    """However long it was quiet, and however many calls there were."""
    budget = RetryBudget(burst=3)
    fn = Pipeline(budget, Retry(attempts=9, wait=0)).wrap(world.function(ConnectionError))
    world.clock.advance(1e6)
    assert left(budget) == 3
    error_of(world, fn)
    assert len(world.calls) == 4
    assert left(budget) == 0


def test_successes_allow_for_extra_calls(world: World) -> None:
    """As in the SDKs of AWS: full at the start, and fed by what goes well alone."""
    budget = RetryBudget(0.5, of="successes", burst=2, reserve=0)
    fn = Pipeline(budget, Retry(attempts=2, wait=0)).wrap(
        world.function(*[ConnectionError] * 6, "a", "b", ConnectionError)
    )
    for _ in range(4):
        error_of(world, fn)
    assert len(world.calls) == 6  # two of them were repeated
    assert left(budget) == 0
    world.run(fn)
    assert left(budget) == 0.5
    world.run(fn)
    error_of(world, fn)
    assert len(world.calls) == 10
    assert left(budget) == 0


def test_a_share_of_the_cost(world: World) -> None:
    """With `cost`, all of it is in that unit; a dear call takes more of the budget."""
    budget = RetryBudget(0.5, cost=lambda tokens: tokens, burst=1000)
    fn = Pipeline(budget, Retry(attempts=2, wait=0)).wrap(world.function(ConnectionError))
    error_of(world, fn, 100)
    assert left(budget) == 50
    error_of(world, fn, 40)
    assert left(budget) == 50 + 20 - 40
    assert len(world.calls) == 3
    error_of(world, fn, 100)
    assert left(budget) == 80
    assert budget.snapshot().burst == 1000


def test_an_extra_call_costs_what_its_own_arguments_say(world: World) -> None:
    """Those of the model that is next; of a function further in, those of the one that was
    called."""
    prices = {"dear": 100, "cheap": 1}
    budget = RetryBudget(0, cost=lambda model="": prices.get(model, 0), burst=150, reserve=15)
    chain = ModelFallback("dear", "cheap")
    error_of(world, Pipeline(budget, chain).wrap(world.function(ConnectionError)))
    assert left(budget) == 149

    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(world.function(ConnectionError))

    def call(model: str) -> Any:
        return inner()

    async def acall(model: str) -> Any:
        return await inner()

    error_of(world, Pipeline(budget).wrap(acall if world.asynchronous else call), "dear")
    assert left(budget) == 49


def test_a_stream_goes_well_at_its_end() -> None:
    """One that breaks off, or is left before it, allows for nothing."""
    budget = RetryBudget(0.5, of="successes", burst=1, reserve=0)

    def ask(*, broken: bool = False) -> Iterator[str]:
        yield "well"
        if broken:
            raise ConnectionError

    fn = Pipeline(budget, Streaming(complete=False)).wrap(ask)
    with pytest.raises(ConnectionError):
        Pipeline(budget, Retry(attempts=2, wait=0)).call(_failing)
    assert left(budget) == 0
    with pytest.raises(StreamInterruptedError):
        list(fn(broken=True))
    stream: Any = fn()
    next(stream)
    stream.close()
    assert left(budget) == 0
    list(fn())
    assert left(budget) == 0.5


@pytest.mark.fault(384)
@pytest.mark.parametrize("cost", [lambda x: 1 / 0, lambda x: "much", lambda x: -1])
def test_a_cost_that_is_none_costs_nothing(
    world: World, cost: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The call is as without a budget, and the log says why."""
    budget = RetryBudget(cost=cost, burst=10)
    fn = Pipeline(budget, Retry(attempts=3, wait=0)).wrap(world.function(ConnectionError))
    assert type(error_of(world, fn, 1)) is ConnectionError
    assert len(world.calls) == 3
    assert caplog.messages[0].startswith("RetryBudget(cost=) raised ")


# What comes out


@pytest.mark.fault(381)
def test_the_error_comes_out_at_once_as_itself(world: World) -> None:
    """With a note, a reason and events; no wait has begun."""
    error = ConnectionError("secret")
    fn = Pipeline(empty(name="ours"), Retry()).wrap(world.function(error))
    with recording() as events:
        assert error_of(world, fn) is error

    assert world.clock.sleeps == []
    assert SPENT in note_of(error)
    assert len(history(error)) == 1
    by_class = {type(event): event for event in events}
    assert by_class[GaveUp].reason == SPENT
    assert by_class[CallFailed].reason == SPENT
    assert by_class[BudgetSpent].budget == "ours"
    assert "secret" not in repr(events)


def test_a_bad_result_is_returned(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Which tenacity's predicate would have had repeated. Listeners hear why; the log does not
    warn."""
    import tenacity

    retry = Retry(on=tenacity.retry_if_result(lambda result: result == "bad"), wait=0)
    fn = Pipeline(full(1), retry).wrap(world.function("bad"))
    with recording(GaveUp) as events:
        assert world.run(fn) == "bad"
    assert len(world.calls) == 2
    assert [event.reason for event in events] == [SPENT]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_fallback_helps(world: World) -> None:
    """It makes no call."""
    fn = Pipeline(Fallback("instead"), empty(), Retry()).wrap(world.function(ConnectionError))
    assert world.run(fn) == "instead"


# What is an extra call


def test_another_model_is_an_extra_call(world: World) -> None:
    """A chain moves on if the budget allows for it."""
    budget = full(1)
    fn = Pipeline(budget, ModelFallback("a", "b", "c")).wrap(world.function(ConnectionError))
    with recording(ModelLeft, BudgetSpent) as events:
        error = error_of(world, fn)
    assert [kwargs["model"] for _, kwargs in world.calls] == ["a", "b"]
    assert [type(event) for event in events] == [ModelLeft, BudgetSpent]
    assert events[1].model == "c"
    assert SPENT in note_of(error)


def test_retries_and_models_share_a_budget(world: World) -> None:
    """Of one pipeline, each extra call is one."""
    budget = full(3)
    chain = ModelFallback("a", "b", "c")
    fn = Pipeline(budget, chain, Retry(attempts=2, wait=0)).wrap(world.function(ConnectionError))
    error_of(world, fn)
    assert [kwargs["model"] for _, kwargs in world.calls] == ["a", "a", "b", "b"]


def test_a_model_in_place_of_one_that_is_rejected_is_none(world: World) -> None:
    """The first attempt is the one that was asked for, whatever model it is made of."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("a").isolate()
    breaker.circuit("b").isolate()
    budget = empty()
    fn = Pipeline(budget, ModelFallback("a", "b", "c"), breaker).wrap(world.function("well"))
    assert world.run(fn) == "well"
    assert budget.snapshot().spent == 0


def test_a_model_that_is_rejected_passes_on_what_was_given_for_it(world: World) -> None:
    """The attempt of the next one is the same extra call."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").isolate()
    budget = full(1)
    fn = Pipeline(budget, ModelFallback("a", "b", "c"), breaker).wrap(
        world.function(ConnectionError, "well")
    )
    assert world.run(fn) == "well"
    assert budget.snapshot().spent == 1


@pytest.mark.fault(382)
def test_what_was_given_for_a_rejected_attempt_goes_back(world: World) -> None:
    """When the call ends without it."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").isolate()
    budget = full(1)
    fn = Pipeline(budget, ModelFallback("a", "b"), breaker).wrap(world.function(ConnectionError))
    error_of(world, fn)
    assert len(world.calls) == 1
    assert (left(budget), budget.snapshot().spent) == (1, 0)


def test_a_rejection_that_is_retried_is_none(world: World) -> None:
    """No attempt was made before."""
    breaker = CircuitBreaker(failures=1, reset_after=5)
    budget = full(2)
    fn = Pipeline(budget, Retry(on=CircuitOpenError, attempts=2), breaker).wrap(
        world.function("well")
    )
    breaker.open()
    assert world.run(fn) == "well"
    assert budget.snapshot().spent == 0


def test_a_stream_that_is_begun_anew_is_an_extra_call(world: World) -> None:
    """`Streaming(on_interrupted="restart")` asks, too."""

    def ask() -> Iterator[str]:
        yield "one"
        raise ConnectionError

    with pytest.raises(StreamInterruptedError):
        list(Pipeline(empty(), Streaming(on_interrupted="restart")).wrap(ask)())
    budget = full(1)
    stream = Pipeline(budget, Streaming(on_interrupted="restart")).wrap(ask)()
    with pytest.raises(StreamInterruptedError):
        list(stream)
    assert budget.snapshot().spent == 1


@async_worlds
@pytest.mark.fault(3, 382)
def test_a_wait_that_is_cancelled_costs_nothing(world: World) -> None:
    """What was taken for the attempt after it is given back at once."""
    budget = full(1)
    fn = Pipeline(budget, Retry(wait=60)).wrap(world.function(ConnectionError))
    seen = []

    async def main() -> None:
        if world.name == "asyncio":
            task = asyncio.ensure_future(fn())
            await world.clock.asleep(1)
            seen.append(left(budget))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            import trio

            with trio.move_on_after(1e9) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fn)
                    await world.clock.asleep(1)
                    seen.append(left(budget))
                    scope.cancel()

    world.run(main)
    assert seen == [0]
    assert (left(budget), budget.snapshot().spent) == (1, 0)


def test_what_was_given_back_grows_as_before(world: World) -> None:
    """By the reserve of each second."""
    budget = RetryBudget(0.1, burst=5, reserve=0.1)

    class Rejecting(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def rejecting(call: Call) -> Any:
                if call.journal.attempts:
                    raise BulkheadFullError  # in place of the second attempt
                return await inner(call)

            return rejecting

    error_of(
        world, Pipeline(budget, Retry(wait=0), Rejecting()).wrap(world.function(ConnectionError))
    )
    assert left(budget) == 1.1
    world.clock.advance(10)
    assert left(budget) == 2.1


@pytest.mark.fault(9, 382)
def test_a_wait_that_ctrl_c_ends_costs_nothing() -> None:
    """In a sync call, too."""
    budget = full(1)

    class Interrupted(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def interrupted(call: Call) -> Any:
                if call.journal.attempts:
                    raise KeyboardInterrupt  # before the next attempt
                return await inner(call)

            return interrupted

    def fail() -> None:
        raise ConnectionError

    with pytest.raises(KeyboardInterrupt):
        Pipeline(budget, Retry(wait=0), Interrupted()).call(fail)
    assert (left(budget), budget.snapshot().spent) == (1, 0)


def test_a_deadline_that_ends_the_wait_costs_nothing(world: World) -> None:
    """Nor one that leaves no room for it: the budget is not asked."""
    budget = full(1)
    fn = world.function(Takes(2, ConnectionError))
    fn = Pipeline(Timeout(5), budget, Retry(wait=4)).wrap(fn)
    error_of(world, fn)
    assert (left(budget), budget.snapshot().refused) == (1, 0)


# Who finds it


def test_a_policy_of_ones_own_asks_it(world: World) -> None:
    """By `Call.afford()`, as ours do."""

    class Twice(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def twice(call: Call) -> Any:
                try:
                    return await inner(call)
                except ConnectionError:
                    if not call.afford():
                        raise
                    return await inner(call)

            return twice

    fn = Pipeline(full(1), Twice()).wrap(world.function(ConnectionError))
    error_of(world, fn)
    error_of(world, fn)
    assert len(world.calls) == 3


def test_an_attempt_that_was_not_made_is_paid_for_once(world: World) -> None:
    """Where the next one takes its place: it was rejected further in."""

    class Full(Policy):
        def __init__(self) -> None:
            self.rejections = 2

        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def full(call: Call) -> Any:
                if call.journal.attempts and self.rejections:
                    self.rejections -= 1
                    raise BulkheadFullError
                return await inner(call)

            return full

    class Stubborn(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def stubborn(call: Call) -> Any:
                while True:
                    try:
                        return await inner(call)
                    except (ConnectionError, BulkheadFullError):
                        if not call.afford():
                            raise

            return stubborn

    budget = full(1)
    fn = Pipeline(budget, Stubborn(), Full()).wrap(world.function(ConnectionError, "well"))
    assert world.run(fn) == "well"
    assert (budget.snapshot().spent, budget.snapshot().refused) == (1, 0)
    fn = Pipeline(budget, Stubborn(), Full()).wrap(world.function(ConnectionError))
    error_of(world, fn)
    assert (budget.snapshot().spent, budget.snapshot().refused) == (1, 1)


def test_a_budget_of_ones_own_is_asked(world: World) -> None:
    """A function in `Call.budgets`; with others around it, all of them are."""
    given: list[str] = []

    class Once(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            def take(call: Call) -> Callable[[], object] | None:
                if given:
                    return None
                given.append("taken")
                return lambda: given.append("given back")

            async def once(call: Call) -> Any:
                return await inner(call.replace(budgets=(*(call.budgets or ()), take)))

            return once

    fn = Pipeline(full(9), Once(), Retry(attempts=9, wait=0)).wrap(world.function(ConnectionError))
    error_of(world, fn)
    assert len(world.calls) == 2
    assert given == ["taken"]

    given.clear()
    error_of(world, Pipeline(empty(), Once(), Retry()).wrap(world.function(ConnectionError)))
    assert len(world.calls) == 3
    assert given == []  # the budget further out is asked first

    error_of(world, Pipeline(Once(), empty(), Retry()).wrap(world.function(ConnectionError)))
    assert len(world.calls) == 4
    assert given == ["taken", "given back"]


@pytest.mark.fault(82, 380)
@pytest.mark.parametrize("where", ["everywhere", "outermost"])
def test_one_budget_for_a_chain_of_calls(world: World, where: str) -> None:
    """Whether it stands in each layer or in the outermost: each user's call counts once."""
    budget = empty()
    fn = world.function(ConnectionError)
    for layer in range(3):
        outside = [budget] if where == "everywhere" or layer == 2 else []
        retry = Retry(attempts=3, wait=0, retry_exhausted=True)
        fn = Pipeline(*outside, retry).wrap(passing(world, fn))
    for _ in range(100):
        error_of(world, fn)
    assert len(world.calls) == 110


def test_a_function_that_calls_others_is_no_longer_at_rest(real_world: World) -> None:
    """Or those others would not find its budget. It is seen in its first call, which is not."""
    budget = full(5)
    inner = Pipeline(Retry(attempts=2, wait=0)).wrap(
        real_world.function("well", ConnectionError, "well")
    )
    outer = Pipeline(budget).wrap(passing(real_world, inner))
    real_world.run(outer)
    real_world.run(outer)
    assert budget.snapshot().spent == 1


# At rest


def test_it_rests_while_it_is_full(real_world: World) -> None:
    """And is busy after an extra call, until calls have filled it again."""
    budget = RetryBudget(0.5, of="successes", burst=1, reserve=0)
    pipeline = Pipeline(budget, Retry(attempts=2, wait=0))
    fn = pipeline.wrap(real_world.function("first", ConnectionError, "well"))
    assert not rests(pipeline)
    real_world.run(fn)
    assert rests(pipeline)
    real_world.run(fn)  # fails once; the success gives half of it back
    assert left(budget) == 0.5
    assert not rests(pipeline)
    real_world.run(fn)
    assert rests(pipeline)


def test_it_is_busy_in_each_of_its_pipelines(real_world: World) -> None:
    """Wherever the extra call was made."""
    budget = RetryBudget(0.5, of="successes", burst=1, reserve=0)
    fn = real_world.function("first", "first", ConnectionError, "well")
    one, other = (Pipeline(budget, Retry(attempts=2, wait=0)) for _ in range(2))
    for pipeline in (one, other):
        real_world.run(pipeline.wrap(fn))
    assert rests(one)
    real_world.run(other.wrap(fn))
    assert not rests(one)


def test_a_budget_that_nobody_uses_keeps_none_from_rest(world: World) -> None:
    """One key's is empty, and it is called no more; the other's calls find it full by then."""
    budget = RetryBudget(key="model", burst=2, reserve=0.1)
    pipeline = Pipeline(budget, Retry(attempts=2, wait=0))
    fn = pipeline.wrap(world.function(ConnectionError, ConnectionError, "well"))
    error_of(world, fn, model="a")
    assert budget.busy()
    world.clock.advance(30)
    for _ in range(12):
        world.run(fn, model="b")
    assert not budget.busy()


@pytest.mark.parametrize("reserve", [0, 1])
def test_a_forgotten_budget_keeps_none_from_rest(world: World, reserve: float) -> None:
    """Of many keys, the oldest go, full or not."""
    budget = RetryBudget(0, key="model", burst=2, reserve=reserve or 1e-9, keep=10)
    fn = Pipeline(budget, Retry(wait=0)).wrap(world.function(ConnectionError))
    for number in range(100):
        error_of(world, fn, model=f"m{number}")
    assert len(budget.snapshots()) <= 10
    assert len(budget._buckets._not_full) <= 10


@pytest.mark.parametrize("burst", [1, 5])  # full from the start, or not
def test_a_budget_unused_for_long_begins_anew(world: World, burst: float) -> None:
    """When another value of the key comes."""
    budget = RetryBudget(0, key="model", burst=burst, reserve=0.1, forget_after=600)
    fn = Pipeline(budget).wrap(world.function("well"))
    world.run(fn, model="a")
    world.clock.advance(599)
    world.run(fn, model="b")
    assert {*budget.snapshots()} == {"a", "b"}
    world.clock.advance(1)
    world.run(fn, model="c")
    assert {*budget.snapshots()} == {"b", "c"}


@pytest.mark.fault(387)
def test_the_memory_of_100_000_keys_is_flat() -> None:
    """Those unused for long are forgotten."""
    budget = RetryBudget(key="model", forget_after=10, burst=1, reserve=0.1)
    fn = Pipeline(budget).wrap(lambda model: "well")
    with virtual_time() as clock:
        for number in range(100_000):
            clock.advance(0.01)
            fn(model=number)
    assert len(budget.snapshots()) < 1_100
    assert len(budget._buckets._not_full) < 1_100


# Keys


def test_a_budget_for_each_value_of_a_key(world: World) -> None:
    """An argument's name, or a function of the arguments."""
    for key in ("tenant", lambda tenant: tenant):
        budget = RetryBudget(0, key=key, reserve=0.2)
        fn = Pipeline(budget, Retry(attempts=9, wait=0)).wrap(world.function(ConnectionError))
        world.calls.clear()
        error_of(world, fn, tenant="a")
        error_of(world, fn, tenant="a")
        assert len(world.calls) == 4
        error_of(world, fn, tenant="b")
        assert len(world.calls) == 7
        assert {key: level.left for key, level in budget.snapshots().items()} == {"a": 0, "b": 0}


@pytest.mark.fault(384)
def test_a_key_that_cannot_be_computed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The call is not bounded, and the log says so."""
    keys: list[Any] = [lambda: 1 / 0, lambda: [1]]
    for key in keys:
        caplog.clear()
        fn = Pipeline(RetryBudget(0.1, reserve=0, key=key), Retry(wait=0)).wrap(
            world.function(ConnectionError)
        )
        world.calls.clear()
        error_of(world, fn)
        assert len(world.calls) == 3
        assert "RetryBudget(key=) raised" in caplog.text


def test_an_argument_that_is_not_there() -> None:
    """TypeError where the function is guarded."""
    with pytest.raises(TypeError, match="tenant"):
        Pipeline(RetryBudget(key="tenant")).wrap(lambda x: x)


# Being a value, and an object


@pytest.mark.fault(74)
@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"ratio": 1.01}, ValueError, "ratio"),
        ({"ratio": -0.1}, ValueError, "ratio"),
        ({"ratio": float("nan")}, ValueError, "ratio"),
        ({"ratio": True}, TypeError, "ratio"),
        ({"ratio": 0, "reserve": 0}, ValueError, "ratio"),
        ({"reserve": -1}, ValueError, "reserve"),
        ({"reserve": "1"}, TypeError, "reserve"),
        ({"burst": 0.5}, ValueError, "burst"),
        ({"burst": 0}, ValueError, "burst"),
        ({"burst": -1}, ValueError, "burst"),
        ({"cost": len}, ValueError, "burst"),
        ({"cost": len, "burst": 0}, ValueError, "burst"),
        ({"cost": 5}, TypeError, "cost"),
        ({"of": "attempts"}, ValueError, "of"),
        ({"key": 5}, TypeError, "key"),
        ({"name": ""}, ValueError, "name"),
        ({"keep": 0}, ValueError, "keep"),
        ({"forget_after": 0}, ValueError, "forget_after"),
        ({"ration": 0.1}, TypeError, "ratio"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    """Field, rule and value."""
    assert said in message_of(kind, RetryBudget, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratio": 0, "reserve": 0}, "ratio must be more than 0 if reserve is 0, got 0.0"),
        ({"burst": 0.5}, "burst must be 1 or more, got 0.5"),
        ({"burst": 0}, "burst must be more than 0, got 0"),
        ({"cost": len}, "burst must be given with cost, in the same unit, got None"),
    ],
)
def test_what_would_allow_for_nothing(options: dict[str, Any], said: str) -> None:
    """Or for nobody knows how much."""
    assert message_of(ValueError, RetryBudget, **options) == said


def test_parts_of_an_amount() -> None:
    """A budget in money may be of less than one, and begin with less."""
    assert RetryBudget(cost=len, burst=0.5, of="successes").snapshot().left == 0.5
    assert RetryBudget(reserve=0.05).snapshot().left == 0.5


def test_it_reads_as_it_is_made() -> None:
    """Options at their defaults are left out."""
    assert repr(RetryBudget()) == "RetryBudget()"
    assert repr(RetryBudget(0.2, of="successes", reserve=0)) == (
        "RetryBudget(ratio=0.2, reserve=0, of='successes')"
    )
    assert repr(RetryBudget(cost=len, burst=5)) == "RetryBudget(cost=len, burst=5)"


@pytest.mark.fault(24)
def test_a_pickled_one_begins_anew() -> None:
    """A copy is the thing itself."""
    budget = RetryBudget(name="ours", key="model", burst=5)
    again = pickle.loads(pickle.dumps(budget))
    assert (again.name, again.key, again.burst) == ("ours", "model", 5)
    assert again is not budget
    assert copy.copy(budget) is copy.deepcopy(budget) is budget


def test_snapshots() -> None:
    """By the value of the key; a keyed one has no single one."""
    assert RetryBudget().snapshot() == module.BudgetLevel(10.0, 100.0, 0.0, 0)
    assert RetryBudget(key="model").snapshots() == {}
    assert message_of(TypeError, RetryBudget(key="model").snapshot) == (
        "this budget is keyed: use snapshots(), which has each value's"
    )


def test_health_has_them(world: World) -> None:
    """A key's value only if it is a model's name."""
    budgets = [
        RetryBudget(name="plain"),
        RetryBudget(name="by model", key="model"),
        RetryBudget(name="by secret", key=lambda model: f"secret {model}"),
    ]
    for budget in budgets:
        world.run(Pipeline(budget).wrap(world.function("well")), model="m")
    found = {each["budget"]: each for each in health()["budgets"]}
    assert round(found["plain"]["left"], 6) == 10.1
    assert found["plain"] | {"left": 0} == {
        "budget": "plain",
        "left": 0,
        "burst": 100,
        "spent": 0,
        "refused": 0,
    }
    assert found["by model"]["key"] == "m"
    assert "secret m" not in str(found)
    del budgets


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (RetryBudget(), "0.1 for each of the calls, and 1 a second"),
        (
            RetryBudget(0.2, key="model"),
            "0.2 for each of the calls, and 1 a second, for each model",
        ),
        (RetryBudget(of="successes", reserve=0), "0.1 for each of the calls that went well"),
        (RetryBudget(cost=len, burst=1), "0.1 for each of the calls by len"),
    ],
)
def test_explained(budget: RetryBudget, said: str) -> None:
    """In a line."""
    assert budget.effect().line == f"allows for extra calls: {said}"


# Threads and Ctrl-C


@pytest.mark.fault(31)
@pytest.mark.real
@pytest.mark.steady
def test_64_threads_never_overspend() -> None:
    """What was made is what was given; there is never less than nothing, or more than the burst."""
    budget = RetryBudget(0.1, reserve=0, burst=5)
    made: list[None] = []

    def fail() -> None:
        made.append(None)
        raise ConnectionError

    fn = Pipeline(budget, Retry(attempts=3, wait=0)).wrap(fail)
    seen: list[float] = []

    def client() -> None:
        for _ in range(50):
            with pytest.raises(ConnectionError):
                fn()
            seen.append(budget.snapshot().left)

    threads = [threading.Thread(target=client) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calls = 64 * 50
    assert len(made) - calls == budget.snapshot().spent <= calls * 0.1
    assert min(seen) >= 0
    assert max(seen) <= 5


FILES = {idles.__file__, module.__file__, guard.__file__, hooks.__file__}


@pytest.mark.disorderly
@pytest.mark.fault(28, 382)
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # one that was just to be awaited
def test_ctrl_c_at_any_step_leaves_it_in_order() -> None:
    """At worst one extra call less: what there is and whether it is busy go together."""
    step = 0
    while True:
        step += 1
        budget = full(3)
        calls = iter((ConnectionError, None))

        def fn(calls: Any = calls) -> None:
            if next(calls) is not None:
                raise ConnectionError

        guarded = Pipeline(budget, Retry(wait=0), Busy()).wrap(fn)
        reached = False
        try:
            reached = arriving(interrupt, step, guarded, FILES)
        except KeyboardInterrupt:
            reached = True
        if budget._buckets._lock._is_owned():
            budget._buckets._lock.release()  # Ctrl-C at the end of a `with` itself
        assert 2 <= budget.snapshot().left <= 3, step
        assert budget.busy() or budget.snapshot().left == 3, step
        if not reached:
            assert step > 20
            return


def test_nothing_of_a_call_is_kept() -> None:
    """A budget knows neither calls nor errors."""
    budget = full(5)
    fn = Pipeline(budget, Retry(attempts=2, wait=0)).wrap(_failing)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            fn()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        with pytest.raises(ConnectionError):
            fn()
    gc.collect()
    assert len(gc.get_objects()) - before < 100


def _failing() -> None:
    raise ConnectionError
