"""The most calls and the longest time: any pipeline against any script that always fails."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import pytest
from attrs import frozen
from hypothesis import event, given, settings
from hypothesis import strategies as st

from conftest import Takes, World
from resilience import (
    BadResult,
    CircuitBreaker,
    Fallback,
    IdempotencyKey,
    Model,
    ModelFallback,
    Pipeline,
    Policy,
    Retry,
    SingleFlight,
    Streaming,
    Timeout,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.policy import Call, Effect, Gate, Inner, Runtime, Verdict
from resilience.testing import virtual_time
from resilience.waits import Decorrelated, Exponential, Fixed, FullJitter, Linear, RetryAfter

settings.register_profile("suite", max_examples=50, deadline=None)
settings.register_profile("deep", max_examples=2500, deadline=None)
profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


class ScriptedError(Exception):
    """An error whose meaning is written in the script."""

    def __init__(self, **meaning: Any) -> None:
        super().__init__("scripted")
        self.meaning = meaning


@describe.register(ScriptedError)
def _read(error: ScriptedError) -> Failure:
    return Failure(error=error, **error.meaning)


# Policies of a user's


class Stamp(Policy):
    """Adds an argument to each attempt."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def stamp(call: Call) -> Any:
            return await inner(call.replace(kwargs={**call.kwargs, "stamp": runtime.now()}))

        return stamp


@frozen(eq=False)
class Twice(Policy):
    """Makes each failed call again, after 1.5 s."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def twice(call: Call) -> Any:
            try:
                return await inner(call)
            except Exception:
                await runtime.sleep(1.5, call)
                return await inner(call)

        return twice

    def effect(self) -> Effect:
        return Effect(line="makes a failed call again", calls=2, waits=1.5)


class Turnstile(Gate):
    """Lets every call in, after 0.7 s."""

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        return None

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        await runtime.waiter().wait(0.7, call)
        return True

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        pass

    def effect(self) -> Effect:
        return Effect(line="lets a call in after 0.7 s", waits=0.7)


# Pipelines, as functions that make them: each example gets policies of its own

plain_waits = st.sampled_from(
    [
        Fixed(0),
        Fixed(0.4),
        Linear(0.2, 0.3, 0.9),
        Exponential(),
        Exponential(initial=0.1, factor=3, max=2, jitter=1),
        FullJitter(initial=1, max=3),
        Decorrelated(initial=0.2, max=5),
    ]
)
waits = st.one_of(
    plain_waits,
    st.builds(
        RetryAfter,
        plain_waits,
        longest=st.sampled_from([5.0, 60.0]),
        too_long=st.sampled_from(["stop", "clamp"]),
        spread=st.sampled_from([0.0, 0.25, 1.0]),
    ),
)
limits = st.sampled_from([0.70710678, 1.73205081, 4.23606798, 9.86960440, 41.7331])


def _adjusted(attempt: Any, args: Any, kwargs: Any) -> Any:
    return args, {**kwargs, "adjusted": True}


retries = st.fixed_dictionaries(
    {"attempts": st.integers(1, 4), "wait": waits},
    optional={
        "within": limits,
        "patience": st.sampled_from([1.0, 100.0]),
        "idempotent": st.booleans(),
        "adjust": st.just(_adjusted),
        "retry_exhausted": st.booleans(),
        "on": st.sampled_from([Exception, [Kind.QUOTA, Advice.RETRY], Kind.REJECTED]),
    },
).map(lambda options: lambda: Retry(**options))
breakers = st.fixed_dictionaries(
    {"failures": st.integers(1, 3), "reset_after": st.sampled_from([0.6180339, 11.0901699])},
    optional={
        "key": st.just("model"),
        "successes": st.integers(1, 2),
        "on": st.just(Exception),
        "wait_for_trial": st.sampled_from([0.3, 2.5]),
    },
).map(lambda options: lambda: CircuitBreaker(**options))
around_models = st.sampled_from(
    [
        None,
        3.3,
        Retry(attempts=2, wait=0.25),
        Pipeline(Timeout(2.7), Retry(attempts=2, wait=0.25)),
        lambda name: Retry(attempts=2 + (name == "a"), wait=0.15),
    ]
)
chains = st.fixed_dictionaries(
    {"models": st.sampled_from([("a",), ("a", "b"), ("b", Model("c", account="other"), "a")])},
    optional={
        "on": st.just(Exception),
        "per_model": around_models,
        "rounds": st.integers(1, 3),
        "raise_first": st.booleans(),
    },
).map(
    lambda options: (
        lambda: ModelFallback(
            *options["models"], **{k: v for k, v in options.items() if k != "models"}
        )
    )
)
others = st.sampled_from(
    [
        lambda: Fallback("else", on=ConnectionError),
        lambda: BadResult(lambda result: True),
        Streaming,
        SingleFlight,
        lambda: IdempotencyKey(argument=None),
        Stamp,
        Twice,
        Turnstile,
    ]
)
timeouts = limits.map(lambda seconds: lambda: Timeout(seconds))
any_policy = st.one_of(retries, chains, breakers, timeouts, others)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Up to six policies in any order, or a chain, something, a Retry, a breaker and a limit; some
    of them in a pipeline of their own."""
    usual = [chains, any_policy, retries, breakers, timeouts]
    if draw(st.booleans()):
        makes = [draw(each) for each in usual if draw(st.integers(0, 3))]
    else:
        makes = draw(st.lists(any_policy, max_size=6))
    made = [make() for make in makes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PolicyOrderWarning: any order will do here
        cut = draw(st.integers(0, len(made)))
        if draw(st.booleans()):
            return Pipeline(*made[:cut], Pipeline(*made[cut:]))
        return Pipeline(*made)


FAILURES: list[dict[str, Any]] = [
    {"kind": Kind.CONNECTION, "advice": Advice.RETRY, "sent": False},
    {"kind": Kind.SERVER, "advice": Advice.RETRY},
    {"kind": Kind.SERVER, "advice": Advice.RETRY},
    {"kind": Kind.TIMEOUT, "advice": Advice.RETRY},
    {"kind": Kind.OVERLOADED, "advice": Advice.WAIT},
    {"kind": Kind.RATE_LIMIT, "advice": Advice.WAIT, "retry_after": 0.31, "sent": False},
    {"kind": Kind.RATE_LIMIT, "advice": Advice.WAIT, "retry_after": 7.3},
    {"kind": Kind.RATE_LIMIT, "advice": Advice.WAIT, "retry_after": 86_400.0},
    {"kind": Kind.QUOTA, "advice": Advice.STOP},
    {"kind": Kind.NOT_FOUND, "advice": Advice.FALLBACK},
]
steps = st.tuples(st.sampled_from(FAILURES), st.sampled_from([0.0, 0.0, 0.25, 2.0, 30.0]))
scripts = st.lists(steps, min_size=1, max_size=12)


def play(world: World, pipeline: Pipeline, script: list[Any], model: str | None) -> Any:
    """Call once: how many calls that makes, and how long it takes."""
    made = [Takes(seconds, ScriptedError(**failure)) for failure, seconds in script]
    began, before = world.clock.now(), len(world.calls)
    fn = world.function(*made)
    if world.asynchronous:

        async def guarded(model: str = "a", **kwargs: Any) -> Any:
            return await fn(model=model)
    else:

        def guarded(model: str = "a", **kwargs: Any) -> Any:  # type: ignore[misc]
            return fn(model=model)

    try:
        world.run(pipeline.wrap(guarded), **({} if model is None else {"model": model}))
    except Exception:
        pass
    return len(world.calls) - before, world.clock.now() - began


@pytest.mark.fault(335)
@pytest.mark.parametrize("name", ["sync", "asyncio", "trio"])
@profile
@given(
    pipeline=pipelines(),
    stories=st.lists(
        st.tuples(scripts, st.sampled_from([None, None, "b", "stranger"])), min_size=1, max_size=3
    ),
)
def test_no_call_exceeds_what_is_said(name: str, pipeline: Pipeline, stories: Any) -> None:
    """Never more calls than `most_calls`, never longer than `longest`, in any order of policies,
    for calls that name a model of their own, too, whatever circuits remember."""
    explained = pipeline.explain()
    bounded = math.isfinite(explained.longest)
    for script, model in stories:
        with virtual_time(seed=7) as clock:
            calls, elapsed = play(World(name, clock), pipeline, script, model)
        most, longest = explained.most_calls, explained.longest
        if model is not None and explained.own_model is not None:
            most, longest = explained.own_model
        event(f"as many calls as said: {calls == most}")
        event(f"bounded: {bounded}")
        assert calls <= most
        assert elapsed <= longest + 1e-6


@pytest.mark.fault(335)
def test_a_chain_comes_back_to_a_chain() -> None:
    """What is inside a Retry begins anew in each round, and may take its time again."""
    inner = ModelFallback("a", per_model=Retry(attempts=2, wait=0.25), raise_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = Pipeline(ModelFallback("a"), Retry(attempts=1, wait=0), Timeout(41.7331), inner)
    timeout = {"kind": Kind.TIMEOUT, "advice": Advice.RETRY}
    script = [(timeout, 0.0), (FAILURES[0], 0.0), (FAILURES[0], 0.0), (FAILURES[0], 30.0)]
    with virtual_time(seed=7) as clock:
        _, elapsed = play(World("sync", clock), pipeline, script, "b")
    assert pipeline.explain().own_model is not None
    assert 100 < elapsed <= pipeline.explain().own_model[1]


harmless = st.sampled_from(
    [lambda: Fallback("else"), SingleFlight, lambda: IdempotencyKey(argument=None), Stamp]
)


@pytest.mark.fault(335)
@pytest.mark.parametrize("name", ["sync", "asyncio", "trio"])
@profile
@given(
    outer=st.lists(harmless, max_size=2),
    inner=st.lists(st.one_of(harmless.filter(lambda make: make().role != "fallback")), max_size=2),
    models=st.sampled_from([(), ("a",), ("a", "b"), ("a", "b", "c")]),
    around=st.sampled_from([None, Retry(attempts=2, wait=0.25)]),
    attempts=st.integers(1, 4),
    chain_outside=st.booleans(),
    model=st.sampled_from([None, "stranger"]),
)
def test_the_most_calls_are_made(
    name: str,
    outer: Any,
    inner: Any,
    models: Any,
    around: Any,
    attempts: int,
    chain_outside: bool,
    model: str | None,
) -> None:
    """Where no circuit and no time limit is in the way, a call that always fails in passing makes
    exactly as many calls as are said."""
    retry = Retry(attempts=attempts, wait=Fixed(0.4))
    chain = [ModelFallback(*models, per_model=around)] if models else []
    middle = [*chain, retry] if chain_outside else [retry, *chain]
    if around is not None and models:
        middle = chain  # two Retries would be in each other's way
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = Pipeline(*[make() for make in outer], *middle, *[make() for make in inner])
    explained = pipeline.explain()
    with virtual_time() as clock:
        world = World(name, clock)
        failure = {"kind": Kind.SERVER, "advice": Advice.RETRY}
        calls, _ = play(world, pipeline, [(failure, 0.0)], model)
    said = explained.most_calls
    if model is not None and explained.own_model is not None:
        said, _ = explained.own_model
    assert calls == said


@pytest.mark.fault(335)
@pytest.mark.parametrize("name", ["sync", "asyncio", "trio"])
@profile
@given(
    models=st.sampled_from([(), ("a", "b"), ("a", "b", "c")]),
    attempts=st.integers(1, 4),
    wait=st.sampled_from([Fixed(0.4), Linear(0.2, 0.3, 0.9), Exponential(jitter=0)]),
    seconds=limits,
    total=st.none() | limits,
)
def test_the_longest_is_taken(
    name: str, models: Any, attempts: int, wait: Any, seconds: float, total: float | None
) -> None:
    """A call whose attempts all take nearly the time that they have takes nearly `longest`."""
    policies: list[Policy] = [] if total is None else [Timeout(total)]
    policies += [ModelFallback(*models)] if models else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = Pipeline(*policies, Retry(attempts=attempts, wait=wait), Timeout(seconds))
    with virtual_time() as clock:
        world = World(name, clock)
        failure = {"kind": Kind.SERVER, "advice": Advice.RETRY}
        _, elapsed = play(world, pipeline, [(failure, 0.999 * seconds)], None)
    longest = pipeline.explain().longest
    assert elapsed <= longest + 1e-6
    if total is None or longest < total:
        assert elapsed >= 0.99 * longest


# Figures, one by one


@pytest.mark.parametrize(
    ("policies", "most", "longest"),
    [
        ([], 1, math.inf),
        ([Retry()], 3, math.inf),
        ([Retry(), Timeout(10)], 3, 30 + 2 * 75),  # as long as a server may ask for, twice
        ([Retry(wait=Exponential(jitter=0)), Timeout(10)], 3, 31.25),
        ([Retry(attempts=None), Timeout(10)], math.inf, math.inf),
        ([Retry(attempts=None, within=20), Timeout(10)], math.inf, 30),
        ([Retry(attempts=9, wait=RetryAfter(Fixed(1), longest=2)), Timeout(10)], 9, 110),
        ([Retry(wait=lambda state: 1.0), Timeout(10)], 3, math.inf),
        ([Timeout(5), Retry(wait=lambda state: 1.0)], 3, 5),
        ([Timeout(lambda: 5.0)], 1, math.inf),
        ([Timeout(5, pass_as="timeout")], 1, math.inf),
        ([Timeout(lambda *args: 5)], 1, math.inf),
        # A rejection is waited for up to 60 s where it is named.
        ([Retry(attempts=1, on=Kind.REJECTED), Timeout(5)], 1, 5),
        ([Retry(attempts=2, wait=1, on=Kind.REJECTED), Timeout(5)], 2, 70),
        ([Retry(attempts=3, wait=1, on=Kind.REJECTED), Timeout(5)], 3, 135),
        ([Timeout(60), ModelFallback("a", "b", "c"), Retry(attempts=2), Timeout(15)], 6, 60),
        ([ModelFallback("a", "b"), Retry(attempts=2, wait=1), Timeout(15)], 4, 62),
        ([Retry(attempts=2, wait=1), ModelFallback("a", "b"), Timeout(15)], 4, 61),
        ([ModelFallback("a", "b", per_model=9.0)], 2, 18),
        # As many rounds as there may be, each after as long as a circuit is waited for.
        ([ModelFallback("a", "b"), Retry(attempts=1), CircuitBreaker(), Timeout(5)], 2, 160),
        ([CircuitBreaker(wait_for_trial=3), Timeout(10)], 1, 13),
        # 9 s for a call, and 60 + 4 s until a model whose circuit is open has its second turn.
        (
            [
                ModelFallback("a", "b"),
                Retry(attempts=1, wait=1),
                CircuitBreaker(wait_for_trial=3),
                CircuitBreaker(wait_for_trial=1),
                Timeout(5),
            ],
            2,
            2 * (9 + 64),
        ),
        # A chain inside is asked twice for 2 s each; between, 0.5 s as a server may ask for.
        (
            [
                ModelFallback("a"),
                Retry(attempts=1, wait=RetryAfter(Fixed(0), longest=0.5, spread=0)),
                Timeout(2),
                ModelFallback("b"),
            ],
            4,
            2 + 0.5 + 2,
        ),
        ([Streaming(on_interrupted="restart"), Timeout(10)], 4, 10),
        ([Stamp(), Twice(), Timeout(1)], 2, 3.5),
        ([ModelFallback("a", "b", rounds=1), Turnstile(), Retry(attempts=1), Timeout(3)], 2, 7.4),
        ([ModelFallback("a", "b", rounds=1), Twice(), Retry(attempts=1), Timeout(3)], 4, 15),
    ],
)
def test_figures(policies: list[Policy], most: float, longest: float) -> None:
    """Attempts times models; time limits times attempts, and waits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explained = Pipeline(*policies).explain()
    assert explained.most_calls == most
    assert explained.longest == pytest.approx(longest)


@pytest.mark.parametrize(
    ("retry", "waits", "pause"),
    [
        (Retry(attempts=1, wait=90), 0, 60),
        (Retry(attempts=3, wait=90), 180, 90),
        (Retry(attempts=3, wait=Linear(1, 1, 9)), 3, 60),
        (Retry(attempts=None, wait=0), 0, 60),
        (Retry(attempts=None, wait=90), math.inf, 90),
        (Retry(attempts=None, wait=RetryAfter(Fixed(0), longest=80)), math.inf, 100),
        (Retry(attempts=2, wait=RetryAfter(Fixed(70), longest=40)), 70, 70),
        (Retry(attempts=2, wait=RetryAfter(RetryAfter(resets=True), longest=40)), 75, 75),
        (Retry(attempts=2, wait=RetryAfter(Fixed(0), too_long="clamp")), 75, math.inf),
    ],
)
def test_what_a_retry_says_of_its_waits(retry: Retry, waits: float, pause: float) -> None:
    """All together, and the longest before a chain comes back: as a server may ask for, too."""
    effect = retry.effect()
    assert (effect.waits, effect.pause) == (waits, pause)


def test_who_does_not_say_is_named() -> None:
    """A policy without an `effect` is taken for what most are; one that waits has no limit."""

    class Patient(Turnstile):
        effect = Gate.effect

    explained = Pipeline(Stamp(), Patient(), Twice(), Timeout(1)).explain()
    assert explained.assumed == ("Stamp", "Patient")
    assert "Assumed: Stamp" in str(explained)
    assert ("Stamp", "Adds an argument to each attempt.") in explained.policies
    assert explained.longest == math.inf
    assert Pipeline(Timeout(5), Patient()).explain().longest == 5


def test_an_effect_must_be_one() -> None:
    """A policy that returns something else is named."""

    class Wrong(Stamp):
        def effect(self) -> Any:
            return "it stamps"

    with pytest.raises(TypeError, match="Wrong"):
        Pipeline(Wrong()).explain()


def test_a_policy_may_be_made_of_others() -> None:
    """By `parts`: they are explained in its place, as those of a nested pipeline are."""

    class Both(Stamp):
        def effect(self) -> Effect:
            return Effect(line="both", parts=(Twice(), Timeout(3)))

    names = [name for name, _ in Pipeline(Both(), Pipeline(Retry())).explain().policies]
    assert names == ["Twice", "Timeout", "Retry"]
