"""Bad settings are refused where they are made, with field, rule and value."""

from __future__ import annotations

import asyncio
import functools
import re
from datetime import timedelta
from typing import Any

import pybreaker
import pytest
import tenacity

from resilience import (
    BadResult,
    Bulkhead,
    CircuitBreaker,
    Consecutive,
    FailureRate,
    Fallback,
    IdempotencyKey,
    Model,
    ModelFallback,
    Pipeline,
    RateLimit,
    Retry,
    SingleFlight,
    SlowCalls,
    Timeout,
    resilient,
)
from resilience.waits import Decorrelated, Exponential, Fixed, FullJitter, Linear, RetryAfter

INF, NAN = float("inf"), float("nan")
MODELS = functools.partial(ModelFallback, "a")
FALLBACK = functools.partial(Fallback, 1)
RATE = functools.partial(FailureRate, 0.5)
BAD_RESULT = functools.partial(BadResult, print)

SECONDS = [
    (True, TypeError),
    ("5", TypeError),
    ([5], TypeError),
    (5j, TypeError),
    (NAN, ValueError),
    (INF, ValueError),
    (-INF, ValueError),
    (-1, ValueError),
    (-0.001, ValueError),
    (timedelta(seconds=-1), ValueError),
]
COUNT = [
    (0, ValueError),
    (-1, ValueError),
    (True, TypeError),
    ("3", TypeError),
    (1.5, TypeError),
    (3.0, TypeError),
    (NAN, TypeError),
    (INF, TypeError),
    ([3], TypeError),
]
SHARE = [
    (True, TypeError),
    ("0.5", TypeError),
    (None, TypeError),
    (NAN, ValueError),
    (INF, ValueError),
    (-0.1, ValueError),
]
FUNCTION = [(3, TypeError), ("text", TypeError), (True, TypeError), (int, TypeError)]
FLAG = [(1, TypeError), (0, TypeError), (None, TypeError), ("yes", TypeError)]
TEXT = [(3, TypeError), (True, TypeError), (b"x", TypeError), ("", ValueError)]
ON = [
    (None, TypeError),
    (3.5, TypeError),
    (True, TypeError),
    (ConnectionError(), TypeError),
    (int, TypeError),
    ([], ValueError),
    ([3.5], TypeError),
    ([ConnectionError, None], TypeError),
    ("", ValueError),
    (42, ValueError),
    (1000, ValueError),
    (range(3), ValueError),
    ({"a": 1}, TypeError),
    (asyncio.CancelledError, ValueError),
    (KeyboardInterrupt, ValueError),
    (SystemExit, ValueError),
    (GeneratorExit, ValueError),
    (BaseException, ValueError),
    ([ConnectionError, asyncio.CancelledError], ValueError),
    ([[KeyboardInterrupt]], ValueError),
]


async def _async(*args: Any) -> bool:
    return True


def bad_result(checks: Any) -> BadResult:
    """With one check."""
    return BadResult(checks)


OPTIONS: list[tuple[Any, str, list[tuple[Any, type[Exception]]]]] = [
    (Retry, "attempts", COUNT),
    (Retry, "on", [*ON, (_async, TypeError)]),
    (Retry, "wait", [*SECONDS, (None, TypeError), (Exponential, TypeError)]),
    (Retry, "within", [*SECONDS, (0, ValueError)]),
    (Retry, "stop", [(5, TypeError), (True, TypeError), (tenacity.stop_after_delay, TypeError)]),
    (Retry, "adjust", [*FUNCTION, (_async, TypeError)]),
    (Retry, "patience", SECONDS),
    (Retry, "idempotent", [*FLAG, (int, TypeError), (_async, TypeError)]),
    (Retry, "retry_exhausted", FLAG),
    (bad_result, "checks", [*FUNCTION, (None, TypeError), (_async, TypeError)]),
    (BAD_RESULT, "finally_", [("stop", ValueError), *TEXT, (None, TypeError)]),
    (CircuitBreaker, "failures", [*COUNT, (None, TypeError)]),
    (CircuitBreaker, "reset_after", [*SECONDS, (0, ValueError), (None, TypeError)]),
    (CircuitBreaker, "trials", [*COUNT, (None, TypeError)]),
    (CircuitBreaker, "successes", [*COUNT, (None, TypeError)]),
    (CircuitBreaker, "tolerate", [*SHARE, (1, ValueError)]),
    (CircuitBreaker, "trial_timeout", [*SECONDS, (0, ValueError)]),
    (CircuitBreaker, "wait_for_trial", [*SECONDS, (0, ValueError)]),
    (CircuitBreaker, "ramp", [*SECONDS, (0, ValueError)]),
    (CircuitBreaker, "keep", [*COUNT, (None, TypeError)]),
    (CircuitBreaker, "forget_after", [*SECONDS, (0, ValueError), (None, TypeError)]),
    (Consecutive, "number", [*COUNT, (None, TypeError)]),
    (FailureRate, "ratio", [*SHARE, (0, ValueError), (1.01, ValueError)]),
    (RATE, "window", [*SECONDS, (0, ValueError)]),
    (RATE, "calls", COUNT),
    (RATE, "minimum", [*COUNT, (None, TypeError)]),
    (SlowCalls, "longer_than", [*SECONDS, (0, ValueError), (None, TypeError)]),
    (functools.partial(SlowCalls, 1), "ratio", [*SHARE, (0, ValueError)]),
    (CircuitBreaker, "on", [*ON, (_async, TypeError)]),
    (CircuitBreaker, "key", [(3, TypeError), ("", ValueError), (str, TypeError)]),
    (CircuitBreaker, "name", TEXT),
    (
        CircuitBreaker,
        "storage",
        [
            (3, TypeError),
            ("redis://x", TypeError),
            (pybreaker.CircuitMemoryStorage, TypeError),
            (lambda key: None, TypeError),
        ],
    ),
    (CircuitBreaker, "listeners", [(3, TypeError), ([print], TypeError), ("text", TypeError)]),
    (CircuitBreaker, "refresh", [*SECONDS, (None, TypeError)]),
    (MODELS, "on", ON),
    (MODELS, "argument", [*TEXT, (None, TypeError)]),
    (MODELS, "per_model", [*SECONDS, (0, ValueError), (Retry, TypeError)]),
    (FALLBACK, "on", ON),
    (functools.partial(Fallback), "call", FUNCTION),
    (Timeout, "seconds", [*SECONDS, (0, ValueError), (None, TypeError), (int, TypeError)]),
    (functools.partial(Timeout, 5), "pass_as", TEXT),
    (IdempotencyKey, "header", [*TEXT, (None, TypeError)]),
    (IdempotencyKey, "argument", TEXT),
    (
        SingleFlight,
        "key",
        [(3, TypeError), ("", ValueError), (str, TypeError), (_async, TypeError)],
    ),
    (functools.partial(Model, "a"), "call", FUNCTION),
    (Fixed, "seconds", [*SECONDS, (None, TypeError)]),
    (Linear, "initial", SECONDS),
    (Linear, "step", SECONDS),
    (Linear, "max", SECONDS),
    (Exponential, "initial", SECONDS),
    (Exponential, "factor", [*SHARE, (0.9, ValueError)]),
    (Exponential, "max", SECONDS),
    (Exponential, "jitter", [*SHARE, (1.01, ValueError)]),
    (FullJitter, "initial", SECONDS),
    (FullJitter, "factor", [*SHARE, (0, ValueError)]),
    (FullJitter, "max", SECONDS),
    (Decorrelated, "initial", SECONDS),
    (Decorrelated, "max", SECONDS),
    (RetryAfter, "otherwise", [*SECONDS, (None, TypeError), (Exponential, TypeError)]),
    (RetryAfter, "longest", [*SECONDS, (None, TypeError)]),
    (RetryAfter, "too_long", [("never", ValueError), (None, TypeError), (True, TypeError)]),
    (RetryAfter, "spread", SHARE),
    (Pipeline, "asynchronous", [(1, TypeError), ("yes", TypeError)]),
    (Pipeline, "name", TEXT),
    (Pipeline, "listeners", [(3, TypeError), ([3], TypeError)]),
    (resilient, "asynchronous", [(1, TypeError), ("yes", TypeError)]),
    (resilient, "name", TEXT),
    (resilient, "listeners", [(3, TypeError), ([3], TypeError)]),
]


def _named(make: Any) -> str:
    return str(getattr(getattr(make, "func", make), "__name__", make))


def _shown(value: Any) -> str:
    return str(getattr(value, "__name__", repr(value)[:40]))


@pytest.mark.fault(72, 73, 74)
@pytest.mark.parametrize(
    ("make", "field", "value", "error"),
    [
        pytest.param(make, field, value, error, id=f"{_named(make)}-{field}-{_shown(value)}")
        for make, field, values in OPTIONS
        for value, error in values
    ],
)
def test_bad_values(make: Any, field: str, value: Any, error: Any) -> None:
    """Every bad value is refused at construction; the message names the field and the value."""
    with pytest.raises(error) as info:
        make(**{field: value})

    assert type(info.value) is error
    message = str(info.value)
    assert re.search(rf"\b{field}\b", message)
    shown = value
    while isinstance(shown, list) and shown:
        shown = shown[-1]
    names = [repr(shown), repr(value), str(getattr(shown, "__qualname__", None))]
    if value == []:
        names.append("()")
    if isinstance(shown, BaseException):
        names.append(type(shown).__qualname__)
    assert any(name in message for name in names), message
    assert "must" in message


@pytest.mark.fault(73)
def test_a_number_too_large_for_a_float() -> None:
    """A whole number that no float holds is refused without printing its digits."""
    with pytest.raises(ValueError, match=r"^factor .*large"):
        Exponential(factor=10**400)


@pytest.mark.fault(78)
@pytest.mark.parametrize(
    ("make", "typo", "meant"),
    [
        (Retry, "attempt", "attempts"),
        (Retry, "max_attempt", "attempts"),
        (Retry, "waits", "wait"),
        (Retry, "idempotant", "idempotent"),
        (CircuitBreaker, "failure", "failures"),
        (CircuitBreaker, "reset_afer", "reset_after"),
        (CircuitBreaker, "listener", "listeners"),
        (MODELS, "per_modell", "per_model"),
        (MODELS, "arguments", "argument"),
        (FALLBACK, "cal", "call"),
        (BAD_RESULT, "finaly", "finally_"),
        (functools.partial(Timeout, 5), "pass_ass", "pass_as"),
        (Timeout, "second", "seconds"),
        (Fixed, "second", "seconds"),
        (Linear, "initials", "initial"),
        (Exponential, "jiter", "jitter"),
        (FullJitter, "factors", "factor"),
        (Decorrelated, "maxx", "max"),
        (RetryAfter, "longes", "longest"),
        (Pipeline, "nam", "name"),
        (Pipeline, "listener", "listeners"),
        (resilient, "asynchronus", "asynchronous"),
        (resilient, "names", "name"),
    ],
)
def test_a_typo_suggests_the_right_option(make: Any, typo: str, meant: str) -> None:
    """An unknown option is a TypeError that names it and suggests the one that was meant."""
    with pytest.raises(TypeError) as info:
        make(**{typo: 1})

    assert repr(typo) in str(info.value)
    assert repr(meant) in str(info.value)


def test_failures_and_trip_exclude_each_other() -> None:
    """Both say when to open: one of them, and the message names both."""
    with pytest.raises(ValueError, match=r"failures=3, trip=Consecutive"):
        CircuitBreaker(failures=3, trip=Consecutive(3))
    with pytest.raises(TypeError, match=r"^trip .* 5$"):
        CircuitBreaker(trip=5)


@pytest.mark.fault(74)
@pytest.mark.parametrize(
    "make",
    [
        lambda: FailureRate(0.5, calls=10, minimum=20),
        lambda: FailureRate(0.5, calls=10, minimum=11),
        lambda: SlowCalls(1, 0.5, calls=19, minimum=20),
    ],
)
def test_a_rule_that_can_never_open(make: Any) -> None:
    """More calls wanted than the window holds: refused, naming both."""
    with pytest.raises(ValueError, match=r"^minimum .*\bcalls \(1\d\)"):
        make()


def test_a_small_window_needs_no_more_calls_than_it_holds() -> None:
    """The minimum is 20 where nobody says otherwise, or all calls of a smaller window."""
    assert [FailureRate(0.5, calls=calls).minimum for calls in (None, 100, 20, 10)] == [20] * 3 + [
        10
    ]
    assert SlowCalls(1, calls=3).minimum == 3
    assert repr(FailureRate(0.5, calls=10)) == "FailureRate(0.5, calls=10)"


@pytest.mark.fault(74)
def test_a_window_by_time_and_by_number() -> None:
    """A window goes by one of the two."""
    with pytest.raises(ValueError, match=r"\bwindow\b.*\bcalls\b"):
        FailureRate(0.5, window=60, calls=100)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (functools.partial(CircuitBreaker, tolerate=0.2), "successes"),
        (RateLimit, "requests"),
        (RateLimit, "tokens"),
        (Bulkhead, "limit"),
    ],
)
def test_a_count_that_no_float_holds_is_refused(make: Any, field: str) -> None:
    """By name, not by an OverflowError from within."""
    with pytest.raises(ValueError, match=f"^{field} must be finite, got an integer too large"):
        make(**{field: 10**400})


def test_as_many_successes_as_a_float_holds() -> None:
    breaker = CircuitBreaker(successes=int(1e308), tolerate=0.9)
    assert breaker.state == "closed"


@pytest.mark.fault(74)
def test_a_tolerance_that_tolerates_nothing() -> None:
    """A share of failing trials that is less than one trial is refused."""
    with pytest.raises(ValueError, match=r"tolerate=0\.2.*successes=3"):
        CircuitBreaker(successes=3, tolerate=0.2)
    CircuitBreaker(successes=4, tolerate=0.2)


def test_rules_read_like_the_code_that_makes_them() -> None:
    """Joined rules print as they were joined."""
    rule = Consecutive(3) | FailureRate(0.5, window=30) | SlowCalls(10, 0.8, calls=50, minimum=5)
    assert repr(rule) == (
        "Consecutive(3) | FailureRate(0.5, window=30) | SlowCalls(10, 0.8, calls=50, minimum=5)"
    )
    with pytest.raises(TypeError):
        rule | 3


def test_an_option_like_nothing_lists_what_there_is() -> None:
    """Where nothing is near, the message says what options there are."""
    with pytest.raises(TypeError, match=r"'zzz'.*\battempts, on, wait\b"):
        Retry(zzz=1)


@pytest.mark.fault(74)
@pytest.mark.parametrize(
    "make",
    [
        lambda: Exponential(initial=60),
        lambda: Exponential(2, max=1),
        lambda: Linear(initial=60),
        lambda: FullJitter(initial=60),
        lambda: Decorrelated(initial=60),
    ],
)
def test_a_first_wait_above_the_cap(make: Any) -> None:
    """A backoff that starts above its own cap would silently be another one: ValueError."""
    with pytest.raises(ValueError, match=r"initial.*max|max.*initial"):
        make()


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ModelFallback(), ValueError, "at least one"),
        (lambda: ModelFallback("a", "b", "a"), ValueError, "'a' twice"),
        (lambda: ModelFallback("a", Model("a", x=1)), ValueError, "'a' twice"),
        (lambda: ModelFallback("a", None), ValueError, "None"),
        (lambda: ModelFallback(None), ValueError, "None"),
        (lambda: ModelFallback(""), ValueError, "empty"),
        (lambda: ModelFallback(["a", "b"]), TypeError, r"\['a', 'b'\]"),
        (lambda: ModelFallback(3), TypeError, "3"),
        (lambda: ModelFallback(ModelFallback("a")), TypeError, "names or Model"),
        (lambda: ModelFallback(Model), TypeError, "names or Model"),
        (lambda: ModelFallback(print), TypeError, "names or Model"),
        (lambda: ModelFallback(Model("a", model="b")), ValueError, "must not override 'model'"),
        (
            lambda: ModelFallback(Model("a", engine="b"), argument="engine"),
            ValueError,
            "must not override 'engine'",
        ),
        (lambda: Model(""), ValueError, "name must not be empty"),
        (lambda: Model("a", account=""), ValueError, "account must not be empty"),
        (lambda: Model("a", account=3), TypeError, "account must be a string, got 3"),
        (lambda: MODELS(rounds=0), ValueError, "rounds"),
        (lambda: MODELS(rounds=True), TypeError, "rounds"),
        (lambda: MODELS(rounds=None), TypeError, "rounds"),
        (lambda: MODELS(raise_first=1), TypeError, "raise_first"),
        (lambda: Retry(patience=-1), ValueError, "patience"),
        (lambda: Retry(patience=None), TypeError, "patience"),
        (lambda: Retry(patience="5"), TypeError, "patience"),
        (lambda: Model(3), TypeError, "name must be a string, got 3"),
        (lambda: Model(None), TypeError, "name must be a string, got None"),
    ],
)
def test_bad_chains(make: Any, error: Any, message: str) -> None:
    """Empty, repeated, nameless or nested models are refused, and say why."""
    with pytest.raises(error, match=message):
        make()


def test_one_name_with_two_functions_is_two_models() -> None:
    """The same model at two clients is a chain, not a repetition."""
    assert len(ModelFallback("a", Model("a", call=print)).models) == 2
    assert len(ModelFallback("a", Model("a", account="reserve")).models) == 2


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Fallback(), "neither"),
        (lambda: Fallback(on=OSError), "neither"),
        (lambda: Fallback(1, call=print), "both"),
        (lambda: Fallback(None, call=print), "both"),
    ],
)
def test_a_fallback_takes_a_value_or_a_function(make: Any, word: str) -> None:
    """Neither, or both, is a TypeError that says so."""
    with pytest.raises(TypeError, match=rf"^Fallback takes a value or call=, got {word}$"):
        make()


def test_a_bad_result_takes_a_check() -> None:
    """Without one nothing could ever be bad."""
    with pytest.raises(ValueError, match=r"^checks must"):
        BadResult()


@pytest.mark.parametrize("policy", [Retry, CircuitBreaker, ModelFallback, Timeout, Pipeline])
@pytest.mark.parametrize("make", [Pipeline, resilient])
def test_a_policy_given_as_a_class(make: Any, policy: Any) -> None:
    """A class in place of a policy is a TypeError that shows how to write it."""
    with pytest.raises(TypeError, match=rf"write {policy.__name__}\(\)"):
        make(policy)


class Lookalike:
    """Has a policy's method, and none of the defaults of its other hooks."""

    def bind(self, inner: Any, runtime: Any) -> Any:
        return inner

    def __repr__(self) -> str:
        return "Lookalike()"


@pytest.mark.parametrize("policy", [None, 3, "retry", [Retry()], len, Lookalike()])
def test_what_is_no_policy(policy: Any) -> None:
    """Anything else in place of a policy is a TypeError that shows it, and tells of the base."""
    with pytest.raises(TypeError, match=r"^policies must .*resilience\.policy\.Policy") as caught:
        Pipeline(Retry(), policy)
    assert str(caught.value).endswith(repr(policy))


@pytest.mark.parametrize("policy", [None, 3, "retry", [Retry()]])
def test_resilient_of_what_is_neither_function_nor_policy(policy: Any) -> None:
    """`resilient(3)` is a TypeError."""
    with pytest.raises(TypeError, match="must be"):
        resilient(policy)


def test_resilient_with_a_function_and_policies() -> None:
    """A function among policies is a TypeError: decorate it with the pipeline."""
    with pytest.raises(TypeError, match=r"^policies must"):
        resilient(lambda: None, Retry())


@pytest.mark.parametrize("fn", [None, 3, "text", [print]])
def test_what_is_not_callable(fn: Any) -> None:
    """Something that cannot be called cannot be guarded."""
    pipeline = Pipeline(Retry())
    for use in (pipeline.call, pipeline.wrap, pipeline, pipeline.outcome):
        with pytest.raises(TypeError, match="callable"):
            use(fn)


@pytest.mark.parametrize("given", [3, "text", None])
def test_a_keyed_storage_must_be_a_function_of_the_key(given: Any) -> None:
    """One storage is one circuit, so a keyed breaker takes a function of the key."""
    if given is None:
        assert CircuitBreaker(key="model", storage=None).storage is None
        return
    with pytest.raises(TypeError, match=r"^storage must .*\bkey\b"):
        CircuitBreaker(key="model", storage=given)


def test_a_keyed_breaker_refuses_one_storage() -> None:
    """A single storage for all values is the mistake that message is for."""
    with pytest.raises(TypeError, match="one storage is one"):
        CircuitBreaker(key="model", storage=pybreaker.CircuitMemoryStorage("closed"))


@pytest.mark.fault(72, 73)
@pytest.mark.parametrize(
    ("make", "field", "value", "kept"),
    [
        (Retry, "attempts", None, None),
        (Retry, "attempts", 10**9, 10**9),
        (Retry, "within", timedelta(minutes=1), 60.0),
        (Retry, "within", None, None),
        (Retry, "patience", 0, 0.0),
        (Retry, "wait", 0, Fixed(0)),
        (Retry, "wait", timedelta(seconds=2), Fixed(2)),
        (CircuitBreaker, "reset_after", timedelta(hours=1), 3600.0),
        (CircuitBreaker, "refresh", 0, 0.0),
        (Timeout, "seconds", timedelta(milliseconds=1500), 1.5),
        (Timeout, "seconds", 1, 1.0),
        (Exponential, "jitter", 0, 0.0),
        (Exponential, "jitter", 1, 1.0),
        (Exponential, "initial", 0, 0.0),
        (RetryAfter, "spread", 0, 0.0),
        (RetryAfter, "longest", 0, 0.0),
        (RetryAfter, "otherwise", 5, Fixed(5)),
    ],
)
def test_values_at_the_edge(make: Any, field: str, value: Any, kept: Any) -> None:
    """What is documented as good is taken, times as float seconds."""
    found = getattr(make(**{field: value}), field)

    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.fault(79)
@pytest.mark.parametrize("make", [Retry, lambda: ModelFallback("a"), lambda: Fallback(1)])
def test_values_cannot_be_changed(make: Any) -> None:
    """Policies that are values are frozen."""
    with pytest.raises(AttributeError):
        make().on = OSError


@pytest.mark.fault(79)
def test_timeouts_and_pipelines_cannot_be_changed() -> None:
    """A time limit is a value too."""
    with pytest.raises(AttributeError):
        Timeout(5).seconds = 6


def test_every_option_can_be_given_by_name() -> None:
    """Every option is keyword-capable, and none is lost."""
    retry = Retry(
        attempts=2,
        on=OSError,
        wait=1,
        within=9,
        stop=tenacity.stop_never,
        adjust=print,
        patience=3,
        idempotent=False,
        retry_exhausted=True,
    )
    assert (retry.attempts, retry.within, retry.patience) == (2, 9, 3)
    assert (retry.idempotent, retry.retry_exhausted, retry.adjust) == (False, True, print)
    breaker = CircuitBreaker(
        failures=1,
        reset_after=2,
        trials=3,
        successes=4,
        on=OSError,
        key="k",
        name="n",
        storage=None,
        listeners=(),
        refresh=5,
    )
    assert (breaker.failures, breaker.reset_after, breaker.trials) == (1, 2, 3)
    assert (breaker.successes, breaker.key, breaker.name, breaker.refresh) == (4, "k", "n", 5)
    assert BadResult(print, len, finally_="raise").checks == (print, len)
