"""BadResult: a result that a check finds bad is a failure, for every policy outside it."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from typing import Any

import pytest
import tenacity

from conftest import Takes, World, async_worlds
from resilience import (
    BadResult,
    BadResultError,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    guarded,
    history,
    served_by,
)
from resilience.events import AttemptEnded, CallEnded
from resilience.failures import Advice, Failure, Kind
from resilience.matching import code, empty_answer, no_choices
from resilience.policy import Call, Inner, Policy, Runtime
from support.calling import error_of, message_of, passing
from support.errors import note_of
from support.functions import coloured
from support.twice import Twice


def is_bad(result: Any) -> bool:
    """Whether it says so itself."""
    return isinstance(result, str) and result.startswith("bad")


BUSY = Failure(Kind.OVERLOADED, Advice.WAIT, status=529, code="busy", retry_after=4.0)

# What comes of it


def test_a_bad_result_is_retried(world: World) -> None:
    """Until a good one comes; what the checks find good is returned as it is."""
    answer = object()
    fn = world.function("bad", "bad", answer)

    assert world.run(Pipeline(Retry(wait=1), BadResult(is_bad)).wrap(fn), 1, two=2) is answer
    assert world.calls == [((1,), {"two": 2})] * 3
    assert world.clock.sleeps == [1, 1]


@pytest.mark.fault(71)
def test_the_last_bad_result_is_returned(world: World) -> None:
    """Where nothing helps, the call returns what the function returned last."""
    fn = world.function("bad 1", "bad 2", "bad 3")

    assert world.run(Pipeline(Retry(wait=1), BadResult(is_bad)).wrap(fn)) == "bad 3"
    assert len(world.calls) == 3


@pytest.mark.fault(71)
def test_the_last_bad_result_is_raised_where_that_is_asked_for(world: World) -> None:
    """With "raise" as a BadResultError, which has the result and what it means."""
    fn = world.function("bad 1", "bad 2")
    pipeline = Pipeline(Retry(attempts=2, wait=1), BadResult(lambda r: BUSY, finally_="raise"))
    error = error_of(world, pipeline.wrap(fn))

    assert type(error) is BadResultError
    assert error.result == "bad 2"
    assert error.failure == BUSY
    assert [attempt.failure for attempt in history(error)] == [BUSY, BUSY]
    assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize("value", ["bad", None, 0, [], StopIteration()], ids=repr)
def test_any_bad_result_is_returned_as_itself(world: World, value: Any) -> None:
    """None and false ones too, and an exception that was returned is no exception raised."""
    fn = Pipeline(BadResult(lambda result: True)).wrap(world.function(lambda: value))

    assert world.run(fn) is value


@pytest.mark.parametrize(
    ("found", "kind", "advice"),
    [
        (True, Kind.UNKNOWN, Advice.RETRY),
        ("anything true", Kind.UNKNOWN, Advice.RETRY),
        (Advice.STOP, Kind.UNKNOWN, Advice.STOP),
        (Advice.FALLBACK, Kind.UNKNOWN, Advice.FALLBACK),
        (Kind.SERVER, Kind.SERVER, Advice.RETRY),
        (Kind.RATE_LIMIT, Kind.RATE_LIMIT, Advice.WAIT),
        (Kind.CONTEXT_LENGTH, Kind.CONTEXT_LENGTH, Advice.FALLBACK),
        (Kind.CONTENT_FILTER, Kind.CONTENT_FILTER, Advice.STOP),
        (BUSY, Kind.OVERLOADED, Advice.WAIT),
    ],
    ids=str,
)
def test_what_a_check_may_return(world: World, found: Any, kind: Kind, advice: Advice) -> None:
    """True, which nobody can read; or more: an advice, a kind, or a failure with all its facts."""
    fn = Pipeline(BadResult(lambda result: found)).wrap(world.function("odd"))
    outcome = world.run(guarded(fn).outcome)
    (attempt,) = outcome.attempts

    assert (attempt.failure.kind, attempt.failure.advice) == (kind, advice)
    assert attempt.failure.error is outcome.error
    if found is BUSY:
        assert attempt.failure == BUSY


@pytest.mark.parametrize(
    ("check", "result", "kind"),
    [
        (no_choices, "<html>Bad Gateway</html>", Kind.SERVER),
        (empty_answer, {"choices": [{"message": {"content": ""}}]}, Kind.UNKNOWN),
    ],
)
def test_what_the_checks_of_the_library_find(
    world: World, check: Any, result: Any, kind: Kind
) -> None:
    """No answer at all is the service's fault, an empty one nobody's: both are asked for once
    more."""
    pipeline = Pipeline(Retry(wait=1), BadResult(check))
    outcome = world.run(pipeline.outcome, world.function(result))

    assert [attempt.failure.kind for attempt in outcome.attempts] == [kind, kind]
    assert {attempt.failure.sent for attempt in outcome.attempts} == {True}


def test_true_means_what_the_result_itself_says(world: World) -> None:
    """An error body is the error that it tells of."""
    body = {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}
    pipeline = Pipeline(BadResult(lambda result: "error" in result))
    outcome = world.run(pipeline.outcome, world.function(body))

    assert [attempt.failure.kind for attempt in outcome.attempts] == [Kind.RATE_LIMIT]


@pytest.mark.parametrize("found", [False, None, 0, ""])
def test_what_is_false_is_a_good_result(world: World, found: Any) -> None:
    """Nothing is bad about it: one attempt, which went well."""
    outcome = world.run(
        Pipeline(Retry(), BadResult(lambda result: found)).outcome, world.function("fine")
    )

    assert (outcome.value, outcome.error) == ("fine", None)
    assert [attempt.failure for attempt in outcome.attempts] == [None]


def test_the_first_check_that_finds_something_decides(world: World) -> None:
    """Later ones are not asked."""
    asked: list[str] = []

    def check(name: str, found: Any) -> Any:
        return lambda result: (asked.append(name), found)[1]

    policy = BadResult(check("a", None), check("b", Kind.SERVER), check("c", Kind.QUOTA))
    outcome = world.run(Pipeline(policy).outcome, world.function("odd"))

    assert outcome.attempts[0].failure.kind is Kind.SERVER
    assert asked == ["a", "b"]


def test_two_of_them_are_both_asked(world: World) -> None:
    """The inner one first; each says what becomes of what it finds."""
    inner = BadResult(lambda result: result in ("odd", "bad and odd"), finally_="raise")
    pipeline = Pipeline(BadResult(is_bad), inner)
    fn = guarded(pipeline.wrap(world.function("bad", "odd", "bad and odd", "fine"))).outcome
    outcomes = [world.run(fn) for _ in range(4)]

    assert [outcome.value for outcome in outcomes] == ["bad", None, None, "fine"]
    assert [outcome.error and outcome.error.result for outcome in outcomes] == [
        "bad",
        "odd",
        "bad and odd",
        None,
    ]


# Retry


@pytest.mark.parametrize(
    ("on", "calls"),
    [(ConnectionError, 1), (BadResultError, 3), (529, 3), (code("busy"), 3), (Kind.QUOTA, 1)],
)
def test_on_sees_its_failure(world: World, on: Any, calls: int) -> None:
    """`on=` is asked about a bad result as about any failure."""
    pipeline = Pipeline(Retry(on=on, wait=1), BadResult(lambda result: BUSY))

    assert world.run(pipeline.wrap(world.function("odd"))) == "odd"
    assert len(world.calls) == calls


@pytest.mark.parametrize(
    ("found", "calls"),
    [
        (Advice.STOP, 1),
        (Advice.FALLBACK, 1),
        (Advice.RETRY, 3),
        (Failure(Kind.SERVER, Advice.RETRY, retry_limit=1), 2),
    ],
    ids=repr,
)
def test_its_advice_is_followed(world: World, found: Any, calls: int) -> None:
    """And so is the limit of a failure."""
    pipeline = Pipeline(Retry(wait=1), BadResult(lambda result: found))

    assert world.run(pipeline.wrap(world.function("odd"))) == "odd"
    assert len(world.calls) == calls


def test_the_wait_that_it_asks_for_is_waited(world: World) -> None:
    """As that of any server."""
    world.clock.random = lambda: 0.0
    fn = world.function("odd", "fine")
    checks = BadResult(lambda result: result == "odd" and BUSY)

    assert world.run(Pipeline(Retry(), checks).wrap(fn)) == "fine"
    assert world.clock.sleeps == [4.0]


def test_bad_results_and_errors_share_the_attempts(world: World) -> None:
    """They count against the same number."""
    fn = world.function("bad 1", ConnectionError, "bad 2", "late")

    assert world.run(Pipeline(Retry(), BadResult(is_bad)).wrap(fn)) == "bad 2"
    assert len(world.calls) == 3


def test_an_error_after_a_bad_result_comes_out(world: World) -> None:
    """It is the call's own last error; the note and the history tell of both."""
    fn = world.function("bad", ConnectionError())
    error = error_of(world, Pipeline(Retry(attempts=2, wait=0), BadResult(is_bad)).wrap(fn))

    assert type(error) is ConnectionError
    assert [attempt.failure.kind for attempt in history(error)] == [Kind.UNKNOWN, Kind.CONNECTION]
    assert "unknown, connection" in note_of(error)


def test_a_wait_that_does_not_fit_is_not_begun(world: World) -> None:
    """The bad result is returned at once; nor is `adjust` asked."""
    adjusted: list[Any] = []
    retry = Retry(
        within=5,
        wait=9,
        adjust=lambda attempt, args, kwargs: adjusted.append(args) or (args, kwargs),
    )

    assert world.run(Pipeline(retry, BadResult(is_bad)).wrap(world.function("bad"))) == "bad"
    assert len(world.calls) == 1
    assert world.clock.sleeps == adjusted == []


def test_adjust_sees_the_bad_result(world: World) -> None:
    """The failed attempt has the result in its failure's error, and chooses the next arguments."""

    def adjust(attempt: Any, args: Any, kwargs: Any) -> Any:
        return args, {"size": kwargs["size"] * 2, "after": attempt.failure.error.result}

    retry = Retry(wait=0, adjust=adjust)
    fn = world.function("bad 1", "bad 2", "fine")

    assert world.run(Pipeline(retry, BadResult(is_bad)).wrap(fn), size=1) == "fine"
    assert [kwargs for _, kwargs in world.calls] == [
        {"size": 1},
        {"size": 2, "after": "bad 1"},
        {"size": 4, "after": "bad 2"},
    ]


def test_a_wait_that_raises_does_not_lose_the_result(world: World) -> None:
    """A broken option of Retry ends the retrying, and the result is returned."""
    retry = Retry(wait=lambda state: 1 / 0)

    assert world.run(Pipeline(retry, BadResult(is_bad)).wrap(world.function("bad"))) == "bad"
    assert len(world.calls) == 1


@pytest.mark.fault(119)
@pytest.mark.parametrize(("sent", "calls"), [(None, 1), (True, 1), (False, 3)])
def test_a_call_that_must_not_be_repeated(world: World, sent: bool | None, calls: int) -> None:
    """A call that returned was executed, unless the check says that it surely was not."""
    failure = Failure(Kind.SERVER, Advice.RETRY, sent=sent)
    pipeline = Pipeline(Retry(idempotent=False), BadResult(lambda result: failure))

    assert world.run(pipeline.wrap(world.function("odd"))) == "odd"
    assert len(world.calls) == calls


@pytest.mark.parametrize("finally_", ["return", "raise"])
def test_a_bad_result_that_an_inner_retry_gave_up_on(world: World, finally_: str) -> None:
    """A guarded function outside sees a result, or an error whose retries are exhausted: neither
    is retried."""
    inner = Pipeline(Retry(wait=0), BadResult(is_bad, finally_=finally_))
    fn = Pipeline(Retry(wait=1)).wrap(passing(world, inner.wrap(world.function("bad"))))
    if finally_ == "return":
        assert world.run(fn) == "bad"
    else:
        assert type(error_of(world, fn)) is BadResultError

    assert len(world.calls) == 3
    assert 1 not in world.clock.sleeps


# Chains of models, and the last resort


def test_a_chain_goes_on_after_a_bad_result(world: World) -> None:
    """Another model may do better."""
    pipeline = Pipeline(ModelFallback("a", "b"), BadResult(is_bad))
    outcome = world.run(pipeline.outcome, world.function("bad", "fine"))

    assert (outcome.value, outcome.served_by, outcome.degraded) == ("fine", "b", True)
    assert [attempt.model for attempt in outcome.attempts] == ["a", "b"]


@pytest.mark.parametrize(("found", "models"), [(Advice.FALLBACK, ["a", "b"]), (Advice.STOP, ["a"])])
def test_a_chain_follows_the_advice(world: World, found: Advice, models: list[str]) -> None:
    """FALLBACK is not retried with the same model, STOP with none; the last result is returned."""
    policies = ModelFallback("a", "b"), Retry(wait=1), BadResult(lambda result: found)
    fn = world.function("first", "second")

    assert world.run(Pipeline(*policies).wrap(fn)) == ("second" if "b" in models else "first")
    assert [kwargs["model"] for _, kwargs in world.calls] == models
    assert world.clock.sleeps == []


def test_no_model_has_served_a_bad_result() -> None:
    """What comes back is nobody's answer."""
    assert Pipeline(ModelFallback("a"), BadResult(is_bad)).call(lambda model: "bad") == "bad"
    assert served_by() is None


@pytest.mark.parametrize("finally_", ["return", "raise"])
def test_a_fallback_replaces_a_bad_result(world: World, finally_: str) -> None:
    """Whatever would have become of it."""
    pipeline = Pipeline(Fallback("sorry"), Retry(wait=1), BadResult(is_bad, finally_=finally_))
    outcome = world.run(pipeline.outcome, world.function("bad"))

    assert (outcome.value, outcome.error, outcome.degraded) == ("sorry", None, True)
    assert len(outcome.attempts) == 3


def test_a_fallback_that_leaves_bad_results_out(world: World) -> None:
    """`on=` decides, and the result is returned."""
    pipeline = Pipeline(Fallback("sorry", on=ConnectionError), BadResult(is_bad))

    assert world.run(pipeline.wrap(world.function("bad"))) == "bad"


def test_a_function_of_a_fallback_gets_the_result(world: World) -> None:
    """In the failure's error."""
    fallback = Fallback(call=lambda failure: f"{failure.error.result}, {failure.code}")
    fn = Pipeline(fallback, BadResult(lambda result: BUSY)).wrap(world.function("odd"))

    assert world.run(fn) == "odd, busy"


# Breakers


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (True, "closed"),
        (Advice.RETRY, "closed"),
        (Kind.QUOTA, "closed"),
        (Kind.SERVER, "open"),
        (BUSY, "open"),
    ],
    ids=str,
)
def test_a_breaker_counts_what_it_can_read(world: World, found: Any, state: str) -> None:
    """True is no verdict, as a check of the length must not open circuits; a service's fault is."""
    breaker = CircuitBreaker(failures=1)
    fn = Pipeline(breaker, BadResult(lambda result: found)).wrap(world.function("odd"))

    assert world.run(fn) == "odd"
    assert breaker.state == state


def test_a_bad_result_that_is_no_verdict_ends_no_run_of_failures(world: World) -> None:
    """It is no success either."""
    breaker = CircuitBreaker(failures=2)
    fn = Pipeline(breaker, BadResult(is_bad)).wrap(
        world.function(ConnectionError, "bad", ConnectionError)
    )
    error_of(world, fn)
    assert world.run(fn) == "bad"
    error_of(world, fn)

    assert breaker.state == "open"


def test_the_circuit_that_a_bad_result_opens_ends_the_retrying(world: World) -> None:
    """No wait; the result is returned, and the next call is rejected with it as the cause."""
    breaker = CircuitBreaker(failures=1)
    pipeline = Pipeline(Retry(wait=1), breaker, BadResult(lambda result: BUSY))
    fn = pipeline.wrap(world.function("odd"))

    assert world.run(fn) == "odd"
    assert world.clock.sleeps == []
    error = error_of(world, fn)
    assert type(error) is CircuitOpenError
    assert type(error.__cause__) is BadResultError
    assert len(world.calls) == 1


@pytest.mark.parametrize(
    ("found", "state"), [(Kind.SERVER, "open"), (True, "half-open"), (None, "closed")]
)
def test_a_trial_with_a_bad_result(world: World, found: Any, state: str) -> None:
    """A trial fails by a bad result that counts; one that is no verdict gives its slot back."""
    breaker = CircuitBreaker(reset_after=5)
    breaker.open()
    world.clock.advance(5)
    fn = Pipeline(breaker, BadResult(lambda result: found)).wrap(world.function("odd"))

    assert world.run(fn) == "odd"
    assert breaker.state == state


@pytest.mark.parametrize("finally_", ["return", "raise"])
def test_a_rejection_after_a_bad_result_gives_the_result(world: World, finally_: str) -> None:
    """The call was made, and its own last failure is what comes of it."""
    breaker = CircuitBreaker()

    def meanwhile(attempt: Any, args: Any, kwargs: Any) -> Any:
        breaker.open()
        return args, kwargs

    retry = Retry(adjust=meanwhile, wait=1)
    pipeline = Pipeline(retry, breaker, BadResult(is_bad, finally_=finally_))
    fn = pipeline.wrap(world.function("bad"))
    if finally_ == "return":
        assert world.run(fn) == "bad"
    else:
        assert error_of(world, fn).result == "bad"

    assert len(world.calls) == 1


# Time limits


@pytest.mark.parametrize("inside", [True, False])
def test_it_may_stand_inside_or_outside_of_an_attempts_limit(world: World, inside: bool) -> None:
    """A cut attempt has no result to look at, and is retried as such."""
    pair: list[Any] = [Timeout(2), BadResult(is_bad)]
    pipeline = Pipeline(Retry(wait=1), *(pair if inside else reversed(pair)))
    outcome = world.run(pipeline.outcome, world.function("bad", Takes(9), "fine"))

    assert outcome.value == "fine"
    assert [a.failure and a.failure.kind for a in outcome.attempts] == [
        Kind.UNKNOWN,
        Kind.TIMEOUT,
        None,
    ]


def test_a_limit_that_ends_a_later_attempt(world: World) -> None:
    """Time ran out while an attempt ran: that comes out, not the bad result before it."""
    fn = world.function("bad", Takes(9))
    error = error_of(world, Pipeline(Timeout(5), Retry(wait=1), BadResult(is_bad)).wrap(fn))

    assert type(error) is DeadlineExceededError
    assert [a.failure.kind for a in history(error)] == [Kind.UNKNOWN, Kind.TIMEOUT]


# What is told


def test_the_outcome_has_the_result_and_the_error(world: World) -> None:
    """The value that the call would have returned, and why it is no good one."""
    pipeline = Pipeline(Retry(attempts=2, wait=1), BadResult(lambda result: BUSY))
    outcome = world.run(pipeline.outcome, world.function("odd 1", "odd 2"))

    assert outcome.value == "odd 2"
    assert type(outcome.error) is BadResultError
    assert outcome.error.result == "odd 2"
    assert outcome.error.failure == BUSY
    assert outcome.unwrap() == "odd 2"
    assert [attempt.failure for attempt in outcome.attempts] == [BUSY, BUSY]
    assert [a.failure.error is outcome.error for a in history(outcome.error)] == [False, True]


def test_the_outcome_of_one_that_is_raised_has_no_value(world: World) -> None:
    """The result is in the error."""
    outcome = world.run(
        Pipeline(BadResult(is_bad, finally_="raise")).outcome, world.function("bad")
    )

    assert outcome.value is None
    assert type(outcome.error) is BadResultError
    assert outcome.error.result == "bad"
    assert message_of(BadResultError, outcome.unwrap)


def test_events_tell_of_it(world: World) -> None:
    """The attempt has failed, and so has the call, though it returns."""
    events: list[Any] = []
    pipeline = Pipeline(BadResult(lambda result: BUSY), listeners=[events.append])

    assert world.run(pipeline.wrap(world.function("odd"))) == "odd"
    (attempt,) = [event for event in events if type(event) is AttemptEnded]
    (call,) = [event for event in events if type(event) is CallEnded]
    assert attempt.attempt.failure == BUSY
    assert type(call.error) is BadResultError
    assert "odd" not in repr(events)


def test_the_note_tells_of_it(world: World) -> None:
    """By its code, where there is one."""
    pipeline = Pipeline(Retry(attempts=2, wait=0), BadResult(lambda r: BUSY, finally_="raise"))

    assert "busy, busy" in note_of(error_of(world, pipeline.wrap(world.function("odd"))))


@pytest.mark.fault(116)
def test_the_result_stays_out_of_texts() -> None:
    """It may be a secret, or endless."""
    error = BadResultError("secret", BUSY)

    assert "secret" not in repr(error)
    assert "secret" not in str(error)
    assert "busy" in str(error)


@pytest.mark.parametrize("result", [{"error": "no"}, threading.Lock()], ids=["plain", "lock"])
@pytest.mark.parametrize("cause", [None, ConnectionError(threading.Lock())], ids=["", "cause"])
def test_the_error_pickles_and_copies(result: Any, cause: Exception | None) -> None:
    """Without a result that does not pickle, and without what the failure was read from."""
    failure = Failure(Kind.OVERLOADED, Advice.WAIT, status=529, error=cause)
    error = BadResultError(result, failure)
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is BadResultError
    assert again.failure == failure
    assert again.failure.error is None
    assert again.result == (result if type(result) is dict else None)
    copied = copy.copy(error)
    assert copied.result is result
    assert copied.failure is failure
    deep = copy.deepcopy(error)
    assert deep.result == again.result
    assert deep.failure == failure


def test_an_error_that_came_out_pickles(world: World) -> None:
    """With its history and its note."""
    pipeline = Pipeline(Retry(wait=1), BadResult(is_bad, finally_="raise"))
    error = error_of(world, pipeline.wrap(world.function("bad")))
    again = pickle.loads(pickle.dumps(error))

    assert again.result == "bad"
    assert len(history(again)) == 3
    assert note_of(again) == note_of(error)


# Checks that fail


class NeitherNor:
    """Is neither true nor false, as a column of a data frame."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


@pytest.mark.parametrize(
    ("check", "problem"),
    [(lambda result: {}["secret"], "KeyError"), (lambda result: NeitherNor(), "ValueError")],
    ids=["raises", "truth"],
)
def test_a_check_that_raises_takes_the_result_for_good(
    world: World, check: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A result is not lost because the question about it failed; the log says so, by the class."""
    fn = Pipeline(Retry(), BadResult(check)).wrap(world.function("fine"))
    with caplog.at_level(logging.WARNING, "resilience"):
        assert world.run(fn) == "fine"

    assert len(world.calls) == 1
    (record,) = caplog.records
    assert record.name == "resilience"
    assert record.getMessage() == f"BadResult raised {problem}"
    assert "secret" not in caplog.text


def test_the_checks_after_one_that_raises_are_asked(world: World) -> None:
    """One broken check does not switch off the others."""
    outcome = world.run(
        Pipeline(BadResult(lambda result: 1 / 0, is_bad)).outcome, world.function("bad")
    )

    assert type(outcome.error) is BadResultError


def test_ctrl_c_in_a_check_passes(world: World) -> None:
    """What is no `Exception` is nobody's to handle."""

    def interrupted(result: Any) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.run(Pipeline(Retry(), BadResult(interrupted)).wrap(world.function("fine")))
    assert len(world.calls) == 1


# Shapes of calls


@async_worlds
def test_the_result_of_an_awaitable_is_looked_at(world: World) -> None:
    """Of a function that is not known to be async too, which hands its call over to async mode."""
    fn = world.function("bad", "fine")
    seen: list[Any] = []

    def check(result: Any) -> bool:
        seen.append(result)
        return is_bad(result)

    async def main() -> Any:
        return await Pipeline(Retry(wait=1), BadResult(check)).call(lambda: fn())

    assert world.run(main) == "fine"
    assert seen == ["bad", "fine"]


def test_guarded_functions_inside_one_another(world: World) -> None:
    """A bad result that is given back is a result to the one outside, which has its own checks."""
    inner = Pipeline(BadResult(is_bad)).wrap(world.function("bad", "fine"))

    assert world.run(Pipeline(Retry(wait=1)).wrap(passing(world, inner))) == "bad"
    again = Pipeline(BadResult(is_bad)).wrap(world.function("bad", "fine"))
    outer = Pipeline(Retry(wait=1), BadResult(is_bad)).wrap(passing(world, again))
    assert world.run(outer) == "fine"


def test_a_nested_pipeline_is_part_of_the_whole(world: World) -> None:
    """The result is given back where the outermost pipeline ends."""
    pipeline = Pipeline(Retry(wait=1), Pipeline(CircuitBreaker(), BadResult(is_bad)))

    assert world.run(pipeline.wrap(world.function("bad", "fine"))) == "fine"


def test_a_block_has_no_result(world: World) -> None:
    """It is refused: every end of a block would be looked at as None."""
    pipeline = Pipeline(Retry(), BadResult(is_bad))

    def main() -> None:
        for _ in pipeline.attempts():
            raise AssertionError

    async def amain() -> None:
        async for _ in pipeline.attempts():
            raise AssertionError

    error = error_of(world, amain if world.asynchronous else main)
    assert type(error) is TypeError
    assert "result" in str(error)


def test_two_attempts_at_once_have_their_own_results(world: World) -> None:
    """What is let go for the next attempt of one is not the result of the other."""

    def answer() -> str:
        return f"bad {current_attempt().model}"

    check = BadResult(lambda result: Advice.RETRY if result == "bad one" else Advice.STOP)
    pipeline = Pipeline(Twice("one", "two"), Retry(attempts=3, wait=0), check)
    outcome = world.run(pipeline.outcome, coloured(world, answer))

    assert outcome.value == "bad two"
    assert sorted(attempt.model for attempt in outcome.attempts) == ["one"] * 3 + ["two"]


class Again(Policy):
    """Calls a second time whatever came of the first."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def again(call: Call) -> Any:
            await inner(call)
            return await inner(call)

        return again


def test_an_attempt_after_a_good_one(world: World) -> None:
    """Each result is looked at, though a good attempt leaves no record."""
    fn = Pipeline(Again(), BadResult(is_bad, finally_="raise")).wrap(
        world.function("fine 1", "fine 2", "fine 3", "bad")
    )

    assert world.run(fn) == "fine 2"
    assert error_of(world, fn).result == "bad"


def test_a_good_result_of_which_another_is_wanted(world: World) -> None:
    """An attempt that went well, and that another one follows, has no result to let go."""
    wanting = Retry(on=tenacity.retry_if_result(lambda result: result == "poor"), wait=1)
    fn = Pipeline(wanting, BadResult(is_bad)).wrap(world.function("poor", "bad"))

    assert world.run(fn) == "bad"
    assert len(world.calls) == 2


def test_methods_keep_their_self(world: World) -> None:
    """Only the result is looked at, never the arguments."""

    class Bot:
        def chat(self, prompt: str) -> str:
            return f"bad {prompt}"

    bot = Bot()
    fn = Pipeline(BadResult(is_bad)).wrap(coloured(world, bot.chat))

    assert world.run(fn, "hi") == "bad hi"


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (BadResult(is_bad), "BadResult(is_bad)"),
        (BadResult(is_bad, len, finally_="raise"), "BadResult(is_bad, len, finally_='raise')"),
    ],
)
def test_repr(policy: BadResult, text: str) -> None:
    """It reads like the code that makes it."""
    assert repr(policy) == text
