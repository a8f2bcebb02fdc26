"""A call at rest and a full call are the same call: any script gives the same with and without."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import CircuitBreaker, Fallback, ModelFallback, Pipeline, Retry
from resilience.waits import Fixed

Step = tuple[Any, ...]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from(["a", "b", None])),
        st.tuples(st.just("end"), st.integers(0, 7), st.sampled_from(["good", "bad", "caller"])),
        st.tuples(st.just("by hand"), st.sampled_from(["open", "close", "isolate"])),
    ),
    max_size=40,
)

shapes: dict[str, Any] = {
    "breaker": lambda breaker: [breaker],
    "retry": lambda breaker: [Retry(attempts=2, wait=Fixed(0)), breaker],
    "fallback": lambda breaker: [Fallback("else"), Retry(attempts=2, wait=Fixed(0)), breaker],
    "models": lambda breaker: [ModelFallback("a", "b"), breaker],
}


async def play(script: list[Step], shape: str, keyed: bool, listeners: list[Any]) -> list[Any]:
    """Begin and end calls as the script says; what was seen after every step."""
    breaker = CircuitBreaker(failures=2, key="model" if keyed else None)
    circuit = breaker.circuit("a") if keyed else breaker._only
    waiting: list[asyncio.Future[str]] = []
    tasks: list[asyncio.Task[Any]] = []
    seen: list[Any] = []

    async def answer(model: str = "a") -> str:
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting.append(gate)
        return f"{model}: {await gate}"

    guarded: Any = Pipeline(*shapes[shape](breaker), listeners=listeners).wrap(answer)

    async def settle() -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    def look() -> None:
        results = [
            None
            if not task.done()
            else (type(task.exception()).__name__ if task.exception() else task.result())
            for task in tasks
        ]
        seen.append((circuit.state, circuit.failures, len(waiting), results))

    for step in script:
        if step[0] == "begin":
            arguments = {} if step[1] is None else {"model": step[1]}
            tasks.append(asyncio.create_task(guarded(**arguments)))
        elif step[0] == "by hand":
            getattr(circuit, step[1])()
        elif waiting:
            gate = waiting[step[1] % len(waiting)]
            if not gate.done():
                if step[2] == "good":
                    gate.set_result("ok")
                else:
                    gate.set_exception(ConnectionError() if step[2] == "bad" else KeyError())
        await settle()
        look()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    seen.append((circuit.state, circuit.failures, len(circuit._places)))
    return seen


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("shape", shapes)
@settings(max_examples=25, deadline=None)
@given(script=steps)
def test_at_rest_and_full_path_agree(shape: str, keyed: bool, script: list[Step]) -> None:
    """Calls interleaved, begun and ended by hand, circuits moved by hand: the same at every step.

    A listener keeps the second pipeline from ever resting.
    """
    at_rest = asyncio.run(play(script, shape, keyed, []))
    full = asyncio.run(play(script, shape, keyed, [lambda event: None]))
    assert at_rest == full
