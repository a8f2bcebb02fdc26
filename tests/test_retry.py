"""Retry: which failures are tried again, when, how often, and which error comes out."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sys
import threading
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import httpx
import openai
import pytest
import tenacity
import trio
from attrs import frozen

from conftest import Takes, World

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    history,
    resilient,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import TRANSIENT, raised
from resilience.testing import virtual_time
from resilience.waits import Exponential, Fixed, RetryAfter


class ToldError(Exception):
    """An error whose meaning the test chooses."""

    def __init__(self, advice: Advice, kind: Kind = Kind.RATE_LIMIT, **facts: Any) -> None:
        super().__init__(advice, kind)
        self.failure = Failure(kind, advice, **facts)


@describe.register(ToldError)
def _read(error: ToldError) -> Failure:
    return error.failure


def rate_limit(retry_after: float | None = None) -> ToldError:
    return ToldError(Advice.WAIT, retry_after=retry_after, sent=False)


def note_of(error: BaseException) -> str:
    """The one note of ours."""
    (note,) = [n for n in getattr(error, "__notes__", ()) if n.startswith("resilience:")]
    return note


def caught(world: World, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    """The error of a call that must fail, caught where the call is made."""

    def main() -> Exception:
        with pytest.raises(Exception) as info:  # noqa: PT011
            fn(*args, **kwargs)
        return info.value

    async def amain() -> Exception:
        with pytest.raises(Exception) as info:  # noqa: PT011
            await fn(*args, **kwargs)
        return info.value

    found: Exception = world.run(amain if world.asynchronous else main)
    return found


# How often, how long


def test_default_retries_twice_with_the_sdks_backoff(world: World) -> None:
    """The default makes three calls: 0.5 s after the first, 1.5 times that after the second."""
    world.clock.random = lambda: 0.5
    fn = world.function(ConnectionError)

    error = caught(world, Pipeline(Retry()).wrap(fn))

    assert type(error) is ConnectionError
    assert len(world.calls) == 3
    assert world.clock.sleeps == [0.5, 0.75]


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.8), (1.0, 1.2)])
def test_default_jitter_is_a_fifth_either_way(world: World, chance: float, share: float) -> None:
    """Backoff waits lie within 20 % of the bare ones, and the cap is 30 s before jitter."""
    world.clock.random = lambda: chance
    caught(world, Pipeline(Retry(attempts=14)).wrap(world.function(ConnectionError)))

    bare = [min(0.5 * 1.5**n, 30.0) for n in range(13)]
    assert bare[-1] == 30.0
    assert world.clock.sleeps == pytest.approx([share * wait for wait in bare])


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_counts_all_calls(world: World, attempts: int) -> None:
    """`attempts` is the number of calls, the first included."""
    caught(world, Pipeline(Retry(attempts=attempts)).wrap(world.function(ConnectionError)))

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


@pytest.mark.parametrize("wait", [2, Fixed(2), tenacity.wait_fixed(2), lambda state: 2])
def test_wait_forms(world: World, wait: Any) -> None:
    """Seconds, our waits, tenacity's and plain functions all serve as `wait`."""
    caught(world, Pipeline(Retry(wait=wait)).wrap(world.function(ConnectionError)))

    assert world.clock.sleeps == [2, 2]


def test_tenacity_waits_combine_with_ours(world: World) -> None:
    """Our waits add to tenacity's and go into its chains."""
    wait = tenacity.wait_chain(Fixed(1), tenacity.wait_fixed(5)) + Fixed(0.25)
    caught(world, Pipeline(Retry(attempts=4, wait=wait)).wrap(world.function(ConnectionError)))

    assert world.clock.sleeps == [1.25, 5.25, 5.25]


def test_infinite_wait_gives_up(world: World) -> None:
    """A wait of `math.inf` means not to try again, also when something is added to it."""
    wait = tenacity.wait_fixed(1) + (lambda retry_state: math.inf)
    error = caught(world, Pipeline(Retry(wait=wait)).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert world.clock.sleeps == []
    assert "give up" in note_of(error)


@pytest.mark.parametrize(
    "wait", [lambda state: math.nan, lambda state: "soon", lambda state: 1 / 0]
)
def test_wait_that_makes_no_sense_does_not_hide_the_error(world: World, wait: Any) -> None:
    """A wait that raises or gives no number ends the retrying with the call's own error."""
    error = caught(world, Pipeline(Retry(wait=wait)).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert "raised" in note_of(error)


def test_negative_wait_is_no_wait(world: World) -> None:
    """A third-party wait below zero is taken for zero, never slept."""
    fn = world.function(ConnectionError, "ok")

    assert world.run(Pipeline(Retry(wait=lambda state: -5)).wrap(fn)) == "ok"
    assert world.clock.sleeps == [0.0]


def test_timing_state_goes_by_our_clock(world: World) -> None:
    """tenacity's objects see our attempt number and our seconds, not the wall clock's."""
    seen: list[tuple[int, float]] = []

    def wait(state: tenacity.RetryCallState) -> float:
        seen.append((state.attempt_number, state.seconds_since_start or 0.0))
        return 3.0

    fn = world.function(Takes(2, ConnectionError()))
    caught(world, Pipeline(Retry(wait=wait)).wrap(fn))

    assert seen == [(1, 2.0), (2, 7.0)]


# The server's word


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


def test_fault_046_hint_above_the_longest_wait_stops(world: World) -> None:
    """A server that asks for more than `longest` ends the retrying at once."""
    error = caught(world, Pipeline(Retry()).wrap(world.function(rate_limit(120))))

    assert isinstance(error, ToldError)
    assert len(world.calls) == 1
    assert world.clock.sleeps == []
    assert "120" in note_of(error)
    assert history(error)[0].failure.retry_after == 120


def test_too_long_a_hint_tells_when_to_come_back(world: World) -> None:
    """The note on an error that asked for too long a wait has the time to come back at."""
    error = caught(world, Pipeline(Retry()).wrap(world.function(rate_limit(120))))

    # The virtual wall clock stands at 2027-01-15 08:00:00 UTC.
    assert "08:02" in note_of(error)


def test_fault_046_hint_above_the_deadline_stops(world: World) -> None:
    """A hint that does not fit into the total time is not slept; the server's error comes out."""
    fn = world.function(rate_limit(30))
    error = caught(world, Pipeline(Timeout(20), Retry()).wrap(fn))

    assert isinstance(error, ToldError)
    assert world.clock.sleeps == []
    assert describe(error).retry_after == 30


def test_too_long_clamped(world: World) -> None:
    """With `too_long="clamp"` the longest wait is waited instead."""
    world.clock.random = lambda: 0.0
    wait = RetryAfter(longest=20, too_long="clamp")
    fn = world.function(rate_limit(3600), "ok")

    assert world.run(Pipeline(Retry(wait=wait)).wrap(fn)) == "ok"
    assert world.clock.sleeps == [20.0]


def test_fault_047_equal_hints_are_spread_upward(world: World) -> None:
    """A crowd told the same instant comes back evenly over the next quarter, never early."""
    guarded = Pipeline(Retry(attempts=2)).wrap(world.function(rate_limit(30)))

    def crowd() -> Any:
        for _ in range(400):
            with pytest.raises(ToldError):
                guarded()

    async def acrowd() -> None:
        for _ in range(400):
            with pytest.raises(ToldError):
                await guarded()

    world.run(acrowd if world.asynchronous else crowd)

    waits = world.clock.sleeps
    assert min(waits) >= 30
    assert max(waits) <= 37.5
    tenths = [0] * 10
    for wait in waits:
        tenths[min(9, int((wait - 30) / 0.75))] += 1
    assert sum((found - 40) ** 2 / 40 for found in tenths) < 27.9  # chi-square, 9 df, p = 0.001


@pytest.mark.parametrize("headers", [{"retry-after": "5"}, {"retry-after-ms": "5000"}])
def test_fault_049_hint_on_a_stopped_error_is_ignored(world: World, headers: Any) -> None:
    """A hint on a 404 does not make it worth repeating."""
    response = httpx.Response(404, headers=headers)
    error = httpx.HTTPStatusError("x", request=httpx.Request("GET", "http://x"), response=response)

    assert caught(world, Pipeline(Retry()).wrap(world.function(error))) is error
    assert len(world.calls) == 1


@pytest.mark.parametrize(("word", "calls"), [("false", 1), ("true", 3)])
def test_fault_050_the_servers_word_decides(world: World, word: str, calls: int) -> None:
    """`x-should-retry` wins over the status, both ways."""
    status = 503 if word == "false" else 400
    response = httpx.Response(status, headers={"x-should-retry": word})
    error = httpx.HTTPStatusError("x", request=httpx.Request("GET", "http://x"), response=response)

    caught(world, Pipeline(Retry()).wrap(world.function(error)))

    assert len(world.calls) == calls


# Which failures


@pytest.mark.parametrize("error", [ValueError(), KeyError(), ToldError(Advice.STOP)])
def test_unknown_and_stopped_errors_are_not_retried(world: World, error: Exception) -> None:
    """What TRANSIENT leaves out comes out after one call, with no note."""
    assert caught(world, Pipeline(Retry()).wrap(world.function(error))) is error
    assert len(world.calls) == 1
    assert not getattr(error, "__notes__", None)


@pytest.mark.parametrize(
    "on",
    [
        KeyError,
        LookupError,
        [ValueError, KeyError],
        raised(KeyError) | raised(OSError),
        lambda failure: type(failure.error) is KeyError,
        Kind.UNKNOWN,
    ],
)
def test_on_forms(world: World, on: Any) -> None:
    """Every form of the `on=` language chooses what is retried."""
    assert world.run(Pipeline(Retry(on=on)).wrap(world.function(KeyError, "ok"))) == "ok"


@pytest.mark.parametrize(
    ("on", "retried"),
    [
        (tenacity.retry_if_exception_type(KeyError), True),
        (tenacity.retry_if_exception_type(OSError), False),
        (tenacity.retry_unless_exception_type(KeyError), False),
        (tenacity.retry_if_exception_message(match=".*lost"), True),
        (tenacity.retry_if_exception(lambda error: isinstance(error, KeyError)), True),
        (
            tenacity.retry_if_exception_type(OSError) | tenacity.retry_if_exception_type(KeyError),
            True,
        ),
        (
            tenacity.retry_if_exception_type(OSError) & tenacity.retry_if_exception_type(KeyError),
            False,
        ),
    ],
)
def test_tenacity_predicates(world: World, on: Any, retried: bool) -> None:
    """tenacity's `retry_if_*` objects are accepted and asked with the call's own error."""
    fn = Pipeline(Retry(on=on)).wrap(world.function(KeyError("lost"), "ok"))
    if retried:
        assert world.run(fn) == "ok"
    else:
        assert type(caught(world, fn)) is KeyError


def test_tenacity_retry_if_result(world: World) -> None:
    """A tenacity predicate may look at results as well."""
    fn = world.function(None, None, 5)
    on = tenacity.retry_if_result(lambda result: result is None)

    assert world.run(Pipeline(Retry(on=on, wait=1)).wrap(fn)) == 5
    assert world.clock.sleeps == [1, 1]


if find_spec("tenacity.asyncio"):  # from 8.4 on; before that tenacity has none

    def test_tenacity_async_predicates_are_refused() -> None:
        """An async predicate's answer would always be true, so it is refused at construction."""
        from tenacity.asyncio import retry as predicates

        async def worth_it(error: BaseException) -> bool:
            return False

        with pytest.raises(TypeError, match=r"\bon\b.*async"):
            Retry(on=predicates.retry_if_exception(worth_it))


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
    error = caught(world, Pipeline(Retry(attempts=7, wait=3, stop=stop)).wrap(fn))

    assert type(error) is ConnectionError
    assert len(world.calls) == calls


if hasattr(tenacity, "stop_before_delay"):  # from 8.3 on

    def test_tenacity_stop_before_delay_knows_the_wait_to_come(world: World) -> None:
        """`stop_before_delay` is asked with the wait about to begin, as tenacity asks it."""
        wait = tenacity.wait_chain(Fixed(1), Fixed(10))
        retry = Retry(attempts=5, wait=wait, stop=tenacity.stop_before_delay(5))
        caught(world, Pipeline(retry).wrap(world.function(ConnectionError)))

        assert world.clock.sleeps == [1]


def test_stop_when_event_is_set(world: World) -> None:
    """`stop_when_event_set` lets the error out once the event is set."""
    event = threading.Event()

    def fail() -> None:
        if len(world.calls) == 2:
            event.set()
        raise ConnectionError

    retry = Retry(attempts=9, stop=tenacity.stop_when_event_set(event))
    caught(world, Pipeline(retry).wrap(world.function(fail)))

    assert len(world.calls) == 2


# Time


def test_fault_041_wait_beyond_the_deadline_is_not_begun(world: World) -> None:
    """A wait that would end after the total deadline: the call's own error now, with a note."""
    fn = world.function(ConnectionError)
    before = world.clock.now()
    error = caught(world, Pipeline(Timeout(10), Retry(attempts=5, wait=4)).wrap(fn))

    assert type(error) is ConnectionError
    assert world.clock.sleeps == [4, 4]
    assert world.clock.now() - before == pytest.approx(8)
    assert "would not have fitted" in note_of(error)


def test_within_counts_from_the_start_of_the_call(world: World) -> None:
    """`within` bounds the retrying in all: calls and waits."""
    fn = world.function(Takes(3, ConnectionError()))
    error = caught(world, Pipeline(Retry(attempts=None, wait=1, within=10)).wrap(fn))

    # Attempts end at 3, 7 and 11; the wait after the third would have been too late.
    assert len(world.calls) == 3
    assert type(error) is ConnectionError
    assert "would not have fitted" in note_of(error)


def test_within_is_each_calls_own(world: World) -> None:
    """The seconds of `within` start anew with every call."""
    guarded = Pipeline(Retry(attempts=3, wait=4, within=5)).wrap(world.function(ConnectionError))
    for _ in range(3):
        caught(world, guarded)

    assert world.clock.sleeps == [4, 4, 4]


def test_deadline_of_an_outer_guarded_function_is_respected(world: World) -> None:
    """A wait inside a nested guarded function heeds the deadline outside it."""
    inner = Pipeline(Retry(wait=8)).wrap(world.function(ConnectionError))

    def outer() -> Any:
        return inner()

    async def aouter() -> Any:
        return await inner()

    guarded = Pipeline(Timeout(5)).wrap(aouter if world.asynchronous else outer)

    assert type(caught(world, guarded)) is ConnectionError
    assert world.clock.sleeps == []


# Results


def test_fault_071_last_bad_result_is_returned(world: World) -> None:
    """When attempts run out on bad results, the last one is returned."""
    fn = world.function("", "", "still bad")
    retry = Retry(on_result=lambda text: "bad" in text or not text, wait=1)

    assert world.run(Pipeline(retry).wrap(fn)) == "still bad"
    assert len(world.calls) == 3


def test_on_result_and_errors_share_the_attempts(world: World) -> None:
    """Bad results and errors count against the same number of attempts."""
    fn = world.function(None, ConnectionError, None, "late")
    retry = Retry(on_result=lambda result: result is None)

    assert world.run(Pipeline(retry).wrap(fn)) is None
    assert len(world.calls) == 3


def test_a_bad_result_whose_wait_does_not_fit_is_returned(world: World) -> None:
    """As with errors, a wait that would end too late is not begun; nor is `adjust` asked."""
    adjusted: list[Any] = []
    retry = Retry(
        on_result=lambda result: result == "bad",
        within=5,
        wait=9,
        adjust=lambda attempt, args, kwargs: adjusted.append(args) or (args, kwargs),
    )

    assert world.run(Pipeline(retry).wrap(world.function("bad"))) == "bad"
    assert len(world.calls) == 1
    assert world.clock.sleeps == adjusted == []


def test_fault_071_a_bad_result_is_not_kept_alive(world: World) -> None:
    """A rejected result is let go before the next attempt begins."""

    class Big:
        pass

    made: list[weakref.ref[Big]] = []
    alive: list[bool] = []

    def make() -> Big:
        alive.extend(ref() is not None for ref in made)
        made.append(weakref.ref(big := Big()))
        return big

    retry = Retry(on_result=lambda result: len(made) < 3)
    world.run(Pipeline(retry).wrap(world.function(make)))

    assert len(made) == 3
    assert alive == [False] * 3


def test_on_result_that_raises_leaves_the_result(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A result is not lost because the question about it failed; the log says so."""
    fn = world.function("fine")
    with caplog.at_level(logging.WARNING, "resilience"):
        assert world.run(Pipeline(Retry(on_result=lambda r: 1 / 0)).wrap(fn)) == "fine"

    assert len(world.calls) == 1
    assert "ZeroDivisionError" in caplog.text


# adjust, idempotent, retry_limit


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
    error = caught(world, Pipeline(Retry(adjust=adjust)).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert "raised" in note_of(error)


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ConnectionRefusedError(), 3),
        (rate_limit(), 3),
        (ConnectionResetError(), 1),
        (TimeoutError(), 1),
        (ToldError(Advice.RETRY, Kind.SERVER, sent=True), 1),
        (ToldError(Advice.RETRY, Kind.UNAVAILABLE, sent=None), 1),
    ],
)
def test_not_idempotent_retries_only_what_was_surely_not_executed(
    world: World, error: Exception, calls: int
) -> None:
    """With `idempotent=False` a request that may have been executed is not sent again."""
    caught(world, Pipeline(Retry(idempotent=False)).wrap(world.function(error)))

    assert len(world.calls) == calls


def test_not_idempotent_never_repeats_a_result(world: World) -> None:
    """A call that returned was executed, so a bad result is not tried again either."""
    retry = Retry(idempotent=False, on_result=lambda result: True)

    assert world.run(Pipeline(retry).wrap(world.function("bad"))) == "bad"
    assert len(world.calls) == 1


@pytest.mark.parametrize(
    ("on", "calls"),
    [(TRANSIENT, 2), (Advice.RETRY, 2), (ToldError, 5), (Kind.SERVER, 5), ("odd", 5)],
)
def test_retry_limit_holds_for_matches_by_advice(world: World, on: Any, calls: int) -> None:
    """A failure's own limit counts where `on` matched by advice, not where it named the error."""
    error = ToldError(Advice.RETRY, Kind.SERVER, code="odd", retry_limit=1)
    caught(world, Pipeline(Retry(attempts=5, on=on)).wrap(world.function(error)))

    assert len(world.calls) == calls


def test_retry_limits_are_counted_for_each_code(world: World) -> None:
    """Two different once-only failures get one retry each."""
    one = ToldError(Advice.RETRY, Kind.SERVER, code="one", retry_limit=1)
    two = ToldError(Advice.RETRY, Kind.SERVER, code="two", retry_limit=1)
    error = caught(world, Pipeline(Retry(attempts=9)).wrap(world.function(one, two, one)))

    assert error is one
    assert len(world.calls) == 3


def test_own_time_limit_is_retried_once(world: World) -> None:
    """An attempt cut by a `Timeout` is retried once by default."""
    fn = world.function(Takes(10))
    error = caught(world, Pipeline(Retry(attempts=5), Timeout(2)).wrap(fn))

    assert type(error) is DeadlineExceededError
    assert len(world.calls) == 2


# Rejections, circuits, nesting


def test_rejections_are_not_retried(world: World) -> None:
    """A refusal comes out at once: no wait, no attempt."""
    breaker = CircuitBreaker()
    breaker.open()
    error = caught(world, Pipeline(Retry(on=Exception), breaker).wrap(world.function("ok")))

    assert type(error) is CircuitOpenError
    assert world.calls == []
    assert world.clock.sleeps == []


class AwayError(Exception):
    """A user's own name for a refusal."""


@describe.register(AwayError)
def _away(error: AwayError) -> Failure:
    assert isinstance(error.__cause__, RejectedError)
    return describe(error.__cause__)


def test_a_refusal_by_another_name_is_not_retried(world: World) -> None:
    """An error that the user says is a refusal is treated as one, whatever `on` says."""
    breaker = CircuitBreaker()
    breaker.open()
    inner = Pipeline(breaker).wrap(world.function("ok"))

    def away(*args: Any) -> None:
        try:
            inner()
        except CircuitOpenError as refusal:
            raise AwayError from refusal

    async def aaway(*args: Any) -> None:
        try:
            await inner()
        except CircuitOpenError as refusal:
            raise AwayError from refusal

    guarded = Pipeline(Retry(on=AwayError)).wrap(aaway if world.asynchronous else away)

    assert type(caught(world, guarded)) is AwayError
    assert world.clock.sleeps == []


def test_a_refusal_after_a_bad_result_comes_out(world: World) -> None:
    """A call that was made, and has no error of its own to show, ends in the refusal."""
    breaker = CircuitBreaker()

    def meanwhile(attempt: Any, args: Any, kwargs: Any) -> Any:
        breaker.open()
        return args, kwargs

    retry = Retry(on_result=lambda result: result == "bad", adjust=meanwhile, wait=1)
    error = caught(world, Pipeline(retry, breaker).wrap(world.function("bad")))

    assert type(error) is CircuitOpenError
    assert len(world.calls) == 1


def test_no_retry_when_the_circuit_has_just_opened(world: World) -> None:
    """The failure that opens the circuit is the last: its error comes out without a wait."""
    fn = world.function(ConnectionError)
    guarded = Pipeline(Retry(attempts=9), CircuitBreaker(failures=2)).wrap(fn)
    error = caught(world, guarded)

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


def test_fault_069_a_nested_refusal_is_not_retried_nor_charged(world: World) -> None:
    """An inner function's CircuitOpenError is neither retried outside nor held against it."""
    opened = CircuitBreaker(name="inner")
    opened.open()
    inner = Pipeline(opened).wrap(world.function("never"))
    outer = CircuitBreaker(failures=1)

    def call() -> Any:
        return inner()

    async def acall() -> Any:
        return await inner()

    guarded = Pipeline(Retry(), outer).wrap(acall if world.asynchronous else call)
    error = caught(world, guarded)

    assert isinstance(error, CircuitOpenError)
    assert error.name == "inner"
    assert world.clock.sleeps == []
    assert outer.state == "closed"


def nested(world: World, fn: Callable[..., Any], *policies: Retry) -> Callable[..., Any]:
    """Separately guarded functions around `fn`, the innermost policy last."""
    for policy in reversed(policies):
        fn = Pipeline(policy).wrap(_passing(world, fn))
    return fn


def _passing(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    def call() -> Any:
        return fn()

    async def acall() -> Any:
        return await fn()

    return acall if world.asynchronous else call


def test_fault_082_nested_retries_do_not_multiply(world: World) -> None:
    """What an inner Retry has given up on, the outer ones leave alone: 3 calls, not 27."""
    fn = nested(world, world.function(ConnectionError), Retry(), Retry(), Retry())
    error = caught(world, fn)

    assert type(error) is ConnectionError
    assert len(world.calls) == 3
    assert len(world.clock.sleeps) == 2


def test_again_retries_what_an_inner_retry_gave_up_on(world: World) -> None:
    """`again=True` multiplies, because somebody asked for it."""
    fn = nested(world, world.function(ConnectionError), Retry(attempts=2, again=True), Retry())
    caught(world, fn)

    assert len(world.calls) == 6


def test_two_retries_in_one_pipeline_do_not_multiply(world: World) -> None:
    """The same holds inside one pipeline, which warns of it."""
    with pytest.warns(UserWarning, match="two Retry"):
        pipeline = Pipeline(Retry(), Retry())
    caught(world, pipeline.wrap(world.function(ConnectionError)))

    assert len(world.calls) == 3


def test_an_inner_retry_that_never_retried_has_spent_nothing(world: World) -> None:
    """An inner `attempts=1` leaves the outer Retry its turn."""
    fn = nested(world, world.function(ConnectionError), Retry(), Retry(attempts=1))
    caught(world, fn)

    assert len(world.calls) == 3


def test_a_spent_error_of_an_earlier_call_is_not_held_against_the_next(world: World) -> None:
    """The same exception object, raised by a later call, is retried as a new failure."""
    same = ConnectionError()
    guarded = Pipeline(Retry()).wrap(world.function(same))
    for _ in range(2):
        assert caught(world, guarded) is same

    assert len(world.calls) == 6
    assert len(same.__notes__) == 1


# Odd predicates, odd exceptions


@pytest.mark.parametrize(
    "on", [lambda failure: 1 / 0, tenacity.retry_if_exception(lambda error: 1 / 0)]
)
def test_fault_067_predicate_that_raises(world: World, on: Any) -> None:
    """The call's own error comes out; what the predicate raised is named in the note."""
    error = caught(world, Pipeline(Retry(on=on)).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert "ZeroDivisionError" in note_of(error)


def test_fault_062_the_same_instance_every_time(world: World) -> None:
    """A singleton exception raised by every attempt grows neither its traceback nor a chain."""
    same = ConnectionError("singleton")
    guarded = Pipeline(Retry(attempts=300, wait=0)).wrap(world.function(same))

    assert caught(world, guarded) is same
    length, trace = 0, same.__traceback__
    while trace is not None:
        length, trace = length + 1, trace.tb_next
    assert length < 60
    assert same.__context__ is None
    assert same.__cause__ is None
    assert len(same.__notes__) == 1
    assert len(history(same)) == 300


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
        pytest.param(AlwaysEqualError, id="fault_056_equal"),
        pytest.param(NeverEqualError, id="fault_056_unhashable"),
        pytest.param(FalseError, id="fault_057_false"),
        pytest.param(UnprintableError, id="fault_058_unprintable"),
        pytest.param(ClosedError, id="fault_059_slots"),
        pytest.param(FrozenError, id="fault_059_frozen"),
        pytest.param(NotelessError, id="fault_059_noteless"),
    ],
)
def test_odd_exceptions_pass_unharmed(world: World, kind: type[Exception]) -> None:
    """Exceptions that cannot be compared, printed or written to are retried and come out."""
    errors = [kind(), kind(), kind()]
    error = caught(world, Pipeline(Retry(), CircuitBreaker()).wrap(world.function(*errors)))

    assert error is errors[2]
    assert len(world.calls) == 3
    assert [a.failure.error is e for a, e in zip(history(error), errors, strict=True)] == [True] * 3


def test_fault_058_text_of_errors_is_never_read(world: World) -> None:
    """An error whose text raises is not asked for it, and its text is in no note."""
    error = caught(world, Pipeline(Retry()).wrap(world.function(ConnectionError("sk-secret"))))

    assert "sk-secret" not in note_of(error)
    assert "sk-secret" not in repr(history(error))


def test_fault_061_cause_and_context_are_the_users(world: World) -> None:
    """`raise ... from` and `from None` come out as they were written."""
    cause = KeyError()

    def fail() -> None:
        try:
            raise ValueError("hidden")
        except ValueError:
            if len(world.calls) < 3:
                raise ConnectionError from None
            raise ConnectionError from cause

    error = caught(world, Pipeline(Retry()).wrap(world.function(fail)))

    assert error.__cause__ is cause
    assert type(error.__context__) is ValueError
    assert error.__context__.__context__ is None


def test_attempts_do_not_chain_onto_one_another(world: World) -> None:
    """An attempt's error is not the context of the next attempt's error."""
    error = caught(world, Pipeline(Retry()).wrap(world.function(TimeoutError, ConnectionError)))

    assert error.__context__ is None


@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_fault_064_nothing_of_a_failed_call_is_kept(world: World, listeners: Any) -> None:
    """A failed call's locals are freed with its error, without the garbage collector."""

    class Big:
        pass

    made: list[weakref.ref[Big]] = []

    def fail() -> None:
        big = Big()
        made.append(weakref.ref(big))
        raise ConnectionError

    guarded = Pipeline(Retry(), CircuitBreaker(failures=99), listeners=listeners).wrap(
        world.function(fail)
    )
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
        look()

    gc.collect()
    gc.disable()
    try:
        world.run(amain if world.asynchronous else main)
    finally:
        gc.enable()

    assert freed == [True] * 3


def test_fault_068_stop_iteration_comes_out_as_itself() -> None:
    """A function's own StopIteration is neither turned into RuntimeError nor retried."""
    same = StopIteration("mine")
    calls: list[int] = []

    @resilient
    def fn() -> None:
        calls.append(1)
        raise same

    for full in (False, True):
        guarded = fn.outcome if full else fn
        if full:
            assert guarded().error is same
        else:
            with pytest.raises(StopIteration) as info:
                guarded()
            assert info.value is same
    assert len(calls) == 2


def test_fault_068_stop_iteration_is_retried_when_named() -> None:
    """Named in `on=`, StopIteration is retried like any other error."""
    with virtual_time() as clock:
        world = World("sync", clock)
        fn = Pipeline(Retry(on=StopIteration)).wrap(world.function(StopIteration, "ok"))
        assert fn() == "ok"
        fn = Pipeline(Retry(on=StopIteration)).wrap(world.function(StopIteration("last")))
        with pytest.raises(StopIteration, match="last") as info:
            fn()
    assert len(history(info.value)) == 3


def test_fault_068_stop_async_iteration(world: World) -> None:
    """StopAsyncIteration comes out as itself after one call."""
    assert type(caught(world, Pipeline(Retry()).wrap(world.function(StopAsyncIteration)))) is (
        StopAsyncIteration
    )
    assert len(world.calls) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_fault_010_control_flow_passes_straight_through(
    world: World, stop: type[BaseException]
) -> None:
    """What is no `Exception` is never retried, whatever `on` says, and never noted on."""
    error = stop()
    retry = Retry(on=lambda failure: True)

    with pytest.raises(BaseException) as info:  # noqa: PT011
        world.run(Pipeline(retry, CircuitBreaker(failures=1)).wrap(world.function(error)))

    assert info.value is error
    assert len(world.calls) == 1
    assert not hasattr(error, "__notes__")


def test_fault_009_keyboard_interrupt_during_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a wait leaves at once: no further attempt."""
    calls: list[int] = []

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)

    def fn() -> None:
        calls.append(1)
        raise ConnectionError

    with pytest.raises(KeyboardInterrupt):
        Pipeline(Retry()).call(fn)
    assert len(calls) == 1


@pytest.mark.parametrize("on", [TRANSIENT, Exception, lambda failure: True])
@pytest.mark.parametrize("where", ["call", "wait"])
def test_fault_001_002_003_cancelled_task_under_asyncio(on: Any, where: str) -> None:
    """A cancelled task leaves at once, from the call or the wait, whatever `on` says."""
    with virtual_time() as clock:
        world = World("asyncio", clock)
        step = Takes(1000) if where == "call" else ConnectionError
        breaker = CircuitBreaker(failures=2)
        guarded = Pipeline(Retry(on=on, wait=1000), breaker).wrap(world.function(step))

        async def main() -> None:
            task = asyncio.create_task(guarded())
            for _ in range(5):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert len(world.calls) == 1
        assert clock.now() == 1000.0  # no time has passed
        assert breaker.state == "closed"


@pytest.mark.parametrize("where", ["call", "wait"])
def test_fault_001_002_003_cancelled_under_trio(where: str) -> None:
    """trio's Cancelled is never caught: no further attempt, no verdict."""
    with virtual_time() as clock:
        world = World("trio", clock)
        step = Takes(1000) if where == "call" else ConnectionError
        breaker = CircuitBreaker(failures=2)
        guarded = Pipeline(Retry(on=Exception, wait=1000), breaker).wrap(world.function(step))

        async def main() -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(guarded)
                    for _ in range(3):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            assert scope.cancelled_caught

        trio.run(main)
        assert len(world.calls) == 1
        assert clock.now() == 1000.0
        assert breaker.state == "closed"


# Overlapping calls


@pytest.mark.parametrize("world", ["asyncio", "trio"], indirect=True)
def test_fault_025_overlapping_calls_have_delays_of_their_own(world: World) -> None:
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


# Notes and history


def test_the_note_tells_attempts_and_waits(world: World) -> None:
    """One note says how many attempts there were, why they failed, and what was waited."""
    fn = world.function(TimeoutError, ConnectionError)
    error = caught(world, Pipeline(Retry(wait=Fixed(2))).wrap(fn))

    note = note_of(error)
    assert "3 attempts" in note
    assert note.count("after 2 s") == 2
    assert "timeout" in note
    assert note.count("connection") == 2


@pytest.mark.parametrize("again", [False, True])
def test_a_note_is_replaced_not_added_to(world: World, again: bool) -> None:
    """An error that passes three pipelines carries one note of ours, and keeps the user's."""
    users = ConnectionError()
    users.__notes__ = ["the user's"]  # as add_note does it, which 3.10 lacks
    outer = Retry(attempts=2, again=again)
    error = caught(world, nested(world, world.function(users), outer, outer, Retry(wait=1)))

    assert error is users
    assert users.__notes__[0] == "the user's"
    assert len(users.__notes__) == 2
    assert ("2 attempts" if again else "3 attempts") in note_of(error)


def test_long_stories_are_cut_in_the_note(world: World) -> None:
    """A hundred attempts do not make a hundred entries in the note; the history has them all."""
    error = caught(
        world, Pipeline(Retry(attempts=100, wait=1)).wrap(world.function(ConnectionError))
    )

    assert "100 attempts" in note_of(error)
    assert len(note_of(error)) < 400
    assert len(history(error)) == 100


def test_history_tells_it_as_data(world: World) -> None:
    """`history(error)` has each attempt: number, start, duration, failure, wait."""
    fn = world.function(Takes(1, TimeoutError()), Takes(2, ConnectionError()))
    error = caught(world, Pipeline(Retry(attempts=2, wait=4)).wrap(fn), model="m")

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


def test_a_single_attempt_has_history_but_no_note(world: World) -> None:
    """With nothing to add, no note is written; the history still has the attempt."""
    error = caught(world, Pipeline(Retry()).wrap(world.function(ValueError())))

    assert not hasattr(error, "__notes__")
    assert len(history(error)) == 1


def test_a_refusal_after_an_attempt_lets_the_own_error_out(world: World) -> None:
    """The circuit opened by others during the wait: the call's own last error, with a note."""
    breaker = CircuitBreaker(name="shared", failures=9)
    retry = Retry(adjust=lambda attempt, args, kwargs: (breaker.open(), (args, kwargs))[1])
    error = caught(world, Pipeline(retry, breaker).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert not isinstance(error, RejectedError)
    assert len(world.calls) == 1
    assert "'shared' is open" in note_of(error)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("status", "calls"),
    [
        *[(status, 1) for status in (400, 401, 403, 404, 409, 422, 501, 505)],
        *[(status, 3) for status in (408, 429, 500, 502, 503, 504, 529)],
    ],
)
def test_fault_054_by_status_alone(world: World, status: int, calls: int) -> None:
    """By status alone the documented ones are retried, and no others."""
    error = httpx.HTTPStatusError(
        "x", request=httpx.Request("GET", "http://x"), response=httpx.Response(status)
    )
    breaker = CircuitBreaker(failures=1) if calls == 1 else CircuitBreaker()
    caught(world, Pipeline(Retry(), breaker).wrap(world.function(error)))

    assert len(world.calls) == calls
    if status < 500:
        assert breaker.state == "closed"


def test_fault_055_a_spent_quota_is_not_a_rate_limit(world: World) -> None:
    """OpenAI's `insufficient_quota` 429 is not retried although its status is."""
    request = httpx.Request("POST", "http://x")
    body = {"code": "insufficient_quota", "type": "insufficient_quota"}
    error = openai.RateLimitError("x", response=httpx.Response(429, request=request), body=body)

    assert caught(world, Pipeline(Retry()).wrap(world.function(error))) is error
    assert len(world.calls) == 1


def test_fault_060_an_exception_group_with_a_cancellation_is_never_retried(world: World) -> None:
    """A BaseExceptionGroup is not an Exception, so no policy touches it."""
    group = BaseExceptionGroup("x", [asyncio.CancelledError(), ConnectionError()])

    with pytest.raises(BaseExceptionGroup) as info:
        world.run(Pipeline(Retry(on=lambda failure: True)).wrap(world.function(group)))

    assert len(world.calls) == 1
    assert info.value is group


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
