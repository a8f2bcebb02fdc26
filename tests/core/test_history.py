"""What a call leaves on its error: the attempts as data, and one note that tells them."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from datetime import datetime, timezone
from typing import Any

import pytest

from conftest import World
from resilience import (
    BadResult,
    BadResultError,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Model,
    ModelFallback,
    Pipeline,
    RejectedError,
    ResilienceError,
    Retry,
    WorkersBusyError,
    history,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.testing import script, virtual_time
from support.calling import error_of


class LimitedError(Exception):
    """A rate limit: the server asks for half a minute."""


@describe.register(LimitedError)
def _read(error: LimitedError) -> Failure:
    return Failure(Kind.RATE_LIMIT, Advice.WAIT, retry_after=30.0)


def failed(world: World, pipeline: Pipeline, *steps: Any, **kwargs: Any) -> Any:
    """The error of a call whose function does these steps."""
    return error_of(world, pipeline.wrap(world.function(*steps)), **kwargs)


# Attempts


def test_an_attempt_has_the_time_at_which_the_server_asked_to_be_called(world: World) -> None:
    """In UTC, with a time zone."""
    error = failed(world, Pipeline(Retry(attempts=1)), LimitedError)
    (attempt,) = history(error)

    assert attempt.retry_at == datetime.fromtimestamp(world.clock.wall() + 30, timezone.utc)


def test_an_attempt_has_the_model_that_is_given_by_its_place(world: World) -> None:
    """The chain's word counts, wherever it has put the name in the arguments."""
    fails = world.function(ConnectionError())

    def ask(engine: str) -> Any:
        return fails(engine)

    fn = Pipeline(ModelFallback("a", Model("b"), argument="engine")).wrap(ask)
    error = error_of(world, fn, "a")

    assert [attempt.model for attempt in history(error)] == ["a", "b"]


def test_a_history_has_the_failures_with_their_errors(world: World) -> None:
    """Those of other attempts, and the error's own, though it does not hold itself."""
    first, last = ConnectionError(1), TimeoutError(2)
    error = failed(world, Pipeline(Retry(attempts=2, wait=3)), first, last)

    assert error is last
    assert [a.failure and a.failure.error for a in history(error)] == [first, last]
    assert [(a.number, a.waited, a.started) for a in history(error)] == [(1, 0, 0), (2, 3, 3)]


@pytest.mark.parametrize("made", [1_007, 2_500])
def test_a_history_is_bounded(made: int) -> None:
    """Of very many attempts, half of what is kept is the beginning, the other half the end."""
    kept = 1_000
    body = script(*[ConnectionError()] * made, KeyError())
    with virtual_time(), pytest.raises(KeyError) as caught:
        Pipeline(Retry(attempts=None, wait=0)).call(body)
    numbers = [attempt.number for attempt in history(caught.value)]
    assert numbers == [*range(1, kept // 2 + 1), *range(made + 2 - kept // 2, made + 2)]


# The note


@pytest.mark.parametrize(
    ("made", "shown", "cut"), [(2, 2, False), (7, 7, False), (8, 8, False), (9, 8, True)]
)
def test_the_note_shows_eight_attempts(world: World, made: int, shown: int, cut: bool) -> None:
    """Of more than that, the first four and the last four; it has the number of all."""
    steps = [ConnectionError()] * (made - 1) + [TimeoutError()]
    error = failed(world, Pipeline(Retry(attempts=made, wait=0)), *steps)

    (note,) = error.__notes__
    words = note.replace("(", " ").replace(")", " ").replace(",", " ").split()
    assert words.count("connection") == shown - 1
    assert words.count("timeout") == 1
    assert words.count("...") == cut
    assert str(made) in words


def test_a_stop_iteration_wins_over_a_rejection() -> None:
    """If the call was made, its own error comes out, whatever it is."""
    stop = StopIteration("mine")

    def stops(model: str) -> None:
        raise stop

    breaker = CircuitBreaker(failures=1, key="model")
    breaker.circuit("b").open()
    pipeline = Pipeline(ModelFallback("a", "b", on=lambda failure: True), breaker)
    with pytest.raises(StopIteration) as caught:
        pipeline.call(stops, "a")
    assert caught.value is stop
    assert pipeline.outcome(stops, "a").error is stop


# The mark on the error


def test_looking_leaves_an_error_as_it_is() -> None:
    """No attempts are behind an error of no guarded call, and asking changes nothing."""
    error = ValueError("mine")

    assert history(error) == ()
    assert vars(error) == {}


def test_an_attribute_of_the_same_name_is_left_alone(world: World) -> None:
    """If the user has something of his own there, the error passes unmarked."""
    error = ConnectionError("mine")
    error.__resilience__ = "mine"  # type: ignore[attr-defined]

    assert failed(world, Pipeline(Retry(wait=0)), error) is error
    assert history(error) == ()
    assert vars(error) == {"__resilience__": "mine"}


@pytest.mark.fault(64)
def test_an_error_does_not_hold_itself() -> None:
    """It is freed when nobody holds it any more, without the collector."""

    class MineError(ConnectionError): ...

    def fails() -> None:
        raise MineError

    def held() -> weakref.ref[MineError]:
        try:
            Pipeline(Retry(wait=0)).call(fails)
        except MineError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        assert held()() is None
    finally:
        gc.enable()


def test_a_rejected_call_leaves_an_error_of_an_earlier_one_as_it_is(world: World) -> None:
    """A call that was never made adds nothing to the history of an error that passes it."""
    error = failed(world, Pipeline(Retry(attempts=2, wait=1)), ConnectionError())
    before = history(error), error.__notes__
    breaker = CircuitBreaker(failures=1)
    assert failed(world, Pipeline(breaker), error) is error
    rejected = failed(world, Pipeline(breaker), "never")

    assert type(rejected) is CircuitOpenError
    assert rejected.__cause__ is error
    assert history(rejected) == ()
    assert not hasattr(rejected, "__notes__")
    assert len(before[0]) == 2
    assert len(history(error)) == 1  # of the call that it came out of last


# Travelling


@pytest.mark.fault(65)
@pytest.mark.parametrize(
    "error",
    [
        ResilienceError(),
        RejectedError(1.5, datetime(2027, 1, 1, tzinfo=timezone.utc)),
        CircuitOpenError(2.0, None, "name", ("key", 1)),
        CircuitOpenError(None),
        WorkersBusyError(workers=256),
        DeadlineExceededError(3.0),
        BadResultError({"text": ""}, Failure(Kind.UNKNOWN, Advice.RETRY), True),
    ],
    ids=repr,
)
def test_our_errors_travel(error: Any) -> None:
    """They pickle, copy and deep-copy with all they carry, notes too, and print."""
    error.__notes__ = ["a note"]
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(made) is type(error)
        assert str(made) == str(error)
        assert repr(made) == repr(error)
        assert made.__notes__ == ["a note"]
        for name in (
            "retry_after",
            "retry_at",
            "name",
            "key",
            "seconds",
            "workers",
            "result",
            "failure",
            "given_back",
        ):
            assert getattr(made, name, None) == getattr(error, name, None)
    assert isinstance(error, ResilienceError)


def test_errors_that_came_out_of_calls_pickle(world: World) -> None:
    """A call's own error pickles with its note and its history."""
    error = failed(world, Pipeline(Retry(wait=1)), ConnectionError("x"))
    made = pickle.loads(pickle.dumps(error))

    assert made.__notes__ == error.__notes__
    assert [a.number for a in history(made)] == [1, 2, 3]
    assert [a.failure and a.failure.kind for a in history(made)] == [Kind.CONNECTION] * 3


def test_a_history_with_a_bad_result_in_it_pickles(world: World) -> None:
    """An attempt that was repeated for its result has a failure, before and after."""
    policies = Retry(attempts=2, wait=1), BadResult(lambda result: result == "bad")
    error = failed(world, Pipeline(*policies), "bad", ConnectionError)
    made = pickle.loads(pickle.dumps(error))

    for each in (error, made):
        assert [a.failure and a.failure.kind for a in history(each)] == [
            Kind.UNKNOWN,
            Kind.CONNECTION,
        ]


def test_a_note_on_a_call_of_which_nothing_ran(world: World) -> None:
    """It counts no attempts; it says which models were skipped."""
    breaker = CircuitBreaker(key="model", failures=1, reset_after=9)
    for model in "ab":
        breaker.circuit(model).open()
    chain = Pipeline(ModelFallback("a", "b"), Retry(), breaker)
    error = error_of(world, chain.wrap(world.function("ok")))

    assert type(error) is CircuitOpenError
    (note,) = error.__notes__
    assert "no attempt;" in note
