"""ModelFallback: the order of models, what each is called with, what goes around it, who served."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    guarded,
    history,
    served_by,
)
from resilience.matching import status
from resilience.policy import Inner, Policy, Runtime
from support.calling import error_of, message_of, rest_and_full
from support.errors import rate_limit
from support.functions import coloured
from support.policies import Busy


def models(world: World) -> list[str]:
    """The models asked, in order."""
    return [kwargs["model"] for _, kwargs in world.calls]


def echo(**kwargs: Any) -> dict[str, Any]:
    return kwargs


# Order


@pytest.mark.parametrize(
    ("named", "order"),
    [
        ({}, ["a", "b", "c"]),
        ({"model": "a"}, ["a", "b", "c"]),
        ({"model": "b"}, ["b", "a", "c"]),
        ({"model": "c"}, ["c", "a", "b"]),
        ({"model": "own"}, ["own", "a", "b", "c"]),
        ({"model": None}, ["a", "b", "c"]),
    ],
)
def test_a_call_starts_with_its_own_model(
    world: World, named: dict[str, Any], order: list[str]
) -> None:
    """A call that names its model starts with it, then goes on with the rest."""
    fn = Pipeline(ModelFallback("a", "b", "c")).wrap(world.function(ConnectionError))
    error_of(world, fn, 1, **named)

    assert models(world) == order
    assert all(args == (1,) for args, _ in world.calls)


def test_the_first_that_answers_serves(world: World) -> None:
    """The chain ends with the first answer."""
    fn = world.function(ConnectionError, "ok")

    assert world.run(Pipeline(ModelFallback("a", "b", "c")).wrap(fn)) == "ok"
    assert models(world) == ["a", "b"]


def test_a_default_in_the_signature_is_not_the_callers_choice(world: World) -> None:
    """A model that only the signature names does not come before the chain's first."""
    asked: list[str] = []

    def ask(prompt: str, *, model: str = "default") -> str:
        asked.append(model)
        raise ConnectionError

    error_of(world, Pipeline(ModelFallback("a", "b")).wrap(coloured(world, ask)), "hi")
    assert asked == ["a", "b"]


REST_OR_FULL = pytest.mark.parametrize("more", [[], [Busy()]], ids=["rest", "full"])


@REST_OR_FULL
@pytest.mark.parametrize("named", ["", None, 3, ["a"], {"name": "a"}])
def test_an_odd_name_starts_with_the_first_model(named: Any, more: list[Policy]) -> None:
    """What is no name of a model counts as none given, at rest and in full."""
    assert Pipeline(ModelFallback("a", "b"), *more).call(echo, model=named)["model"] == "a"


@REST_OR_FULL
def test_a_stranger_is_asked_first(more: list[Policy]) -> None:
    """A name that is not in the chain is tried, then the chain from its start, at rest too."""
    asked: list[str] = []

    def ask(model: str) -> str:
        asked.append(model)
        if model != "b":
            raise ConnectionError
        return model

    assert Pipeline(ModelFallback("a", "b"), *more).call(ask, model="c") == "b"
    assert asked == ["c", "a", "b"]


def test_two_chains_one_inside_the_other(world: World) -> None:
    """A nested chain is the rest of its model's turn; every model is asked in order."""
    pipeline = Pipeline(ModelFallback("a", "b"), Pipeline(ModelFallback("x")))
    error_of(world, pipeline.wrap(world.function(ConnectionError)))

    assert models(world) == ["a", "x", "b", "x"]


def test_one_model_alone_is_a_chain_too(world: World) -> None:
    """A chain of one sets the model and has nobody to go on to."""
    fn = world.function(rate_limit(2), "ok")

    assert world.run(Pipeline(ModelFallback("only"), Retry()).wrap(fn)) == "ok"
    assert models(world) == ["only", "only"]


# What each model is called with


def test_every_model_gets_the_calls_own_arguments(world: World) -> None:
    """Those after the first one too."""
    fn = world.function(ConnectionError(), "ok")
    world.run(Pipeline(ModelFallback("a", "b")).wrap(fn), 1, size=2)

    assert world.calls == [((1,), {"size": 2, "model": "a"}), ((1,), {"size": 2, "model": "b"})]


def test_overrides_are_merged_leaf_by_leaf(world: World) -> None:
    """A model's own arguments go over the call's; dicts merge, and nobody's dict is changed."""
    extra = {"effort": "low", "deep": {"x": 1, "y": 2}}
    override = {"deep": {"y": 3}, "new": True}
    chain = ModelFallback("a", Model("b", temperature=0, extra_body=override), "c")
    fn = Pipeline(chain).wrap(world.function(ConnectionError))
    error_of(world, fn, temperature=1, extra_body=extra)

    assert [kwargs for _, kwargs in world.calls] == [
        {"model": "a", "temperature": 1, "extra_body": extra},
        {
            "model": "b",
            "temperature": 0,
            "extra_body": {"effort": "low", "deep": {"x": 1, "y": 3}, "new": True},
        },
        {"model": "c", "temperature": 1, "extra_body": extra},
    ]
    assert extra == {"effort": "low", "deep": {"x": 1, "y": 2}}
    assert override == {"deep": {"y": 3}, "new": True}


def test_a_callee_that_changes_its_arguments_does_not_touch_the_next_models(world: World) -> None:
    """What one model's call does to the merged dicts is not seen by later calls."""
    override = {"deep": {"y": 3}}

    def spoil(**kwargs: Any) -> None:
        kwargs["extra_body"]["deep"]["y"] = "spoilt"
        raise ConnectionError

    chain = ModelFallback(Model("a", extra_body=override))
    fn = Pipeline(chain).wrap(world.function(spoil))
    for _ in range(2):
        error_of(world, fn, extra_body={"deep": {"x": 1}})
        error_of(world, fn)

    assert override == {"deep": {"y": 3}}


def test_overrides_of_the_calls_own_model(world: World) -> None:
    """A call that names a model of the chain gets that model's overrides."""
    fn = Pipeline(ModelFallback("a", Model("b", x=1))).wrap(world.function("ok"))
    world.run(fn, model="b")

    assert world.calls == [((), {"model": "b", "x": 1})]


def test_an_override_by_place() -> None:
    """An argument given by its place is replaced there; a dict is merged with what was given."""

    def ask(options: Any, model: str = "x") -> Any:
        return options, model

    pipeline = Pipeline(ModelFallback(Model("a", options={"x": {"y": 1}})))
    assert pipeline.call(ask, {"x": {"z": 2}, "w": 3}) == (
        {"x": {"z": 2, "y": 1}, "w": 3},
        "a",
    )
    assert pipeline.call(ask, None) == ({"x": {"y": 1}}, "a")
    assert pipeline.call(ask, [1]) == ({"x": {"y": 1}}, "a")


def test_another_function_for_a_model(world: World) -> None:
    """`Model(call=)` calls another client's function with the same arguments."""
    other = world.function("theirs")
    ours = world.function(ConnectionError)
    fn = Pipeline(ModelFallback("a", Model("b", call=other))).wrap(ours)

    assert world.run(fn, "prompt") == "theirs"
    assert world.calls == [(("prompt",), {"model": "a"}), (("prompt",), {"model": "b"})]


def test_another_function_as_the_first_choice(world: World) -> None:
    """The first model may have a function of its own; the guarded one serves the rest."""
    other = world.function(ConnectionError)
    fn = Pipeline(ModelFallback(Model("x", call=other), "a")).wrap(world.function("ours"))
    outcome = world.run(guarded(fn).outcome)

    assert (outcome.value, outcome.served_by) == ("ours", "a")


def test_an_async_function_for_a_model_of_a_sync_call() -> None:
    """A `Model(call=)` of the wrong colour is a clear TypeError, and leaves no coroutine behind."""

    async def other(**kwargs: Any) -> str:
        return "never"

    def ask(**kwargs: Any) -> str:
        raise ConnectionError

    pipeline = Pipeline(ModelFallback("a", Model("b", call=other)))
    assert "asynchronous=True" in message_of(TypeError, pipeline.call, ask)


# What goes around each model


def test_retries_and_circuits_are_each_models_own(world: World) -> None:
    """Inside the chain every model has its retries, and its circuit where the key says so."""
    breaker = CircuitBreaker(key="model", failures=2)
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=1), breaker)
    error_of(world, pipeline.wrap(world.function(ConnectionError)))

    assert models(world) == ["a", "a", "b", "b"]
    assert breaker.circuit("a").state == breaker.circuit("b").state == "open"


def test_per_model_seconds(world: World) -> None:
    """`per_model=seconds` bounds each model's turn."""
    fn = Pipeline(ModelFallback("a", "b", per_model=5)).wrap(world.function(Takes(9)))
    error = error_of(world, fn)

    assert type(error) is DeadlineExceededError
    assert error.seconds == 5
    assert models(world) == ["a", "b"]
    assert world.clock.now() == pytest.approx(1010)


def test_per_model_policy(world: World) -> None:
    """`per_model=policy` goes around each turn, a pipeline too."""
    chain = ModelFallback("a", "b", per_model=Pipeline(Timeout(99), Retry(attempts=2, wait=1)))
    error_of(world, Pipeline(chain).wrap(world.function(ConnectionError)))

    assert models(world) == ["a", "a", "b", "b"]


def test_per_model_function_gives_each_its_own(world: World) -> None:
    """A function of the name is asked once for each model, so each keeps its own state."""
    made: dict[str, CircuitBreaker] = {}

    def breaker(name: str) -> CircuitBreaker:
        assert name not in made
        made[name] = CircuitBreaker(failures=2)
        return made[name]

    def ask(*, model: str = "?") -> str:
        if model == "a":
            raise ConnectionError
        return model

    fn = Pipeline(ModelFallback("a", "b", per_model=breaker)).wrap(coloured(world, ask))
    for _ in range(2):
        assert world.run(fn) == "b"

    assert (made["a"].state, made["b"].state) == ("open", "closed")


class Bound(Policy):
    """A policy of a user's own, which counts how often it is bound."""

    def __init__(self) -> None:
        self.times = 0

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        self.times += 1
        return inner


def test_a_models_policy_is_bound_once() -> None:
    """Any policy serves, callable or not; its chain is kept: the second call finds it ready."""
    policy = Bound()
    assert not callable(policy)
    fn = Pipeline(ModelFallback("a", per_model=policy)).wrap(echo)

    assert [fn() for _ in range(3)] == [{"model": "a"}] * 3
    assert policy.times == 1


@pytest.mark.parametrize("given", [None, 5, Retry, "text"])
def test_per_model_function_that_gives_no_policy(world: World, given: Any) -> None:
    """A function of `per_model` that gives something else is a TypeError that says so."""
    fn = Pipeline(ModelFallback("a", per_model=lambda name: given)).wrap(world.function("ok"))
    error = error_of(world, fn)

    assert type(error) is TypeError
    assert "per_model" in str(error)


# Who served


def test_served_by_and_current_attempt_inside(world: World) -> None:
    """Inside the function they tell the attempt under way and its model."""
    seen: list[Any] = []

    def look(**kwargs: Any) -> str:
        attempt = current_attempt()
        seen.append((attempt.number, attempt.model, served_by(), kwargs["model"]))
        if len(seen) < 3:
            raise ConnectionError
        return "ok"

    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=1))
    world.run(pipeline.wrap(world.function(look)))

    assert seen == [(1, "a", "a", "a"), (2, "a", "a", "a"), (3, "b", "b", "b")]


@rest_and_full
@pytest.mark.parametrize(("steps", "model"), [(["ok"], "a"), ([ConnectionError, "ok"], "b")])
def test_served_by_after_the_call(steps: Any, model: str, listeners: Any) -> None:
    """After a call `served_by()` tells the model that answered, at rest as otherwise."""
    left = list(steps)

    def ask(model: str = "?") -> str:
        step = left.pop(0)
        if step is ConnectionError:
            raise ConnectionError
        return str(step)

    Pipeline(ModelFallback("a", "b"), listeners=listeners).call(ask)
    assert served_by() == model


@rest_and_full
@pytest.mark.parametrize(
    ("named", "served"),
    [
        ({}, "a"),
        ({"model": None}, "a"),
        ({"model": "a"}, "a"),
        ({"model": "b"}, "b"),
        ({"model": "c"}, "c"),
        ({"model": "x"}, "x"),
    ],
)
@pytest.mark.parametrize("first", ["a", Model("a", seed=1)], ids=["plain", "overrides"])
def test_served_by_is_the_model_that_was_asked(
    first: Any, named: dict[str, Any], served: str, listeners: Any
) -> None:
    """Whoever has chosen it, for a function that takes it by name only, as those of SDKs do; with
    what else it changes."""
    chain = ModelFallback(first, "b", Model("c", seed=2))
    overrides = {model.name: model.overrides for model in chain.models}
    asked = Pipeline(chain, listeners=listeners).call(echo, **named)

    assert asked == {"model": served, **overrides.get(served, {})}
    assert served_by() == served


@pytest.mark.parametrize(
    ("steps", "served", "degraded"),
    [
        (["ok"], "a", False),
        ([ConnectionError, "ok"], "b", True),
        ([ConnectionError, ConnectionError], None, False),
    ],
)
def test_the_outcome_tells_who_served(
    world: World, steps: Any, served: str | None, degraded: bool
) -> None:
    """`served_by` is the model that answered, `degraded` that it was not the first choice."""
    fn = Pipeline(ModelFallback("a", "b")).wrap(world.function(*steps))
    outcome = world.run(guarded(fn).outcome)

    assert (outcome.served_by, outcome.degraded) == (served, degraded)
    assert [attempt.model for attempt in outcome.attempts] == ["a", "b"][: len(steps)]


def test_the_callers_own_choice_is_no_degradation(world: World) -> None:
    """The first choice is the one the caller named."""
    fn = Pipeline(ModelFallback("a", "b")).wrap(world.function("ok"))
    outcome = world.run(guarded(fn).outcome, model="b")

    assert (outcome.served_by, outcome.degraded) == ("b", False)


@pytest.mark.fault(120)
def test_the_history_has_every_models_error(world: World) -> None:
    """All models failed: the history has each one's error, in order."""
    errors = [ConnectionError(), TimeoutError(), rate_limit()]
    fn = Pipeline(ModelFallback("a", "b", "c")).wrap(world.function(*errors))
    error = error_of(world, fn)

    assert error is errors[2]
    assert [(a.number, a.model, a.failure.error) for a in history(error)] == [
        (1, "a", errors[0]),
        (2, "b", errors[1]),
        (3, "c", errors[2]),
    ]


# In print


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ModelFallback("a", Model("b")), "ModelFallback('a', 'b')"),
        (ModelFallback(Model("a", x=1)), "ModelFallback(Model('a', x=1))"),
        (ModelFallback("a", argument="engine"), "ModelFallback('a', argument='engine')"),
        (ModelFallback("a", per_model=5), "ModelFallback('a', per_model=Timeout(5))"),
        (ModelFallback("a", on=429), "ModelFallback('a', on=status(429))"),
        (
            ModelFallback("a", rounds=3, raise_first=True),
            "ModelFallback('a', rounds=3, raise_first=True)",
        ),
        (
            ModelFallback("a", on=status(500), argument="engine", per_model=5),
            "ModelFallback('a', on=status(500), argument='engine', per_model=Timeout(5))",
        ),
        (Model("a", call=echo), "Model('a', call=echo)"),
        (
            Model("a", account="team", first=2, prefill=False, x=1),
            "Model('a', account='team', first=2.0, prefill=False, x=1)",
        ),
    ],
    ids=str,
)
def test_repr(value: Any, text: str) -> None:
    """It reads like the code that makes it, defaults left out."""
    assert repr(value) == text


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            {"seed": 1, "extra": {"top": 2, "api_key": "sk-1", "deep": {"auth": "x", 3: 4}}},
            "seed=1, extra={'top': 2, 'api_key': ..., 'deep': {'auth': ..., 3: 4}}",
        ),
        ({"headers": {"x": 1}}, "headers=..."),
        ({"system": "You are"}, "system=<str>"),
        ({"extra_body": {"top_k": 5, "api_key": "sk"}}, "extra_body={'top_k': 5, 'api_key': ...}"),
    ],
    ids=str,
)
def test_overrides_are_printed_without_secrets(overrides: dict[str, Any], text: str) -> None:
    """Dicts as dicts, leaf by leaf; what may be a key or a prompt is left out, at any depth."""
    assert repr(Model("a", **overrides)) == f"Model('a', {text})"
