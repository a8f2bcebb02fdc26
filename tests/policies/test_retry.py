"""Retry: how often, after which waits, until when, and with which arguments."""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from typing import Any

import httpx
import pytest
import tenacity
import trio

from conftest import Takes, World, async_worlds
from resilience import Pipeline, Retry, Timeout, history
from resilience._core import guard
from resilience.events import GaveUp, recording
from resilience.failures import Advice, Kind, describe
from resilience.matching import TRANSIENT
from resilience.waits import Exponential, Fixed, RetryAfter
from support.calling import error_of, passing
from support.errors import DescribedError, note_of, rate_limit

# How often


def test_default_retries_twice_with_the_sdks_backoff(world: World) -> None:
    """The default makes three calls: 0.5 s after the first, 1.5 times that after the second."""
    world.clock.random = lambda: 0.5
    error = error_of(world, Pipeline(Retry()).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 3
    assert world.clock.sleeps == [0.5, 0.75]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_counts_all_calls(world: World, attempts: int) -> None:
    """`attempts` is the number of calls, the first included."""
    error_of(world, Pipeline(Retry(attempts=attempts)).wrap(world.function(ConnectionError)))

    assert len(world.calls) == attempts
    assert len(world.clock.sleeps) == attempts - 1


def test_attempts_none_has_no_end(world: World) -> None:
    """Written out, None retries until the call succeeds."""
    fn = world.function(*[ConnectionError] * 40, "ok")

    assert world.run(Pipeline(Retry(attempts=None, wait=0)).wrap(fn)) == "ok"
    assert len(world.calls) == 41


def test_success_after_failures_is_returned(world: World) -> None:
    """The first success ends it, with the arguments of the call each time."""
    fn = world.function(TimeoutError, ConnectionError, "ok")

    assert world.run(Pipeline(Retry()).wrap(fn), 1, two=2) == "ok"
    assert world.calls == [((1,), {"two": 2})] * 3


@pytest.mark.parametrize(
    ("stop", "calls"),
    [
        (tenacity.stop_after_attempt(2), 2),
        (tenacity.stop_after_delay(5), 3),
        (tenacity.stop_after_delay(5) | tenacity.stop_after_attempt(2), 2),
        (tenacity.stop_after_delay(5) & tenacity.stop_after_attempt(5), 5),
        (tenacity.stop_never, 7),
        (lambda state: state.attempt_number >= 4, 4),
    ],
)
def test_tenacity_stops(world: World, stop: Any, calls: int) -> None:
    """Any tenacity stop ends the retrying, by our clock."""
    fn = world.function(ConnectionError)
    error = error_of(world, Pipeline(Retry(attempts=7, wait=3, stop=stop)).wrap(fn))

    assert type(error) is ConnectionError
    assert len(world.calls) == calls


if hasattr(tenacity, "stop_before_delay"):  # from 8.3 on

    def test_tenacity_stop_before_delay_knows_the_wait_to_come(world: World) -> None:
        """`stop_before_delay` is asked with the wait about to begin, as tenacity asks it."""
        wait = tenacity.wait_chain(Fixed(1), Fixed(10))
        retry = Retry(attempts=5, wait=wait, stop=tenacity.stop_before_delay(5))
        error_of(world, Pipeline(retry).wrap(world.function(ConnectionError)))

        assert world.clock.sleeps == [1]


def test_stop_when_event_is_set(world: World) -> None:
    """`stop_when_event_set` lets the error out once the event is set."""
    event = threading.Event()

    def fail() -> None:
        if len(world.calls) == 2:
            event.set()
        raise ConnectionError

    retry = Retry(attempts=9, stop=tenacity.stop_when_event_set(event))
    error_of(world, Pipeline(retry).wrap(world.function(fail)))

    assert len(world.calls) == 2


def test_tenacitys_objects_see_the_call(world: World) -> None:
    """The state has the function, the arguments and the attempt's number."""
    seen: list[Any] = []

    def stop(state: tenacity.RetryCallState) -> bool:
        seen.append((state.fn, state.args, state.kwargs, state.attempt_number))
        assert state.outcome is not None
        seen.append(state.outcome.attempt_number)
        return state.attempt_number == 2

    fn = world.function(ConnectionError)
    error_of(world, Pipeline(Retry(attempts=9, wait=0, stop=stop)).wrap(fn), 1, size=2)

    assert seen == [
        (fn, (1,), {"size": 2}, 1),
        1,
        (fn, (1,), {"size": 2}, 2),
        2,
    ]


# Which waits


@pytest.mark.parametrize("wait", [2, Fixed(2), tenacity.wait_fixed(2), lambda state: 2])
def test_wait_forms(world: World, wait: Any) -> None:
    """Seconds, our waits, tenacity's and plain functions all serve as `wait`."""
    error_of(world, Pipeline(Retry(wait=wait)).wrap(world.function(ConnectionError)))

    assert world.clock.sleeps == [2, 2]


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.8), (1.0, 1.2)])
def test_default_jitter_is_a_fifth_either_way(world: World, chance: float, share: float) -> None:
    """Backoff waits lie within 20 % of the bare ones, and the cap is 30 s before jitter."""
    world.clock.random = lambda: chance
    error_of(world, Pipeline(Retry(attempts=14)).wrap(world.function(ConnectionError)))

    bare = [min(0.5 * 1.5**n, 30.0) for n in range(13)]
    assert bare[-1] == 30.0
    assert world.clock.sleeps == pytest.approx([share * wait for wait in bare])


def test_tenacity_waits_combine_with_ours(world: World) -> None:
    """Our waits add to tenacity's and go into its chains."""
    wait = tenacity.wait_chain(Fixed(1), tenacity.wait_fixed(5)) + Fixed(0.25)
    error_of(world, Pipeline(Retry(attempts=4, wait=wait)).wrap(world.function(ConnectionError)))

    assert world.clock.sleeps == [1.25, 5.25, 5.25]


@pytest.mark.parametrize("option", ["wait", "stop", "on", "otherwise"])
def test_timing_state_goes_by_our_clock(world: World, option: str) -> None:
    """tenacity's objects see our attempt number and our seconds, not the wall clock's."""
    seen: list[tuple[int, float]] = []

    def look(state: tenacity.RetryCallState, answer: Any) -> Any:
        seen.append((state.attempt_number, state.seconds_since_start or 0.0))
        return answer

    class Predicate(tenacity.retry_base):
        def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
            return bool(look(retry_state, True))

    options: dict[str, dict[str, Any]] = {
        "wait": {"wait": lambda state: look(state, 3)},
        "otherwise": {"wait": RetryAfter(otherwise=lambda state: look(state, 3))},
        "stop": {"attempts": 3, "wait": 3, "stop": lambda state: look(state, False)},
        "on": {"wait": 3, "on": Predicate()},
    }
    fn = world.function(Takes(2, ConnectionError()))
    error_of(world, Pipeline(Retry(**options[option])).wrap(fn))

    assert seen[:2] == [(1, 2.0), (2, 7.0)]


def test_infinite_wait_gives_up(world: World) -> None:
    """A wait of `math.inf` means not to try again, also when something is added to it."""
    wait = tenacity.wait_fixed(1) + (lambda retry_state: math.inf)
    error = error_of(world, Pipeline(Retry(wait=wait)).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert world.clock.sleeps == []
    assert "give" in note_of(error)


@pytest.mark.parametrize(
    ("wait", "raised"),
    [
        (lambda state: math.nan, "ValueError"),
        (lambda state: "soon", "ValueError"),
        (lambda state: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_wait_that_makes_no_sense_does_not_hide_the_error(
    world: World, wait: Any, raised: str
) -> None:
    """A wait that raises or gives no number ends the retrying with the call's own error."""
    error = error_of(world, Pipeline(Retry(wait=wait)).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert raised in note_of(error)


def test_negative_wait_is_no_wait(world: World) -> None:
    """A third-party wait below zero is taken for zero, never slept."""
    fn = world.function(ConnectionError, "ok")
    outcome = world.run(Pipeline(Retry(wait=lambda state: -5)).outcome, fn)

    assert [attempt.waited for attempt in outcome.attempts] == [0.0, 0.0]
    assert sum(world.clock.sleeps) == 0.0


@pytest.mark.parametrize("wait", [0, lambda state: -1])
@pytest.mark.parametrize("outer", [[], [Timeout(60)], [Timeout(60, pass_as="timeout")]], ids=str)
def test_a_wait_of_nothing_does_not_sleep_in_a_sync_call(
    monkeypatch: pytest.MonkeyPatch, wait: Any, outer: list[Any]
) -> None:
    """`time.sleep(0)` takes some 80 us and a turn of every other thread: it is not called."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    steps = iter([ConnectionError, TimeoutError])

    def fn(**kwargs: Any) -> str:
        for error in steps:
            raise error
        return "ok"

    assert Pipeline(*outer, Retry(wait=wait)).call(fn) == "ok"
    assert slept == []


@async_worlds
@pytest.mark.fault(25)
def test_overlapping_calls_have_delays_of_their_own(world: World) -> None:
    """Two calls of one function under one Retry go through the backoff independently."""
    fn = world.function(ConnectionError)
    guarded = Pipeline(Retry(attempts=4, wait=Exponential(jitter=0))).wrap(fn)

    async def one() -> None:
        with pytest.raises(ConnectionError):
            await guarded()

    async def both() -> None:
        if world.name == "asyncio":
            await asyncio.gather(one(), one())
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one)
                nursery.start_soon(one)

    world.run(both)

    assert world.clock.sleeps == [0.5, 0.5, 0.75, 0.75, 1.125, 1.125]
    assert len(world.calls) == 8


# What the server asks for


def test_retry_after_overrides_the_backoff(world: World) -> None:
    """What the server asked for is waited, never less, at most a quarter more."""
    fn = world.function(rate_limit(7), rate_limit(3), "ok")
    world.run(Pipeline(Retry()).wrap(fn))

    first, second = world.clock.sleeps
    assert 7 <= first <= 7 * 1.25
    assert 3 <= second <= 3 * 1.25


def test_no_hint_falls_back_to_the_backoff(world: World) -> None:
    """An advice WAIT without seconds waits the ordinary backoff."""
    world.clock.random = lambda: 0.5
    world.run(Pipeline(Retry()).wrap(world.function(rate_limit(), "ok")))

    assert world.clock.sleeps == [0.5]


@pytest.mark.fault(46)
def test_a_hint_above_the_longest_wait_stops(world: World) -> None:
    """A server that asks for more than `longest` ends the retrying at once."""
    error = error_of(world, Pipeline(Retry()).wrap(world.function(rate_limit(120))))

    assert isinstance(error, DescribedError)
    assert len(world.calls) == 1
    assert world.clock.sleeps == []
    assert history(error)[0].failure.retry_after == 120


def test_too_long_a_hint_tells_when_to_come_back(world: World) -> None:
    """The note says how long the server asked for, and until when in UTC."""
    note = note_of(error_of(world, Pipeline(Retry()).wrap(world.function(rate_limit(120)))))

    assert "120 s" in note
    # The virtual wall clock stands at 2027-01-15 08:00:00 UTC.
    assert "2027-01-15 08:02:00 UTC" in note


def test_a_hint_that_no_calendar_has(world: World) -> None:
    """A wait beyond all dates is told without one."""
    error = error_of(world, Pipeline(Retry()).wrap(world.function(rate_limit(1e300))))

    assert "1e+300" in note_of(error)
    assert "UTC" not in note_of(error)
    assert history(error)[0].retry_at is None


@pytest.mark.fault(46)
def test_a_hint_above_the_deadline_stops(world: World) -> None:
    """A hint that does not fit into the total time is not slept; the server's error comes out."""
    fn = world.function(rate_limit(30))
    error = error_of(world, Pipeline(Timeout(20), Retry()).wrap(fn))

    assert isinstance(error, DescribedError)
    assert world.clock.sleeps == []
    assert describe(error).retry_after == 30


def test_too_long_clamped(world: World) -> None:
    """With `too_long="clamp"` the longest wait is waited instead."""
    world.clock.random = lambda: 0.0
    wait = RetryAfter(longest=20, too_long="clamp")
    fn = world.function(rate_limit(3600), "ok")

    assert world.run(Pipeline(Retry(wait=wait)).wrap(fn)) == "ok"
    assert world.clock.sleeps == [20.0]


@pytest.mark.fault(47)
def test_equal_hints_are_spread_upward(world: World) -> None:
    """A crowd told the same instant comes back evenly over the next quarter, never early."""
    guarded = Pipeline(Retry(attempts=2)).wrap(world.function(rate_limit(30)))

    def crowd() -> Any:
        for _ in range(400):
            with pytest.raises(DescribedError):
                guarded()

    async def acrowd() -> None:
        for _ in range(400):
            with pytest.raises(DescribedError):
                await guarded()

    world.run(acrowd if world.asynchronous else crowd)

    waits = world.clock.sleeps
    assert min(waits) >= 30
    assert max(waits) <= 37.5
    tenths = [0] * 10
    for wait in waits:
        tenths[min(9, int((wait - 30) / 0.75))] += 1
    assert sum((found - 40) ** 2 / 40 for found in tenths) < 27.9  # chi-square, 9 df, p = 0.001


@pytest.mark.fault(49)
@pytest.mark.parametrize("headers", [{"retry-after": "5"}, {"retry-after-ms": "5000"}])
def test_a_hint_on_a_stopped_error_is_ignored(world: World, headers: Any) -> None:
    """A hint on a 404 does not make it worth repeating."""
    response = httpx.Response(404, headers=headers)
    error = httpx.HTTPStatusError("x", request=httpx.Request("GET", "http://x"), response=response)

    assert error_of(world, Pipeline(Retry()).wrap(world.function(error))) is error
    assert len(world.calls) == 1


@pytest.mark.fault(50)
@pytest.mark.parametrize(("word", "calls"), [("false", 1), ("true", 3)])
def test_the_servers_word_decides(world: World, word: str, calls: int) -> None:
    """`x-should-retry` wins over the status, both ways."""
    status = 503 if word == "false" else 400
    response = httpx.Response(status, headers={"x-should-retry": word})
    error = httpx.HTTPStatusError("x", request=httpx.Request("GET", "http://x"), response=response)

    error_of(world, Pipeline(Retry()).wrap(world.function(error)))

    assert len(world.calls) == calls


# Until when


@pytest.mark.fault(41)
def test_wait_beyond_the_deadline_is_not_begun(world: World) -> None:
    """A wait that would end after the total deadline: the call's own error now, with a note."""
    fn = world.function(ConnectionError)
    before = world.clock.now()
    error = error_of(world, Pipeline(Timeout(10), Retry(attempts=5, wait=4)).wrap(fn))

    assert type(error) is ConnectionError
    assert world.clock.sleeps == [4, 4]
    assert world.clock.now() - before == pytest.approx(8)
    assert "fitted" in note_of(error)


@pytest.mark.parametrize(
    ("policies", "left"), [([Timeout(10), Retry(wait=9)], "3"), ([Retry(wait=9, within=5)], "0")]
)
def test_the_note_tells_the_wait_and_the_time_left(
    world: World, policies: list[Any], left: str
) -> None:
    """The wait that did not fit and the time there was, to the digit; none left is 0."""
    fn = world.function(Takes(7, ConnectionError()))

    assert re.findall(r"(\d+) s\b", note_of(error_of(world, Pipeline(*policies).wrap(fn)))) == [
        "9",
        left,
    ]


def test_a_wait_as_long_as_the_time_left_is_not_begun(world: World) -> None:
    """No time would remain for the attempt."""
    fn = world.function(ConnectionError)
    error = error_of(world, Pipeline(Retry(wait=5, within=5)).wrap(fn))

    assert "fitted" in note_of(error)
    assert len(world.calls) == 1
    assert world.clock.sleeps == []


def test_within_counts_from_the_start_of_the_call(world: World) -> None:
    """`within` bounds the retrying in all: calls and waits."""
    fn = world.function(Takes(3, ConnectionError()))
    error = error_of(world, Pipeline(Retry(attempts=None, wait=1, within=10)).wrap(fn))

    # Attempts end at 3, 7 and 11; the wait after the third would have been too late.
    assert len(world.calls) == 3
    assert type(error) is ConnectionError


def test_within_is_each_calls_own(world: World) -> None:
    """The seconds of `within` start anew with every call."""
    guarded = Pipeline(Retry(attempts=3, wait=4, within=5)).wrap(world.function(ConnectionError))
    for _ in range(3):
        error_of(world, guarded)

    assert world.clock.sleeps == [4, 4, 4]


def test_time_spent_at_rest_is_time_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`within` begins with the first attempt, though the chain has only heard of its failure."""
    monkeypatch.setattr(guard, "monotonic", lambda: time.monotonic() - 100)
    calls: list[None] = []

    def fails() -> None:
        calls.append(None)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Pipeline(Retry(wait=0, within=50)).call(fails)
    assert len(calls) == 1
    with pytest.raises(ConnectionError):
        Pipeline(Retry(wait=0, within=500)).call(fails)
    assert len(calls) == 4


def test_deadline_of_an_outer_guarded_function_is_respected(world: World) -> None:
    """A wait inside a nested guarded function heeds the deadline outside it."""
    inner = Pipeline(Retry(wait=8)).wrap(world.function(ConnectionError))
    guarded = Pipeline(Timeout(5)).wrap(passing(world, inner))

    assert type(error_of(world, guarded)) is ConnectionError
    assert world.clock.sleeps == []


# Why there is no other attempt


@pytest.mark.parametrize(
    ("policies", "made", "reason", "noted"),
    [
        ([Retry(attempts=1)], ConnectionError, "1 attempt made", False),
        ([Retry(attempts=2, wait=0)], ConnectionError, "2 attempts made", False),
        ([Retry()], ValueError, "unknown is not retried", False),
        ([Retry(idempotent=False)], ConnectionResetError, "it may have been executed", False),
        (
            [Retry(attempts=5, wait=0)],
            lambda: DescribedError(Advice.RETRY, Kind.SERVER, retry_limit=2),
            "server is not retried more than 2 times",
            False,
        ),
        (
            [Retry(stop=tenacity.stop_after_attempt(1))],
            ConnectionError,
            "its stop ended it",
            False,
        ),
        ([Retry(wait=lambda state: math.inf)], ConnectionError, "its wait said to give up", True),
        (
            [Retry(wait=9, within=5)],
            ConnectionError,
            "a wait of 9 s would not have fitted into the 5 s left",
            True,
        ),
        (
            [Retry()],
            lambda: rate_limit(600),
            "the server asked for 600 s, longer than the longest wait "
            "(retry at 2027-01-15 08:10:00 UTC)",
            True,
        ),
        (
            [Retry(on=lambda failure: failure.kind is Kind.CONNECTION, adjust=lambda *_: 1 / 0)],
            ConnectionError,
            "Retry(adjust=) raised ZeroDivisionError",
            True,
        ),
    ],
)
def test_the_reason_for_giving_up(
    world: World, policies: list[Any], made: Any, reason: str, noted: bool
) -> None:
    """It is told by an event, with the last attempt, and by the note where the error itself and
    the number of attempts do not say it."""
    error = made()
    with recording(GaveUp) as events:
        assert error_of(world, Pipeline(*policies).wrap(world.function(error))) is error

    (event,) = events
    assert event.reason == reason
    assert (event.attempt.number, event.attempt.failure.error) == (len(world.calls), error)
    assert (f"no retry: {reason}" in "".join(getattr(error, "__notes__", []))) is noted


# With which arguments


def test_adjust_gives_the_next_arguments(world: World) -> None:
    """`adjust` sees the failed attempt and chooses the arguments of the next one."""
    seen: list[tuple[int, Kind]] = []

    def adjust(attempt: Any, args: Any, kwargs: Any) -> Any:
        seen.append((attempt.number, attempt.failure.kind))
        return (args[0] + 1,), {**kwargs, "size": kwargs["size"] // 2}

    fn = world.function(TimeoutError, ConnectionError, "ok")
    world.run(Pipeline(Retry(adjust=adjust)).wrap(fn), 1, size=8)

    assert world.calls == [((1,), {"size": 8}), ((2,), {"size": 4}), ((3,), {"size": 2})]
    assert seen == [(1, Kind.TIMEOUT), (2, Kind.CONNECTION)]


@pytest.mark.parametrize("adjust", [lambda *_: 1 / 0, lambda *_: None, lambda *_: (1, 2)])
def test_adjust_that_fails_lets_the_error_out(world: World, adjust: Any) -> None:
    """A broken `adjust` does not hide the call's own error."""
    error = error_of(world, Pipeline(Retry(adjust=adjust)).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert "raised" in note_of(error)


@pytest.mark.parametrize(
    ("retry", "text"),
    [
        (Retry(), "Retry()"),
        (Retry(attempts=5, within=9), "Retry(attempts=5, within=9)"),
        (Retry(attempts=None, wait=2), "Retry(attempts=None, wait=Fixed(seconds=2))"),
        (Retry(on=[429, OSError]), "Retry(on=status(429) | raised(OSError))"),
        (Retry(on=TRANSIENT, idempotent=False), "Retry(idempotent=False)"),
    ],
    ids=str,
)
def test_repr(retry: Retry, text: str) -> None:
    """It reads like the code that makes it, defaults left out."""
    assert repr(retry) == text
