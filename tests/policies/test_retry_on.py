"""Retry: which failures are retried, and how often for their own limit."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import httpx
import openai
import pytest
import tenacity

from conftest import Takes, World
from resilience import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    history,
)
from resilience.failures import Advice, Kind
from resilience.matching import TRANSIENT, kind, raised, status
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.waits import RetryAfter
from support.calling import error_of
from support.errors import DescribedError, note_of, rate_limit


def http_error(status: int, **response: Any) -> httpx.HTTPStatusError:
    """An error by status, as httpx raises it."""
    request = httpx.Request("GET", "http://x")
    return httpx.HTTPStatusError("x", request=request, response=httpx.Response(status, **response))


@pytest.mark.parametrize("error", [ValueError(), KeyError(), DescribedError(Advice.STOP)])
def test_unknown_and_stopped_errors_are_not_retried(world: World, error: Exception) -> None:
    """What TRANSIENT leaves out comes out after one call, with no note."""
    assert error_of(world, Pipeline(Retry()).wrap(world.function(error))) is error
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


def test_a_status_is_matched_as_one(world: World) -> None:
    """`on=` a status follows the failure's status."""
    fn = world.function(rate_limit(), ConnectionError())
    error = error_of(world, Pipeline(Retry(on=status(429), wait=0)).wrap(fn))

    assert type(error) is ConnectionError
    assert len(world.calls) == 2


@pytest.mark.fault(54)
@pytest.mark.parametrize(
    ("status", "calls"),
    [
        *[(status, 1) for status in (400, 401, 403, 404, 409, 422, 501, 505)],
        *[(status, 3) for status in (408, 429, 500, 502, 503, 504, 529)],
    ],
)
def test_by_status_alone(world: World, status: int, calls: int) -> None:
    """By status alone the documented ones are retried, and no others."""
    breaker = CircuitBreaker(failures=1) if calls == 1 else CircuitBreaker()
    error_of(world, Pipeline(Retry(), breaker).wrap(world.function(http_error(status))))

    assert len(world.calls) == calls
    if status < 500:
        assert breaker.state == "closed"


@pytest.mark.fault(55)
def test_a_spent_quota_is_not_a_rate_limit(world: World) -> None:
    """OpenAI's `insufficient_quota` 429 is not retried although its status is."""
    request = httpx.Request("POST", "http://x")
    body = {"code": "insufficient_quota", "type": "insufficient_quota"}
    error = openai.RateLimitError("x", response=httpx.Response(429, request=request), body=body)

    assert error_of(world, Pipeline(Retry()).wrap(world.function(error))) is error
    assert len(world.calls) == 1


# tenacity's predicates


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
        assert type(error_of(world, fn)) is KeyError


BY_RESULT = tenacity.retry_if_result(lambda result: result == "bad")
"""tenacity's own way to judge results; ours is `BadResult`."""


def test_tenacity_retry_if_result(world: World) -> None:
    """A tenacity predicate may look at results as well, and is told the very result."""
    fn = world.function("bad", "bad", "good")

    assert world.run(Pipeline(Retry(on=BY_RESULT, wait=1)).wrap(fn)) == "good"
    assert world.clock.sleeps == [1, 1]


def test_tenacity_retry_if_result_returns_the_last_result(world: World) -> None:
    """Where attempts run out the last bad result is returned, as the function would have."""
    retry = Retry(attempts=2, on=BY_RESULT, wait=0)

    assert world.run(Pipeline(retry).wrap(world.function("bad"))) == "bad"
    assert len(world.calls) == 2


def test_tenacity_retry_if_result_lets_errors_out(world: World) -> None:
    """It is about results only: an error is not retried for it."""
    fn = world.function("bad", ConnectionError(), "good")
    error = error_of(world, Pipeline(Retry(on=BY_RESULT, wait=0)).wrap(fn))

    assert type(error) is ConnectionError
    assert len(world.calls) == 2


def test_tenacity_retry_if_result_adjusts_the_arguments(world: World) -> None:
    """`adjust` makes the next attempt's arguments after such a result too."""

    def adjust(attempt: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "size": attempt.number * 10}

    retry = Retry(wait=0, on=BY_RESULT, adjust=adjust)

    assert world.run(Pipeline(retry).wrap(world.function("bad", "bad", "good")), size=1) == "good"
    assert [kwargs for _, kwargs in world.calls] == [{"size": 1}, {"size": 10}, {"size": 20}]


def test_attempts_that_are_repeated_for_their_result_are_recorded(world: World) -> None:
    """They went well, and are in the history and in the note of an error that comes after."""
    retry = Retry(attempts=2, wait=0, on=BY_RESULT | tenacity.retry_if_exception_type(OSError))
    error = error_of(world, Pipeline(retry).wrap(world.function("bad", ConnectionError())))

    assert [a.failure and a.failure.kind for a in history(error)] == [None, Kind.CONNECTION]
    assert [a.number for a in history(error)] == [1, 2]
    assert "ok, connection" in note_of(error)


def test_a_wait_sees_the_one_before_a_result(world: World) -> None:
    """The state of a result has the last wait in it, as that of an error has."""

    def longer(state: Any) -> float:
        return float(state.upcoming_sleep) * 2 or 1.0

    world.run(Pipeline(Retry(attempts=4, wait=longer, on=BY_RESULT)).wrap(world.function("bad")))

    assert world.clock.sleeps == [1, 2, 4]


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 1},
        {"idempotent": False},
        {"wait": 9, "within": 5},
        {"wait": lambda state: float("inf")},
        {"stop": tenacity.stop_after_attempt(1)},
    ],
    ids=str,
)
def test_a_result_that_is_not_asked_for_again(
    world: World, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It was the last attempt, the call was executed, or a wait ends it: returned quietly."""
    adjusted: list[Any] = []
    retry = Retry(
        on=BY_RESULT,
        adjust=lambda attempt, args, kwargs: adjusted.append(args) or (args, kwargs),
        **options,
    )

    assert world.run(Pipeline(retry).wrap(world.function("bad"))) == "bad"
    assert len(world.calls) == 1
    assert world.clock.sleeps == adjusted == []
    assert caplog.records == []


@pytest.mark.parametrize(
    "options",
    [
        {"on": BY_RESULT, "wait": lambda state: {}["secret"]},
        {"on": tenacity.retry_if_result(lambda result: {}["secret"])},
        {"on": BY_RESULT, "adjust": lambda attempt, args, kwargs: {}["secret"]},
    ],
    ids=["wait", "on", "adjust"],
)
@pytest.mark.fault(328)
def test_an_option_that_raises_after_a_result(
    world: World, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The result is returned, and the log says whose option raised what."""
    assert world.run(Pipeline(Retry(**options)).wrap(world.function("bad"))) == "bad"
    (record,) = caplog.records
    assert record.name == "resilience"
    assert record.getMessage() == f"Retry({[*options][-1]}=) raised KeyError"
    assert "secret" not in caplog.text


def test_a_filter_of_the_log_that_raises_after_a_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is returned all the same."""

    def broken(record: Any) -> bool:
        raise LookupError

    monkeypatch.setattr(logging.getLogger("resilience"), "filters", [broken])
    retry = Retry(on=BY_RESULT, wait=lambda state: 1 / 0)

    assert world.run(Pipeline(retry).wrap(world.function("bad"))) == "bad"


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_a_full_bulkhead_outside_lets_a_result_be_asked_for_again(world: World) -> None:
    """It is full of this very call."""
    full, fn = Bulkhead(1, queue=0), world.function("bad", "good")

    assert world.run(Pipeline(full, Retry(on=BY_RESULT, wait=0)).wrap(fn)) == "good"


if find_spec("tenacity.asyncio"):  # from 8.4 on; before that tenacity has none

    def test_tenacity_async_predicates_are_refused() -> None:
        """An async predicate's answer would always be true, so it is refused at construction."""
        from tenacity.asyncio import retry as predicates

        async def worth_it(error: BaseException) -> bool:
            return False

        for on in (
            predicates.retry_if_exception(worth_it),
            predicates.retry_if_result(worth_it),
            tenacity.retry_if_exception_type(OSError) | predicates.retry_if_exception(worth_it),
        ):
            with pytest.raises(TypeError, match=r"\bon\b"):
                Retry(on=on)


@pytest.mark.fault(67)
@pytest.mark.parametrize(
    "on", [lambda failure: 1 / 0, tenacity.retry_if_exception(lambda error: 1 / 0)]
)
def test_predicate_that_raises(world: World, on: Any) -> None:
    """The call's own error comes out; what the predicate raised is named in the note."""
    error = error_of(world, Pipeline(Retry(on=on)).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert len(world.calls) == 1
    assert "ZeroDivisionError" in note_of(error)


@pytest.mark.fault(328)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("on", lambda failure: 1 / 0),
        ("on", tenacity.retry_if_exception(lambda error: 1 / 0)),
        ("wait", lambda state: 1 / 0),
        ("wait", RetryAfter(otherwise=lambda state: 1 / 0)),
        ("stop", lambda state: 1 / 0),
        ("adjust", lambda attempt, args, kwargs: 1 / 0),
        ("idempotent", lambda *args: 1 / 0),
    ],
)
def test_the_note_names_the_policy_and_the_option(world: World, option: str, value: Any) -> None:
    """Of several policies with several functions, this one raised."""
    retry = Retry(**{"wait": 0, option: value})
    error = error_of(world, Pipeline(retry).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert note_of(error).endswith(f"Retry({option}=) raised ZeroDivisionError")


@pytest.mark.fault(328)
@pytest.mark.parametrize(
    ("policy", "whose"),
    [
        (ModelFallback("a", "b", on=lambda failure: 1 / 0), "ModelFallback"),
        (Fallback(1, on=lambda failure: 1 / 0), "Fallback"),
    ],
    ids=["chain", "fallback"],
)
def test_the_note_names_any_policy_whose_condition_raises(
    world: World, policy: Any, whose: str
) -> None:
    """`on=` is an option of several policies."""
    error = error_of(world, Pipeline(policy).wrap(world.function(ConnectionError)))

    assert note_of(error).endswith(f"{whose}(on=) raised ZeroDivisionError")


@pytest.mark.fault(328)
@pytest.mark.parametrize("option", ["on", "wait"])
def test_an_option_that_raises_over_a_rejection(world: World, option: str) -> None:
    """The rejection comes out."""

    def odd(state: Any) -> Any:
        raise LookupError

    breaker = CircuitBreaker(failures=1, reset_after=9)
    breaker.open()
    options = (
        {"on": tenacity.retry_if_exception(odd)}
        if option == "on"
        else {"on": RejectedError, "wait": odd}
    )
    error = error_of(world, Pipeline(Retry(**options), breaker).wrap(world.function("ok")))

    assert type(error) is CircuitOpenError
    assert world.calls == []


class SecondRejected(Policy):
    """Rejects the second call."""

    def __init__(self, retry_after: float | None = 1.0) -> None:
        self.retry_after = retry_after

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def second_rejected(call: Call) -> Any:
            if call.journal.attempts:
                raise RejectedError(self.retry_after)
            return await inner(call)

        return second_rejected


@pytest.mark.fault(328)
def test_a_predicate_that_raises_over_a_rejection_is_named(world: World) -> None:
    """In the note on the error of the attempt before it."""

    def odd(error: BaseException) -> bool:
        if isinstance(error, RejectedError):
            raise LookupError
        return True

    retry = Retry(wait=0, on=tenacity.retry_if_exception(odd))
    error = error_of(world, Pipeline(retry, SecondRejected()).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert note_of(error).endswith("Retry(on=) raised LookupError")


class Confused(Policy):
    """Does not know whether it would reject a call."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner

    def refuses(self, call: Call) -> bool:
        raise LookupError


@pytest.mark.fault(328)
def test_a_policy_further_in_that_raises_when_it_is_asked(world: World) -> None:
    """It ends the retrying; the call's own error comes out."""
    fn = Pipeline(Retry(wait=0), Confused()).wrap(world.function(ConnectionError))
    error = error_of(world, fn)

    assert type(error) is ConnectionError
    assert note_of(error).endswith("a policy further in raised LookupError")


# Calls that must not be repeated, and failures with a limit of their own


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ConnectionRefusedError(), 3),
        (rate_limit(sent=False), 3),
        (ConnectionResetError(), 1),
        (TimeoutError(), 1),
        (DescribedError(Advice.RETRY, Kind.SERVER, sent=True), 1),
        (DescribedError(Advice.RETRY, Kind.UNAVAILABLE, sent=None), 1),
    ],
)
def test_not_idempotent_retries_only_what_was_surely_not_executed(
    world: World, error: Exception, calls: int
) -> None:
    """With `idempotent=False` a request that may have been executed is not sent again."""
    error_of(world, Pipeline(Retry(idempotent=False)).wrap(world.function(error)))

    assert len(world.calls) == calls


@pytest.mark.parametrize(
    ("on", "calls"),
    [(TRANSIENT, 2), (Advice.RETRY, 2), (DescribedError, 5), (Kind.SERVER, 5), ("odd", 5)],
)
def test_retry_limit_holds_for_matches_by_advice(world: World, on: Any, calls: int) -> None:
    """A failure's own limit counts where `on` matched by advice, not where it named the error."""
    error = DescribedError(Advice.RETRY, Kind.SERVER, code="odd", retry_limit=1)
    error_of(world, Pipeline(Retry(attempts=5, on=on)).wrap(world.function(error)))

    assert len(world.calls) == calls


class ByKind(tenacity.retry_base):
    """A predicate of one's own, which looks at what the failure is taken for."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __call__(self, state: Any) -> bool:
        return state.failure.kind is self.kind


def test_a_predicate_of_ones_own_sees_what_the_failure_means(world: World) -> None:
    """In the state, beside what tenacity has there."""
    retry = Retry(on=ByKind(Kind.CONNECTION), wait=0)

    assert world.run(Pipeline(retry).wrap(world.function(ConnectionError, "ok"))) == "ok"
    assert type(error_of(world, Pipeline(retry).wrap(world.function(OSError, "ok")))) is OSError


@pytest.mark.parametrize(
    ("on", "waited"),
    [
        (CircuitOpenError, True),
        (Kind.REJECTED, True),
        (lambda failure: failure.kind is Kind.REJECTED, True),
        (tenacity.retry_if_exception_type(CircuitOpenError), True),
        (ByKind(Kind.REJECTED), True),
        ([Kind.REJECTED, Advice.RETRY], True),
        (TRANSIENT, False),
        (Exception, False),
        (~kind(Kind.TIMEOUT), False),
        (Advice.STOP, False),
        (tenacity.retry_if_exception_type(), False),
        (tenacity.retry_if_exception_type(ConnectionError), False),
    ],
)
@pytest.mark.parametrize("attempts", [2, None])
def test_a_rejection_is_waited_for_where_it_is_named(
    world: World, on: Any, waited: bool, attempts: int | None
) -> None:
    """Until its `retry_at`; who means any error does not mean a rejection."""
    breaker = CircuitBreaker(reset_after=9)
    breaker.open()
    fn = Pipeline(Retry(on=on, wait=1, attempts=attempts), breaker).wrap(world.function("ok"))
    if waited:
        assert world.run(fn) == "ok"
    else:
        assert type(error_of(world, fn)) is CircuitOpenError

    assert world.clock.sleeps == [9] * waited


def test_a_wait_sees_the_rejection(world: World) -> None:
    """As it sees an error: itself, and what it means."""
    seen: list[Any] = []

    def wait(state: Any) -> float:
        seen.append((type(state.outcome.exception()), state.failure.kind))
        return 12

    breaker = CircuitBreaker(reset_after=9)
    breaker.open()
    world.run(Pipeline(Retry(on=CircuitOpenError, wait=wait), breaker).wrap(world.function("ok")))

    assert seen == [(CircuitOpenError, Kind.REJECTED)]
    assert world.clock.sleeps == [12]


def test_a_rejection_of_which_nobody_knows_the_end_is_not_waited_for(world: World) -> None:
    """And nothing is said to have gone wrong."""
    retry = Retry(on=[Kind.CONNECTION, Kind.REJECTED], wait=0)
    fn = Pipeline(retry, SecondRejected(None)).wrap(world.function(ConnectionError))
    error = error_of(world, fn)

    assert type(error) is ConnectionError
    assert world.clock.sleeps == [0]
    assert "no retry" not in note_of(error)


@pytest.mark.fault(328)
@pytest.mark.parametrize(
    ("least", "problem"), [("five", "TypeError"), (5, "AttributeError")], ids=["itself", "other"]
)
def test_a_condition_that_raises_over_a_rejection_is_named(
    world: World, least: Any, problem: str
) -> None:
    """For the rejection itself, or for any other error, with which it is compared."""

    def soon(failure: Any) -> bool:
        return failure.kind is Kind.CONNECTION or failure.error.retry_after < least

    retry = Retry(on=soon, wait=0)
    error = error_of(world, Pipeline(retry, SecondRejected()).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert note_of(error).endswith(f"Retry(on=) raised {problem}")


def test_a_rejection_that_is_not_named_is_no_attempt(world: World) -> None:
    """A model whose circuit was open has all its attempts when its turn comes again."""
    breaker = CircuitBreaker(key="model", reset_after=7, on=TimeoutError)
    breaker.circuit("a").open()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=1, wait=0), breaker)
    error_of(world, pipeline.wrap(world.function(rate_limit(600), ConnectionError())))

    assert [kwargs["model"] for _, kwargs in world.calls] == ["b", "a"]
    assert world.clock.sleeps == [7]


@pytest.mark.parametrize(
    ("other", "asked", "slept"),
    [(None, ["a"], [9]), (20, ["a"], [9]), (9, ["b"], [9]), (4, ["b"], [4])],
)
def test_a_named_rejection_is_left_to_a_model_that_is_free_sooner(
    world: World, other: float | None, asked: list[str], slept: list[float]
) -> None:
    """Only to such a one: else it is waited for, as without a chain."""
    breakers = {"a": CircuitBreaker(reset_after=9), "b": CircuitBreaker(reset_after=other or 1)}
    breakers["a"].open()
    breakers["b"].isolate() if other is None else breakers["b"].open()
    retry = Retry(on=CircuitOpenError, wait=1)
    chain = ModelFallback("a", "b", per_model=lambda name: Pipeline(retry, breakers[name]))

    assert world.run(Pipeline(chain).wrap(world.function("ok"))) == "ok"
    assert [kwargs["model"] for _, kwargs in world.calls] == asked
    assert world.clock.sleeps == slept


def test_a_rejection_that_lasts_too_long_is_not_waited_for(world: World) -> None:
    """Also where it is named: the next attempt would come later than any may begin."""
    breaker = CircuitBreaker(reset_after=30)
    breaker.open()
    waiting = Retry(on=raised(CircuitOpenError), within=5)
    error = error_of(world, Pipeline(waiting, breaker).wrap(world.function("ok")))
    assert type(error) is CircuitOpenError
    assert world.clock.sleeps == []


@pytest.mark.parametrize("wait", [RetryAfter(), 1], ids=["default", "seconds"])
@pytest.mark.parametrize(("opens", "slept"), [(60, [60]), (61, [])])
def test_a_rejection_is_waited_for_a_minute_at_most(
    world: World, wait: Any, opens: float, slept: list[float]
) -> None:
    """Whatever the wait is."""
    world.clock.random = lambda: 0.0
    breaker = CircuitBreaker(reset_after=opens)
    breaker.open()
    fn = Pipeline(Retry(on=CircuitOpenError, wait=wait), breaker).wrap(world.function("ok"))
    if slept:
        assert world.run(fn) == "ok"
    else:
        assert type(error_of(world, fn)) is CircuitOpenError

    assert world.clock.sleeps == slept


def test_rejections_count_as_attempts_where_they_are_named(world: World) -> None:
    """And end with `attempts`, however soon the next one might be let through."""

    class Away(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def away(call: Call) -> Any:
                raise RejectedError(1.0)

            return away

    waiting = Retry(attempts=3, on=raised(RejectedError), wait=0)
    error = error_of(world, Pipeline(waiting, Away()).wrap(world.function("ok")))
    assert type(error) is RejectedError
    assert world.clock.sleeps == [1, 1]


def test_a_result_is_returned_where_no_other_can_be_had(world: World) -> None:
    """The circuit inside has opened meanwhile: to wait for its rejection would lose the result."""
    breaker = CircuitBreaker()

    def answer(*args: Any) -> str:
        breaker.open()
        return "poor"

    wanting = Retry(on=tenacity.retry_if_result(lambda result: result == "poor"), wait=1)
    assert world.run(Pipeline(wanting, breaker).wrap(world.function(answer))) == "poor"
    assert len(world.calls) == 1
    assert world.clock.sleeps == []


def test_retry_limits_are_counted_for_each_code(world: World) -> None:
    """Two different once-only failures get one retry each."""
    one = DescribedError(Advice.RETRY, Kind.SERVER, code="one", retry_limit=1)
    two = DescribedError(Advice.RETRY, Kind.SERVER, code="two", retry_limit=1)
    error = error_of(world, Pipeline(Retry(attempts=9)).wrap(world.function(one, two, one)))

    assert error is one
    assert len(world.calls) == 3


@pytest.mark.parametrize("on", [TRANSIENT, DeadlineExceededError])
def test_an_attempt_cut_by_a_timeout_is_retried(world: World, on: Any) -> None:
    """As often as any other, by default and where the error is named."""
    retry = Retry(attempts=5, wait=1, on=on)
    error = error_of(world, Pipeline(retry, Timeout(2)).wrap(world.function(Takes(10))))

    assert type(error) is DeadlineExceededError
    assert len(world.calls) == 5
