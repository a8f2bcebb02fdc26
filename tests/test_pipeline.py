"""Pipeline and Guarded: order, nesting, outcomes, variants, events, and rest."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import gc
import inspect
import operator
import pickle
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any
from unittest import mock

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Takes, World
from resilience import (
    Attempt,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    Guarded,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    PolicyOrderWarning,
    RejectedError,
    ResilienceError,
    Retry,
    Timeout,
    WorkersBusyError,
    current_attempt,
    history,
    resilient,
    served_by,
)
from resilience._core import results
from resilience.events import AttemptEnded, CallEnded, WaitBegan
from resilience.failures import Advice, Failure, Kind, describe
from resilience.testing import disabled, script, virtual_time
from resilience.typing import Policy
from resilience.waits import Exponential


class BusyError(Exception):
    """A rate limit: WAIT, and no fault of the service."""


@describe.register(BusyError)
def _read(error: BusyError) -> Failure:
    return Failure(Kind.RATE_LIMIT, Advice.WAIT, error=error)


def fails(world: World, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    """The error of a call that must fail."""
    with pytest.raises(Exception) as info:  # noqa: PT011
        world.run(fn, *args, **kwargs)
    return info.value


def passing(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the user's that calls `fn`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    async def acall(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return acall if world.asynchronous else call


# Order


@pytest.mark.parametrize(
    ("policies", "reason"),
    [
        (lambda: [Retry(), Retry()], "two Retry"),
        (lambda: [Retry(), Pipeline(Retry())], "two Retry"),
        (lambda: [CircuitBreaker(), Retry()], "CircuitBreaker outside Retry"),
        (lambda: [Timeout(60), Retry(), CircuitBreaker()], "never hears of hung calls"),
        (lambda: [ModelFallback("a", "b"), Timeout(9), Retry()], "no total"),
        (
            lambda: [Timeout(30), ModelFallback("a", "b"), Retry(attempts=2), Timeout(15)],
            "second model's turn",
        ),
        (lambda: [Retry(), ModelFallback("a", "b")], "Retry outside ModelFallback"),
    ],
)
def test_fault_075_orders_that_defeat_a_policy(policies: Any, reason: str) -> None:
    """Each hazard is warned of once, at the line that builds the pipeline, with the reason."""
    with pytest.warns(PolicyOrderWarning, match=reason) as warned:
        Pipeline(*policies())

    assert len(warned) == 1
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    "policies",
    [
        list,
        lambda: [Retry(), CircuitBreaker()],
        lambda: [Retry(), CircuitBreaker(), Timeout(5)],
        lambda: [Timeout(60), Retry(), CircuitBreaker(), Timeout(5)],
        lambda: [Timeout(60), Retry(), Timeout(5)],
        lambda: [Timeout(60), Retry()],
        lambda: [
            Fallback(None),
            Timeout(60),
            ModelFallback("a", "b"),
            Retry(attempts=2),
            CircuitBreaker(key="model"),
            Timeout(15),
        ],
        lambda: [Timeout(60, pass_as="t"), Retry(attempts=None), Timeout(lambda **kwargs: 5)],
    ],
)
def test_fault_075_orders_that_are_fine(policies: Any) -> None:
    """The standard order and its parts are not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pipeline(*policies())
        resilient(*policies())


def test_a_decorator_is_warned_of_at_its_own_line() -> None:
    """`@resilient(...)` points at the user's line as well."""
    with pytest.warns(PolicyOrderWarning) as warned:
        resilient(Retry(), Retry())

    assert warned[0].filename == __file__


def test_policies_apply_outermost_first(world: World) -> None:
    """They run in the order they are written in."""
    inside, outside = Fallback("inside"), Fallback("outside")
    fn = world.function(ConnectionError)

    assert world.run(Pipeline(outside, inside).wrap(fn)) == "inside"
    assert world.run(Pipeline(Retry(), outside).wrap(fn)) == "outside"
    assert len(world.calls) == 2


def test_fault_075_a_pipeline_prints_its_order() -> None:
    """The repr is the code that makes it."""
    pipeline = Pipeline(
        Fallback(None),
        Pipeline(Retry(attempts=2), CircuitBreaker(key="model")),
        Timeout(60, pass_as="t"),
        name="chat",
        asynchronous=True,
    )

    text = repr(pipeline)
    assert text.startswith(
        "Pipeline(Fallback(None), "
        "Pipeline(Retry(attempts=2), CircuitBreaker(key='model')), Timeout(60"
    )
    assert text.endswith("asynchronous=True, name='chat')")


# Calling


def test_call_wrap_and_decorate_are_the_same(world: World) -> None:
    """`call`, `wrap`, calling the pipeline, and `resilient` all guard."""
    pipeline = Pipeline(Retry(wait=1))
    ways = [
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


def test_users_own_fn_and_self_are_theirs(world: World) -> None:
    """Arguments named `fn`, `self` or `outcome` reach the function."""
    pipeline = Pipeline(Retry())
    named = {"fn": 1, "self": 2, "outcome": 3, "args": 4}
    fn = world.function("ok")
    for way in (
        pipeline.wrap(fn),
        *(functools.partial(f, fn) for f in (pipeline.call, pipeline.outcome)),
    ):
        world.run(functools.partial(way, **named))

    assert world.calls == [((), named)] * 3


def test_bare_resilient_retries_over_a_breaker_of_its_own(world: World) -> None:
    """`@resilient` is Retry() over CircuitBreaker(), one for each function."""
    one = resilient(world.function(ConnectionError))
    two = resilient(world.function("ok"))
    for _ in range(2):
        fails(world, one)

    assert [type(policy) for policy in one.pipeline.policies] == [Retry, CircuitBreaker]
    assert len(world.calls) == 5
    assert type(fails(world, one)) is CircuitOpenError
    assert world.run(two) == "ok"


def test_a_pipeline_without_policies_just_calls(world: World) -> None:
    """No policies, no difference."""
    assert world.run(Pipeline().wrap(world.function("ok"))) == "ok"


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
    """A separately decorated function counts its own attempts; the outer one counts starts."""
    inner = Pipeline(Retry(wait=1)).wrap(world.function(ConnectionError, ConnectionError, "ok"))
    outcome = world.run(Pipeline(Retry()).outcome, passing(world, inner))

    assert outcome.value == "ok"
    assert len(outcome.attempts) == 1
    assert len(world.calls) == 3


def test_fault_081_decorated_twice(world: World) -> None:
    """A guarded function may be guarded again: the layers are apart."""
    once = Pipeline(Retry(attempts=2, wait=1)).wrap(world.function(ConnectionError))
    twice = Pipeline(Fallback("sorry")).wrap(once)

    assert world.run(twice) == "sorry"
    assert len(world.calls) == 2


def test_a_function_under_this_very_pipeline_is_guarded_once(world: World) -> None:
    """`pipeline.call` of what it has wrapped already adds no second layer."""
    heard: list[Any] = []
    pipeline = Pipeline(Retry(attempts=2, wait=1), listeners=[heard.append])
    fails(world, pipeline.call, pipeline.wrap(world.function(ConnectionError)))

    assert len(world.calls) == 2
    assert [type(event) for event in heard].count(CallEnded) == 1


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


@pytest.mark.usefixtures("_deep")
@pytest.mark.parametrize(
    ("listeners", "share"), [((), 1.0), ((lambda event: None,), 0.5)], ids=["rest", "full"]
)
def test_fault_083_recursion(listeners: Any, share: float) -> None:
    """As deep as any object's, on the full path at least half as deep, and without a deadlock."""

    @resilient(CircuitBreaker(), listeners=listeners)
    def down(left: int) -> int:
        return 0 if left == 0 else 1 + down(left - 1)

    depth = depth_of_objects()
    if depth < 500:
        depth = int(depth * share) - 10
    assert depth > 100
    for left in (3, depth):
        assert down(left) == left


@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_fault_083_one_failure_is_counted_once(listeners: Any) -> None:
    """A failure that comes up through a recursion is one failure to the circuit."""
    breaker = CircuitBreaker(failures=3)

    @resilient(breaker, listeners=listeners)
    def down(left: int) -> int:
        if left == 0:
            raise ConnectionError
        return down(left - 1)

    with pytest.raises(ConnectionError):
        down(3)
    assert breaker.state == "closed"


def test_fault_084_a_breaker_inside_itself(world: World) -> None:
    """One circuit twice on the way, with one trial place: one trial, which closes it."""
    breaker = CircuitBreaker()
    breaker.open()
    world.clock.advance(60)
    outcome = world.run(Pipeline(breaker, breaker).outcome, world.function("ok"))

    assert outcome.value == "ok"
    assert breaker.state == "closed"


def test_fault_077_one_retry_object_in_two_pipelines(world: World) -> None:
    """Values have no state to share: two pipelines with one Retry do not meet."""
    retry = Retry(attempts=2, wait=1, within=5)
    for _ in range(3):
        outcome = world.run(Pipeline(retry).outcome, world.function(ConnectionError, "ok"))
        assert outcome.value == "ok"
    assert world.clock.sleeps == [1, 1, 1]


# Outcome


def test_the_outcome_of_a_success(world: World) -> None:
    """It tells the value, the attempts with their times and waits, and the time in all."""
    fn = world.function(Takes(1, ConnectionError()), Takes(2, "ok"))
    outcome = world.run(Pipeline(Retry(wait=4)).outcome, fn, model="m")

    assert isinstance(outcome, Outcome)
    assert (outcome.value, outcome.error, outcome.elapsed) == ("ok", None, 7)
    assert (outcome.served_by, outcome.degraded) == ("m", False)
    first, second = outcome.attempts
    assert isinstance(first, Attempt)
    assert (first.number, first.started, first.duration, first.waited) == (1, 0, 1, 0)
    assert (second.number, second.started, second.duration, second.waited) == (2, 5, 2, 4)
    assert first.failure.kind is Kind.CONNECTION
    assert second.failure is None


def test_the_outcome_of_a_failure(world: World) -> None:
    """The error is in it, not raised, with its note and history."""
    error = ConnectionError()
    outcome = world.run(Pipeline(Retry(wait=1)).wrap(world.function(error)).outcome)

    assert outcome.error is error
    assert outcome.value is None
    assert outcome.attempts == history(error)
    assert len(error.__notes__) == 1


def test_the_outcome_of_a_refusal(world: World) -> None:
    """Refused: our error, and no attempts."""
    breaker = CircuitBreaker()
    breaker.open()
    outcome = world.run(Pipeline(breaker).outcome, world.function("ok"))

    assert isinstance(outcome.error, CircuitOpenError)
    assert (outcome.attempts, outcome.elapsed, outcome.served_by) == ((), 0, None)


def test_the_outcome_of_an_interruption_is_the_interruption(world: World) -> None:
    """Ctrl-C is no outcome."""
    with pytest.raises(BaseException) as info:  # noqa: PT011
        world.run(Pipeline(Retry()).outcome, world.function(KeyboardInterrupt))
    assert type(info.value) is KeyboardInterrupt


def test_outcomes_are_values() -> None:
    """Outcomes and attempts are frozen."""
    for value, field in ((Outcome(1), "value"), (Attempt(), "number")):
        with pytest.raises(AttributeError):
            setattr(value, field, 5)


# Who, where


def test_current_attempt(world: World) -> None:
    """Inside, it is the attempt under way, its waits and earlier ones known; outside, the first."""
    seen: list[Attempt] = []

    def look() -> None:
        seen.append(current_attempt())
        raise ConnectionError

    world.run(Pipeline(Retry(wait=2)).outcome, world.function(look))

    assert [(a.number, a.waited, a.started, a.duration) for a in seen] == [
        (1, 0, 0, None),
        (2, 2, 2, None),
        (3, 2, 4, None),
    ]
    assert current_attempt().number == 1


def test_served_by_is_none_without_a_chain() -> None:
    """Where no call with a chain was made, nobody served."""
    import contextvars

    assert contextvars.Context().run(served_by) is None


# Variants


def test_with_policies(world: World) -> None:
    """`with_policies` is the function under these policies only; the original stays."""
    guarded = Pipeline(Retry(wait=1)).wrap(world.function(ConnectionError))
    once = guarded.with_policies(Fallback("sorry"))

    assert world.run(once) == "sorry"
    assert len(world.calls) == 1
    fails(world, guarded)
    assert len(world.calls) == 4
    assert isinstance(once, Guarded)


def test_replacing(world: World) -> None:
    """`replacing` is the same pipeline with the one policy of that type replaced in its place."""
    breaker = CircuitBreaker(failures=99)
    guarded = Pipeline(Retry(), breaker).wrap(world.function(ConnectionError))
    fails(world, guarded.replacing(Retry(attempts=1)))

    assert len(world.calls) == 1
    replaced = guarded.replacing(CircuitBreaker(name="x"), Retry(attempts=1)).pipeline
    assert [repr(policy) for policy in replaced.policies] == [
        "Retry(attempts=1)",
        "<CircuitBreaker(name='x'): closed>",
    ]
    assert guarded.replacing(Retry(attempts=1)).pipeline.policies[1] is breaker


@pytest.mark.parametrize("policies", [(), (Timeout(9), Timeout(8))])
def test_replacing_needs_exactly_one(policies: Any) -> None:
    """None of the type, or more than one, is a ValueError that says so."""
    guarded = Pipeline(Retry(), *policies).wrap(lambda: None)

    with pytest.raises(ValueError, match="exactly one Timeout"):
        guarded.replacing(Timeout(5))


def test_replacing_keeps_who_listens(world: World) -> None:
    """The same pipeline with one policy replaced still has its name and its listeners."""
    heard: list[Any] = []
    pipeline = Pipeline(Retry(), name="chat", listeners=[heard.append])
    replaced = pipeline.wrap(world.function("ok")).replacing(Retry(attempts=1))
    world.run(replaced)

    assert replaced.pipeline.name == "chat"
    assert [event.pipeline for event in heard] == ["chat", "chat"]


def test_variants_of_a_method_keep_its_self(world: World) -> None:
    """`bot.chat.outcome`, `.with_policies` and `.replacing` keep their `self`."""
    pipeline = Pipeline(Retry(wait=1))
    fn = world.function(lambda bot, x: (bot.name, x))

    class Bot:
        name = "bot"
        chat = pipeline.wrap(fn)

    bot = Bot()
    assert world.run(bot.chat, 1) == ("bot", 1)
    assert world.run(bot.chat.outcome, 2).value == ("bot", 2)
    assert world.run(bot.chat.with_policies(Timeout(5)), 3) == ("bot", 3)
    assert world.run(bot.chat.replacing(Retry(attempts=1)), 4) == ("bot", 4)
    assert world.run(Bot.chat, bot, 5) == ("bot", 5)


# Listeners


def test_listeners_hear_what_happens_in_order(world: World) -> None:
    """Attempts, waits, the end: one frozen event each, in order, with the pipeline's name."""
    heard: list[Any] = []
    pipeline = Pipeline(Retry(wait=2), name="chat", listeners=[heard.append])
    world.run(pipeline.wrap(world.function(ConnectionError, "ok")), "a prompt")

    assert [type(event) for event in heard] == [AttemptEnded, WaitBegan, AttemptEnded, CallEnded]
    assert {event.pipeline for event in heard} == {"chat"}
    failed, wait, succeeded, end = heard
    assert failed.attempt.failure.kind is Kind.CONNECTION
    assert wait.seconds == 2
    assert wait.attempt.number == 1
    assert (succeeded.attempt.number, succeeded.attempt.waited) == (2, 2)
    assert (len(end.attempts), end.elapsed, end.error) == (2, 2, None)
    assert "a prompt" not in repr(heard)


def test_listeners_hear_refusals_and_errors(world: World) -> None:
    """The end tells the error that comes out."""
    heard: list[Any] = []
    breaker = CircuitBreaker(failures=1)
    guarded = Pipeline(breaker, listeners=[heard.append]).wrap(world.function(ConnectionError))
    first, second = fails(world, guarded), fails(world, guarded)

    ends = [event for event in heard if type(event) is CallEnded]
    assert [end.error for end in ends] == [first, second]
    assert [len(end.attempts) for end in ends] == [1, 0]


def test_a_listener_that_raises_does_not_touch_the_call(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What a listener raises goes to the log; the others still hear."""
    heard: list[Any] = []
    pipeline = Pipeline(Retry(), listeners=[lambda event: 1 / 0, heard.append])

    assert world.run(pipeline.wrap(world.function("ok"))) == "ok"
    assert len(heard) == 2
    assert "listener" in caplog.text


# Testing helpers


def test_disabled_switches_everything_off(world: World) -> None:
    """Within `disabled()` functions are simply called; outside all is as before."""
    breaker = CircuitBreaker(failures=1)
    fn = world.function(ConnectionError)
    guarded = Pipeline(Fallback("sorry"), ModelFallback("a"), Retry(), breaker).wrap(fn)
    with disabled():
        assert type(fails(world, guarded)) is ConnectionError
        assert world.calls == [((), {})]
        breaker.open()
        assert type(fails(world, guarded)) is ConnectionError
    assert world.run(guarded) == "sorry"
    assert len(world.calls) == 2


def test_script_does_its_steps() -> None:
    """A script raises, calls and returns what it was given, and repeats its last step."""
    with virtual_time() as clock:
        fn = script(ConnectionError, TimeoutError("x"), lambda *args, **kw: (args, kw), "last")
        guarded = Pipeline(Retry()).wrap(fn)

        assert guarded(1, two=2) == ((1,), {"two": 2})
        assert [guarded(), guarded()] == ["last", "last"]
        assert len(fn.calls) == 5
        assert len(clock.sleeps) == 2


def test_async_script() -> None:
    """The same for async functions, whose steps may be async."""

    async def step() -> str:
        return "async"

    with virtual_time():
        fn = script(ConnectionError, step, asynchronous=True)
        assert asyncio.run(Pipeline(Retry()).call(fn)) == "async"


def test_a_script_needs_a_step() -> None:
    """An empty script is a ValueError."""
    with pytest.raises(ValueError, match="steps"):
        script()


# Callables


class Flaky:
    """Raises once, then returns; in every shape a callable may have."""

    def __init__(self) -> None:
        self.made = 0

    def step(self) -> str:
        self.made += 1
        if self.made == 1:
            raise ConnectionError
        return "ok"

    async def astep(self) -> str:
        return self.step()

    def future(self) -> asyncio.Future[str]:
        made: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            made.set_result(self.step())
        except ConnectionError as error:
            made.set_exception(error)
        return made


def sync(result: Any) -> Any:
    """The result of a sync call; a coroutine instead of it is closed and refused."""
    if inspect.iscoroutine(result):
        result.close()
        pytest.fail("a sync call gave a coroutine")
    return result


class Callable_:
    def __init__(self, fn: Callable[[], Any]) -> None:
        self.fn = fn

    def __call__(self) -> Any:
        return self.fn()


class AsyncCallable(Callable_):
    async def __call__(self) -> Any:
        return await self.fn()


class Rare(Callable_):
    """Can be neither remembered (no weak references) nor hashed."""

    __slots__ = ("fn",)
    __hash__ = None  # type: ignore[assignment]


def looped(fn: Callable[[], Any]) -> Callable[[], Any]:
    """A function that says it wraps itself."""

    def itself() -> Any:
        return fn()

    itself.__wrapped__ = itself  # type: ignore[attr-defined]
    return itself


@pytest.mark.parametrize(
    "shape",
    [
        lambda flaky: flaky.step,
        lambda flaky: functools.partial(flaky.step),
        lambda flaky: lambda: flaky.step(),
        lambda flaky: Callable_(flaky.step),
        lambda flaky: functools.partial(Callable_(flaky.step)),
        lambda flaky: mock.Mock(side_effect=flaky.step),
        lambda flaky: functools.partial(operator.methodcaller("step"), flaky),
        lambda flaky: staticmethod(flaky.step).__func__,
        lambda flaky: Rare(flaky.step),
        lambda flaky: looped(flaky.step),
    ],
)
@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_fault_085_every_sync_shape_is_guarded(shape: Any, listeners: Any) -> None:
    """Plain callables of every shape are retried."""
    flaky = Flaky()

    assert sync(Pipeline(Retry(wait=0), listeners=listeners).call(shape(flaky))) == "ok"
    assert flaky.made == 2


@pytest.mark.parametrize(
    "shape",
    [
        lambda flaky: flaky.astep,
        lambda flaky: functools.partial(flaky.astep),
        lambda flaky: lambda: flaky.astep(),
        lambda flaky: Callable_(flaky.astep),
        lambda flaky: AsyncCallable(flaky.astep),
        lambda flaky: functools.partial(AsyncCallable(flaky.astep)),
        lambda flaky: flaky.future,
        lambda flaky: mock.AsyncMock(side_effect=flaky.step),
        lambda flaky: functools.wraps(flaky.astep)(lambda: flaky.astep()),
    ],
)
@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
@pytest.mark.parametrize("way", ["call", "wrap", "outcome"])
def test_fault_085_every_async_shape_is_guarded(shape: Any, listeners: Any, way: str) -> None:
    """What gives an awaitable is awaited and retried, whatever it looks like before."""
    flaky = Flaky()
    pipeline = Pipeline(Retry(wait=0), listeners=listeners)

    async def main() -> Any:
        fn = shape(flaky)
        if way == "outcome":
            return (await pipeline.outcome(fn)).value
        return await (pipeline.call(fn) if way == "call" else pipeline.wrap(fn)())

    assert asyncio.run(main()) == "ok"
    assert flaky.made == 2


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_what_happens_between_the_call_and_its_await_counts(way: str) -> None:
    """A circuit opened in between refuses: the coroutine made already is closed, not awaited."""
    breaker = CircuitBreaker()
    awaited: list[str] = []

    async def ask(text: str) -> None:
        awaited.append(text)

    guarded = Pipeline(breaker).wrap(lambda text: ask(text))

    async def main() -> None:
        answer = guarded("first")
        breaker.open()
        with pytest.raises(CircuitOpenError):
            await answer
        breaker.close()
        await guarded("second")

    asyncio.run(main()) if way == "asyncio" else trio.run(main)
    assert awaited == ["second"]


class Numbered:
    """A policy of a user's own: each attempt is given a number."""

    def __init__(self) -> None:
        self.given = 0

    def bind(self, call: Any, runtime: Any) -> Any:
        async def numbered() -> Any:
            self.given += 1
            return await call(self.given)

        return numbered


class Promise:
    """An awaitable that can be neither closed nor cancelled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __await__(self) -> Any:
        yield from ()
        return self.number


async def _promised(number: int) -> int:
    return number


def _future(number: int) -> asyncio.Future[int]:
    made: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    made.set_result(number) if number > 1 else None
    return made


@pytest.mark.parametrize(
    ("make", "ended"),
    [
        (_promised, lambda made: inspect.getcoroutinestate(made) == inspect.CORO_CLOSED),
        (_future, lambda made: made.cancelled()),
        (Promise, lambda made: made.number == 1),
    ],
    ids=["coroutine", "future", "awaitable"],
)
def test_an_awaitable_serves_only_the_arguments_it_was_made_with(make: Any, ended: Any) -> None:
    """Where a policy changes them, the function is called again, and the first result is ended."""
    made: list[Any] = []

    def ask(number: int) -> Any:
        made.append(make(number))
        return made[-1]

    async def main() -> Any:
        return await Pipeline(Numbered()).call(ask)  # type: ignore[call-arg,arg-type]

    assert asyncio.run(main()) == 2
    assert len(made) == 2
    assert ended(made[0])


class Turn:
    """Suspends whoever awaits it, without a loop."""

    def __await__(self) -> Any:
        yield


def test_an_abandoned_call_may_be_closed_in_another_context() -> None:
    """As a loop's end or the collector does: no error, and the trial's place is given back."""
    breaker = CircuitBreaker(reset_after=1e-9)
    breaker.open()

    async def hang() -> None:
        await Turn()

    call = Pipeline(breaker).call(hang)
    contextvars.copy_context().run(call.send, None)
    assert (breaker.state, breaker._only.snapshot().trials) == ("half-open", 1)
    call.close()
    assert not breaker._only._places


def test_an_abandoned_block_may_be_closed_in_another_context() -> None:
    """Before its first attempt, while a policy asks others: no error."""
    closed = []

    class Asking:
        def bind(self, call: Any, runtime: Any) -> Any:
            return call

        async def before_block(self, runtime: Any) -> None:
            try:
                await Turn()
            finally:
                closed.append(True)

    step: Any = Pipeline(Asking()).attempts().__aiter__().__anext__()
    contextvars.copy_context().run(step.send, None)
    step.close()
    assert closed == [True]


class Bindless(Policy):
    """What has no `bind` of its own is no policy, whatever it is derived from."""


def test_a_policy_without_a_bind_says_so() -> None:
    """Deriving from the protocol gives a class nothing: the call fails loudly, unmade."""
    fn = script("ok")

    with pytest.raises(NotImplementedError):
        Pipeline(Bindless()).call(fn)
    assert fn.calls == []


def test_types_beyond_a_bound_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at each time, so that classes made on the fly can be collected."""
    monkeypatch.setattr(results, "_BOUND", 0)
    pipeline = Pipeline(Retry())

    def plain() -> Any:
        return type("Fleeting", (), {})()

    def promise() -> Any:
        return type("Fleeting", (Promise,), {})(5)

    async def main() -> Any:
        return await pipeline.call(promise)

    fleeting = weakref.ref(type(pipeline.call(plain)))
    assert asyncio.run(main()) == 5
    gc.collect()
    assert fleeting() is None
    assert not any(kind.__name__ == "Fleeting" for kind in results.PLAIN | results._AWAITABLE)


@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_fault_085_one_function_of_two_colours(listeners: Any) -> None:
    """A helper used with an async client first serves a sync one as before, and the reverse."""
    guarded = Pipeline(Retry(wait=0), listeners=listeners).wrap(lambda ask: ask())

    async def main(flaky: Flaky) -> Any:
        return await guarded(flaky.astep)

    for _ in range(2):
        assert asyncio.run(main(Flaky())) == "ok"
        assert sync(guarded(Flaky().step)) == "ok"


@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_fault_085_objects_of_one_class_and_two_colours(listeners: Any) -> None:
    """What was learnt of one callable object says nothing of another of its class."""
    pipeline = Pipeline(Retry(wait=0), listeners=listeners)

    async def main(flaky: Flaky) -> Any:
        return await pipeline.call(Callable_(flaky.astep))

    assert asyncio.run(main(Flaky())) == "ok"
    assert sync(pipeline.call(Callable_(Flaky().step))) == "ok"


def test_fault_085_class_and_static_methods(world: World) -> None:
    """Decorated above or below `classmethod` and `staticmethod`, they are guarded."""
    fn = world.function(lambda *args: args)

    class Bot:
        one = classmethod(Pipeline(Retry()).wrap(fn))
        two = staticmethod(Pipeline(Retry()).wrap(fn))
        three = Pipeline(Retry()).wrap(classmethod(fn))
        four = Pipeline(Retry()).wrap(staticmethod(fn))

    assert world.run(Bot().one, 1) == (Bot, 1)
    assert world.run(Bot().two, 1) == (1,)
    assert world.run(Bot().three, 1) == (Bot, 1)
    assert world.run(Bot().four, 1) == (1,)


def test_fault_085_builtins() -> None:
    """Functions written in C are guarded too."""
    assert Pipeline(Fallback("sorry")).call({}.__getitem__, 1) == "sorry"
    assert Pipeline(Fallback("sorry")).call(operator.truediv, 1, 0) == "sorry"
    assert Pipeline(Retry()).call(len, [1]) == 1


def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    "shape",
    [
        _generator,
        _async_generator,
        functools.partial(_generator),
        lambda: _generator(),
        lambda: _async_generator(),
        contextlib.contextmanager(_generator),
        contextlib.asynccontextmanager(_async_generator),
    ],
)
def test_fault_085_what_cannot_be_guarded_yet_is_refused(shape: Any) -> None:
    """A body that runs only when iterated is refused loudly, never passed through unguarded."""
    with pytest.raises(TypeError, match="guarded"):
        Pipeline(Retry()).call(shape)


def test_fault_089_a_coroutine_object_is_refused() -> None:
    """A coroutine in place of its function is a TypeError that tells how to do it."""

    async def fn() -> None: ...

    made = fn()
    for use in (Pipeline(Retry()).call, Pipeline(Retry()).wrap, resilient):
        with pytest.raises(TypeError, match="must be a function, not the coroutine"):
            use(made)
    made.close()


@pytest.mark.parametrize("made", [property(lambda self: 1), Flaky])
def test_fault_081_classes_and_properties_are_refused(made: Any) -> None:
    """Decorating a class or a property is refused with advice."""
    for use in (Pipeline(Retry()).wrap, resilient):
        with pytest.raises(TypeError, match=r"decorate (its methods|the function)"):
            use(made)


def test_making_an_object_may_be_guarded() -> None:
    """A class may be called under a pipeline, for once."""
    assert isinstance(Pipeline(Retry()).call(Flaky), Flaky)


def test_fault_087_it_looks_like_the_function() -> None:
    """Name, docs, signature, hints, wrapped function and colour are the function's."""

    def plain(x: int, *, y: str = "z") -> float:
        """Docs."""
        return x

    async def asynchronous(x: int) -> None: ...

    guarded = resilient(plain)
    assert guarded.__name__ == "plain"
    assert guarded.__doc__ == "Docs."
    assert guarded.__wrapped__ is plain
    assert guarded.__module__ == __name__
    assert guarded.__qualname__ == plain.__qualname__
    assert inspect.signature(guarded) == inspect.signature(plain)
    assert guarded.__annotations__ == plain.__annotations__
    assert not inspect.iscoroutinefunction(guarded)
    assert inspect.iscoroutinefunction(resilient(asynchronous))


def test_fault_087_the_class_has_a_signature_of_its_own() -> None:
    """Only its objects take on that of a function."""
    assert not hasattr(Guarded, "__signature__")
    assert [*inspect.signature(Guarded).parameters] == ["args", "kwargs"]


def test_fault_087_it_equals_the_same_function_under_the_same_pipeline() -> None:
    """As bound methods do; nothing else equals it, the function itself included."""
    pipeline = Pipeline(Retry())

    def one() -> None: ...

    assert pipeline.wrap(one) == pipeline.wrap(one)
    assert hash(pipeline.wrap(one)) == hash(pipeline.wrap(one))
    assert pipeline.wrap(one) != Pipeline(Retry()).wrap(one)
    assert pipeline.wrap(one) != one


def test_fault_087_callables_without_a_name() -> None:
    """Objects without `__name__` are guarded, and printed, all the same."""
    guarded = Pipeline(Retry()).wrap(functools.partial(lambda x: x, 5))

    assert guarded() == 5
    assert "partial" in repr(guarded)


def test_fault_088_a_method_does_not_keep_its_object_alive() -> None:
    """The decorator holds no instance; the circuit is the class's, shared by its instances."""
    breaker = CircuitBreaker(failures=1)

    class Bot:
        @resilient(Retry(attempts=1), breaker)
        def chat(self) -> None:
            raise ConnectionError

    bot = Bot()
    with pytest.raises(ConnectionError):
        bot.chat()
    with pytest.raises(CircuitOpenError):
        Bot().chat()
    ref = weakref.ref(bot)
    breaker.close()  # lets go of the failure that opened it, and of its frames
    del bot
    gc.collect()
    assert ref() is None


def module_level() -> str:
    return "plain"


guarded_at_module_level = resilient(module_level)
module_level = guarded_at_module_level  # as a decorator would have it


def test_fault_024_pickled_by_name_or_refused() -> None:
    """A function of a module pickles by its name; one that cannot is a clear TypeError."""
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert copy.deepcopy(module_level) is copy.copy(module_level) is module_level
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(resilient(lambda: None))


def test_fault_024_what_is_shared_is_copied_as_itself_and_not_pickled() -> None:
    """A pipeline, a breaker or a circuit within settings that are copied stays the one it is."""
    breaker = CircuitBreaker(key="model")
    settings = {"all": [Pipeline(Retry(), breaker), breaker, breaker.circuit("m")]}
    found = copy.deepcopy(settings)
    for shared, copied in zip(settings["all"], found["all"], strict=True):
        assert copied is copy.copy(shared) is shared
        with pytest.raises(TypeError, match=r"^cannot pickle .*: what it knows belongs to this"):
            pickle.dumps(shared)


# Errors


@pytest.mark.parametrize(
    "error",
    [
        ResilienceError(),
        RejectedError(1.5, datetime(2027, 1, 1, tzinfo=timezone.utc)),
        CircuitOpenError(2.0, None, "name", ("key", 1)),
        CircuitOpenError(None),
        WorkersBusyError(workers=256),
        DeadlineExceededError(3.0),
    ],
    ids=repr,
)
def test_fault_065_our_errors_travel(error: Any) -> None:
    """They pickle, copy and deep-copy with all they carry, notes too, and print."""
    error.__notes__ = ["a note"]
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(made) is type(error)
        assert str(made) == str(error)
        assert repr(made) == repr(error)
        assert made.__notes__ == ["a note"]
        for name in ("retry_after", "retry_at", "name", "key", "seconds", "workers"):
            assert getattr(made, name, None) == getattr(error, name, None)
    assert isinstance(error, ResilienceError)


def test_errors_that_came_out_of_calls_pickle(world: World) -> None:
    """A call's own error pickles with its note and its history."""
    error = fails(world, Pipeline(Retry(wait=1)).wrap(world.function(ConnectionError("x"))))
    made = pickle.loads(pickle.dumps(error))

    assert made.__notes__ == error.__notes__
    assert [a.number for a in history(made)] == [1, 2, 3]
    assert [a.failure.kind for a in history(made)] == [Kind.CONNECTION] * 3


def test_a_history_with_a_bad_result_in_it_pickles(world: World) -> None:
    """An attempt that was repeated for its result has no failure, before and after."""
    guarded = Pipeline(Retry(attempts=2, wait=1, on_result=lambda result: result == "bad"))
    error = fails(world, guarded.wrap(world.function("bad", ConnectionError)))
    made = pickle.loads(pickle.dumps(error))

    assert [a.failure and a.failure.kind for a in history(made)] == [None, Kind.CONNECTION]


# At rest: the same as the full path


STEPS = {"conn": ConnectionError, "busy": BusyError, "value": ValueError, "ok": None}
BY_HAND = ["", "", "", "open", "close", "isolate", "trip"]
EXPONENTIAL = Exponential(jitter=0)


def patient() -> tuple[list[Any], CircuitBreaker]:
    breaker = CircuitBreaker(failures=3, reset_after=1000)
    return [Retry(wait=EXPONENTIAL), breaker], breaker


def quick() -> tuple[list[Any], CircuitBreaker]:
    breaker = CircuitBreaker(failures=2, reset_after=1e-9, successes=2, on=[ConnectionError])
    return [Fallback("sorry", on=ValueError), Retry(attempts=2, wait=EXPONENTIAL), breaker], breaker


def chain() -> tuple[list[Any], CircuitBreaker]:
    breaker = CircuitBreaker(failures=2, reset_after=1000, key="model")
    retry = Retry(attempts=2, wait=EXPONENTIAL)
    return [ModelFallback("a", Model("b", extra={"x": 1})), retry, breaker], breaker


PIPELINES = [patient, quick, chain]
_scripts = st.lists(
    st.tuples(
        st.sampled_from(BY_HAND),  # done by hand before the call
        st.sampled_from([(), ("a",), ("b",), ("own",)]),  # its arguments
        st.lists(st.tuples(st.sampled_from(BY_HAND), st.sampled_from([*STEPS])), max_size=5),
    ),
    max_size=8,
)


def circuits(breaker: CircuitBreaker) -> list[Any]:
    return (
        [breaker] if breaker.key is None else [breaker.circuit(name) for name in ("a", "b", "own")]
    )


def told(error: Exception | None) -> Any:
    if error is None:
        return None
    return (
        type(error),
        [(a.number, a.model, a.failure and a.failure.kind, a.waited) for a in history(error)],
        getattr(error, "__notes__", None),
    )


def played(world: str, make: Any, plan: Any, listeners: Any) -> list[Any]:
    """What happens in so many calls: results, errors, histories, notes, waits, states."""
    policies, breaker = make()
    pipeline = Pipeline(*policies, listeners=listeners)
    steps: list[Any] = []
    log: list[Any] = []

    def by_hand(what: str) -> None:
        for circuit in circuits(breaker):
            if what == "trip":  # a failure of another call, within or between calls
                log.append(told(Pipeline(breaker).outcome(_fails, model="a").error))
            elif what:
                getattr(circuit, what)()

    def take(model: str = "a", **given: Any) -> Any:
        what, outcome = steps.pop(0) if steps else ("", "ok")
        by_hand(what)
        if STEPS[outcome] is not None:
            raise STEPS[outcome]
        return model, given, outcome

    async def atake(model: str = "a", **given: Any) -> Any:
        return take(model, **given)

    guarded = pipeline.wrap(take if world == "sync" else atake)

    async def one(*args: str) -> None:
        try:
            found = guarded(*args)
            log.append(await found if world != "sync" else found)
            log.append(served_by())
        except Exception as error:
            log.append(told(error))

    async def main() -> None:
        for what, args, taken in plan:
            by_hand(what)
            steps[:] = taken
            await one(*args)
            log.append([circuit.state for circuit in circuits(breaker)])

    async def no_sleep(seconds: float) -> None:
        log.append(seconds)

    with (
        mock.patch("time.sleep", log.append),
        mock.patch("asyncio.sleep", no_sleep),
        mock.patch("trio.sleep", no_sleep),
    ):
        if world == "trio":
            trio.run(main)
        elif world == "asyncio":
            asyncio.run(main())
        else:
            with pytest.raises(StopIteration):
                main().send(None)
    return log


def _fails(model: str = "a") -> None:
    raise ConnectionError


@settings(max_examples=60, deadline=None)
@given(make=st.sampled_from(PIPELINES), plan=_scripts)
@pytest.mark.parametrize("world", ["sync", "asyncio", "trio"])
def test_rest_changes_nothing(world: str, make: Any, plan: Any) -> None:
    """At rest and by the full path the same scripts give the same, in every world."""
    assert played(world, make, plan, ()) == played(world, make, plan, [lambda event: None])


@settings(max_examples=30, deadline=None)
@given(make=st.sampled_from(PIPELINES), plan=_scripts)
def test_all_worlds_agree(make: Any, plan: Any) -> None:
    """The same scripts give the same in sync, asyncio and trio."""
    expected = played("sync", make, plan, ())

    assert played("asyncio", make, plan, ()) == expected
    assert played("trio", make, plan, ()) == expected


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_a_success_begun_at_rest_still_counts(asynchronous: bool, listeners: Any) -> None:
    """A call begun at rest, during which another failed, ends that run when it succeeds."""
    breaker = CircuitBreaker(failures=2)
    fail = Pipeline(breaker)

    def fn() -> str:
        fail.outcome(_fails)
        return "ok"

    async def afn() -> str:
        return fn()

    guarded = Pipeline(breaker, listeners=listeners).wrap(afn if asynchronous else fn)
    for _ in range(3):
        found = guarded()
        assert (asyncio.run(_awaited(found)) if asynchronous else found) == "ok"
        assert breaker.state == "closed"


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def interleaved(make: Any, moves: Any, listeners: Any) -> list[Any]:
    """Calls begun and ended by hand, in any order: results, waits, and states after each move."""
    policies, breaker = make()
    guarded = Pipeline(*policies, listeners=listeners).wrap
    log: list[Any] = []
    pending: list[asyncio.Future[Any]] = []

    async def step(model: str = "a", **given: Any) -> Any:
        pending.append(asyncio.get_running_loop().create_future())
        return model, await pending[-1]

    fn = guarded(step)

    async def call(number: int) -> None:
        try:
            log.append((number, await fn()))
        except Exception as error:
            log.append((number, told(error)))

    async def main() -> None:
        tasks: list[asyncio.Task[None]] = []

        def end(index: int, outcome: str) -> None:
            future = pending.pop(index % len(pending))
            if STEPS[outcome] is not None:
                future.set_exception(STEPS[outcome]())
            else:
                future.set_result("ok")

        for index, outcome in [*moves, *[(0, "ok")] * 100]:
            if outcome == "begin":
                tasks.append(asyncio.create_task(call(len(tasks))))
            elif pending:
                end(index, outcome)
            for _ in range(8):
                await real_sleep(0)
            log.append([circuit.state for circuit in circuits(breaker)])
        await asyncio.gather(*tasks)

    real_sleep = asyncio.sleep

    async def no_sleep(seconds: float) -> None:
        log.append(seconds)

    with mock.patch("asyncio.sleep", no_sleep):
        asyncio.run(main())
    return log


@settings(max_examples=60, deadline=None)
@given(
    make=st.sampled_from(PIPELINES),
    moves=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["begin", "begin", "begin", *STEPS])),
        max_size=25,
    ),
)
def test_rest_changes_nothing_for_interleaved_calls(make: Any, moves: Any) -> None:
    """Calls that overlap, begun and ended by hand, end the same at rest and by the full path."""
    assert interleaved(make, moves, ()) == interleaved(make, moves, [lambda event: None])


@pytest.mark.real
@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_fault_022_sixteen_threads(listeners: Any) -> None:
    """Sixteen threads, half of whose attempts fail: no foreign error, no lost or mixed result."""
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
