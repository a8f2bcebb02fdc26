"""`at_rest`: what any number of policies hear of a call that runs directly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    BadResult,
    CircuitBreaker,
    FailureRate,
    ModelFallback,
    Pipeline,
    RejectedError,
    Retry,
)
from resilience.policy import (
    BUSY,
    NO_VERDICT,
    Call,
    Idle,
    Inner,
    Policy,
    Runtime,
    Verdict,
)
from resilience.testing import script
from support.calling import run_in
from support.gates import Bulkhead, Stream


class Holding(Policy):
    """Holds something for each call at rest, and logs what it is told, under its name."""

    resting = True

    def __init__(self, name: str, log: list[Any], *, busy: bool = False, tell: bool = True) -> None:
        self.name = name
        self.log = log
        self.full = busy
        self.tell = tell

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self.log.append((self.name, "begin", args, kwargs))
            return BUSY if self.full else f"held by {self.name}"

        def end(held: Any, error: Verdict, result: Any) -> bool:
            assert held == f"held by {self.name}"
            self.log.append((self.name, "end", error, result))
            return self.tell

        return begin, end

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def holding(call: Call) -> Any:
            in_hand = call.branch.in_hand
            held = None
            if in_hand is not None and in_hand.made and in_hand.held:
                held = in_hand.held.pop(self, None)
            self.log.append((self.name, "full", held))
            return await inner(call)

        return holding

    def __repr__(self) -> str:
        return self.name


def made(log: list[Any], *names: str, **options: Any) -> list[Holding]:
    return [Holding(name, log, **options) for name in names]


def in_short(log: list[Any]) -> list[Any]:
    return [(name, what) for name, what, *_ in log]


WORLDS = pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])


def run(loop: str, pipeline: Pipeline, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    async def afn(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    async def main() -> Any:
        return await pipeline.call(afn, *args, **kwargs)

    return pipeline.call(fn, *args, **kwargs) if loop == "sync" else run_in(loop, main)


# Healthy calls


@pytest.mark.parametrize("names", ["a", "ab", "abcde"])
@WORLDS
def test_every_policy_hears_of_a_healthy_call(loop: str, names: str) -> None:
    """Of its begin, outermost first, with the arguments; of its end, innermost first, with what it
    held and the result; and of nothing else."""
    log: list[Any] = []
    pipeline = Pipeline(Retry(), *made(log, *names), CircuitBreaker())
    for _ in range(2):
        log.clear()
        assert run(loop, pipeline, lambda x, y: x + y, 1, y=2) == 3
        assert log == [
            *((name, "begin", (1,), {"y": 2}) for name in names),
            *((name, "end", None, 3) for name in reversed(names)),
        ]


@WORLDS
def test_they_get_the_arguments_of_the_first_attempt(loop: str) -> None:
    """As a chain of models has rewritten them."""
    log: list[Any] = []
    pipeline = Pipeline(ModelFallback("a", "b"), *made(log, "x", "y"))
    run(loop, pipeline, lambda x, model=None: model, 1)

    assert [kwargs for _, what, *rest in log if what == "begin" for kwargs in rest[1:]] == [
        {"model": "a"}
    ] * 2


@WORLDS
def test_a_policy_outside_a_chain_is_not_asked_with_its_arguments(loop: str) -> None:
    """It stands outside what rewrites them, so such calls take the full path."""
    log: list[Any] = []
    pipeline = Pipeline(*made(log, "x"), ModelFallback("a", "b"), *made(log, "y"))

    assert run(loop, pipeline, lambda model=None: model) == "a"
    assert in_short(log) == [("x", "full"), ("y", "full")]


@WORLDS
def test_policies_of_nested_pipelines_hear_of_it(loop: str) -> None:
    """In their order through all of them."""
    log: list[Any] = []
    one, two, three = made(log, "a", "b", "c")
    run(loop, Pipeline(one, Pipeline(two, Pipeline(three))), lambda: 1)
    assert [name for name, what in in_short(log) if what == "end"] == ["c", "b", "a"]


def test_a_policy_may_have_nothing_to_hear_for_a_function() -> None:
    """`at_rest` gives None for it; the others hear of it as before."""
    log: list[Any] = []

    class Sometimes(Holding):
        def at_rest(self, fn: Callable[..., Any]) -> Any:
            return None if fn is int else super().at_rest(fn)

    pipeline = Pipeline(Sometimes("a", log), Holding("b", log))
    pipeline.call(int)
    assert in_short(log) == [("b", "begin"), ("b", "end")]
    log.clear()
    pipeline.call(str)
    assert in_short(log) == [("a", "begin"), ("b", "begin"), ("b", "end"), ("a", "end")]


@WORLDS
def test_ours_are_among_them(loop: str) -> None:
    """Two windows and a check count the same call, with a gate of the user's between them."""
    outer, inner = (CircuitBreaker(trip=FailureRate(0.9)) for _ in range(2))
    bulkhead = Bulkhead(1)
    seen: list[Any] = []
    pipeline = Pipeline(outer, bulkhead, inner, BadResult(lambda result: seen.append(result)))
    for number in range(3):
        assert run(loop, pipeline, lambda number=number: number) == number

    assert [each.snapshot().readings[0].calls for each in (outer, inner)] == [3, 3]
    assert seen == [0, 1, 2]
    assert bulkhead.verdicts == [None] * 3


# An end that says no


@pytest.mark.parametrize("who", [0, 1, 2])
@WORLDS
def test_who_returns_false_leaves_the_rest_to_the_chain(loop: str, who: int) -> None:
    """The full path follows with the same result; it has what those further out still hold, and
    what the one that said no held."""
    log: list[Any] = []
    policies = made(log, "a", "b", "c")
    policies[who].tell = False
    calls: list[int] = []

    assert run(loop, Pipeline(*policies), lambda: calls.append(1) or "ok") == "ok"
    assert calls == [1]
    ended = ["c", "b", "a"][: 3 - who]
    held = {"a", "b", "c"} - set(ended[:-1])
    assert [each for each in in_short(log) if each[1] == "end"] == [(n, "end") for n in ended]
    assert [each[2] for each in log if each[1] == "full"] == [
        f"held by {name}" if name in held else None for name in "abc"
    ]


@WORLDS
def test_a_bad_result_is_not_counted_as_a_success_further_out(loop: str) -> None:
    """The check is innermost and says no: the window outside gets a failed call, once."""
    breaker = CircuitBreaker(trip=FailureRate(0.9), on=Exception)
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(breaker, bulkhead, BadResult(lambda result: result == "bad"))

    assert run(loop, pipeline, lambda: "bad") == "bad"
    (reading,) = breaker.snapshot().readings
    assert (reading.bad, reading.calls) == (1, 1)
    assert [type(each).__name__ for each in bulkhead.verdicts] == ["BadResultError"]
    assert bulkhead.slots.free == 1


# Busy


@pytest.mark.parametrize("who", [0, 1, 2])
@WORLDS
def test_busy_gives_back_what_was_held(loop: str, who: int) -> None:
    """With no verdict, to those that had begun; then the call takes the full path, with nothing."""
    log: list[Any] = []
    policies = made(log, "a", "b", "c")
    policies[who].full = True

    assert run(loop, Pipeline(*policies), lambda: "ok") == "ok"
    begun = "abc"[: who + 1]
    assert in_short(log) == [
        *((name, "begin") for name in begun),
        *((name, "end") for name in reversed(begun[:-1])),
        *((name, "full") for name in "abc"),
    ]
    assert all(each[2] is NO_VERDICT for each in log if each[1] == "end")
    assert all(each[2] is None for each in log if each[1] == "full")


@WORLDS
def test_a_full_gate_takes_the_full_path(loop: str) -> None:
    """Where it may wait or reject; what the others held is theirs again before that."""
    outer, inner = Bulkhead(5), Bulkhead(1, patience=0)
    assert inner.slots.try_acquire()
    with pytest.raises(Exception, match="rejected") as caught:
        run(loop, Pipeline(outer, inner), lambda: "never")

    assert outer.slots.free == 5
    assert outer.verdicts[0] is NO_VERDICT
    assert outer.verdicts[1] is caught.value


@WORLDS
def test_with_no_verdict_nobody_stops_the_others(loop: str) -> None:
    """What an `end` returns counts for a success only."""
    log: list[Any] = []
    policies = [*made(log, "a", "b", tell=False), *made(log, "c", busy=True)]

    assert run(loop, Pipeline(*policies), lambda: "ok") == "ok"
    assert [name for name, what in in_short(log) if what == "end"] == ["b", "a"]


# Calls that do not end well


@WORLDS
def test_a_failed_call_goes_on_with_all_that_is_held(loop: str) -> None:
    """No `end` is called: the chain has it all, with the outcome, and calls again by itself."""
    log: list[Any] = []
    policies = made(log, "a", "b", "c")
    steps = script(ConnectionError, "ok")

    assert run(loop, Pipeline(Retry(wait=0), *policies), steps) == "ok"
    assert in_short(log) == [
        *((name, "begin") for name in "abc"),
        *((name, "full") for name in "abc"),
        *((name, "full") for name in "abc"),
    ]
    assert [each[2] for each in log if each[1] == "full"] == [
        "held by a",
        "held by b",
        "held by c",
        None,
        None,
        None,
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("names", ["a", "abc"])
def test_an_interrupted_call_gives_all_back(error: Any, names: str) -> None:
    """With no verdict, innermost first; the interruption comes out."""
    log: list[Any] = []
    with pytest.raises(error):
        Pipeline(*made(log, *names)).call(script(error))
    assert in_short(log) == [
        *((name, "begin") for name in names),
        *((name, "end") for name in reversed(names)),
    ]
    assert all(each[2] is NO_VERDICT for each in log if each[1] == "end")


def test_an_interrupt_while_one_begins_gives_back_what_is_held() -> None:
    """With no verdict, innermost first; the function is not called."""

    class Interrupted(Holding):
        def at_rest(self, fn: Callable[..., Any]) -> Any:
            return script(KeyboardInterrupt), script(True)

    log: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        Pipeline(*made(log, "a", "b"), Interrupted("c", log)).call(pytest.fail)
    assert [(name, error) for name, what, error, _ in log if what == "end"] == [
        ("b", NO_VERDICT),
        ("a", NO_VERDICT),
    ]


@WORLDS
def test_what_nobody_in_the_chain_takes_is_given_back(loop: str) -> None:
    """With no verdict: a policy further out does not call inward."""

    class Shut(Holding):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def shut(call: Call) -> Any:
                raise RejectedError

            return shut

    log: list[Any] = []
    policies = [Shut("a", log), *made(log, "b", "c", tell=False)]
    with pytest.raises(RejectedError):
        run(loop, Pipeline(*policies), lambda: "ok")
    assert sorted((name, error is NO_VERDICT) for name, what, error, _ in log if what == "end") == [
        ("a", True),
        ("b", True),
        ("c", False),
        ("c", True),
    ]


@pytest.mark.parametrize("names", ["a", "abc"])
def test_a_cancelled_call_gives_all_back(names: str) -> None:
    """The same where a task is cancelled."""
    log: list[Any] = []

    async def main() -> None:
        fn: Any = Pipeline(*made(log, *names)).wrap(asyncio.Event().wait)
        task = asyncio.create_task(fn())
        await asyncio.sleep(0)
        assert len(log) == len(names)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [each[2:] for each in log if each[1] == "end"] == [(NO_VERDICT, None)] * len(names)


@pytest.mark.parametrize("names", ["a", "abc"])
@WORLDS
def test_a_result_that_is_refused_gives_all_back(loop: str, names: str) -> None:
    """A lazy body is no result: it is settled, by its error or with no verdict, once for each."""
    log: list[Any] = []
    bulkhead = Bulkhead(1)
    lazy = contextlib.contextmanager(lambda: iter(()))
    with pytest.raises(TypeError, match="guarded"):
        run(loop, Pipeline(*made(log, *names), bulkhead), lazy)
    assert bulkhead.slots.free == 1
    assert len(bulkhead.verdicts) == 1
    settled = [name for name, what in in_short(log) if what in ("end", "full")]
    assert sorted(settled) == list(names)


@pytest.mark.parametrize("names", ["a", "abc"])
def test_a_hand_over_gives_all_back(names: str) -> None:
    """An awaitable that a plain function gives holds nothing until it is awaited."""
    log: list[Any] = []
    bulkhead = Bulkhead(1)
    made_: list[int] = []

    def ask() -> Any:
        made_.append(1)

        async def answer() -> str:
            assert bulkhead.slots.free == 0
            return "ok"

        return answer()

    async def main() -> Any:
        begun: Any = Pipeline(*made(log, *names), bulkhead).wrap(ask)()
        assert in_short(log) == [
            *((name, "begin") for name in names),
            *((name, "end") for name in reversed(names)),
        ]
        assert all(each[2] is NO_VERDICT for each in log if each[1] == "end")
        assert bulkhead.slots.free == 1
        assert bulkhead.verdicts == [NO_VERDICT]
        return await begun

    assert asyncio.run(main()) == "ok"
    assert bulkhead.verdicts == [NO_VERDICT, None]
    assert bulkhead.slots.free == 1
    assert made_ == [1]


# What is settled later, and what happens meanwhile


@pytest.mark.parametrize("names", ["a", "abc"])
@WORLDS
def test_a_pending_result_goes_on_with_all_that_is_held(loop: str, names: str) -> None:
    """Its end is not at the return, so the full path has the holds."""
    log: list[Any] = []
    stream = run(loop, Pipeline(*made(log, *names)), Stream)
    assert in_short(log) == [
        *((name, "begin") for name in names),
        *((name, "full") for name in names),
    ]
    assert [each[2] for each in log if each[1] == "full"] == [f"held by {name}" for name in names]
    stream.end()


@WORLDS
def test_a_call_that_was_not_at_rest_all_the_time_goes_on_in_full(loop: str) -> None:
    """If something happened meanwhile, its success is told on the full path, with the holds."""
    log: list[Any] = []

    class Switch(Policy):
        """Busy when it is told to be."""

        resting = True

        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            return inner

        def watch(self, idle: Idle) -> None:
            self.idle = idle

        def flip(self) -> None:
            self.idle.suspend()
            self.idle.update()

    switch = Switch()
    pipeline = Pipeline(*made(log, "a", "b"), switch)

    def fn() -> str:
        switch.flip()
        return "ok"

    assert run(loop, pipeline, fn) == "ok"
    assert [each for each in in_short(log) if each[1] == "end"] == []
    assert [each[2] for each in log if each[1] == "full"] == ["held by a", "held by b"]
