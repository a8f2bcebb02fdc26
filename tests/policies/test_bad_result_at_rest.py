"""BadResult in calls at rest: the same comes of it as on the full path, and nothing is kept."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from resilience import BadResult, CircuitBreaker, FailureRate, ModelFallback, Pipeline, Retry
from resilience.failures import Kind
from resilience.policy import Call, Inner, Policy, Runtime
from support.policies import Busy


class Way:
    """A world in real time: in virtual time no call is at rest."""

    def __init__(self, name: str) -> None:
        self.name = name

    def function(self, step: Callable[[], Any]) -> Callable[..., Any]:
        """A function of this world's colour that does `step`."""

        def fn(**kwargs: Any) -> Any:
            return step()

        async def afn(**kwargs: Any) -> Any:
            return step()

        return fn if self.name == "sync" else afn

    def run(self, fn: Callable[..., Any]) -> Any:
        """Call and, where it is this world's way, await."""
        if self.name == "sync":
            return fn()
        return asyncio.run(fn()) if self.name == "asyncio" else trio.run(fn)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def way(request: pytest.FixtureRequest) -> Way:
    """Every test that takes this runs in all three worlds."""
    return Way(request.param)


class FullPath(Policy):
    """Counts the calls on the full path."""

    resting = True

    def __init__(self) -> None:
        self.calls = 0

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def full_path(call: Call) -> Any:
            self.calls += 1
            return await inner(call)

        return full_path


def script(steps: Iterator[Any]) -> Callable[[], Any]:
    """The next step for each call: an exception is raised, the rest is returned."""

    def step() -> Any:
        found = next(steps)
        if isinstance(found, Exception):
            raise found
        return found

    return step


def test_good_results_leave_calls_at_rest(way: Way) -> None:
    """A result that is good after a bad one too: nothing is going on then."""
    full = FullPath()
    steps = iter(["good", "bad", "good", "good"])
    pipeline = Pipeline(full, Retry(attempts=1), BadResult(lambda result: result == "bad"))
    fn = pipeline.wrap(way.function(script(steps)))

    assert [way.run(fn) for _ in range(4)] == ["good", "bad", "good", "good"]
    assert full.calls == 1


class Answer:
    """A result of a class that has not been met before."""

    def __init__(self, *, bad: bool) -> None:
        self.bad = bad


def test_the_first_result_of_its_class_is_looked_at(way: Way) -> None:
    """Bad, it is a failure like any other; good, it is returned."""
    kind = type("Answer", (Answer,), {})
    answers = [kind(bad=True), kind(bad=False)]
    pipeline = Pipeline(Retry(attempts=2, wait=0), BadResult(lambda answer: answer.bad))

    assert way.run(pipeline.wrap(way.function(script(iter(answers))))) is answers[1]


BREAKERS: list[Callable[[], list[Policy]]] = [
    list,
    lambda: [CircuitBreaker(failures=2)],
    lambda: [CircuitBreaker(trip=FailureRate(0.5, calls=4, minimum=3))],
]


def trace(way: Way, steps: tuple[Any, ...], *policies: Policy) -> list[Any]:
    """What comes of as many calls as there are steps, which results were looked at, and how the
    circuit stands then."""
    looked: list[Any] = []

    def check(result: Any) -> Any:
        looked.append(result)
        return {"good": False, "bad": True, "down": Kind.SERVER}[result]

    pipeline = Pipeline(Retry(attempts=2, wait=0), *policies, BadResult(check))
    fn = pipeline.wrap(way.function(script(iter(steps))))
    found: list[Any] = []
    for _ in steps:
        try:
            found.append(way.run(fn))
        except Exception as error:
            found.append(type(error))
    return [found, looked, [p.state for p in policies if isinstance(p, CircuitBreaker)]]


@pytest.mark.parametrize("breakers", BREAKERS, ids=["none", "in a row", "rate"])
def test_rest_changes_nothing(way: Way, breakers: Callable[[], list[Policy]]) -> None:
    """Scripts of good and bad results and errors, at rest and on the full path: the same comes out,
    each result is looked at once, and the circuit stands the same."""
    for steps in itertools.product(["good", "bad", "down", ConnectionError()], repeat=4):
        rest = trace(way, steps, *breakers())
        assert rest == trace(way, steps, *breakers(), Busy())
        results = [step for step in steps if isinstance(step, str)]
        assert rest[1] == results[: len(rest[1])]


class Unsure(Policy):
    """Has every healthy call that it sees at rest told on the full path."""

    resting = True

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner

    def at_rest(self, fn: Callable[..., Any]) -> Any:
        return lambda args, kwargs: None, lambda held, error, result: error is not None


@pytest.mark.parametrize("outer", [[], [Unsure()]], ids=["alone", "inside"])
def test_each_result_is_looked_at_once(way: Way, outer: list[Policy]) -> None:
    """The one of a call at rest that goes on in the full path, too; whoever sends it there."""
    looked: list[str] = []

    def check(result: str) -> bool:
        looked.append(result)
        return result.startswith("bad")

    steps = iter(["good", "bad 1", "bad 2", "fine"])
    fn = Pipeline(*outer, Retry(wait=0), BadResult(check)).wrap(way.function(script(steps)))

    assert [way.run(fn), way.run(fn)] == ["good", "fine"]
    assert looked == ["good", "bad 1", "bad 2", "fine"]


def test_an_interrupted_call_has_no_result(way: Way) -> None:
    """Ctrl-C in a call at rest passes; nothing is looked at, and the next call is at rest."""
    full = FullPath()
    looked: list[Any] = []
    interrupted = iter([True, False])

    def step() -> str:
        if next(interrupted):
            raise KeyboardInterrupt
        return "good"

    pipeline = Pipeline(full, BadResult(looked.append))
    fn = pipeline.wrap(way.function(step))
    with pytest.raises(KeyboardInterrupt):
        way.run(fn)

    assert way.run(fn) == "good"
    assert looked == ["good"]
    assert full.calls == 0


def test_a_window_does_not_count_a_bad_result_as_a_success(way: Way) -> None:
    """Half of the calls are what the service failed at: the circuit opens by their share."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=10, minimum=4))
    check = BadResult(lambda result: result == "down" and Kind.SERVER)
    steps = iter(["good", "down"] * 2)
    fn = Pipeline(breaker, check).wrap(way.function(script(steps)))
    for _ in range(4):
        way.run(fn)

    assert breaker.state == "open"


class Big:
    """Something to be let go."""


@pytest.mark.fault(71)
@pytest.mark.parametrize("full", [False, True], ids=["rest", "full"])
@pytest.mark.parametrize(
    "outer", [Retry(wait=0), ModelFallback("a", "b", "c")], ids=["retry", "models"]
)
def test_a_bad_result_is_not_kept_alive(way: Way, outer: Policy, full: bool) -> None:
    """It is let go before the next attempt begins, and the last one when its caller lets it go;
    without the garbage collector."""
    made: list[weakref.ref[Big]] = []
    alive: list[bool] = []

    def make() -> Big:
        alive.extend(ref() is not None for ref in made)
        made.append(weakref.ref(big := Big()))
        return big

    more = [Busy()] if full else []
    fn = Pipeline(outer, *more, BadResult(lambda result: True)).wrap(way.function(make))
    after: list[bool] = []

    def main() -> None:
        result = fn()
        after.append(made[-1]() is result)
        del result
        after.extend(ref() is None for ref in made)

    async def amain() -> None:
        result = await fn()
        after.append(made[-1]() is result)
        del result
        after.extend(ref() is None for ref in made)

    gc.collect()
    gc.disable()
    try:
        way.run(main if way.name == "sync" else amain)
    finally:
        gc.enable()

    assert len(made) == 3
    assert alive == [False] * 3
    assert after == [True] * 4
