"""Retry: calls that were rejected, circuits that have opened, and retries inside retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.policy import Call, Inner, Policy, Runtime
from support.calling import error_of, passing
from support.errors import note_of, rate_limit

# Rejections


def test_rejections_are_not_retried(world: World) -> None:
    """A rejection comes out at once, whatever `on` says: no wait, no attempt."""
    breaker = CircuitBreaker()
    breaker.open()
    error = error_of(world, Pipeline(Retry(on=Exception), breaker).wrap(world.function("ok")))

    assert type(error) is CircuitOpenError
    assert world.calls == []
    assert world.clock.sleeps == []


class AwayError(Exception):
    """A user's own name for a rejection."""


@describe.register(AwayError)
def _away(error: AwayError) -> Failure:
    assert isinstance(error.__cause__, RejectedError)
    return describe(error.__cause__)


def test_a_rejection_by_another_name_is_not_retried(world: World) -> None:
    """An error that the user says is a rejection is treated as one, whatever `on` says."""
    breaker = CircuitBreaker()
    breaker.open()
    inner = Pipeline(breaker).wrap(world.function("ok"))

    def away(*args: Any) -> None:
        try:
            inner()
        except CircuitOpenError as rejection:
            raise AwayError from rejection

    async def aaway(*args: Any) -> None:
        try:
            await inner()
        except CircuitOpenError as rejection:
            raise AwayError from rejection

    guarded = Pipeline(Retry(on=AwayError)).wrap(aaway if world.asynchronous else away)

    assert type(error_of(world, guarded)) is AwayError
    assert world.clock.sleeps == []


class FullError(RejectedError):
    """The rejection of a policy of one's own."""


@describe.register(FullError)
def _full(error: FullError) -> Failure:
    return Failure(Kind.OVERLOADED, Advice.RETRY)


class OneCall(Policy):
    """Rejects all calls but the first."""

    def __init__(self) -> None:
        self.calls = 0

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def one_call(call: Call) -> Any:
            self.calls += 1
            if self.calls > 1:
                raise FullError
            return await inner(call)

        return one_call


def test_a_rejection_is_one_whatever_is_said_of_it(world: World) -> None:
    """Even if its reader advises to call again, it is asked once, and nothing is waited for it."""
    policy = OneCall()
    error = error_of(world, Pipeline(Retry(wait=1), policy).wrap(world.function(ConnectionError())))

    assert type(error) is ConnectionError
    assert policy.calls == 2
    assert world.clock.sleeps == [1]


def test_a_call_that_was_never_made_is_not_retried(world: World) -> None:
    """Its time was up before it began, and would be again."""
    pipeline = Pipeline(Retry(on=Exception, wait=1), Timeout(lambda: 0))
    error = error_of(world, pipeline.wrap(world.function("ok")))

    assert type(error) is DeadlineExceededError
    assert world.calls == []
    assert world.clock.sleeps == []


def test_a_rejection_after_an_attempt_lets_the_own_error_out(world: World) -> None:
    """The circuit opened by others during the wait: the call's own last error, with a note."""
    breaker = CircuitBreaker(name="shared", failures=9)
    retry = Retry(adjust=lambda attempt, args, kwargs: (breaker.open(), (args, kwargs))[1])
    error = error_of(world, Pipeline(retry, breaker).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert "'shared'" in note_of(error)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.fault(69)
def test_a_nested_rejection_is_neither_retried_nor_charged(world: World) -> None:
    """An inner function's CircuitOpenError is neither retried outside nor held against it."""
    opened = CircuitBreaker(name="inner")
    opened.open()
    inner = Pipeline(opened).wrap(world.function("never"))
    outer = CircuitBreaker(failures=1)
    error = error_of(world, Pipeline(Retry(), outer).wrap(passing(world, inner)))

    assert isinstance(error, CircuitOpenError)
    assert error.name == "inner"
    assert world.clock.sleeps == []
    assert outer.state == "closed"


# Circuits on the way


def test_no_retry_when_the_circuit_has_just_opened(world: World) -> None:
    """The failure that opens the circuit is the last: its error comes out without a wait."""
    fn = world.function(ConnectionError)
    error = error_of(world, Pipeline(Retry(attempts=9), CircuitBreaker(failures=2)).wrap(fn))

    assert type(error) is ConnectionError
    assert len(world.calls) == 2
    assert len(world.clock.sleeps) == 1
    assert "circuit" in note_of(error)


def test_half_open_circuit_does_not_stop_the_retrying(world: World) -> None:
    """A trial that is no verdict leaves the circuit half open, not just opened: it is retried."""
    breaker = CircuitBreaker(reset_after=5)
    breaker.open()
    world.clock.advance(5)
    guarded = Pipeline(Retry(), breaker).wrap(world.function(rate_limit(1), "ok"))

    assert world.run(guarded) == "ok"
    assert breaker.state == "closed"


# Retries inside retries


def nested(world: World, fn: Callable[..., Any], *policies: Retry) -> Callable[..., Any]:
    """Separately guarded functions around `fn`, the innermost policy last."""
    for policy in reversed(policies):
        fn = Pipeline(policy).wrap(passing(world, fn))
    return fn


@pytest.mark.fault(82)
def test_nested_retries_do_not_multiply(world: World) -> None:
    """What an inner Retry has given up on, the outer ones leave alone: 3 calls, not 27."""
    fn = nested(world, world.function(ConnectionError), Retry(), Retry(), Retry())

    assert type(error_of(world, fn)) is ConnectionError
    assert len(world.calls) == 3
    assert len(world.clock.sleeps) == 2


@pytest.mark.parametrize(("attempts", "calls"), [(1, 3), (2, 2), (4, 4)])
def test_an_inner_retry_that_never_retried_has_exhausted_nothing(
    world: World, attempts: int, calls: int
) -> None:
    """An inner `attempts=1` leaves the outer Retry its turn; from two on it does not."""
    fn = nested(world, world.function(ConnectionError), Retry(), Retry(attempts=attempts))
    error_of(world, fn)

    assert len(world.calls) == calls


def test_retry_exhausted_retries_what_an_inner_retry_gave_up_on(world: World) -> None:
    """`retry_exhausted=True` multiplies, because somebody asked for it."""
    outer = Retry(attempts=2, retry_exhausted=True)
    error_of(world, nested(world, world.function(ConnectionError), outer, Retry()))

    assert len(world.calls) == 6


def test_two_retries_in_one_pipeline_do_not_multiply(world: World) -> None:
    """The same holds inside one pipeline, which warns of it."""
    with pytest.warns(UserWarning, match="two"):
        pipeline = Pipeline(Retry(), Retry())
    error_of(world, pipeline.wrap(world.function(ConnectionError)))

    assert len(world.calls) == 3


def test_an_exhausted_error_of_an_earlier_call_is_not_held_against_the_next(world: World) -> None:
    """The same exception object, raised by a later call, is retried as a new failure."""
    same = ConnectionError()
    guarded = Pipeline(Retry()).wrap(world.function(same))
    for _ in range(2):
        assert error_of(world, guarded) is same

    assert len(world.calls) == 6
    assert len(same.__notes__) == 1
