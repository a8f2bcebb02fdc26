"""ModelFallback: when it goes on to the next model, which error comes out, and when it waits."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Model,
    ModelFallback,
    Pipeline,
    RateLimit,
    Retry,
    guarded,
    history,
)
from resilience.events import ModelLeft, ModelSkipped, recording
from resilience.failures import Advice, Kind
from resilience.matching import raised, status
from resilience.waits import Fixed, RetryAfter
from support.calling import error_of
from support.errors import DescribedError, note_of, rate_limit
from support.functions import coloured


def models(world: World) -> list[str]:
    """The models asked, in order."""
    return [kwargs["model"] for _, kwargs in world.calls]


# When it goes on


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (ConnectionError(), 2),
        (rate_limit(), 2),
        (DescribedError(Advice.FALLBACK, Kind.CONTEXT_LENGTH), 2),
        (DeadlineExceededError(3), 2),
        (CircuitOpenError(3), 2),
        (DescribedError(Advice.STOP, Kind.AUTH), 1),
        (ValueError(), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_recoverable(world: World, error: Exception, asked: int) -> None:
    """All but STOP goes on to the next model, and so do rejections."""
    error_of(world, Pipeline(ModelFallback("a", "b")).wrap(world.function(error)))

    assert len(world.calls) == asked


def test_on_forms(world: World) -> None:
    """`on=` is the same language as everywhere; a rejection moves on whatever it says."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").open()
    chain = ModelFallback("a", "b", "c", on=raised(ValueError))
    fn = Pipeline(chain, breaker).wrap(world.function(ValueError, "ok"))

    assert world.run(fn) == "ok"
    assert models(world) == ["a", "c"]


@pytest.mark.fault(121)
def test_an_open_circuit_moves_on_at_once(world: World) -> None:
    """With the first model's circuit open: no call to it, no wait, the next serves."""
    breaker = CircuitBreaker(key="model", failures=1)
    breaker.circuit("a").open()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(), breaker)
    outcome = world.run(guarded(pipeline.wrap(world.function("ok"))).outcome)

    assert models(world) == ["b"]
    assert world.clock.sleeps == []
    assert (outcome.served_by, outcome.degraded) == ("b", True)
    assert breaker.circuit("b").state == "closed"


def test_a_predicate_that_raises_lets_the_error_out(world: World) -> None:
    """A broken `on` does not hide the call's own error; the note names what it raised."""
    chain = ModelFallback("a", "b", on=lambda failure: 1 / 0)
    error = error_of(world, Pipeline(chain).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert "ZeroDivisionError" in note_of(error)


# Which error comes out


@pytest.mark.parametrize("on", [ConnectionError, Advice.RETRY])
def test_the_last_models_error_comes_out(world: World, on: Any) -> None:
    """By name or by advice, after the last one there is no other."""
    first, last = ConnectionError("first"), ConnectionError("last")
    fn = Pipeline(ModelFallback("a", "b", on=on)).wrap(world.function(first, last))

    assert error_of(world, fn) is last


def test_the_last_own_error_comes_out(world: World) -> None:
    """The last model rejected: the error of the last that ran comes out, with a note."""
    breaker = CircuitBreaker(key="model", name="models")
    breaker.circuit("c").open()
    first, second = ConnectionError("first"), TimeoutError("second")
    pipeline = Pipeline(ModelFallback("a", "b", "c"), breaker)
    error = error_of(world, pipeline.wrap(world.function(first, second)))

    assert error is second
    note = note_of(error)
    assert "a: connection" in note
    assert "b: timeout" in note
    assert "'c'" in note
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("first", [False, True])
def test_all_circuits_open_is_a_rejection(world: World, first: bool) -> None:
    """When nothing ran, the last rejection comes out: no model has an error of its own."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("a").open()
    breaker.circuit("b").open()
    chain = ModelFallback("a", "b", raise_first=first)
    error = error_of(world, Pipeline(chain, breaker).wrap(world.function("no")))

    assert type(error) is CircuitOpenError
    assert error.key == "b"
    assert world.calls == []
    assert history(error) == ()


@pytest.mark.parametrize("first", [False, True])
def test_a_skipped_model_is_told_of(world: World, first: bool) -> None:
    """In the note of the error that comes out, which is the other model's."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").isolate()
    chain = ModelFallback("a", "b", raise_first=first)
    error = error_of(world, Pipeline(chain, breaker).wrap(world.function(TimeoutError)))
    assert type(error) is TimeoutError
    assert f"{'b was skipped:' if first else 'then'} circuit for 'b' is open" in note_of(error)


# Waiting or leaving


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (rate_limit(10), "did not wait"),
        (rate_limit(None), "did not wait"),
        (TimeoutError(), "did not retry a silent model"),
    ],
    ids=["seconds", "no number", "silent"],
)
def test_a_wait_leaves_to_the_next_free_model(world: World, first: Exception, said: str) -> None:
    """While another model is free, a long wait, or one without a number, is not waited for, nor is
    a silent model asked again; the note says so, once."""
    pipeline = Pipeline(ModelFallback("a", "b"), Retry())
    error = error_of(world, pipeline.wrap(world.function(first, ValueError())))

    assert models(world) == ["a", "b"]
    assert world.clock.sleeps == []
    assert type(error) is ValueError
    assert note_of(error).count("another model is free") == 1
    assert f"{said}: another model is free" in note_of(error)


@pytest.mark.parametrize(("rounds", "asked"), [(1, "abbb"), (2, "ababb"), (3, "ababab")])
def test_a_chain_goes_round_so_often(world: World, rounds: int, asked: str) -> None:
    """As long as each has asked for time; then the last one waits as it would alone."""
    world.clock.random = lambda: 0.0
    pipeline = Pipeline(ModelFallback("a", "b", rounds=rounds), Retry(attempts=3))
    error_of(world, pipeline.wrap(world.function(rate_limit(10))))

    assert models(world) == [*asked]


def test_the_model_that_is_free_first_is_waited_for(world: World) -> None:
    """When all have asked for time, the chain goes back to the one whose time is up first."""
    world.clock.random = lambda: 0.0
    fn = world.function(rate_limit(20), Takes(3, rate_limit(10)), "ok")
    outcome = world.run(guarded(Pipeline(ModelFallback("a", "b"), Retry()).wrap(fn)).outcome)

    assert models(world) == ["a", "b", "b"]
    assert world.clock.sleeps == [10]
    assert outcome.served_by == "b"


def test_a_retry_failure_is_retried_with_the_same_model(world: World) -> None:
    """Only WAIT leaves early: a RETRY failure is tried again where it was."""
    fn = world.function(ConnectionError, "ok")
    world.run(Pipeline(ModelFallback("a", "b"), Retry()).wrap(fn))

    assert models(world) == ["a", "a"]


@pytest.mark.parametrize(
    ("patience", "asked", "expected"),
    [
        (4, 5, ["a", "b"]),
        (5, 5, ["a", "a"]),
        (6, 5, ["a", "a"]),
        (0, 0.5, ["a", "b"]),
        (0, 0.0, ["a", "a"]),
    ],
)
def test_patience(world: World, patience: float, asked: float, expected: list[str]) -> None:
    """`patience` is how long a model is waited for nevertheless, before jitter."""
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(patience=patience))
    world.run(pipeline.wrap(world.function(rate_limit(asked), "ok")))

    assert models(world) == expected


def test_an_open_circuit_is_not_a_free_model(world: World) -> None:
    """With the other model's circuit open, this one waits as it would alone."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").isolate()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(), breaker)
    world.run(pipeline.wrap(world.function(rate_limit(5), "ok")))

    assert models(world) == ["a", "a"]
    assert len(world.clock.sleeps) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_a_per_model_circuit_that_is_open_is_not_a_free_model(world: World, inside: bool) -> None:
    """The same for circuits that `per_model` has made, whether Retry is inside or outside."""
    breakers = {name: CircuitBreaker() for name in "ab"}
    retry = Retry(attempts=2, wait=7)
    if inside:
        retrying = {name: Pipeline(retry, breakers[name]) for name in "ab"}
        pipeline = Pipeline(ModelFallback("a", "b", per_model=lambda name: retrying[name]))
    else:
        pipeline = Pipeline(ModelFallback("a", "b", per_model=breakers.get), retry)

    assert world.run(pipeline.wrap(world.function(rate_limit(), "ok"))) == "ok"
    assert models(world) == ["a", "b"]
    assert world.clock.sleeps == []

    breakers["b"].isolate()
    world.calls.clear()
    with recording(ModelLeft, ModelSkipped) as events:
        assert world.run(pipeline.wrap(world.function(rate_limit(), "ok"))) == "ok"
    assert models(world) == ["a", "a"]
    assert world.clock.sleeps == [7]
    assert events == []


def test_a_policy_that_is_no_circuit_rejects_nobody(world: World) -> None:
    """With another policy by `per_model`, a model counts as free."""
    pipeline = Pipeline(ModelFallback("a", "b", per_model=30), Retry(attempts=2, wait=7))

    assert world.run(pipeline.wrap(world.function(rate_limit(), "ok"))) == "ok"
    assert models(world) == ["a", "b"]
    assert world.clock.sleeps == []


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
@pytest.mark.parametrize(
    "outer", [lambda: Bulkhead(1, queue=0), lambda: RateLimit(1, per=60)], ids=["room", "rate"]
)
def test_what_has_let_the_call_in_keeps_no_model_from_it(world: World, outer: Any) -> None:
    """A bulkhead outside of the chain is full of this very call: the other model is free."""
    pipeline = Pipeline(outer(), ModelFallback("a", "b"), Retry(attempts=2, wait=7))

    assert world.run(pipeline.wrap(world.function(rate_limit(), "ok"))) == "ok"
    assert models(world) == ["a", "b"]
    assert world.clock.sleeps == []


def test_a_circuit_that_another_function_uses_counts_too(world: World) -> None:
    """The free model's circuit is found by the arguments of its own function."""

    def ours(prompt: str, model: str) -> str:
        world.calls.append(((prompt,), {"model": model}))
        if len(world.calls) == 1:
            raise rate_limit(5)
        return model

    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").isolate()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(), breaker)

    assert world.run(pipeline.wrap(coloured(world, ours)), "hi", "a") == "a"
    assert models(world) == ["a", "a"]


def test_a_circuit_with_a_key_of_its_own_is_asked_with_the_arguments(world: World) -> None:
    """Whether a model is free is asked of the circuit that its call would meet."""
    breaker = CircuitBreaker(failures=1, key=lambda *args, **kwargs: (args, kwargs["model"]))
    pipeline = Pipeline(
        ModelFallback("a", "b", per_model=lambda name: breaker), Retry(attempts=2, wait=2)
    )
    fn = world.function(ConnectionError(), ConnectionError(), "ok")
    assert world.run(pipeline.wrap(fn), 1, model="b") == "ok"
    world.calls.clear()

    assert world.run(pipeline.wrap(world.function(rate_limit(), "ok")), 2) == "ok"
    assert models(world) == ["a", "b"]

    world.calls.clear()
    with recording(ModelLeft, ModelSkipped) as events:
        assert world.run(pipeline.wrap(world.function(rate_limit(), "ok")), 1) == "ok"
    assert models(world) == ["a", "a"]
    assert events == []


def test_a_model_whose_circuit_cannot_be_computed_is_free(world: World) -> None:
    """Its key raises while one looks ahead: nobody rejects such a call."""

    def key(*, model: str) -> str:
        if model == "b":
            raise ZeroDivisionError
        return model

    breaker = CircuitBreaker(failures=1, key=key)
    breaker.circuit("down").open()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=7), breaker)

    assert world.run(pipeline.wrap(world.function(rate_limit(), "ok"))) == "ok"
    assert models(world) == ["a", "b"]
    assert world.clock.sleeps == []


def test_a_round_that_others_delay_has_to_fit_into_within(world: World) -> None:
    """Meanwhile the circuit has opened for longer than Retry may take: there is no going round."""
    breaker = CircuitBreaker(key="model", reset_after=30)

    def second(**given: Any) -> Any:
        breaker.circuit("a").open()
        raise rate_limit(600)

    pipeline = Pipeline(ModelFallback("a", "b"), Retry(within=15), breaker)
    error_of(world, pipeline.wrap(world.function(rate_limit(10), second)))

    assert models(world) == ["a", "b"]
    assert world.clock.sleeps == []


def test_a_round_for_a_circuit_has_to_fit_into_within(world: World) -> None:
    """It was let go in time, but another model took too long: there is no going round either."""
    breaker = CircuitBreaker(key="model", reset_after=7)
    breaker.circuit("a").open()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(within=10, wait=0), breaker)
    error_of(world, pipeline.wrap(world.function(Takes(12, rate_limit(600)), "ok")))

    assert models(world) == ["b"]


# Whose limit it is


def test_a_limit_upstream_sends_the_call_to_the_next_model(world: World) -> None:
    """Another provider is not limited: the next model at once, without a wait."""
    fn = world.function(rate_limit(10.0, elsewhere=True), "answer")

    assert world.run(Pipeline(ModelFallback("a", "b"), Retry()).call, fn) == "answer"
    assert models(world) == ["a", "b"]
    assert world.clock.sleeps == []


def test_a_limit_of_the_accounts_own_is_waited_out(world: World) -> None:
    """It holds for every model: the same one is asked again, after the wait."""
    fn = world.function(rate_limit(5.0, elsewhere=False), "answer")
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(wait=RetryAfter(spread=0)))

    assert world.run(pipeline.call, fn) == "answer"
    assert models(world) == ["a", "a"]
    assert world.clock.sleeps == [5.0]


def test_a_limit_of_the_accounts_own_ends_the_chain(world: World) -> None:
    """When its attempts are exhausted the error comes out: the other models would answer the
    same."""
    fn = world.function(rate_limit(elsewhere=False))
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=Fixed(1)))
    error = error_of(world, pipeline.call, fn)

    assert error.failure.status == 429
    assert models(world) == ["a", "a"]
    assert len(history(error)) == 2


def test_who_names_the_status_means_it(world: World) -> None:
    """`on=status(429)` moves on whosever limit it is."""
    fn = world.function(rate_limit(elsewhere=False), "answer")

    assert world.run(Pipeline(ModelFallback("a", "b", on=status(429))).call, fn) == "answer"


def test_a_model_of_another_service_is_no_part_of_the_limit(world: World) -> None:
    """A `Model(call=)` goes elsewhere: the models before it are passed over."""
    fn = world.function(rate_limit(elsewhere=False))
    other = world.function("from elsewhere")
    chain = ModelFallback("a", "b", Model("c", call=other))

    assert world.run(Pipeline(chain, Retry()).call, fn) == "from elsewhere"
    assert models(world) == ["a", "c"]


@pytest.mark.parametrize(
    "error", [DescribedError(Advice.RETRY, Kind.TIMEOUT), DescribedError(Advice.WAIT, Kind.SERVER)]
)
def test_no_retry_is_left_to_a_chain_that_does_not_move_on(world: World, error: Any) -> None:
    """What the chain's `on` does not match is retried where it is: no other model gets its turn."""
    pipeline = Pipeline(ModelFallback("a", "b", on=Kind.QUOTA), Retry(attempts=2, wait=Fixed(1)))
    assert error_of(world, pipeline.call, world.function(error)) is error
    assert models(world) == ["a", "a"]
