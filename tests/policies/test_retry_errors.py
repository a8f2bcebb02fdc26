"""Retry: which error comes out, what its note and its history tell, and odd exceptions."""

from __future__ import annotations

import gc
import re
import traceback
import weakref
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen

from conftest import Takes, World
from resilience import CircuitBreaker, ModelFallback, Pipeline, Retry, history
from resilience.failures import Kind
from resilience.testing import virtual_time
from support.calling import error_of, passing, rest_and_full
from support.errors import note_of, rate_limit

# The note


def test_the_note_tells_each_attempt(world: World) -> None:
    """Its code, else its status, else its kind, and the wait before, where there was one."""
    fn = world.function(rate_limit(code="slow_down"), rate_limit(), ConnectionError())
    note = note_of(error_of(world, Pipeline(Retry(wait=2)).wrap(fn)))

    words = re.findall(r"\w+", note.partition("(")[2])
    assert words == ["slow_down", "429", "after", "2", "s", "connection", "after", "2", "s"]
    assert "3 attempts" in note


def test_the_note_tells_the_models(world: World) -> None:
    """With a chain, each attempt's model; waits are told only where there were any."""
    fn = world.function(ConnectionError())
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=0))
    note = note_of(error_of(world, pipeline.wrap(fn)))

    assert re.findall(r"\b([ab]): (\w+)", note) == [
        (model, "connection") for model in ("a", "a", "b", "b")
    ]
    assert "after" not in note


def test_the_note_counts_in_the_singular(world: World) -> None:
    """One attempt is one attempt."""
    fn = world.function(ConnectionError())
    note = note_of(error_of(world, Pipeline(Retry(wait=9, within=5)).wrap(fn)))

    assert re.search(r"\b1 attempt\b", note)


@pytest.mark.parametrize("retry_exhausted", [False, True])
def test_a_note_is_replaced_not_added_to(world: World, retry_exhausted: bool) -> None:
    """An error that passes three pipelines carries one note of ours, and keeps the user's."""
    users = ConnectionError()
    users.__notes__ = ["the user's"]  # as add_note does it, which 3.10 lacks
    outer = Retry(attempts=2, retry_exhausted=retry_exhausted)
    fn = Pipeline(Retry(wait=1)).wrap(world.function(users))
    for _ in range(2):
        fn = Pipeline(outer).wrap(passing(world, fn))

    assert error_of(world, fn) is users
    assert users.__notes__[0] == "the user's"
    assert len(users.__notes__) == 2
    assert ("2 attempts" if retry_exhausted else "3 attempts") in note_of(users)


def test_long_stories_are_cut_in_the_note(world: World) -> None:
    """A hundred attempts do not make a hundred entries in the note; the history has them all."""
    fn = world.function(ConnectionError)
    error = error_of(world, Pipeline(Retry(attempts=100, wait=1)).wrap(fn))

    assert "100 attempts" in note_of(error)
    assert len(note_of(error)) < 400
    assert len(history(error)) == 100


def test_a_single_attempt_has_history_but_no_note(world: World) -> None:
    """With nothing to add, no note is written; the history still has the attempt."""
    error = error_of(world, Pipeline(Retry()).wrap(world.function(ValueError())))

    assert not hasattr(error, "__notes__")
    assert len(history(error)) == 1


@pytest.mark.fault(58)
def test_text_of_errors_is_never_read(world: World) -> None:
    """An error whose text raises is not asked for it, and its text is in no note."""
    fn = world.function(ConnectionError("sk-secret"))
    error = error_of(world, Pipeline(Retry()).wrap(fn))

    assert "sk-secret" not in note_of(error)
    assert "sk-secret" not in repr(history(error))


# The history


def test_history_tells_it_as_data(world: World) -> None:
    """`history(error)` has each attempt: number, start, duration, failure, wait."""
    fn = world.function(Takes(1, TimeoutError()), Takes(2, ConnectionError()))
    error = error_of(world, Pipeline(Retry(attempts=2, wait=4)).wrap(fn), model="m")

    first, second = history(error)
    assert (first.number, first.started, first.duration, first.waited) == (1, 0, 1, 0)
    assert (second.number, second.started, second.duration, second.waited) == (2, 5, 2, 4)
    assert first.failure.kind is Kind.TIMEOUT
    assert type(first.failure.error) is TimeoutError
    assert second.failure.error is error
    assert first.model == second.model == "m"


def test_history_of_a_foreign_error_is_empty() -> None:
    """An error that never came out of a guarded call has no history."""
    assert history(ValueError()) == ()


# Odd exceptions


@pytest.mark.fault(62)
def test_the_same_instance_every_time(world: World) -> None:
    """A singleton exception raised by every attempt grows neither its traceback nor a chain."""
    same = ConnectionError("singleton")
    guarded = Pipeline(Retry(attempts=300, wait=0)).wrap(world.function(same))

    assert error_of(world, guarded) is same
    assert len(traceback.extract_tb(same.__traceback__)) < 60
    assert same.__context__ is None
    assert same.__cause__ is None
    assert len(same.__notes__) == 1
    assert len(history(same)) == 300


def test_the_traceback_of_one_error_does_not_grow() -> None:
    """An exception object that each attempt raises has its last two journeys in it at most."""
    error = ConnectionError("mine")

    def depth(attempts: int) -> int:
        error.__traceback__ = None

        def fails() -> None:
            raise error

        with virtual_time(), pytest.raises(ConnectionError):
            Pipeline(Retry(attempts=attempts, wait=0)).call(fails)
        return len(traceback.extract_tb(error.__traceback__))

    assert depth(3) <= depth(2)
    assert depth(9) <= depth(2)


class AlwaysEqualError(ConnectionError):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class NeverEqualError(ConnectionError):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        raise RuntimeError("not hashable")


class FalseError(ConnectionError):
    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


class UnprintableError(ConnectionError):
    def __str__(self) -> str:
        raise RuntimeError("not printable")

    __repr__ = __str__


class ClosedError(ConnectionError):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


@frozen
class FrozenError(ConnectionError):
    field: int = 1


class NotelessError(ConnectionError):
    add_note = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(AlwaysEqualError, marks=pytest.mark.fault(56)),
        pytest.param(NeverEqualError, marks=pytest.mark.fault(56)),
        pytest.param(FalseError, marks=pytest.mark.fault(57)),
        pytest.param(UnprintableError, marks=pytest.mark.fault(58)),
        pytest.param(ClosedError, marks=pytest.mark.fault(59)),
        pytest.param(FrozenError, marks=pytest.mark.fault(59)),
        pytest.param(NotelessError, marks=pytest.mark.fault(59)),
    ],
)
def test_odd_exceptions_pass_unharmed(world: World, kind: type[Exception]) -> None:
    """Exceptions that cannot be compared, printed or written to are retried and come out."""
    errors = [kind(), kind(), kind()]
    guarded = Pipeline(Retry(), CircuitBreaker()).wrap(world.function(*errors))
    error: Any = None

    def main() -> None:
        nonlocal error
        with pytest.raises(kind) as caught:
            guarded()
        error = caught.value

    async def amain() -> None:
        nonlocal error
        with pytest.raises(kind) as caught:  # here, as asyncio.run() prints what passes it
            await guarded()
        error = caught.value

    world.run(amain if world.asynchronous else main)

    assert error is errors[2]
    assert len(world.calls) == 3
    assert [a.failure.error is e for a, e in zip(history(error), errors, strict=True)] == [True] * 3


@pytest.mark.fault(59, 62)
def test_the_same_instance_that_cannot_be_written_to(world: World) -> None:
    """Its traceback cannot be shortened between the attempts; it is retried all the same."""
    same = ClosedError()

    assert error_of(world, Pipeline(Retry(wait=0)).wrap(world.function(same))) is same
    assert len(world.calls) == 3


# What stands behind the error, and what it keeps alive


@pytest.mark.fault(61)
def test_cause_and_context_are_the_users(world: World) -> None:
    """`raise ... from` and `from None` come out as they were written."""
    cause = KeyError()

    def fail() -> None:
        try:
            raise ValueError("hidden")
        except ValueError:
            if len(world.calls) < 3:
                raise ConnectionError from None
            raise ConnectionError from cause

    error = error_of(world, Pipeline(Retry()).wrap(world.function(fail)))

    assert error.__cause__ is cause
    assert type(error.__context__) is ValueError
    assert error.__context__.__context__ is None


def test_attempts_do_not_chain_onto_one_another(world: World) -> None:
    """An attempt's error is not the context of the next attempt's error."""
    fn = world.function(TimeoutError, ConnectionError)

    assert error_of(world, Pipeline(Retry()).wrap(fn)).__context__ is None


@rest_and_full
@pytest.mark.fault(64)
def test_nothing_of_a_failed_call_is_kept(world: World, listeners: Any) -> None:
    """A failed call's locals are freed with its error, without the garbage collector."""

    class Big:
        pass

    made: list[weakref.ref[Big]] = []

    def fail() -> None:
        big = Big()
        made.append(weakref.ref(big))
        raise ConnectionError

    pipeline = Pipeline(Retry(), CircuitBreaker(failures=99), listeners=listeners)
    guarded = pipeline.wrap(world.function(fail))
    freed: list[bool] = []

    def look() -> None:
        freed.extend(ref() is None for ref in made)

    def main() -> None:
        try:
            guarded()
        except ConnectionError:
            pass
        look()

    async def amain() -> None:
        try:
            await guarded()
        except ConnectionError:
            pass
        if world.name == "trio":  # since 3.12 its last cancellation keeps its callers until it is
            await trio.testing.wait_all_tasks_blocked()
        look()

    gc.collect()
    gc.disable()
    try:
        world.run(amain if world.asynchronous else main)
    finally:
        gc.enable()

    assert freed == [True] * 3
