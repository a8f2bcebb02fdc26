"""Pipelines: ways to call through one, nesting, options, and what a copy of one is."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from conftest import Takes, World
from resilience import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    FailureRate,
    Fallback,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    Retry,
    Timeout,
    guarded,
    resilient,
)
from resilience.events import CallEnded
from resilience.policy import Inner, Policy, Runtime
from resilience.testing import script
from support.calling import error_of, message_of, passing, rest_and_full


def echo(**kwargs: Any) -> dict[str, Any]:
    return kwargs


# Calling


def test_call_wrap_and_decorate_are_the_same(world: World) -> None:
    """`call`, `wrap`, calling the pipeline, and `resilient` all guard."""
    pipeline = Pipeline(Retry(wait=1))
    ways: list[Callable[[Any], Any]] = [
        lambda fn: functools.partial(pipeline.call, fn),
        pipeline.wrap,
        pipeline,
        resilient,
        resilient(),
        resilient(Retry()),
    ]
    for way in ways:
        assert world.run(way(world.function(ConnectionError, "ok")), 1, two=2) == "ok"
    assert world.calls == [((1,), {"two": 2})] * 12


def test_what_a_pipeline_guards_already_it_guards_once() -> None:
    """`call` puts its policies around a function or a method of its own no second time."""
    pipeline = Pipeline(Bulkhead(1, queue=0))

    class Service:
        @pipeline
        def ask(self, size: int) -> tuple[Service, int]:
            return self, size

    service = Service()
    assert pipeline.call(service.ask, 2) == (service, 2)
    assert pipeline.call(pipeline.wrap(echo), size=2) == {"size": 2}
    with pytest.raises(BulkheadFullError):
        Pipeline(pipeline).call(service.ask, 2)


def test_arguments_named_like_ours_reach_the_function(world: World) -> None:
    """`fn`, `self`, `outcome` and `args` are the user's own words."""
    pipeline = Pipeline(Retry())
    named = {"fn": 1, "self": 2, "outcome": 3, "args": 4}
    fn = world.function("ok")
    for way in (
        pipeline.wrap(fn),
        *(functools.partial(f, fn) for f in (pipeline.call, pipeline.outcome)),
    ):
        world.run(functools.partial(way, **named))

    assert world.calls == [((), named)] * 3


@pytest.mark.parametrize("policies", [[], [Retry()], [CircuitBreaker(trip=FailureRate(0.5))]])
def test_arguments_named_like_ours_reach_the_function_at_rest(policies: Any) -> None:
    """The same where the function is called directly."""
    assert Pipeline(*policies).wrap(echo)(size=1, fn=2) == {"size": 1, "fn": 2}


def test_bare_resilient_retries_over_a_breaker_of_its_own(world: World) -> None:
    """`@resilient` is Retry() over CircuitBreaker(), one for each function."""
    error = ConnectionError("mine")
    one = resilient(world.function(error))
    two = resilient(world.function("ok"))
    for _ in range(2):
        assert error_of(world, one) is error

    assert [type(policy) for policy in guarded(one).pipeline.policies] == [Retry, CircuitBreaker]
    assert len(world.calls) == 5
    assert type(error_of(world, one)) is CircuitOpenError
    assert world.run(two) == "ok"


def test_a_pipeline_without_policies_only_calls(world: World) -> None:
    """No policies, no difference."""
    assert world.run(Pipeline().wrap(world.function("ok"))) == "ok"


def test_a_mock_can_be_decorated_bare() -> None:
    """Anything callable is a function to the bare decorator, whatever attributes it has."""
    assert resilient(Mock(return_value=3))() == 3


def test_the_first_example_reaches_the_second_model_when_the_first_hangs(world: World) -> None:
    """A model that hangs is asked once, and the second one has its turn."""
    answer = world.function(Takes(100), lambda messages, model: model)
    chat = resilient(
        Timeout(60),
        ModelFallback("gpt-4o", "claude-sonnet-4-6", "gpt-4o-mini"),
        Retry(attempts=2),
        CircuitBreaker(key="model"),
        Timeout(15),
    )(answer)
    outcome = world.run(guarded(chat).outcome, "hi")
    assert outcome.value == "claude-sonnet-4-6"
    assert [a.model for a in outcome.attempts] == ["gpt-4o", "claude-sonnet-4-6"]
    assert outcome.degraded
    assert outcome.elapsed == 15


@pytest.mark.real
@pytest.mark.fault(22)
@rest_and_full
def test_sixteen_threads_share_a_pipeline(listeners: Any) -> None:
    """Half of their attempts fail: no foreign error, no lost or mixed result."""
    pipeline = Pipeline(
        Retry(attempts=2, wait=0), CircuitBreaker(failures=10**6), listeners=listeners
    )
    found: list[Any] = []

    @pipeline
    def fn(thread: int, number: int) -> tuple[int, int]:
        key = thread, number
        if number % 2 and key not in seen:
            seen.add(key)
            raise ConnectionError
        return key

    seen: set[tuple[int, int]] = set()

    def work(thread: int) -> None:
        try:
            found.extend(fn(thread, number) == (thread, number) for number in range(100))
        except Exception as error:
            found.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    finally:
        sys.setswitchinterval(before)
    assert found == [True] * 1600


# Nesting


def test_pipelines_nest(world: World) -> None:
    """A pipeline is a policy; attempts are numbered over the outermost."""
    breaker = CircuitBreaker(key="model", failures=2)
    robust = Pipeline(Retry(attempts=2, wait=1), breaker)
    outer = Pipeline(Fallback("sorry"), ModelFallback("a", "b"), robust)
    outcome = world.run(outer.outcome, world.function(ConnectionError))

    assert outcome.value == "sorry"
    assert [(a.number, a.model) for a in outcome.attempts] == [
        (1, "a"),
        (2, "a"),
        (3, "b"),
        (4, "b"),
    ]
    world.run(robust.outcome, world.function(ConnectionError), model="a")
    assert len(world.calls) == 4


def test_a_guarded_function_inside_has_its_own_record(world: World) -> None:
    """A separately decorated function counts its own attempts; the outer one counts its own."""
    inner = Pipeline(Retry(wait=1)).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    outcome = world.run(Pipeline(Retry()).outcome, passing(world, inner))

    assert outcome.value == "ok"
    assert len(outcome.attempts) == 1
    assert len(world.calls) == 3


@pytest.mark.fault(81)
def test_a_guarded_function_may_be_guarded_again(world: World) -> None:
    """By another pipeline: the layers are apart, also in `call`."""
    once = Pipeline(Retry(attempts=2, wait=1)).wrap(world.function(ConnectionError))
    twice = Pipeline(Fallback("sorry")).wrap(once)

    assert world.run(twice) == "sorry"
    assert len(world.calls) == 2
    assert world.run(Pipeline(Fallback("spare")).call, once) == "spare"
    assert len(world.calls) == 4


def test_a_pipeline_guards_its_own_function_once(world: World) -> None:
    """`pipeline.call` of what it has wrapped already adds no second layer."""
    seen: list[Any] = []
    pipeline = Pipeline(Retry(attempts=2, wait=1, retry_exhausted=True), listeners=[seen.append])
    error_of(world, pipeline.call, pipeline.wrap(world.function(ConnectionError)))

    assert len(world.calls) == 2
    assert [type(event) for event in seen].count(CallEnded) == 1


@pytest.fixture
def _deep() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


def depth_of_objects() -> int:
    """How deep an object can call itself, up to 500: Python 3.12 has a fixed limit for that."""

    class Down:
        def __call__(self, left: int) -> int:
            return 0 if left == 0 else 1 + self(left - 1)

    depth = 500
    while True:
        try:
            return Down()(depth)
        except RecursionError:
            depth -= 10


@pytest.mark.fault(83)
@pytest.mark.usefixtures("_deep")
@pytest.mark.parametrize(
    ("listeners", "share"), [((), 1.0), ((lambda event: None,), 0.5)], ids=["rest", "full"]
)
def test_a_guarded_function_may_call_itself(listeners: Any, share: float) -> None:
    """As deep as any object does, on the full path half as deep at least, without a deadlock."""

    @resilient(CircuitBreaker(), listeners=listeners)
    def down(left: int) -> int:
        return 0 if left == 0 else 1 + down(left - 1)

    depth = depth_of_objects()
    if depth < 500:
        depth = int(depth * share) - 10
    assert depth > 100
    for left in (3, depth):
        assert down(left) == left


@pytest.mark.fault(77)
def test_one_retry_object_in_two_pipelines(world: World) -> None:
    """Values have no state to share: two pipelines with one Retry do not meet."""
    retry = Retry(attempts=2, wait=1, within=5)
    for _ in range(3):
        outcome = world.run(Pipeline(retry).outcome, world.function(ConnectionError, "ok"))
        assert outcome.value == "ok"
    assert world.clock.sleeps == [1, 1, 1]


# Options


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"asynchronous": 1}, ("asynchronous", "1")),
        ({"name": 7}, ("name", "7")),
        ({"listeners": [7]}, ("listeners", "7")),
        ({"listeners": "seven"}, ("listeners", "'seven'")),
        ({"listeners": 7}, ("listeners", "7")),
    ],
)
def test_a_bad_option_of_a_pipeline_is_named(options: Any, named: Any) -> None:
    """The message has the option's name and the value given."""
    message = message_of(TypeError, Pipeline, Retry(), **options)
    assert all(word in message for word in named)


@pytest.mark.parametrize("policy", [Retry, 7, lambda call: None, object()])
def test_what_is_no_policy_is_refused(policy: Any) -> None:
    """A class in place of its object, and what does not derive from `Policy`."""
    assert "polic" in message_of(TypeError, Pipeline, policy)
    assert "polic" in message_of(TypeError, Pipeline, Retry(), policy)


def test_a_policy_without_a_bind_cannot_be_made() -> None:
    """`bind` is the one thing that a policy must have."""

    class Bindless(Policy):
        """What derives from `Policy` and adds nothing."""

    assert "bind" in message_of(TypeError, Bindless)


def test_an_option_of_a_part_holds_for_the_whole() -> None:
    """Listeners of both are called; the colour is the part's unless the whole has its own."""
    seen: list[str] = []
    part = Pipeline(Retry(), asynchronous=False, listeners=[lambda event: seen.append("part")])
    whole = Pipeline(part, listeners=[lambda event: seen.append("whole")])

    assert whole.asynchronous is False
    assert Pipeline(part, asynchronous=True).asynchronous is True
    whole.call(lambda: None)
    assert seen == ["whole", "part"] * 4


# Copies


def named_model(*, model: str) -> str:
    return model


@pytest.mark.fault(24)
def test_a_copied_pipeline_is_itself() -> None:
    """Within settings that are copied, a pipeline, a breaker or a circuit stays the one it is."""
    breaker = CircuitBreaker(key="model")
    settings = {"all": [Pipeline(Retry(), breaker), breaker, breaker.circuit("m")]}
    found = copy.deepcopy(settings)
    for shared, copied in zip(settings["all"], found["all"], strict=True):
        assert copied is copy.copy(shared) is shared


@pytest.mark.fault(24)
def test_a_pipeline_pickles_as_its_options() -> None:
    """Its circuits begin anew; the copy has no state in common with the original."""
    breaker = CircuitBreaker(key="model", failures=2)
    pipeline = Pipeline(
        ModelFallback("a", Model("b", extra={"x": 1})),
        Pipeline(Retry(attempts=2, wait=0), breaker),
        asynchronous=False,
        name="chat",
        listeners=[print],
    )
    breaker.circuit("a").open()
    made = pickle.loads(pickle.dumps(pipeline))

    assert repr(made) == repr(pipeline)
    assert made.listeners == (print,)
    assert made.policies[1].policies[1].circuit("a").state == "closed"
    made.policies[1].policies[1].circuit("b").open()
    assert breaker.circuit("b").state == "closed"
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(breaker.circuit("a"))


@pytest.mark.fault(24)
def test_a_pickled_pipeline_guards() -> None:
    """What comes back is at rest like a new one, and retries."""
    made = pickle.loads(pickle.dumps(Pipeline(Retry(attempts=2, wait=0), CircuitBreaker())))

    assert made.call(script(ConnectionError, "ok")) == "ok"


# The first attempt of a call at rest


def test_a_function_wrapped_while_a_circuit_is_open_gets_its_model_at_rest() -> None:
    """Whether a call at rest has its arguments rewritten does not depend on when it was wrapped."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("other").open()
    chat: Any = Pipeline(ModelFallback("a", "b"), breaker).wrap(lambda model=None: model)
    breaker.circuit("other").close()
    assert chat() == "a"


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("chain", [[], [ModelFallback("a", "b")]], ids=["alone", "chain"])
def test_a_call_that_fails_at_rest_is_repeated_with_all_its_arguments(
    later: bool, chain: Any
) -> None:
    """Those by place and those by name."""
    calls: list[Any] = []

    def ask(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        if len(calls) == 1:
            raise ConnectionError
        return "ok"

    async def aask(*args: Any, **kwargs: Any) -> Any:
        return ask(*args, **kwargs)

    fn: Any = Pipeline(*chain, Retry(wait=0)).wrap(aask if later else ask)

    async def main() -> Any:
        return await fn(1, size=2)

    assert (asyncio.run(main()) if later else fn(1, size=2)) == "ok"
    assert calls == [((1,), {"size": 2, **({"model": "a"} if chain else {})})] * 2


# Policies that a pipeline asks


class Cautious(Policy):
    """Refuses functions that are called `secret`, and blocks."""

    def check(self, fn: Callable[..., Any]) -> None:
        if fn.__name__ == "secret":
            raise TypeError("secret")

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner


def test_a_policy_may_refuse_a_function() -> None:
    """Where it is guarded, in `wrap` and in `call`, also from within a nested pipeline."""

    def secret() -> None: ...

    for pipeline in (Pipeline(Cautious()), Pipeline(Retry(), Pipeline(Cautious()))):
        assert message_of(TypeError, pipeline.wrap, secret) == "secret"
        assert message_of(TypeError, pipeline.call, secret) == "secret"
        assert isinstance(pipeline.outcome(lambda: 1), Outcome)


def test_a_policy_looks_at_a_function_once() -> None:
    """However often `call` gets it; at a partial each time, as what is bound may differ."""
    looked_at: list[Any] = []

    class Curious(Cautious):
        def check(self, fn: Callable[..., Any]) -> None:
            looked_at.append(fn)

    pipeline, partial = Pipeline(Curious()), functools.partial(echo, size=1)
    for fn in (partial, partial, echo, echo):
        pipeline.call(fn)
    assert looked_at == [partial, partial, echo]
