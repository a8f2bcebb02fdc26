"""ModelFallback: the order of models, the arguments each gets, and when it goes on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    history,
    served_by,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import raised


class ToldError(Exception):
    """An error whose meaning the test chooses."""

    def __init__(self, advice: Advice, kind: Kind = Kind.RATE_LIMIT, **facts: Any) -> None:
        super().__init__(advice, kind)
        self.failure = Failure(kind, advice, **facts)


@describe.register(ToldError)
def _read(error: ToldError) -> Failure:
    return error.failure


def busy(retry_after: float | None = None) -> ToldError:
    return ToldError(Advice.WAIT, retry_after=retry_after)


def coloured(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` in this world's colour, with its signature."""
    if not world.asynchronous:
        return fn

    @functools.wraps(fn)
    async def afn(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return afn


def models(world: World) -> list[str]:
    """The models asked, in order."""
    return [kwargs["model"] for _, kwargs in world.calls]


def fails(world: World, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    """The error of a call that must fail."""
    with pytest.raises(Exception) as info:  # noqa: PT011
        world.run(fn, *args, **kwargs)
    return info.value


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
    guarded = Pipeline(ModelFallback("a", "b", "c")).wrap(world.function(ConnectionError))
    fails(world, guarded, 1, **named)

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

    fails(world, Pipeline(ModelFallback("a", "b")).wrap(coloured(world, ask)), "hi")
    assert asked == ["a", "b"]


# The argument


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (("m", "p"), {}, (("m", "p"), ("a", "p"))),
        (("m",), {"prompt": "p"}, (("m", "p"), ("a", "p"))),
        ((), {"prompt": "p", "model": "m"}, (("m", "p"), ("a", "p"))),
        ((), {"prompt": "p"}, (("a", "p"),)),
    ],
)
def test_a_positional_model_is_replaced_in_place(
    world: World, args: Any, kwargs: Any, expected: Any
) -> None:
    """Where the model was positional it stays positional; else it is a keyword."""
    seen: list[Any] = []

    def ask(model: str = "?", prompt: str = "") -> None:
        seen.append((model, prompt))
        raise ConnectionError

    fails(world, Pipeline(ModelFallback("a")).wrap(coloured(world, ask)), *args, **kwargs)
    assert tuple(seen) == expected


def test_methods_and_other_argument_names(world: World) -> None:
    """`argument=` names another parameter; a bound method's `self` does not shift it."""
    seen: list[str] = []

    class Client:
        def ask(self, engine: str, prompt: str) -> str:
            seen.append(engine)
            if len(seen) < 3:
                raise ConnectionError
            return prompt

    method = Client().ask
    if world.asynchronous:

        class AsyncClient(Client):
            async def ask(self, engine: str, prompt: str) -> str:  # type: ignore[override]
                return Client.ask(self, engine, prompt)

        method = AsyncClient().ask  # type: ignore[assignment]
    pipeline = Pipeline(ModelFallback("a", "b", argument="engine"))

    assert world.run(pipeline.call, method, "own", "hi") == "hi"
    assert seen == ["own", "a", "b"]


def _positional_only(model: str, /) -> None: ...


def _no_such(prompt: str) -> None: ...


def _takes_any(**kwargs: Any) -> str:
    return str(kwargs["model"])


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (functools.partial(_takes_any, model="fixed"), "already bound by a partial"),
        (_positional_only, "positional-only"),
        (_no_such, r"no argument 'model'"),
        (lambda *model: None, r"no argument 'model'"),
    ],
)
def test_an_argument_that_cannot_be_chosen_is_refused(fn: Any, message: str) -> None:
    """Bound, positional-only or missing: TypeError at decoration, and at first use in `call`."""
    pipeline = Pipeline(ModelFallback("a"))
    with pytest.raises(TypeError, match=message):
        pipeline.wrap(fn)
    with pytest.raises(TypeError, match=message):
        pipeline.call(fn)


def test_a_partial_that_binds_something_else_is_fine() -> None:
    """Only the model's own argument must be left open."""
    fn = functools.partial(_takes_any, temperature=0)

    assert Pipeline(ModelFallback("a")).call(fn) == "a"


def test_an_unreadable_signature_gets_a_keyword() -> None:
    """A builtin that does not tell its signature gets the model by keyword."""
    for fn in (dict, functools.partial(dict, prompt="p")):
        assert Pipeline(ModelFallback("a")).call(fn, prompt="p") == {"prompt": "p", "model": "a"}


class Slotted:
    """A callable that can be neither remembered (no weak references) nor hashed."""

    __slots__ = ("asked",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompt: str, model: str = "?") -> str:
        self.asked.append(model)
        if model == "a":
            raise ConnectionError
        return prompt


def test_a_callable_that_cannot_be_remembered() -> None:
    """Where its argument is, is found anew for each call."""
    ask = Slotted()

    for _ in range(2):
        assert Pipeline(ModelFallback("a", "b")).call(ask, "hi") == "hi"
    assert ask.asked == ["a", "b"] * 2


# Models


def test_overrides_are_merged_leaf_by_leaf(world: World) -> None:
    """A model's own arguments go over the call's; dicts merge, and nobody's dict is changed."""
    extra = {"effort": "low", "deep": {"x": 1, "y": 2}}
    override = {"deep": {"y": 3}, "new": True}
    chain = ModelFallback("a", Model("b", temperature=0, extra_body=override), "c")
    guarded = Pipeline(chain).wrap(world.function(ConnectionError))
    fails(world, guarded, temperature=1, extra_body=extra)

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
    guarded = Pipeline(chain).wrap(world.function(spoil))
    for _ in range(2):
        fails(world, guarded, extra_body={"deep": {"x": 1}})
        fails(world, guarded)

    assert override == {"deep": {"y": 3}}


def test_overrides_of_the_calls_own_model(world: World) -> None:
    """A call that names a model of the chain gets that model's overrides."""
    guarded = Pipeline(ModelFallback("a", Model("b", x=1))).wrap(world.function("ok"))
    world.run(guarded, model="b")

    assert world.calls == [((), {"model": "b", "x": 1})]


def test_another_function_for_a_model(world: World) -> None:
    """`Model(call=)` calls another client's function with the same arguments."""
    other = world.function("theirs")
    ours = world.function(ConnectionError)
    guarded = Pipeline(ModelFallback("a", Model("b", call=other))).wrap(ours)

    assert world.run(guarded, "prompt") == "theirs"
    assert world.calls == [(("prompt",), {"model": "a"}), (("prompt",), {"model": "b"})]


def test_another_function_as_the_first_choice(world: World) -> None:
    """The first model may have a function of its own; the guarded one serves the rest."""
    other = world.function(ConnectionError)
    guarded = Pipeline(ModelFallback(Model("x", call=other), "a")).wrap(world.function("ours"))
    outcome = world.run(guarded.outcome)

    assert (outcome.value, outcome.served_by) == ("ours", "a")


@pytest.mark.parametrize("world", ["sync"], indirect=True)
def test_an_async_function_for_a_model_of_a_sync_call(world: World) -> None:
    """A `Model(call=)` of the wrong colour is a clear TypeError, and leaves no coroutine behind."""

    async def other(**kwargs: Any) -> str:
        return "never"

    guarded = Pipeline(ModelFallback("a", Model("b", call=other))).wrap(
        world.function(ConnectionError)
    )
    with pytest.raises(TypeError, match="awaitable in a sync call"):
        guarded()


# What goes around each model


def test_retries_and_circuits_are_each_models_own(world: World) -> None:
    """Inside the chain every model has its retries, and its circuit where the key says so."""
    breaker = CircuitBreaker(key="model", failures=2)
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=1), breaker)
    fails(world, pipeline.wrap(world.function(ConnectionError)))

    assert models(world) == ["a", "a", "b", "b"]
    assert breaker.circuit("a").state == breaker.circuit("b").state == "open"


def test_per_model_seconds(world: World) -> None:
    """`per_model=seconds` bounds each model's turn."""
    guarded = Pipeline(ModelFallback("a", "b", per_model=5)).wrap(world.function(Takes(9)))
    error = fails(world, guarded)

    assert type(error) is DeadlineExceededError
    assert error.seconds == 5
    assert models(world) == ["a", "b"]
    assert world.clock.now() == pytest.approx(1010)


def test_per_model_policy(world: World) -> None:
    """`per_model=policy` goes around each turn, a pipeline too."""
    chain = ModelFallback("a", "b", per_model=Pipeline(Timeout(99), Retry(attempts=2, wait=1)))
    fails(world, Pipeline(chain).wrap(world.function(ConnectionError)))

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

    guarded = Pipeline(ModelFallback("a", "b", per_model=breaker)).wrap(coloured(world, ask))
    for _ in range(2):
        assert world.run(guarded) == "b"

    assert (made["a"].state, made["b"].state) == ("open", "closed")


class Bound:
    """A policy of a user's own, which counts how often it is bound."""

    def __init__(self) -> None:
        self.times = 0

    def bind(self, call: Any, runtime: Any) -> Any:
        self.times += 1
        return call


def test_a_models_policy_is_bound_once() -> None:
    """Its chain is kept like the pipeline's own: the second call finds it ready."""
    bound = Bound()
    guarded = Pipeline(ModelFallback("a", per_model=bound)).wrap(lambda model: model)

    assert [guarded(model="a") for _ in range(3)] == ["a"] * 3
    assert bound.times == 1


@pytest.mark.parametrize("given", [None, 5, Retry, "text"])
def test_per_model_function_that_gives_no_policy(world: World, given: Any) -> None:
    """A function of `per_model` that gives something else is a TypeError that says so."""
    guarded = Pipeline(ModelFallback("a", per_model=lambda name: given)).wrap(world.function("ok"))

    with pytest.raises(TypeError, match="per_model"):
        world.run(guarded)


# When it goes on


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (ConnectionError(), 2),
        (busy(), 2),
        (ToldError(Advice.FALLBACK, Kind.CONTEXT_LENGTH), 2),
        (DeadlineExceededError(3), 2),
        (CircuitOpenError(3), 2),
        (ToldError(Advice.STOP, Kind.AUTH), 1),
        (ValueError(), 1),
    ],
    ids=repr,
)
def test_what_is_recoverable(world: World, error: Exception, asked: int) -> None:
    """All but STOP goes on to the next model, and so do rejections."""
    fails(world, Pipeline(ModelFallback("a", "b")).wrap(world.function(error)))

    assert len(world.calls) == asked


def test_on_forms(world: World) -> None:
    """`on=` is the same language as everywhere; a rejection moves on whatever it says."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").open()
    chain = ModelFallback("a", "b", "c", on=raised(ValueError))
    guarded = Pipeline(chain, breaker).wrap(world.function(ValueError, "ok"))

    assert world.run(guarded) == "ok"
    assert models(world) == ["a", "c"]


def test_fault_121_an_open_circuit_moves_on_at_once(world: World) -> None:
    """With the first model's circuit open: no call to it, no wait, the next serves."""
    breaker = CircuitBreaker(key="model", failures=1)
    breaker.circuit("a").open()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(), breaker)
    outcome = world.run(pipeline.wrap(world.function("ok")).outcome)

    assert models(world) == ["b"]
    assert world.clock.sleeps == []
    assert (outcome.served_by, outcome.degraded) == ("b", True)
    assert breaker.circuit("b").state == "closed"


def test_all_circuits_open_is_a_refusal(world: World) -> None:
    """When nothing ran, the last refusal comes out."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("a").open()
    breaker.circuit("b").open()
    error = fails(world, Pipeline(ModelFallback("a", "b"), breaker).wrap(world.function("never")))

    assert type(error) is CircuitOpenError
    assert error.key == "b"
    assert world.calls == []
    assert history(error) == ()


def test_the_last_own_error_comes_out(world: World) -> None:
    """The last model refused: the error of the last that ran comes out, with a note."""
    breaker = CircuitBreaker(key="model", name="models")
    breaker.circuit("c").open()
    first, second = ConnectionError("first"), TimeoutError("second")
    pipeline = Pipeline(ModelFallback("a", "b", "c"), breaker)
    error = fails(world, pipeline.wrap(world.function(first, second)))

    assert error is second
    (note,) = error.__notes__
    assert "a: connection" in note
    assert "b: timeout" in note
    assert "'c' is open" in note
    assert error.__cause__ is None
    assert error.__context__ is None


def test_fault_120_the_history_has_every_models_error(world: World) -> None:
    """All models failed: the history has each one's error, in order."""
    errors = [ConnectionError(), TimeoutError(), busy()]
    error = fails(world, Pipeline(ModelFallback("a", "b", "c")).wrap(world.function(*errors)))

    assert error is errors[2]
    assert [(a.number, a.model, a.failure.error) for a in history(error)] == [
        (1, "a", errors[0]),
        (2, "b", errors[1]),
        (3, "c", errors[2]),
    ]


def test_a_predicate_that_raises_lets_the_error_out(world: World) -> None:
    """A broken `on` does not hide the call's own error; the note names what it raised."""
    guarded = Pipeline(ModelFallback("a", "b", on=lambda failure: 1 / 0)).wrap(
        world.function(ConnectionError)
    )
    error = fails(world, guarded)

    assert type(error) is ConnectionError
    assert "ZeroDivisionError" in error.__notes__[0]


# Waiting or leaving


def test_a_wait_leaves_to_the_next_free_model(world: World) -> None:
    """While another model is free, a WAIT failure is not waited for."""
    guarded = Pipeline(ModelFallback("a", "b"), Retry()).wrap(world.function(busy(5), "ok"))
    outcome = world.run(guarded.outcome)

    assert models(world) == ["a", "b"]
    assert world.clock.sleeps == []
    assert outcome.served_by == "b"


def test_the_last_model_waits(world: World) -> None:
    """The last model has nobody to leave to, so it waits as asked."""
    fn = world.function(busy(5), busy(5), "ok")
    outcome = world.run(Pipeline(ModelFallback("a", "b"), Retry()).wrap(fn).outcome)

    assert models(world) == ["a", "b", "b"]
    assert len(world.clock.sleeps) == 1
    assert 5 <= world.clock.sleeps[0] <= 6.25
    assert outcome.served_by == "b"


def test_a_retry_failure_is_retried_with_the_same_model(world: World) -> None:
    """Only WAIT leaves early: a RETRY failure is tried again where it was."""
    fn = world.function(ConnectionError, "ok")
    world.run(Pipeline(ModelFallback("a", "b"), Retry()).wrap(fn))

    assert models(world) == ["a", "a"]


@pytest.mark.parametrize(("patience", "expected"), [(4, ["a", "b"]), (6, ["a", "a"])])
def test_patience(world: World, patience: float, expected: list[str]) -> None:
    """`patience` is how long it may wait nevertheless."""
    world.clock.random = lambda: 0.0
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(patience=patience))
    world.run(pipeline.wrap(world.function(busy(5), "ok")))

    assert models(world) == expected


def test_an_open_circuit_is_not_a_free_model(world: World) -> None:
    """With the other model's circuit open, this one waits as it would alone."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").isolate()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(), breaker)
    world.run(pipeline.wrap(world.function(busy(5), "ok")))

    assert models(world) == ["a", "a"]
    assert len(world.clock.sleeps) == 1


def test_a_per_model_circuit_that_is_open_is_not_a_free_model(world: World) -> None:
    """The same for circuits that `per_model` has made."""
    breakers = {"a": CircuitBreaker(), "b": CircuitBreaker()}
    breakers["b"].isolate()
    chain = ModelFallback("a", "b", per_model=lambda name: Pipeline(Retry(wait=2), breakers[name]))
    world.run(Pipeline(chain).wrap(world.function(busy(), "ok")))

    assert models(world) == ["a", "a"]


def test_a_circuit_that_another_function_uses_counts_too(world: World) -> None:
    """The free model's circuit is found by the arguments of its own function."""

    def ours(prompt: str, model: str) -> str:
        world.calls.append(((prompt,), {"model": model}))
        if len(world.calls) == 1:
            raise busy(5)
        return model

    breaker = CircuitBreaker(key="model")
    breaker.circuit("b").isolate()
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(), breaker)

    assert world.run(pipeline.wrap(coloured(world, ours)), "hi", "a") == "a"
    assert models(world) == ["a", "a"]


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


@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
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
    outcome = world.run(Pipeline(ModelFallback("a", "b")).wrap(world.function(*steps)).outcome)

    assert (outcome.served_by, outcome.degraded) == (served, degraded)
    assert [attempt.model for attempt in outcome.attempts] == ["a", "b"][: len(steps)]


def test_the_callers_own_choice_is_no_degradation(world: World) -> None:
    """The first choice is the one the caller named."""
    guarded = Pipeline(ModelFallback("a", "b")).wrap(world.function("ok"))
    outcome = world.run(guarded.outcome, model="b")

    assert (outcome.served_by, outcome.degraded) == ("b", False)


def test_two_chains_one_inside_the_other(world: World) -> None:
    """A nested chain is the rest of its model's turn; every model is asked in order."""
    pipeline = Pipeline(ModelFallback("a", "b"), Pipeline(ModelFallback("x")))
    fails(world, pipeline.wrap(world.function(ConnectionError)))

    assert models(world) == ["a", "x", "b", "x"]


def test_one_model_alone_is_a_chain_too(world: World) -> None:
    """A chain of one sets the model and has nobody to go on to."""
    fn = world.function(busy(2), "ok")

    assert world.run(Pipeline(ModelFallback("only"), Retry()).wrap(fn)) == "ok"
    assert models(world) == ["only", "only"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ModelFallback("a", Model("b")), "ModelFallback('a', 'b')"),
        (ModelFallback(Model("a", x=1)), "ModelFallback(Model('a', x=1))"),
        (ModelFallback("a", argument="engine"), "ModelFallback('a', argument='engine')"),
        (ModelFallback("a", per_model=5), "ModelFallback('a', per_model=Timeout(5))"),
        (ModelFallback("a", on=429), "ModelFallback('a', on=status(429))"),
        (
            Model("a", extra_body={"top_k": 5, "api_key": "sk"}),
            "Model('a', extra_body={'top_k': 5, 'api_key': ...})",
        ),
        (Model("a", call=_no_such), "Model('a', call=_no_such)"),
    ],
    ids=str,
)
def test_repr(value: Any, text: str) -> None:
    """It reads like the code that makes it."""
    assert repr(value) == text
