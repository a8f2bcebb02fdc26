"""CircuitBreaker: when it opens, whom it lets through, and whose answers count."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import datetime, timedelta, timezone
from typing import Any

import pybreaker
import pytest
import trio

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    history,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.policies._circuit import Circuit, Limits
from resilience.testing import virtual_time


class QuotaError(Exception):
    """An error that is the caller's affair."""


@describe.register(QuotaError)
def _read(error: QuotaError) -> Failure:
    return Failure(Kind.QUOTA, Advice.STOP, error=error)


def fails(world: World, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    """The error of a call that must fail."""
    with pytest.raises(Exception) as info:  # noqa: PT011
        world.run(fn, *args, **kwargs)
    return info.value


def refused(world: World, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> CircuitOpenError:
    """The refusal of a call that must be refused, without the function being called."""
    before = len(world.calls)
    error = fails(world, fn, *args, **kwargs)
    assert type(error) is CircuitOpenError
    assert len(world.calls) == before
    return error


def coloured(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` in this world's colour, with its signature."""
    if not world.asynchronous:
        return fn

    @functools.wraps(fn)
    async def afn(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return afn


# Opening and closing


def test_opens_after_five_failures_in_a_row(world: World) -> None:
    """The default: five failures open it for 60 s, then one good trial closes it."""
    breaker = CircuitBreaker()
    guarded = Pipeline(breaker).wrap(world.function(*[ConnectionError] * 5, "ok"))
    for _ in range(4):
        fails(world, guarded)
        assert breaker.state == "closed"
    fails(world, guarded)
    assert breaker.state == "open"

    refused(world, guarded)
    world.clock.advance(59.9)
    refused(world, guarded)
    world.clock.advance(0.2)
    assert world.run(guarded) == "ok"
    assert breaker.state == "closed"


def test_a_success_ends_the_run_of_failures(world: World) -> None:
    """Failures count in a row: a success between them starts the count anew."""
    breaker = CircuitBreaker(failures=2)
    fn = world.function(ConnectionError, 1, ConnectionError, 1, ConnectionError, ConnectionError)
    guarded = Pipeline(breaker).wrap(fn)
    states = []
    for _ in range(6):
        world.run(guarded.outcome)
        states.append(breaker.state)

    assert states == ["closed"] * 5 + ["open"]


def test_fault_066_other_errors_are_no_verdict(world: World) -> None:
    """An error that `on` leaves out neither counts nor ends the run."""
    breaker = CircuitBreaker(failures=2)
    fn = world.function(ConnectionError, ValueError, QuotaError, ConnectionError)
    guarded = Pipeline(breaker).wrap(fn)
    for _ in range(3):
        fails(world, guarded)
    assert breaker.state == "closed"
    fails(world, guarded)
    assert breaker.state == "open"


def test_fault_066_other_error_of_a_trial_gives_the_place_back(world: World) -> None:
    """Half open, an error that is no verdict leaves it half open, with its place free."""
    breaker = CircuitBreaker()
    breaker.open()
    world.clock.advance(60)
    guarded = Pipeline(breaker).wrap(world.function(ValueError, QuotaError, "ok"))
    for _ in range(2):
        fails(world, guarded)
        assert breaker.state == "half-open"

    assert world.run(guarded) == "ok"
    assert breaker.state == "closed"


def test_a_failed_trial_opens_it_for_the_whole_time_again(world: World) -> None:
    """One failed trial, and it is open for `reset_after` from then."""
    breaker = CircuitBreaker(failures=3, reset_after=10)
    breaker.open()
    world.clock.advance(15)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    fails(world, guarded)

    assert breaker.state == "open"
    assert refused(world, guarded).retry_after == pytest.approx(10)


def test_successes_close_it(world: World) -> None:
    """With `successes=3`, three good trials in a row close it; one bad one opens it."""
    breaker = CircuitBreaker(successes=3)
    breaker.open()
    world.clock.advance(60)
    fn = world.function(1, 2, ConnectionError, 3, 4, 5)
    guarded = Pipeline(breaker).wrap(fn)
    states = []
    for _ in range(6):
        world.run(guarded.outcome)
        states.append(breaker.state)
        if breaker.state == "open":
            world.clock.advance(60)

    assert states == ["half-open", "half-open", "open", "half-open", "half-open", "closed"]


def test_after_closing_the_count_starts_anew(world: World) -> None:
    """A circuit that has closed again takes as many failures to open as at first."""
    breaker = CircuitBreaker(failures=2)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, ConnectionError, 1, OSError))
    for _ in range(2):
        fails(world, guarded)
    world.clock.advance(60)
    world.run(guarded)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    fails(world, guarded)

    assert breaker.state == "closed"


def test_on_result_counts_as_a_failure(world: World) -> None:
    """A bad result counts as a failure and is returned all the same; in a trial as well."""
    breaker = CircuitBreaker(failures=2, on_result=lambda text: not text)
    guarded = Pipeline(breaker).wrap(world.function("", "", ""))

    assert [world.run(guarded), world.run(guarded)] == ["", ""]
    assert breaker.state == "open"
    assert refused(world, guarded).__cause__ is None
    world.clock.advance(60)
    assert world.run(guarded) == ""
    assert breaker.state == "open"


@pytest.mark.parametrize(
    ("on", "state"), [(ValueError, "open"), (Kind.UNKNOWN, "open"), (OSError, "closed")]
)
def test_on_forms(world: World, on: Any, state: str) -> None:
    """`on=` is the same language as everywhere."""
    breaker = CircuitBreaker(failures=1, on=on)
    fails(world, Pipeline(breaker).wrap(world.function(ValueError)))

    assert breaker.state == state


def test_a_predicate_that_raises_is_no_verdict(world: World) -> None:
    """A broken `on` neither hides the error nor counts; the note names what it raised."""
    breaker = CircuitBreaker(failures=1, on=lambda failure: 1 / 0)
    error = fails(world, Pipeline(breaker).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert "ZeroDivisionError" in error.__notes__[0]
    assert breaker.state == "closed"


# The refusal


def test_the_refusal_tells_when_and_why(world: World) -> None:
    """It carries name, seconds, the UTC time, and as its cause the failure that opened it."""
    breaker = CircuitBreaker(failures=2, reset_after=30, name="gateway")
    first, second = ConnectionError("first"), ConnectionError("second")
    guarded = Pipeline(breaker).wrap(world.function(first, second))
    fails(world, guarded)
    fails(world, guarded)
    world.clock.advance(10)
    error = refused(world, guarded)

    assert isinstance(error, RejectedError)
    assert (error.name, error.key) == ("gateway", None)
    assert error.retry_after == pytest.approx(20)
    now = datetime.fromtimestamp(world.clock.wall(), timezone.utc)
    assert abs(error.retry_at - now - timedelta(seconds=20)) < timedelta(milliseconds=1)
    assert error.retry_at.utcoffset() == timedelta(0)
    assert breaker.retry_at == error.retry_at
    assert error.__cause__ is second
    assert "gateway" in str(error)
    assert "20" in str(error)
    assert history(error) == ()


def test_a_stop_iteration_that_opens_it_is_the_cause() -> None:
    """The cause is the user's own exception, also where it is a StopIteration."""
    same = StopIteration()
    breaker = CircuitBreaker(failures=1, on=StopIteration)
    with virtual_time() as clock:
        world = World("sync", clock)
        guarded = Pipeline(breaker).wrap(world.function(same))
        with pytest.raises(StopIteration):
            guarded()
        assert refused(world, guarded).__cause__ is same


def test_fault_063_a_refusal_is_new_each_time(world: World) -> None:
    """Refusals are new objects, and the failure that opened it does not grow with them."""
    breaker = CircuitBreaker(failures=1)
    cause = ConnectionError()
    guarded = Pipeline(breaker).wrap(world.function(cause))
    fails(world, guarded)

    def length() -> int:
        found, trace = 0, cause.__traceback__
        while trace is not None:
            found, trace = found + 1, trace.tb_next
        return found

    before = length()
    errors = [refused(world, guarded) for _ in range(20)]
    assert len(set(map(id, errors))) == 20
    assert length() == before
    assert cause.__context__ is None


def test_half_open_and_full_is_worth_trying_soon(world: World) -> None:
    """A call refused because all trial places are taken may come back at once."""
    breaker = CircuitBreaker()
    breaker.open()
    world.clock.advance(60)
    inner: list[CircuitOpenError] = []
    pipeline = Pipeline(breaker)
    elsewhere = copy_context()  # not inside the trial

    def trial() -> str:
        with pytest.raises(CircuitOpenError) as info:
            elsewhere.run(pipeline.call, lambda: "second")
        inner.append(info.value)
        return "first"

    assert world.run(pipeline.wrap(world.function(trial))) == "first"
    assert inner[0].retry_after == 0.0


# By hand


def test_open_close_isolate(world: World) -> None:
    """By hand: open for a while, closed, or out of service until closed again."""
    breaker = CircuitBreaker(reset_after=5)
    guarded = Pipeline(breaker).wrap(world.function("ok"))

    assert breaker.state == "closed"
    assert breaker.retry_at is None
    breaker.open()
    assert breaker.state == "open"
    assert refused(world, guarded).retry_after == 5
    breaker.close()
    assert world.run(guarded) == "ok"
    breaker.isolate()
    assert breaker.state == "isolated"
    world.clock.advance(1e9)
    error = refused(world, guarded)
    assert (error.retry_after, error.retry_at, breaker.retry_at) == (None, None, None)
    breaker.close()
    assert world.run(guarded) == "ok"


def test_close_forgets_earlier_failures(world: World) -> None:
    """Closing by hand starts the count anew."""
    breaker = CircuitBreaker(failures=2)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    fails(world, guarded)
    breaker.close()
    fails(world, guarded)

    assert breaker.state == "closed"


def test_state_names_are_pybreakers() -> None:
    """Our three names are pybreaker's."""
    from resilience.policies import _circuit

    assert (_circuit.CLOSED, _circuit.OPEN, _circuit.HALF_OPEN) == (
        pybreaker.STATE_CLOSED,
        pybreaker.STATE_OPEN,
        pybreaker.STATE_HALF_OPEN,
    )


# Whose answers count


@pytest.mark.parametrize("by_hand", ["close", "isolate", "open"])
@pytest.mark.parametrize("outcome", ["late", ConnectionError])
def test_fault_021_late_answers_change_nothing(world: World, by_hand: str, outcome: Any) -> None:
    """An answer to a call begun before the last change of state changes nothing."""
    breaker = CircuitBreaker(failures=1, reset_after=50)

    def meanwhile() -> Any:
        getattr(breaker, by_hand)()
        if isinstance(outcome, type):
            raise outcome
        return outcome

    world.run(Pipeline(breaker).wrap(world.function(meanwhile)).outcome)

    expected = {"close": "closed", "isolate": "isolated", "open": "open"}[by_hand]
    assert breaker.state == expected


def test_fault_021_a_late_failure_does_not_extend_the_open_time(world: World) -> None:
    """Calls that were under way when it opened do not keep it open for longer."""
    breaker = CircuitBreaker(failures=1, reset_after=50)

    def meanwhile() -> None:
        breaker.open()
        world.clock.advance(30)
        raise ConnectionError

    guarded = Pipeline(breaker).wrap(world.function(meanwhile))
    fails(world, guarded)

    assert refused(world, guarded).retry_after == pytest.approx(20)


@pytest.mark.parametrize("late", ["late", ConnectionError])
def test_fault_021_late_answers_in_half_open(late: Any) -> None:
    """A call begun while closed settles no trial, though it ends while half open."""
    with virtual_time() as clock:
        world = World("sync", clock)
        breaker = CircuitBreaker(failures=1, reset_after=50, successes=2)
        pipeline = Pipeline(breaker)

        def meanwhile() -> Any:
            breaker.open()
            clock.advance(50)
            pipeline.call(lambda: "one of two")
            assert breaker.state == "half-open"
            if isinstance(late, type):
                raise late
            return late

        world.run(pipeline.wrap(meanwhile).outcome)
        assert breaker.state == "half-open"
        pipeline.call(lambda: "two of two")
        assert breaker.state == "closed"


def test_fault_021_a_late_success_does_not_end_a_new_run() -> None:
    """A success from before the closing does not excuse failures since."""
    with virtual_time():
        breaker = CircuitBreaker(failures=2)
        pipeline = Pipeline(breaker)

        def fail() -> None:
            raise ConnectionError

        def meanwhile() -> str:
            breaker.close()
            with pytest.raises(ConnectionError):
                pipeline.call(fail)
            return "late"

        assert pipeline.call(meanwhile) == "late"
        with pytest.raises(ConnectionError):
            pipeline.call(fail)
        assert breaker.state == "open"


def test_a_call_admitted_before_the_opening_still_counts_nothing_after_recovery() -> None:
    """A slow trial of an earlier half-open time does not close a later one."""
    with virtual_time() as clock:
        breaker = CircuitBreaker(failures=1, reset_after=10, trials=2, successes=1)
        pipeline = Pipeline(breaker)
        breaker.open()
        clock.advance(10)

        def fail() -> None:
            raise ConnectionError

        elsewhere = copy_context()  # not inside the trial

        def slow_trial() -> str:
            with pytest.raises(ConnectionError):
                elsewhere.run(pipeline.call, fail)  # the other trial opens it again
            return "late"

        assert pipeline.call(slow_trial) == "late"
        assert breaker.state == "open"


def test_fault_029_a_permit_is_settled_once() -> None:
    """Settling or releasing twice has no effect: no count goes below zero or up twice."""
    with virtual_time() as clock:
        circuit = Circuit(Limits(failures=2, reset_after=1, trials=2))
        permit = circuit.admit(clock.now())
        for _ in range(5):
            permit.failed()
        permit.released()
        permit.succeeded()
        assert circuit.failures == 1

        circuit.open()
        clock.advance(1)
        trial = circuit.admit(clock.now())
        for _ in range(5):
            trial.released()
        held = [circuit.admit(clock.now()) for _ in range(2)]
        with pytest.raises(CircuitOpenError):
            circuit.admit(clock.now())
        assert all(permit.trial for permit in held)


def _boom(*args: Any) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("ending", "options", "listeners"),
    [
        pytest.param(KeyboardInterrupt, {}, (), id="fault_008_keyboard_interrupt"),
        pytest.param(SystemExit, {}, (), id="fault_010_system_exit"),
        pytest.param(GeneratorExit, {}, (), id="fault_010_generator_exit"),
        pytest.param(ValueError, {}, (), id="unmatched"),
        pytest.param(ConnectionError, {"on": _boom}, (), id="classifier"),
        pytest.param(ValueError, {}, (_boom,), id="listener"),
    ],
)
def test_fault_028_permits_in_are_permits_out(
    world: World, ending: Any, options: Any, listeners: Any
) -> None:
    """However a trial ends without a verdict, its place is free again and nothing is counted."""
    breaker = CircuitBreaker(failures=1, **options)
    breaker.open()
    world.clock.advance(60)
    pipeline = Pipeline(breaker, listeners=listeners)
    for _ in range(3):
        with pytest.raises(BaseException):  # noqa: B017, PT011
            world.run(pipeline.wrap(world.function(ending)))
        assert breaker.state == "half-open"

    assert world.run(pipeline.wrap(world.function("ok"))) == "ok"
    assert breaker.state == "closed"


def test_fault_008_keyboard_interrupt_is_not_counted(world: World) -> None:
    """Ctrl-C in a call is the same Ctrl-C outside, and tells nothing of the service."""
    breaker = CircuitBreaker(failures=1)
    same = KeyboardInterrupt()

    with pytest.raises(BaseException) as info:  # noqa: PT011
        world.run(Pipeline(breaker).wrap(world.function(same)))

    assert info.value is same
    assert breaker.state == "closed"


def test_cut_by_a_timeout_outside_is_no_verdict(world: World) -> None:
    """A call cut by a Timeout outside the breaker tells nothing, and a trial's place is free."""
    breaker = CircuitBreaker(failures=1)
    with pytest.warns(UserWarning, match="hung calls"):
        pipeline = Pipeline(Timeout(5), breaker)
    guarded = pipeline.wrap(world.function(Takes(9)))

    assert type(fails(world, guarded)) is DeadlineExceededError
    assert breaker.state == "closed"
    breaker.open()
    world.clock.advance(60)
    for _ in range(2):
        assert type(fails(world, guarded)) is DeadlineExceededError
        assert breaker.state == "half-open"


def test_cut_by_a_timeout_inside_is_a_failure(world: World) -> None:
    """A Timeout inside the breaker lets it hear of hung calls."""
    breaker = CircuitBreaker(failures=2)
    guarded = Pipeline(breaker, Timeout(5)).wrap(world.function(Takes(9)))
    fails(world, guarded)
    fails(world, guarded)

    assert breaker.state == "open"
    assert type(refused(world, guarded).__cause__) is DeadlineExceededError


@pytest.mark.parametrize("world", ["asyncio", "trio"], indirect=True)
def test_fault_011_a_cancelled_trial_gives_its_place_back(world: World) -> None:
    """Many cancelled trials later it is still half open, and admits exactly k."""
    breaker = CircuitBreaker(trials=2)
    breaker.open()
    world.clock.advance(60)
    guarded = Pipeline(breaker).wrap(world.function(Takes(1000, "ok")))

    async def cancelled() -> None:
        if world.name == "asyncio":
            task = asyncio.create_task(guarded())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guarded)
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

    async def main() -> None:
        for _ in range(50):
            await cancelled()

    world.run(main)
    assert breaker.state == "half-open"
    assert len(world.calls) == 50
    assert together(world, guarded, 8).count("ok") == 2


# How many at once


def together(world: World, fn: Callable[..., Any], number: int) -> list[Any]:
    """The results or errors of so many calls made at once, in tasks."""
    found: list[Any] = []

    async def one() -> None:
        try:
            found.append(await fn())
        except Exception as error:
            found.append(error)

    async def all_of_them() -> None:
        if world.name == "asyncio":
            await asyncio.gather(*(one() for _ in range(number)))
            return
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(one)

    world.run(all_of_them)
    return found


@pytest.mark.parametrize("world", ["asyncio", "trio"], indirect=True)
@pytest.mark.parametrize("trials", [1, 3])
@pytest.mark.parametrize("outcome", ["ok", ConnectionError(), ValueError()])
def test_fault_018_exactly_k_trials_among_64_tasks(world: World, trials: int, outcome: Any) -> None:
    """At the end of the open time exactly `trials` of 64 tasks get through, however they end."""
    breaker = CircuitBreaker(trials=trials, successes=trials)
    for _ in range(3):
        world.calls.clear()
        breaker.open()
        world.clock.advance(60)
        found = together(world, Pipeline(breaker).wrap(world.function(Takes(1, outcome))), 64)

        assert len(world.calls) == trials
        assert sum(type(each) is CircuitOpenError for each in found) == 64 - trials
        if outcome == "ok":
            assert breaker.state == "closed"


@pytest.mark.real
@pytest.mark.parametrize("trials", [1, 3])
@pytest.mark.parametrize("outcome", [None, ConnectionError(), ValueError()])
def test_fault_018_exactly_k_trials_among_64_threads(trials: int, outcome: Any) -> None:
    """The same for threads: the trials hang until all others have been refused."""
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=1e-6)
    for _ in range(5):
        breaker.open()
        time.sleep(1e-4)
        barrier = threading.Barrier(64)
        leave = threading.Event()
        inside: list[int] = []
        rejected: list[int] = []

        def trial(inside: list[int] = inside, leave: threading.Event = leave) -> None:
            inside.append(1)
            assert leave.wait(10)
            if outcome is not None:
                raise outcome

        guarded = Pipeline(breaker).wrap(trial)

        def one(
            guarded: Any = guarded,
            barrier: threading.Barrier = barrier,
            leave: threading.Event = leave,
            rejected: list[int] = rejected,
        ) -> None:
            barrier.wait(10)
            try:
                guarded()
            except CircuitOpenError:
                rejected.append(1)
                if len(rejected) == 64 - trials:
                    leave.set()
            except Exception:
                pass

        in_threads(one, 64)
        assert len(inside) == trials
        assert len(rejected) == 64 - trials


def in_threads(fn: Callable[[], Any], number: int) -> None:
    """Run in so many threads and wait for them; what one raises is raised here."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            fn()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    if problems:
        raise problems[0]


@pytest.mark.real
@pytest.mark.parametrize("failing_before", [False, True])
def test_fault_019_no_lock_is_held_while_user_code_runs(failing_before: bool) -> None:
    """Eight threads are inside the function at the same time, at rest and not."""
    breaker = CircuitBreaker()
    meeting = threading.Barrier(8)
    guarded = Pipeline(breaker).wrap(lambda: meeting.wait(10))
    if failing_before:
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(_fail)

    in_threads(guarded, 8)


def _fail() -> None:
    raise ConnectionError


@pytest.mark.real
def test_fault_020_listeners_and_predicates_run_under_no_lock() -> None:
    """A listener or a predicate may ask the breaker, or wait for another thread that calls."""
    found: list[str] = []

    def elsewhere() -> None:
        in_threads(lambda: found.append(breaker.state), 1)
        in_threads(lambda: found.append(str(Pipeline(breaker).outcome(_fail).error)), 1)

    class Listener(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old: Any, new: Any) -> None:
            elsewhere()
            if new.name == "open":
                breaker.close()

    def predicate(failure: Failure) -> bool:
        in_threads(lambda: found.append(breaker.state), 1)
        return True

    breaker = CircuitBreaker(failures=2, on=predicate, listeners=[Listener()])
    pipeline = Pipeline(breaker)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            pipeline.call(_fail)
    assert breaker.state == "closed"
    assert found


@pytest.mark.real
def test_threads_count_every_failure_once() -> None:
    """Sixteen threads failing sixteen times each open it with the very last failure."""
    breaker = CircuitBreaker(failures=256, reset_after=1000)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(lambda: [Pipeline(breaker).outcome(_fail) for _ in range(16)], 15)
        for _ in range(15):
            Pipeline(breaker).outcome(_fail)
        assert breaker.state == "closed"
        Pipeline(breaker).outcome(_fail)
        assert breaker.state == "open"
    finally:
        sys.setswitchinterval(before)


# Clocks


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_fault_035_the_wall_clock_may_jump(world: World, jump: float) -> None:
    """Setting the wall clock neither shortens nor lengthens the open time."""
    breaker = CircuitBreaker(reset_after=60)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    world.clock.move_wall(jump)
    assert refused(world, guarded).retry_after == pytest.approx(60)
    world.clock.advance(59)
    refused(world, guarded)
    world.clock.advance(2)

    assert world.run(guarded) == "ok"


def test_fault_037_a_clock_that_leaps(world: World) -> None:
    """Thirty years later an open circuit lets its trial through; a still clock refuses for ever."""
    breaker = CircuitBreaker()
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    for _ in range(100):
        assert refused(world, guarded).retry_after == 60
    world.clock.advance(1e9)

    assert world.run(guarded) == "ok"


def test_a_reset_time_beyond_all_dates(world: World) -> None:
    """An open time longer than dates go has no `retry_at`, and refuses all the same."""
    breaker = CircuitBreaker(reset_after=1e15)
    breaker.open()

    assert breaker.retry_at is None
    assert refused(world, Pipeline(breaker).wrap(world.function("ok"))).retry_after == 1e15


# Keys


def model_first(model: str = "small", *, prompt: str = "") -> str:
    if model.startswith("bad"):
        raise ConnectionError(model)
    return model


@pytest.mark.parametrize(
    ("args", "kwargs", "value"),
    [(("bad 1",), {}, "bad 1"), ((), {"model": "bad 2"}, "bad 2"), ((), {}, "small")],
)
def test_key_by_argument_name(world: World, args: Any, kwargs: Any, value: str) -> None:
    """The key is the argument as given, by position or name, or its default in the signature."""
    breaker = CircuitBreaker(key="model", failures=1, name="models")
    guarded = Pipeline(breaker).wrap(coloured(world, model_first))
    breaker.circuit(value).open()

    error = fails(world, guarded, *args, **kwargs)
    assert isinstance(error, CircuitOpenError)
    assert (error.name, error.key) == ("models", value)
    assert value in str(error)
    assert world.run(guarded, model="other") == "other"


def test_each_value_has_its_own_circuit(world: World) -> None:
    """Failures with one value leave the others alone."""
    breaker = CircuitBreaker(key="model", failures=2)
    guarded = Pipeline(breaker).wrap(coloured(world, model_first))
    for _ in range(2):
        fails(world, guarded, "bad")
        world.run(guarded)

    assert breaker.circuit("bad").state == "open"
    assert breaker.circuit("small").state == "closed"
    assert type(fails(world, guarded, "bad")) is CircuitOpenError
    assert fails(world, guarded, "bad").__cause__.args == ("bad",)
    breaker.circuit("bad").close()
    assert type(fails(world, guarded, "bad")) is ConnectionError


def test_key_by_function(world: World) -> None:
    """A function of the call's arguments gives the key."""
    breaker = CircuitBreaker(key=lambda *args, **kwargs: (len(args), len(kwargs)), failures=1)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    fails(world, guarded, 1, two=2)

    assert breaker.circuit((1, 1)).state == "open"
    assert breaker.circuit((0, 0)).state == "closed"


def test_a_keyed_breaker_has_no_state_of_its_own() -> None:
    """The direct operations of a keyed breaker raise, and `circuit` of a plain one does."""
    keyed = CircuitBreaker(key="model")
    for ask in (
        lambda: keyed.state,
        lambda: keyed.retry_at,
        keyed.open,
        keyed.close,
        keyed.isolate,
    ):
        with pytest.raises(TypeError, match=r"circuit\(value\)"):
            ask()
    with pytest.raises(TypeError, match="no key"):
        CircuitBreaker().circuit("x")


def test_a_key_that_is_bound_or_positional_only(world: World) -> None:
    """A key is only read: it need not be possible to give another one."""
    breaker = CircuitBreaker(key="model", failures=1)
    pipeline = Pipeline(breaker)
    fn = world.function(ConnectionError)

    def positional(model: str, /) -> Any:
        return fn(model)

    fails(world, pipeline.call, functools.partial(fn, model="bound"))
    fails(world, pipeline.call, positional, "placed")
    assert (breaker.circuit("bound").state, breaker.circuit("placed").state) == ("open", "open")


def test_a_key_the_function_does_not_take(world: World) -> None:
    """A named key that no argument has is a TypeError at decoration."""
    with pytest.raises(TypeError, match="'model'"):
        Pipeline(CircuitBreaker(key="model")).wrap(lambda prompt: None)


def _untellable(*args: Any, **kwargs: Any) -> Any:
    raise ZeroDivisionError("secret")


no_key = pytest.mark.parametrize(
    ("key", "model", "problem"),
    [(_untellable, "m", "ZeroDivisionError"), ("model", ["secret"], "TypeError")],
    ids=["raises", "unhashable"],
)


@no_key
def test_a_call_without_a_key_goes_through(
    world: World, caplog: pytest.LogCaptureFixture, key: Any, model: Any, problem: str
) -> None:
    """A key that raises or cannot be hashed is never the call's own trouble; the log tells."""
    breaker = CircuitBreaker(key=key, failures=1)
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError))

    assert world.run(guarded, model=model) == "ok"
    for _ in range(2):
        assert type(fails(world, guarded, model=model)) is ConnectionError
    assert [record.getMessage() for record in caplog.records] == [f"key raised {problem}"] * 3


@no_key
def test_a_call_without_a_key_goes_through_at_rest(
    caplog: pytest.LogCaptureFixture, key: Any, model: Any, problem: str
) -> None:
    """The same, where nobody asks for the key of a healthy call."""
    guarded = Pipeline(CircuitBreaker(key=key, failures=1)).wrap(_ok_or_not)

    assert guarded(True, model) == "ok"
    with pytest.raises(ConnectionError):
        guarded(False, model)
    assert [record.getMessage() for record in caplog.records] == [f"key raised {problem}"]


def _ok_or_not(well: bool, model: Any) -> str:
    if not well:
        raise ConnectionError
    return "ok"


def test_an_unhashable_value_has_no_circuit() -> None:
    """Asked for one, the breaker says what is wrong, without showing the value."""
    with pytest.raises(TypeError, match=r"key must be hashable, got a list$"):
        CircuitBreaker(key="model").circuit(["secret"])  # type: ignore[arg-type]


# Sharing


def test_fault_077_two_pipelines_share_the_circuit_of_one_breaker(world: World) -> None:
    """The breaker object is what is shared: every pipeline that holds it heeds its circuit."""
    breaker = CircuitBreaker(failures=2)
    one = Pipeline(Retry(attempts=1), breaker).wrap(world.function(ConnectionError))
    two = Pipeline(breaker).wrap(world.function("ok"))
    fails(world, one)
    fails(world, one)

    refused(world, two)
    breaker.close()
    assert world.run(two) == "ok"


def test_fault_080_any_name_will_do(world: World) -> None:
    """Long, odd and equal names tell people something and share nothing."""
    names = ["ü:{*}\n", "x" * 10_000, "same", "same"]
    breakers = [CircuitBreaker(name=name) for name in names]
    breakers[2].open()

    assert [breaker.state for breaker in breakers] == ["closed", "closed", "open", "closed"]
    breakers[0].open()
    error = refused(world, Pipeline(breakers[0]).wrap(world.function(1)))
    assert error.name == names[0]
    assert repr(names[0]) in str(error)


# pybreaker's storages


@pytest.fixture
def memory() -> Iterator[pybreaker.CircuitMemoryStorage]:
    """A real storage of pybreaker's."""
    return pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)


def test_a_storage_gets_failures_and_changes(world: World, memory: Any) -> None:
    """What the circuit learns is written to the storage, as pybreaker would."""
    breaker = CircuitBreaker(failures=2, storage=memory)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    fails(world, guarded)
    assert (memory.state, memory.counter) == ("closed", 1)
    fails(world, guarded)
    assert memory.state == "open"
    opened = memory.opened_at.replace(tzinfo=timezone.utc).timestamp()
    assert opened == pytest.approx(world.clock.wall())
    world.clock.advance(60)
    assert world.run(guarded) == "ok"
    assert (memory.state, memory.counter) == ("closed", 0)


def test_two_breakers_share_one_storage(world: World, memory: Any) -> None:
    """A circuit opened through one breaker is open for the other, until closed for both."""
    one = CircuitBreaker(failures=1, reset_after=30, storage=memory)
    two = CircuitBreaker(failures=1, reset_after=30, storage=memory, refresh=0)
    fails(world, Pipeline(one).wrap(world.function(ConnectionError)))
    world.clock.advance(10)
    guarded = Pipeline(two).wrap(world.function("ok"))

    assert refused(world, guarded).retry_after == pytest.approx(20)
    world.clock.advance(20)
    assert world.run(guarded) == "ok"
    assert memory.state == "closed"
    world.clock.advance(2)
    assert world.run(Pipeline(one).wrap(world.function("ok"))) == "ok"
    assert one.state == "closed"


def test_a_storage_counts_failures_of_others(world: World, memory: Any) -> None:
    """Failures in a row are those of all who share the storage."""
    one = CircuitBreaker(failures=3, storage=memory, refresh=0)
    two = CircuitBreaker(failures=3, storage=memory, refresh=0)
    for breaker in (one, two, one):
        fails(world, Pipeline(breaker).wrap(world.function(ConnectionError)))

    assert memory.state == "open"


def test_a_success_ends_the_run_in_the_storage_too(world: World, memory: Any) -> None:
    """With a storage, failures count in a row as without: a success starts the count anew."""
    breaker = CircuitBreaker(failures=2, storage=memory, refresh=0)
    fn = world.function(ConnectionError, "ok", ConnectionError, "ok", ConnectionError)
    guarded = Pipeline(breaker).wrap(fn)
    for _ in range(5):
        world.run(guarded.outcome)

    assert breaker.state == "closed"


@pytest.mark.parametrize("by_hand", ["open", "isolate"])
def test_closing_the_gate_by_hand_holds_with_a_storage(
    world: World, memory: Any, by_hand: str
) -> None:
    """What was opened or isolated by hand is not undone by what the storage said before."""
    breaker = CircuitBreaker(storage=memory, refresh=0)
    getattr(breaker, by_hand)()
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    for _ in range(3):
        world.clock.advance(2)
        refused(world, guarded)


def test_a_change_that_comes_while_another_is_written(world: World) -> None:
    """It is not taken for written: the storage gets it with the next call."""

    class Slow(pybreaker.CircuitMemoryStorage):
        meanwhile: Callable[[], None] | None = None

        @property
        def state(self) -> str:
            return str(super().state)

        @state.setter
        def state(self, value: str) -> None:
            pybreaker.CircuitMemoryStorage.state.fset(self, value)
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                meanwhile()

    storage = Slow("closed")
    breaker = CircuitBreaker(failures=1, storage=storage)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    storage.meanwhile = breaker.close
    fails(world, guarded)
    assert (breaker.state, storage.state) == ("closed", "open")
    world.run(guarded)

    assert (breaker.state, storage.state) == ("closed", "closed")


def test_closing_by_hand_holds_with_a_storage(world: World, memory: Any) -> None:
    """A circuit closed by hand stays closed, whatever opening the storage remembers."""
    breaker = CircuitBreaker(failures=1, storage=memory, refresh=0)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    fails(world, guarded)
    breaker.close()
    for _ in range(3):
        world.clock.advance(2)
        assert world.run(guarded) == "ok"


def test_closing_by_hand_what_is_closed_here_closes_it_for_all(world: World, memory: Any) -> None:
    """Another has opened it, and this one has not heard of it yet."""
    one, two = (CircuitBreaker(storage=memory) for _ in range(2))
    first, second = (Pipeline(each).wrap(world.function("fine", "fine")) for each in (one, two))
    world.run(first)
    world.run(second)
    one.open()
    with pytest.raises(CircuitOpenError):
        world.run(first)
    two.close()
    world.run(second)
    assert memory.state == "closed"


def test_a_storage_is_read_at_most_every_so_often(world: World) -> None:
    """Healthy calls read the storage once in `refresh` seconds, not each time."""
    reads: list[float] = []

    class Counting(pybreaker.CircuitMemoryStorage):
        @property
        def state(self) -> str:
            reads.append(world.clock.now())
            return str(super().state)

        @state.setter
        def state(self, value: str) -> None:
            pybreaker.CircuitMemoryStorage.state.fset(self, value)

    breaker = CircuitBreaker(storage=Counting("closed"), refresh=5)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    for _ in range(30):
        world.run(guarded)
        world.clock.advance(0.5)

    assert reads == [1000, 1005, 1010]


def test_a_storage_that_raises_is_warned_of_once(world: World) -> None:
    """A dead storage costs one warning; the circuit goes on by itself."""

    class Dead(pybreaker.CircuitMemoryStorage):
        @property
        def state(self) -> str:
            raise ConnectionError("redis is away")

        @state.setter
        def state(self, value: str) -> None:
            pass

        def increment_counter(self) -> None:
            raise ConnectionError("redis is away")

    breaker = CircuitBreaker(failures=2, storage=Dead("closed"), refresh=0)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fails(world, guarded)
        fails(world, guarded)
        refused(world, guarded)
        world.clock.advance(60)
        assert world.run(guarded) == "ok"

    assert [each.category for each in warned] == [RuntimeWarning]
    assert "storage" in str(warned[0].message)
    assert breaker.state == "closed"


@pytest.mark.parametrize("outcome", ["ok", ConnectionError])
def test_fault_070_a_dead_storage_under_warnings_as_errors(world: World, outcome: Any) -> None:
    """Under `-W error` the warning of a dead storage still neither stops nor hides the call."""

    class Dead(pybreaker.CircuitMemoryStorage):
        @property
        def state(self) -> str:
            raise OSError("redis is away")

        @state.setter
        def state(self, value: str) -> None:
            pass

    guarded = Pipeline(CircuitBreaker(storage=Dead("closed"))).wrap(world.function(outcome))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = world.run(guarded.outcome)

    assert len(world.calls) == 1
    assert told.value == "ok" if outcome == "ok" else type(told.error) is ConnectionError


def test_a_keyed_breaker_has_a_storage_for_each_value(world: World) -> None:
    """With a key, `storage` is a function of it, asked once for each value."""
    made: dict[str, pybreaker.CircuitMemoryStorage] = {}

    def storage(value: str) -> pybreaker.CircuitMemoryStorage:
        assert value not in made
        made[value] = pybreaker.CircuitMemoryStorage("closed")
        return made[value]

    breaker = CircuitBreaker(key="model", failures=1, storage=storage)
    guarded = Pipeline(breaker).wrap(coloured(world, model_first))
    for _ in range(2):
        fails(world, guarded, "bad")
        world.run(guarded, "good")

    assert {key: found.state for key, found in made.items()} == {"bad": "open", "good": "closed"}


def test_a_storage_that_cannot_be_made_is_tried_again_every_second(world: World) -> None:
    """The circuit goes on by itself meanwhile; that is warned of once, and healed by itself."""
    asked: list[float] = []

    def storage(value: str) -> pybreaker.CircuitMemoryStorage:
        asked.append(world.clock.now())
        if len(asked) < 4:
            raise ConnectionError("redis is away")
        return made

    made = pybreaker.CircuitMemoryStorage("closed")
    breaker = CircuitBreaker(key="model", failures=9, storage=storage)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(8):
            fails(world, guarded, model="m")
            world.clock.advance(0.5)

    assert asked == [1000, 1001, 1002, 1003]
    assert len(warned) == 1
    assert breaker.circuit("m").failures == 8
    assert made.counter == 2


@pytest.mark.parametrize("opened", [-1e9, 1e9])
def test_an_absurd_opening_time_in_the_storage(world: World, memory: Any, opened: float) -> None:
    """Skewed clocks of others never keep it open for longer than `reset_after`."""
    moment = datetime.fromtimestamp(world.clock.wall() + opened, timezone.utc)
    memory.opened_at = moment if "utcnow" not in _source() else moment.replace(tzinfo=None)
    memory.state = "open"
    breaker = CircuitBreaker(reset_after=30, storage=memory)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    if opened > 0:
        assert refused(world, guarded).retry_after == pytest.approx(30)
        world.clock.advance(30)

    assert world.run(guarded) == "ok"


def test_an_opening_time_without_a_zone_is_utc(world: World, memory: Any) -> None:
    """Older versions of pybreaker write such times."""
    moment = datetime.fromtimestamp(world.clock.wall() - 10, timezone.utc)
    memory._opened_at = moment.replace(tzinfo=None)
    memory.state = "open"
    breaker = CircuitBreaker(reset_after=30, storage=memory)

    error = refused(world, Pipeline(breaker).wrap(world.function("ok")))
    assert error.retry_after == pytest.approx(20)


def test_a_half_open_storage_is_tried_at_once(world: World, memory: Any) -> None:
    """Half open in the storage: this process may try too, and closes it for all."""
    memory.state = "half-open"
    breaker = CircuitBreaker(storage=memory)

    assert world.run(Pipeline(breaker).wrap(world.function("ok"))) == "ok"
    assert (breaker.state, memory.state) == ("closed", "closed")


def test_an_open_storage_that_forgot_when(world: World, memory: Any) -> None:
    """Open without a time of opening is open for the whole time from when we hear of it."""
    memory.state = "open"
    breaker = CircuitBreaker(reset_after=30, storage=memory)

    error = refused(world, Pipeline(breaker).wrap(world.function("ok")))
    assert error.retry_after == pytest.approx(30)


def test_a_storage_that_says_what_nobody_knows(world: World, memory: Any) -> None:
    """A state of somebody else's own leaves the circuit as it is."""
    memory.state = "ajar"
    breaker = CircuitBreaker(failures=1, storage=memory, refresh=0)
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError))
    assert world.run(guarded) == "ok"
    memory.state = "ajar"
    with pytest.raises(ConnectionError):
        world.run(guarded)

    assert (breaker.state, memory.state) == ("open", "open")


def test_an_opening_elsewhere_of_what_is_open_here(world: World, memory: Any) -> None:
    """The circuit is tried when its own open time ends, however often others open theirs."""
    breaker = CircuitBreaker(reset_after=30, storage=memory, refresh=0)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    refused(world, guarded)
    world.clock.advance(20)
    memory.opened_at = datetime.fromtimestamp(world.clock.wall(), timezone.utc)

    assert refused(world, guarded).retry_after == pytest.approx(10)


def _source() -> str:
    import inspect

    return inspect.getsource(pybreaker.CircuitBreaker.open)


# pybreaker's listeners


class Told(pybreaker.CircuitBreakerListener):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.heard.append(("call", args, kwargs))

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.heard.append(("failure", type(exc)))

    def success(self, cb: Any) -> None:
        self.heard.append(("success", cb.name))

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.heard.append((old_state.name, new_state.name, cb.current_state))


def test_a_listener_hears_it_all(world: World) -> None:
    """A pybreaker listener hears calls, failures, successes and changes of state."""
    listener = Told()
    breaker = CircuitBreaker(failures=1, listeners=[listener], name="x")
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    fails(world, guarded, 1)
    refused(world, guarded)
    world.clock.advance(60)
    world.run(guarded, two=2)

    assert listener.heard == [
        ("call", (1,), {}),
        ("closed", "open", "open"),
        ("failure", ConnectionError),
        ("open", "half-open", "half-open"),
        ("call", (), {"two": 2}),
        ("half-open", "closed", "closed"),
        ("success", "x"),
    ]


def test_a_listener_sees_what_pybreaker_would_show(world: World) -> None:
    """What a listener is given has pybreaker's names: counters, limits, and our key."""
    seen: list[Any] = []

    class Looking(pybreaker.CircuitBreakerListener):
        def failure(self, cb: Any, exc: BaseException) -> None:
            seen.append((cb.name, cb.key, cb.fail_counter, cb.fail_max, cb.reset_timeout))

    breaker = CircuitBreaker(
        failures=3, reset_after=7, name="x", key="model", listeners=[Looking()]
    )
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    for _ in range(2):
        fails(world, guarded, model="m")

    assert seen == [("x", "m", 1, 3, 7), ("x", "m", 2, 3, 7)]


def test_a_keyed_circuit_tells_its_times(world: World) -> None:
    """One circuit of a keyed breaker has state, failures, seconds, time and a repr of its own."""
    breaker = CircuitBreaker(key="model", reset_after=30, name="x")
    circuit = breaker.circuit("m")
    fails(world, Pipeline(breaker).wrap(world.function(ConnectionError)), model="m")
    assert (circuit.state, circuit.failures, circuit.retry_after) == ("closed", 1, None)
    circuit.open()
    world.clock.advance(10)
    assert circuit.retry_after == pytest.approx(20)
    assert circuit.retry_at.timestamp() == pytest.approx(world.clock.wall() + 20)
    assert repr(circuit) == "<circuit x for 'm': open>"
    assert breaker.circuit("m") is circuit


def test_a_listener_hears_what_is_done_by_hand() -> None:
    """Opening, isolating and closing by hand are changes of state as well."""
    listener = Told()
    breaker = CircuitBreaker(listeners=[listener])
    breaker.open()
    breaker.open()
    breaker.isolate()
    breaker.close()

    assert [event[:2] for event in listener.heard] == [
        ("closed", "open"),
        ("open", "isolated"),
        ("isolated", "closed"),
    ]


def test_a_listener_of_changes_only_leaves_the_pipeline_at_rest() -> None:
    """A listener that hears nothing of healthy calls costs them nothing."""

    class Changes(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            pass

    assert CircuitBreaker(listeners=[Changes()]).rests
    assert not CircuitBreaker(listeners=[Told()]).rests


def test_a_listener_that_raises_is_only_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What a listener raises never touches the call; it goes to the log."""

    class Broken(Told):
        before_call = failure = success = state_change = _boom  # type: ignore[assignment]

    breaker = CircuitBreaker(failures=1, listeners=[Broken()])
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError))

    assert world.run(guarded) == "ok"
    assert type(fails(world, guarded)) is ConnectionError
    assert breaker.state == "open"
    assert "listener" in caplog.text


def test_a_listener_interrupted_while_a_trial_is_admitted(world: World) -> None:
    """Ctrl-C in a listener comes out, and the trial's place is free for the next call."""

    class Interrupted(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            if new_state.name == "half-open":
                raise KeyboardInterrupt

    breaker = CircuitBreaker(listeners=[Interrupted()])
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    world.clock.advance(60)
    with pytest.raises(KeyboardInterrupt):
        world.run(guarded)
    assert (breaker.state, world.calls) == ("half-open", [])

    assert world.run(guarded) == "ok"
    assert breaker.state == "closed"


# Imports


@pytest.mark.real
def test_fault_124_pybreaker_is_imported_only_when_used() -> None:
    """A plain breaker does without pybreaker (and redis); a listener brings it in."""
    code = (
        "import sys, resilience\n"
        "breaker = resilience.CircuitBreaker(key='model')\n"
        "resilience.Pipeline(resilience.Retry(), breaker).call(lambda model: 1, 'm')\n"
        "print(sorted({'pybreaker', 'redis', 'asyncio', 'trio', 'httpx', 'openai', 'auriko'}"
        " & set(sys.modules)))\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stdout.strip()
    assert "pybreaker" not in loaded
    assert "redis" not in loaded
    assert "openai" not in loaded
    assert "auriko" not in loaded
    assert "httpx" not in loaded


def test_repr_tells_the_options() -> None:
    """It reads like the code that makes it, defaults left out, and tells the state of its one
    circuit."""
    single = CircuitBreaker(failures=3)
    assert repr(single) == "<CircuitBreaker(failures=3): closed>"
    single.open()
    assert repr(single) == "<CircuitBreaker(failures=3): open>"
    single.shadow()
    assert repr(single) == "<CircuitBreaker(failures=3): closed, in shadow>"
    assert (
        repr(CircuitBreaker(failures=3, reset_after=10, key="model", name="x"))
        == "CircuitBreaker(failures=3, reset_after=10, key='model', name='x')"
    )
    assert repr(CircuitBreaker(on_result=_fail)) == "<CircuitBreaker(on_result=_fail): closed>"
    breaker = CircuitBreaker(name="x")
    keyed = CircuitBreaker(name="x", key="model")
    assert repr(keyed.circuit("m")) == "<circuit x for 'm': closed>"
    assert breaker != CircuitBreaker(name="x")


def test_fault_079_options_cannot_be_changed() -> None:
    """Setting an option after building is refused, as it would have no effect on the circuit."""
    breaker = CircuitBreaker(failures=5)
    with pytest.raises(AttributeError):
        breaker.failures = 1
