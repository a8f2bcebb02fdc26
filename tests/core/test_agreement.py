"""The same script gives the same: at rest and on the full path, in sync calls, asyncio and trio."""

from __future__ import annotations

import asyncio
import contextvars
import re
from typing import Any
from unittest import mock

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import (
    BadResult,
    CircuitBreaker,
    FailureRate,
    Fallback,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    history,
    served_by,
)
from resilience.failures import Advice, Failure, Kind, describe
from resilience.waits import Exponential, Fixed
from support.gates import Bulkhead
from support.grammar import Watch


class BusyError(Exception):
    """A rate limit: WAIT, and no fault of the service."""


@describe.register(BusyError)
def _read(error: BusyError) -> Failure:
    return Failure(Kind.RATE_LIMIT, Advice.WAIT, error=error)


STEPS = {"conn": ConnectionError, "busy": BusyError, "value": ValueError, "ok": None, "bad": None}
COMMANDS = ["", "", "", "open", "close", "isolate", "trip"]
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


def hooked() -> tuple[list[Any], CircuitBreaker]:
    """With policies that hear of calls at rest: a window, a gate of a user's, a check."""
    breaker = CircuitBreaker(trip=FailureRate(0.5, calls=4), reset_after=1000, on=Exception)
    retry = Retry(attempts=2, wait=EXPONENTIAL)
    return [retry, breaker, Bulkhead(99), BadResult(lambda result: result[-1] == "bad")], breaker


PIPELINES = [patient, quick, chain, hooked]
_scripts = st.lists(
    st.tuples(
        st.sampled_from(COMMANDS),  # a manual command before the call
        st.sampled_from([(), ("a",), ("b",), ("own",)]),  # its arguments
        st.lists(st.tuples(st.sampled_from(COMMANDS), st.sampled_from([*STEPS])), max_size=5),
    ),
    max_size=8,
)


def circuits(breaker: CircuitBreaker) -> list[Any]:
    return (
        [breaker] if breaker.key is None else [breaker.circuit(name) for name in ("a", "b", "own")]
    )


def look(policies: list[Any], breaker: CircuitBreaker) -> list[Any]:
    """States, counts and permits."""
    seen: list[Any] = []
    for circuit in circuits(breaker):
        now = circuit.snapshot()
        counts = [(reading.bad, reading.calls) for reading in now.readings]
        seen.append((now.state, now.failures, counts, now.trials))
    seen += [policy.slots.free for policy in policies if isinstance(policy, Bulkhead)]
    return seen


def told(error: Exception | None) -> Any:
    if error is None:
        return None
    notes = getattr(error, "__notes__", ())
    return (
        type(error),
        [
            (a.number, a.model, a.failure and a.failure.kind, tenths(a.waited))
            for a in history(error)
        ],
        [re.sub(r"after [\d.]+ s", "after a wait", note) for note in notes],
    )


def tenths(seconds: float) -> float:
    """What is left of a wait depends on what has passed of it, by the real clock."""
    return round(seconds, 1)


def _fails(model: str = "a") -> None:
    raise ConnectionError


def played(world: str, make: Any, plan: Any, listeners: Any) -> list[Any]:
    """What happens in so many calls: results, errors, histories, notes, waits, states."""
    policies, breaker = make()
    pipeline = Pipeline(*policies, listeners=listeners)
    steps: list[Any] = []
    log: list[Any] = []

    def command(what: str) -> None:
        for circuit in circuits(breaker):
            if what == "trip":  # a failure of another call, within or between calls
                log.append(told(Pipeline(breaker).outcome(_fails, model="a").error))
            elif what:
                getattr(circuit, what)()

    def take(model: str = "a", **given: Any) -> Any:
        what, outcome = steps.pop(0) if steps else ("", "ok")
        command(what)
        error = STEPS[outcome]
        if error is not None:
            raise error
        return model, given, outcome

    async def atake(model: str = "a", **given: Any) -> Any:
        return take(model, **given)

    fn: Any = pipeline.wrap(take if world == "sync" else atake)

    async def one(*args: str) -> None:
        try:
            found = fn(*args)
            log.append(await found if world != "sync" else found)
            log.append(served_by())
        except Exception as error:
            log.append(told(error))

    async def main() -> None:
        for what, args, taken in plan:
            command(what)
            steps[:] = taken
            await one(*args)
            log.append(look(policies, breaker))

    async def no_sleep(seconds: float) -> None:
        log.append(tenths(seconds))

    def run() -> None:
        if world == "trio":
            trio.run(main)
        elif world == "asyncio":
            asyncio.run(main())
        else:
            with pytest.raises(StopIteration):
                main().send(None)

    with (
        mock.patch("time.sleep", lambda seconds: log.append(tenths(seconds))),
        mock.patch("asyncio.sleep", no_sleep),
        mock.patch("trio.sleep", no_sleep),
    ):
        contextvars.Context().run(run)  # where nobody has served yet
    return log


@settings(max_examples=60, deadline=None)
@given(make=st.sampled_from(PIPELINES), plan=_scripts)
@pytest.mark.parametrize("world", ["sync", "asyncio", "trio"])
def test_rest_changes_nothing(world: str, make: Any, plan: Any) -> None:
    """At rest and by the full path the same scripts give the same, in every world."""
    watch = Watch()
    assert played(world, make, plan, ()) == played(world, make, plan, [watch])
    assert watch.faults() == []


@settings(max_examples=30, deadline=None)
@given(make=st.sampled_from(PIPELINES), plan=_scripts)
def test_all_worlds_agree(make: Any, plan: Any) -> None:
    """The same scripts give the same in sync, asyncio and trio."""
    expected = played("sync", make, plan, ())

    assert played("asyncio", make, plan, ()) == expected
    assert played("trio", make, plan, ()) == expected


# Calls that overlap


def interleaved(make: Any, moves: Any, listeners: Any) -> list[Any]:
    """Calls begun and ended by hand, in any order: results, waits, and states after each move."""
    policies, breaker = make()
    log: list[Any] = []
    pending: list[asyncio.Future[Any]] = []

    async def step(model: str = "a", **given: Any) -> Any:
        pending.append(asyncio.get_running_loop().create_future())
        return model, await pending[-1]

    fn: Any = Pipeline(*policies, listeners=listeners).wrap(step)

    async def call(number: int) -> None:
        try:
            log.append((number, await fn()))
        except Exception as error:
            log.append((number, told(error)))

    async def main() -> None:
        tasks: list[asyncio.Task[None]] = []

        def end(index: int, outcome: str) -> None:
            future = pending.pop(index % len(pending))
            error = STEPS[outcome]
            if error is not None:
                future.set_exception(error())
            else:
                future.set_result(outcome)

        for index, outcome in [*moves, *[(0, "ok")] * 100]:
            if outcome == "begin":
                tasks.append(asyncio.create_task(call(len(tasks))))
            elif pending:
                end(index, outcome)
            for _ in range(8):
                await real_sleep(0)
            log.append(look(policies, breaker))
        await asyncio.gather(*tasks)

    real_sleep = asyncio.sleep

    async def no_sleep(seconds: float) -> None:
        log.append(tenths(seconds))

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
    watch = Watch()
    assert interleaved(make, moves, ()) == interleaved(make, moves, [watch])
    assert watch.faults() == []


# Calls that overlap, and manual commands between them

Step = tuple[Any, ...]

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from(["a", "b", None])),
        st.tuples(st.just("end"), st.integers(0, 7), st.sampled_from(["good", "bad", "caller"])),
        st.tuples(st.just("command"), st.sampled_from(["open", "close", "isolate"])),
    ),
    max_size=40,
)

SHAPES: dict[str, Any] = {
    "breaker": lambda breaker: [breaker],
    "retry": lambda breaker: [Retry(attempts=2, wait=Fixed(0)), breaker],
    "fallback": lambda breaker: [Fallback("else"), Retry(attempts=2, wait=Fixed(0)), breaker],
    "models": lambda breaker: [ModelFallback("a", "b"), breaker],
    "gates": lambda breaker: [Retry(attempts=2, wait=Fixed(0)), breaker, Bulkhead(3)],
}


async def play(script: list[Step], shape: str, keyed: bool, listeners: list[Any]) -> list[Any]:
    """Begin and end calls as the script says; what was seen after every step."""
    breaker = CircuitBreaker(failures=2, key="model" if keyed else None, reset_after=60)
    circuit: Any = breaker.circuit("a") if keyed else breaker
    policies = SHAPES[shape](breaker)
    waiting: list[asyncio.Future[str]] = []
    tasks: list[asyncio.Task[Any]] = []
    seen: list[Any] = []

    async def answer(model: str = "a") -> str:
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting.append(gate)
        return f"{model}: {await gate}"

    fn: Any = Pipeline(*policies, listeners=listeners).wrap(answer)

    def results() -> list[Any]:
        return [
            None
            if not task.done()
            else (type(task.exception()).__name__ if task.exception() else task.result())
            for task in tasks
        ]

    def note() -> None:
        now = circuit.snapshot()
        free = [policy.slots.free for policy in policies if isinstance(policy, Bulkhead)]
        seen.append((now.state, now.failures, now.trials, free, len(waiting), results()))

    for step in script:
        if step[0] == "begin":
            arguments = {} if step[1] is None else {"model": step[1]}
            tasks.append(asyncio.create_task(fn(**arguments)))
        elif step[0] == "command":
            getattr(circuit, step[1])()
        elif waiting:
            gate = waiting[step[1] % len(waiting)]
            if not gate.done():
                if step[2] == "good":
                    gate.set_result("ok")
                else:
                    gate.set_exception(ConnectionError() if step[2] == "bad" else KeyError())
        for _ in range(12):
            await asyncio.sleep(0)
        note()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    now = circuit.snapshot()
    seen.append((now.state, now.failures, now.trials))
    assert all(policy.slots.free == 3 for policy in policies if isinstance(policy, Bulkhead))
    return seen


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=25, deadline=None)
@given(script=_steps)
def test_rest_changes_nothing_whatever_the_manual_commands(
    shape: str, keyed: bool, script: list[Step]
) -> None:
    """Calls interleaved, begun and ended by hand, circuits moved by hand: the same at every step.

    A listener keeps the second pipeline from ever being at rest.
    """
    at_rest = asyncio.run(play(script, shape, keyed, []))
    watch = Watch()
    full = asyncio.run(play(script, shape, keyed, [watch]))
    assert at_rest == full
    assert watch.faults() == []
