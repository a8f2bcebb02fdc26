"""The record of one call: its attempts and waits, and what policies note in it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    Attempt,
    CircuitBreaker,
    CircuitOpenError,
    ModelFallback,
    Pipeline,
    RateLimit,
    Retry,
    current_attempt,
    history,
)
from resilience._core.call import Branch, Journal
from resilience._core.guard import Guard
from resilience.failures import Advice, Failure, Kind, describe
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.testing import script
from support.calling import error_of


class CountedError(Exception):
    """Counts how often it is read."""

    read = 0


@describe.register(CountedError)
def _read(error: CountedError) -> Failure:
    error.read += 1
    return Failure(Kind.RATE_LIMIT, Advice.WAIT, retry_after=30.0)


class Instead(Policy):
    """A policy of a user's own that has its word on each call, before or after."""

    def __init__(self, *, before: Exception | None = None, after: Exception | None = None) -> None:
        self.before = before
        self.after = after
        self.calls = 0

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def instead(call: Call) -> Any:
            self.calls += 1
            if self.before is not None and self.calls in (2, 3):
                raise self.before
            try:
                return await inner(call)
            except Exception as error:
                raise error if self.after is None else self.after from None

        return instead


def journal() -> Journal:
    return Journal(Guard(Pipeline(), int), None)


# Attempts


def test_an_error_is_read_once_for_each_attempt(world: World) -> None:
    """However many policies ask what it means."""
    policies = Retry(attempts=2, wait=0), CircuitBreaker(), CircuitBreaker(), CircuitBreaker()
    fn = Pipeline(ModelFallback("a"), *policies).wrap(world.function(CountedError("mine")))

    assert error_of(world, fn).read == 2


def test_an_error_put_in_its_place_is_read_as_what_it_is(world: World) -> None:
    """A policy of one's own may turn a passing failure into a lasting one."""
    translated = Instead(after=ValueError("lasting"))
    fn = Pipeline(Retry(wait=0), translated).wrap(world.function(ConnectionError()))

    assert type(error_of(world, fn)) is ValueError
    assert translated.calls == 1


def test_waits_without_an_attempt_between_them_add_up(world: World) -> None:
    """An attempt tells the whole time waited since the last one."""
    refusing = Instead(before=ConnectionError())
    pipeline = Pipeline(Retry(attempts=5, wait=3), refusing)

    def look(*args: Any) -> float:
        return current_attempt().waited

    assert world.run(pipeline.call, world.function(ConnectionError(), look)) == 9
    assert refusing.calls == 4


def test_a_wait_before_the_first_attempt_is_the_calls(world: World) -> None:
    """It began before it waited."""
    fn = Pipeline(RateLimit(1, per=4)).wrap(world.function("ok", ConnectionError()))
    world.run(fn)
    (attempt,) = history(error_of(world, fn))

    assert (attempt.started, attempt.waited) == (4, 4)


def test_healthy_attempts_are_recorded_where_somebody_asks(world: World) -> None:
    """An outcome has them, whether or not they were retried for something else."""
    fn = world.function(Takes(1, ConnectionError()), Takes(2, "ok"))
    outcome = world.run(Pipeline(Retry(wait=0)).outcome, fn)

    assert [(a.number, a.duration, a.failure is None) for a in outcome.attempts] == [
        (1, 1, False),
        (2, 2, True),
    ]


def test_numbers_are_given_out_once() -> None:
    """Also where many threads ask at a time."""
    record = journal()
    given: list[int] = []

    def ask() -> None:
        given.extend([record.next_number() for _ in range(500)])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == list(range(1, 4_001))


def test_a_history_of_shared_calls_is_bounded() -> None:
    """However many calls another one makes for this one: the first and the last attempts."""
    record = journal()
    shared = [Attempt(number=number, duration=1.0) for number in range(1, 601)]
    for _ in range(3):
        record.adopt(shared, later=0.0)
    numbers = [each.number for each in record.attempts]
    assert numbers == [*range(1, 501), *range(1_301, 1_801)]


def test_shared_attempts_have_numbers_and_times_of_this_call() -> None:
    """It began later than the one that has made them."""
    record = journal()
    assert record.adopt([Attempt(number=4, started=5.0)], later=2.0) == {4: 1}
    assert [(each.number, each.started) for each in record.attempts] == [(1, 3.0)]
    assert [record.adopted(number) for number in (1, 2)] == [True, False]


def test_a_call_that_shares_nothing_has_adopted_nothing() -> None:
    """Whether or not policies remember other facts of it."""
    record = journal()
    assert not record.adopted(1)
    record.remember("whatever", int)
    assert not record.adopted(1)


def test_a_rejection_after_an_answer_comes_out_as_what_it_is(world: World) -> None:
    """The attempt before went well: it has no error to come out in its place."""

    class Twice(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def twice(call: Call) -> Any:
                await inner(call)
                breaker.open()
                return await inner(call)

            return twice

    breaker = CircuitBreaker()
    outcome = world.run(Pipeline(Twice(), breaker).outcome, world.function("ok"))
    assert type(outcome.error) is CircuitOpenError
    assert [each.failure for each in outcome.attempts] == [None]


# Notes of policies


class Keyed(Policy):
    """Gives each attempt a key that is made once for the call."""

    def __init__(self) -> None:
        self.made = 0

    def make(self) -> int:
        self.made += 1
        return self.made

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def keyed(call: Call) -> Any:
            key = call.journal.remember(self, self.make)
            return await inner(call.replace(kwargs={**call.kwargs, "key": key}))

        return keyed


def test_a_policy_may_remember_a_fact_of_a_call(world: World) -> None:
    """It is made once for a call, whatever the number of attempts, and for each policy apart."""
    one, two = Keyed(), Keyed()
    fn = Pipeline(Retry(attempts=3, wait=0), one).wrap(world.function(ConnectionError))
    for _ in range(2):
        error_of(world, fn)
    assert [kwargs["key"] for _, kwargs in world.calls] == [1, 1, 1, 2, 2, 2]

    record = journal()
    found = [record.remember(owner, owner.make) for owner in (one, two, one)]
    assert found == [3, 1, 3]
    assert journal().remember(two, two.make) == 2


def test_a_remark_is_told_in_the_note(world: World) -> None:
    """After the attempts, in order; a single attempt has a note for it, too."""

    class Remarking(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def remarking(call: Call) -> Any:
                call.journal.remark("first")
                call.journal.remark("second")
                return await inner(call)

            return remarking

    fn = Pipeline(Remarking()).wrap(world.function(ConnectionError))
    (note,) = error_of(world, fn).__notes__
    assert note.endswith("first; second")


def test_an_option_that_raises_is_remarked_on(world: World) -> None:
    """The call's own error comes out; its note has the class of what the option raised."""

    def raises(failure: Failure) -> bool:
        raise KeyError("a secret")

    fn = Pipeline(CircuitBreaker(on=raises)).wrap(world.function(ConnectionError()))
    error = error_of(world, fn)

    assert type(error) is ConnectionError
    assert len(history(error)) == 1
    assert "KeyError" in error.__notes__[0]
    assert "secret" not in error.__notes__[0]


# Reports


def test_a_report_reaches_all_branches_that_it_comes_from() -> None:
    """And no other; of very many the latest are kept."""
    record = journal()
    left, right = Branch(record), Branch(record)
    deep = Branch(left)
    for number in range(100):
        deep.report(number)  # type: ignore[arg-type]  # anything will do here

    assert deep.reports == left.reports == record.reports
    assert deep.reports[-1] == 99  # type: ignore[comparison-overlap]
    assert len(deep.reports) == 64
    assert right.reports == ()


# The end


def test_an_ended_call_lets_go_of_its_errors() -> None:
    """A journal that somebody still holds has no attempts, reports or surroundings any more."""
    seen: list[Journal] = []

    class Spy(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def spy(call: Call) -> Any:
                seen.append(call.journal)
                return await inner(call)

            return spy

    inner = Pipeline(Retry(attempts=2, wait=0), Spy()).wrap(script(ConnectionError))
    with pytest.raises(ConnectionError):
        Pipeline(Spy()).call(lambda: inner())

    assert len(seen) == 3
    for record in seen:
        assert not record.attempts
        assert not record.reports
        assert record.outer is None or record.outer.attempt is None
