"""What is done for each kind of failure: the table's words against what happens."""

from __future__ import annotations

import csv
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from tenacity import retry_if_exception_type

import resilience
from conftest import World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    Model,
    ModelFallback,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
)
from resilience.explaining.reactions import ADVICE
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import RECOVERABLE, SERVICE_FAULT, TRANSIENT, kind, status
from resilience.policy import Call, Gate, Runtime, Verdict
from resilience.testing import virtual_time

settings.register_profile("suite", max_examples=50, deadline=None)
settings.register_profile("deep", max_examples=2500, deadline=None)
profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


class ReadError(Exception):
    """An error that is what its failure says."""

    def __init__(self, kind: Kind, advice: Advice) -> None:
        super().__init__("scripted")
        self.failure = Failure(kind, advice)


@describe.register(ReadError)
def _read(error: ReadError) -> Failure:
    return error.failure


class Closed(Gate):
    """Rejects every call, for 0.1 s."""

    def __init__(self) -> None:
        self.asked = 0

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        self.asked += 1
        raise RejectedError(retry_after=0.1)

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        raise AssertionError("nobody was let in")


# What a pipeline is made of, all of it by kind and advice or by class

ons = st.sampled_from(
    [
        TRANSIENT,
        RECOVERABLE,
        SERVICE_FAULT,
        Exception,
        [Kind.QUOTA, Kind.SERVER],
        [Advice.FALLBACK, Kind.RATE_LIMIT],
        TRANSIENT & ~kind(Kind.SERVER),
        ~kind(Kind.TIMEOUT),
        ReadError,
        status(429),
        lambda failure: failure.kind is Kind.AUTH,
        TRANSIENT | kind(Kind.REJECTED),
        RejectedError,
    ]
)
retries = st.fixed_dictionaries(
    {"attempts": st.integers(1, 4), "wait": st.just(0.1)},
    optional={"on": ons | st.just(retry_if_exception_type(ReadError)), "idempotent": st.booleans()},
).map(lambda options: Retry(**options))
breakers = st.fixed_dictionaries({"failures": st.just(1000)}, optional={"on": ons}).map(
    lambda options: CircuitBreaker(**options)
)
chains = st.fixed_dictionaries(
    {"models": st.sampled_from([("a",), ("a", "b"), ("a", Model("c", account="other"), "b")])},
    optional={"on": ons, "per_model": st.just(Timeout(500)), "rounds": st.integers(1, 3)},
).map(
    lambda options: ModelFallback(
        *options["models"], **{k: v for k, v in options.items() if k != "models"}
    )
)
fallbacks = ons.map(lambda on: Fallback("else", on=on))


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """The usual order, each policy or none."""
    parts = [fallbacks, chains, retries, breakers]
    return Pipeline(*[draw(part) for part in parts if draw(st.integers(0, 3))])


failures = st.one_of(
    st.sampled_from(list(ADVICE.items())),
    st.tuples(st.sampled_from(list(Kind)), st.sampled_from(list(Advice))),
).filter(lambda pair: pair[0] is not Kind.REJECTED)


def find(steps: tuple[str, ...], words: str) -> bool | None:
    """Whether a step begins so; None if it depends on more."""
    for step in steps:
        if step.startswith(words):
            return None if " if " in step or ", if" in step else True
    return False


def agrees(said: bool | None, happened: bool) -> bool:
    event(f"{said} {happened}")
    return said is None or said is happened


@pytest.mark.fault(336)
@pytest.mark.parametrize("name", ["sync", "asyncio", "trio"])
@profile
@given(pipeline=pipelines(), failure=failures)
@example(  # the trouble of an account, of which the server says to try again
    pipeline=Pipeline(ModelFallback("a", Model("c", account="other"), on=Advice.FALLBACK)),
    failure=(Kind.QUOTA, Advice.RETRY),
)
def test_the_words_are_what_happens(name: str, pipeline: Pipeline, failure: Any) -> None:
    """A call that always fails in one way is retried, goes to the next model, is counted, is
    replaced or raised just as the words say."""
    models: Counter[str] = Counter()
    with virtual_time() as clock:
        world = World(name, clock)

        def failing(model: str = "a") -> str:
            models[model] += 1
            raise ReadError(*failure)

        async def afailing(model: str = "a") -> str:
            return failing(model)

        fn = pipeline.wrap(afailing if world.asynchronous else failing)
        try:
            value = world.run(fn)
        except ReadError:
            value = None

    explained = pipeline.explain()
    steps = explained.on(Failure(*failure))
    if ADVICE[failure[0]] is failure[1]:
        assert steps == explained.failures[failure[0]]

    retry = next((each for each in pipeline.policies if isinstance(each, Retry)), None)
    most = max(models.values())
    assert agrees(find(steps, "retried"), most > 1)
    if find(steps, "retried"):
        assert retry is not None
        assert most == retry.attempts
        assert ("retried once" in steps) == (most == 2)
    assert agrees(find(steps, "the next model"), len(models) > 1)
    for each in pipeline.policies:
        if isinstance(each, CircuitBreaker):
            counted = each.snapshot().failures > 0
            assert agrees(find(steps, "counted by the circuit"), counted)
    assert agrees(find(steps, "replaced by"), value is not None)
    if "raised at once" in steps:
        assert sum(models.values()) == 1


@pytest.mark.fault(336)
@pytest.mark.parametrize("name", ["sync", "asyncio", "trio"])
@profile
@given(pipeline=pipelines())
def test_the_words_for_a_rejection_are_what_happens(name: str, pipeline: Pipeline) -> None:
    """The same for a call that a gate inside always rejects."""
    closed = Closed()
    inner = Pipeline(pipeline, closed)
    with virtual_time() as clock:
        world = World(name, clock)
        try:
            value = world.run(inner.wrap(world.function("never")), model="a")
        except RejectedError:
            value = None

    steps = inner.explain().failures[Kind.REJECTED]
    if not any(isinstance(each, ModelFallback) for each in pipeline.policies):
        assert agrees(find(steps, "retried"), closed.asked > 1)
    elif find(steps, "the next model"):
        assert closed.asked > 1
    assert find(steps, "counted") is False
    assert agrees(find(steps, "replaced by"), value is not None)


def test_the_advice_is_what_failures_mostly_come_with() -> None:
    """As the table of codes has it, by the number of its rows; kinds that no code has aside."""
    path = Path(resilience.__file__).parent / "sdks" / "codes.csv"
    with path.open(newline="", encoding="utf-8") as lines:
        pairs = Counter((row["kind"], row["advice"]) for row in csv.DictReader(lines))
    assert set(ADVICE) == set(Kind)
    for each, advice in ADVICE.items():
        own = {pair[1]: number for pair, number in pairs.items() if pair[0] == each.name}
        assert not own or max(own, key=lambda word: own[word]) == advice.name
    for each in (Kind.REJECTED, Kind.UNKNOWN):
        error = RejectedError() if each is Kind.REJECTED else Exception()
        assert describe(error).advice is ADVICE[each]


def test_models_with_other_policies_are_told_apart() -> None:
    """Where `per_model` gives each model policies of its own, the words have its name."""
    chain = ModelFallback("a", "b", per_model=lambda name: Retry(attempts=2 + (name == "b")))
    steps = Pipeline(chain).explain().failures[Kind.SERVER]
    assert steps == ("retried once (a)", "retried 2 times (b)", "the next model", "raised")


@pytest.mark.parametrize(
    ("retry", "words"),
    [
        (Retry(), "retried 2 times"),
        (Retry(attempts=1), "raised at once"),
        (Retry(attempts=2), "retried once"),
        (Retry(attempts=None), "retried"),
        (Retry(on=Exception), "retried 2 times"),
        (Retry(on=~kind(Kind.AUTH)), "retried 2 times"),
        (Retry(idempotent=False), "retried 2 times, if it was surely not executed"),
        (
            Retry(attempts=2, idempotent=callable),
            "retried once, if it was surely not executed or callable allows it",
        ),
    ],
)
def test_how_often_it_is_retried(retry: Retry, words: str) -> None:
    """And which requests are. A rejection is not, unless it is named."""
    failures = Pipeline(retry).explain().failures
    assert failures[Kind.SERVER][0] == words
    assert failures[Kind.REJECTED] == ("raised at once",)


IS = "replaced by the fallback value"
IS_NOT = "raised at once"
MAY = "replaced by the fallback value if on="


@pytest.mark.parametrize(
    ("on", "server", "rejected"),
    [
        (Exception, IS, IS),
        (RejectedError, IS_NOT, IS),
        (CircuitOpenError, IS_NOT, MAY),
        (ConnectionError, MAY, IS_NOT),
        ((ConnectionError, CircuitOpenError), MAY, MAY),
        (status(503), MAY, IS_NOT),
        (~status(503), MAY, IS),
        (kind(Kind.SERVER), IS, IS_NOT),
        (~kind(Kind.SERVER), IS_NOT, IS),
        (kind(Kind.SERVER) | status(503), IS, IS_NOT),
        (kind(Kind.SERVER) & status(503), MAY, IS_NOT),
        (kind(Kind.TIMEOUT) | status(503), MAY, IS_NOT),
        (kind(Kind.TIMEOUT) & status(503), IS_NOT, IS_NOT),
        (kind(Kind.SERVER) & ~kind(Kind.TIMEOUT), IS, IS_NOT),
    ],
    ids=repr,
)
def test_how_sure_a_reaction_is(on: Any, server: str, rejected: str) -> None:
    """It depends on the failure's kind alone, or on more: its class, its status. A rejection has
    no status, and its class is one of ours."""
    failures = Pipeline(Fallback("else", on=on)).explain().failures
    for each, words in ((Kind.SERVER, server), (Kind.REJECTED, rejected)):
        found = failures[each][0]
        assert found.startswith(words)
        assert (" if on=" in found) == (words is MAY)


@pytest.mark.parametrize(
    ("on", "named"),
    [
        (RejectedError, True),
        ((ConnectionError, RejectedError), True),
        (CircuitOpenError, True),
        (kind(Kind.REJECTED) & ~status(400), True),
        (TRANSIENT | kind(Kind.REJECTED), True),
        (ConnectionError, False),
        (TRANSIENT, False),
        (~kind(Kind.AUTH), False),
        (~kind(Kind.AUTH) & ~status(400), False),
        (Exception, False),
    ],
    ids=repr,
)
def test_a_rejection_is_retried_only_where_it_is_named(on: Any, named: bool) -> None:
    """Not where it is merely not left out."""
    words = Pipeline(Retry(on=on)).explain().failures[Kind.REJECTED]
    assert words[0].startswith("retried" if named else "raised at once")


def test_what_a_circuit_counts_is_said() -> None:
    """A service's own faults; a rejection is none, and nothing is done about it."""
    failures = Pipeline(CircuitBreaker()).explain().failures
    assert failures[Kind.SERVER] == ("counted by the circuit", "raised at once")
    assert failures[Kind.AUTH] == failures[Kind.REJECTED] == ("raised at once",)


def test_another_account_is_said() -> None:
    """A quota moves on where a model has an account of its own, and not where all share one."""
    own = Pipeline(ModelFallback("a", Model("b", account="other"))).explain()
    shared = Pipeline(ModelFallback("a", "b")).explain()
    assert own.failures[Kind.QUOTA] == ("the next model of another account", "raised")
    assert shared.failures[Kind.QUOTA] == ("raised at once",)


def test_only_a_failure_can_be_asked_for() -> None:
    """An exception is read first; the message says how."""
    with (
        warnings.catch_warnings(),
        pytest.raises(TypeError, match="describe"),
    ):
        Pipeline().explain().on(ConnectionError())  # type: ignore[arg-type]
