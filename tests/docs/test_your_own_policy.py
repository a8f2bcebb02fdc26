"""The policies of docs/your-own-policy.md do what the page says: in every world, at rest and not.

Written against the public contract alone, they stand for everybody's own. The bulkhead has a file
of its own.
"""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, Fallback, ModelFallback, Pipeline, RejectedError, Retry
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.testing import script
from support.calling import awaited, error_of, rest_and_full, run_in
from support.functions import coloured
from support.gates import Stream
from support.own_policies import (
    FILES,
    Bulkhead,
    Chained,
    InFlight,
    RequestId,
    both_loops,
    cancelled,
    free,
    together,
    turns,
)

POLICIES = [FILES / f"{name}.py" for name in ("bulkhead", "in_flight", "request_id")]


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.stem)
def test_a_policy_is_short(file: Path) -> None:
    """Under 60 lines of code each, and nothing that is not public is imported."""
    policy, _ = file.read_text(encoding="utf-8").split('if __name__ == "__main__":')
    code = re.sub(r'"""(.*?)"""', "", policy, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 60
    imported = re.findall(r"from (resilience\S*) import", code)
    assert set(imported) <= {"resilience.policy", "resilience.errors"}


# The header


def ids(*, extra_headers: Any = None) -> Any:
    return extra_headers


@pytest.fixture
def request_id() -> RequestId:
    """Numbers the calls."""
    return RequestId("X-Id", map(str, range(1, 100)).__next__)


def sent(world: World) -> list[str]:
    """The ids of the requests so far."""
    return [kwargs["extra_headers"]["X-Id"] for _, kwargs in world.calls]


@rest_and_full
def test_all_attempts_of_a_call_have_one_id(
    real_world: World, listeners: Any, request_id: RequestId
) -> None:
    """The first of them may have been made at rest; the next call has another one."""
    guard = Pipeline(request_id, Retry(wait=0), listeners=listeners)
    fn = guard.wrap(real_world.function(ConnectionError, ConnectionError, "ok", "ok"))
    assert real_world.run(fn, "a") == "ok"
    assert real_world.run(fn, "b") == "ok"
    assert sent(real_world) == ["1", "1", "1", "2"]


@rest_and_full
def test_inside_retry_each_attempt_has_an_id(
    real_world: World, listeners: Any, request_id: RequestId
) -> None:
    """As the policy is inside, it is asked for each of them."""
    guard = Pipeline(Retry(wait=0), request_id, listeners=listeners)
    assert real_world.run(guard.wrap(real_world.function(ConnectionError, "ok", "ok"))) == "ok"
    assert sent(real_world) == ["1", "2"]


def test_in_virtual_time_it_is_the_same(world: World, request_id: RequestId) -> None:
    """Where no call is at rest."""
    fn = Pipeline(request_id, Retry()).wrap(world.function(ConnectionError, "ok", "ok"))
    assert [world.run(fn), world.run(fn)] == ["ok", "ok"]
    assert sent(world) == ["1", "1", "2"]


@rest_and_full
def test_the_callers_headers_stay(real_world: World, listeners: Any, request_id: RequestId) -> None:
    """Beside the id, or in its place; and the caller's dict is not touched."""
    fn = Pipeline(request_id, listeners=listeners).wrap(coloured(real_world, ids))
    given = {"X-Team": "blue"}
    assert real_world.run(fn, extra_headers=given) == {"X-Team": "blue", "X-Id": "1"}
    assert real_world.run(fn, extra_headers={"X-Id": "own"}) == {"X-Id": "own"}
    assert given == {"X-Team": "blue"}


def test_a_header_keeps_calls_at_rest(real_world: World, request_id: RequestId) -> None:
    """The arguments are rewritten there."""
    chained = Chained()
    fn = Pipeline(chained, request_id, Retry()).wrap(coloured(real_world, ids))
    assert real_world.run(fn) == {"X-Id": "1"}
    assert chained.calls == 0


@rest_and_full
@pytest.mark.parametrize("model", [None, "b"])
def test_a_header_in_a_chain_of_models(
    real_world: World, listeners: Any, request_id: RequestId, model: str | None
) -> None:
    """Both change arguments; neither is lost."""
    chain = Pipeline(request_id, ModelFallback("a", "b"), Retry(wait=0), listeners=listeners)
    fn = chain.wrap(real_world.function(ConnectionError, "ok"))
    named = {} if model is None else {"model": model}
    assert real_world.run(fn, **named) == "ok"
    assert sent(real_world) == ["1", "1"]
    assert [kwargs["model"] for _, kwargs in real_world.calls] == [model or "a"] * 2


@rest_and_full
@both_loops
def test_a_function_found_to_be_async_keeps_its_id(
    loop: str, listeners: Any, request_id: RequestId
) -> None:
    """What it has returned is awaited, not thrown away for a call with another id."""
    made: list[str] = []
    steps = script(ConnectionError(), "ok")

    async def request() -> Any:
        return steps()

    def create(*, extra_headers: Any = None) -> Any:  # as OpenAI's: not a coroutine function
        made.append(extra_headers["X-Id"])
        return request()

    fn = Pipeline(request_id, Retry(wait=0), listeners=listeners).wrap(create)
    assert run_in(loop, lambda: awaited(fn)) == "ok"
    assert made == ["1", "1"]


# The counter


@rest_and_full
def test_calls_are_counted_while_they_are_under_way(real_world: World, listeners: Any) -> None:
    """Calls inside calls included; after errors of any kind there is none."""
    in_flight = InFlight()
    guard = Pipeline(in_flight, Retry(attempts=2, wait=0), listeners=listeners)
    counts: list[int] = []
    steps = script(ConnectionError(), None, ValueError(), KeyboardInterrupt(), None)

    def inner() -> None:
        counts.append(in_flight.now)
        steps()

    count = guard.wrap(coloured(real_world, inner))

    def outer() -> Any:
        counts.append(in_flight.now)
        return count()

    async def aouter() -> Any:
        counts.append(in_flight.now)
        await count()

    fn = guard.wrap(aouter if real_world.asynchronous else outer)
    real_world.run(fn)
    assert (counts, in_flight.now) == ([1, 2, 2], 0)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            real_world.run(fn)
        assert in_flight.now == 0


def test_a_call_is_counted_once_with_its_retries(world: World) -> None:
    """In virtual time: while it waits between attempts, too."""
    in_flight = InFlight()
    counts: list[int] = []

    def step() -> None:
        counts.append(in_flight.now)
        raise ConnectionError

    class Watching(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def watching(call: Call) -> Any:
                world.clock.at(world.clock.now() + 1, lambda: counts.append(-in_flight.now))
                return await inner(call)

            return watching

    fn = Pipeline(in_flight, Retry(attempts=2, wait=3), Watching()).wrap(coloured(world, step))
    error_of(world, fn)
    assert counts == [1, -1, 1]
    assert in_flight.now == 0


@rest_and_full
@both_loops
def test_tasks_are_counted(loop: str, listeners: Any) -> None:
    """Many at once; one that is cancelled is not under way any more."""
    in_flight = InFlight()
    leave: list[None] = []
    counts: list[int] = []

    @Pipeline(in_flight, listeners=listeners)
    async def work() -> None:
        while not leave:
            await turns(loop, 1)

    async def watch() -> None:
        while in_flight.now < 5:
            await turns(loop, 1)
        assert await cancelled(loop, work, lambda: in_flight.now == 6)
        counts.append(in_flight.now)
        leave.append(None)

    run_in(loop, lambda: together(loop, *[work] * 5, watch))
    assert counts == [5]
    assert in_flight.now == 0


def test_counting_keeps_calls_at_rest(real_world: World) -> None:
    """Healthy calls are counted without the whole way."""
    in_flight, chained = InFlight(), Chained()
    fn = Pipeline(chained, in_flight, Retry()).wrap(coloured(real_world, lambda: in_flight.now))
    assert real_world.run(fn) == 1
    assert (in_flight.now, chained.calls) == (0, 0)


@rest_and_full
def test_a_stream_is_under_way_to_its_end(real_world: World, listeners: Any) -> None:
    """However it ends."""
    in_flight = InFlight()
    fn = Pipeline(in_flight, listeners=listeners).wrap(real_world.function(lambda: Stream()))
    streams = [real_world.run(fn) for _ in range(3)]
    assert in_flight.now == 3
    streams[0].end()
    streams[1].fail(ConnectionError())
    streams.clear()
    gc.collect()
    assert in_flight.now == 0


# Traps that the library keeps authors from


@rest_and_full
def test_a_full_gate_outside_retry_stops_no_retry(real_world: World, listeners: Any) -> None:
    """It would reject another call; this one has its permit, and keeps it for all its attempts."""
    bulkhead = Bulkhead(1, queue=0)
    guard = Pipeline(bulkhead, Retry(attempts=2, wait=0), listeners=listeners)
    assert real_world.run(guard.wrap(real_world.function(ConnectionError, "ok"))) == "ok"


@rest_and_full
def test_they_go_with_one_another(real_world: World, listeners: Any) -> None:
    """Failures, successes and rejections: nothing is held in the end."""
    bulkhead, in_flight = Bulkhead(2, patience=0.001), InFlight()
    policies = [RequestId(), in_flight, Retry(wait=0), CircuitBreaker(), bulkhead]
    pipeline = Pipeline(Fallback("else"), *policies, listeners=listeners)
    fn = pipeline.wrap(real_world.function(ConnectionError, "ok", ValueError, "ok"))
    assert [real_world.run(fn) for _ in range(3)] == ["ok", "else", "ok"]
    rooms = bulkhead.room((), {})
    assert rooms.try_acquire()
    assert rooms.try_acquire()
    assert real_world.run(fn) == "else"
    assert (free(bulkhead), in_flight.now) == ((0, 0), 0)


@rest_and_full
def test_one_gate_twice_in_a_pipeline(real_world: World, listeners: Any) -> None:
    """Each place of it has its own permit, and gives it back."""
    in_flight = InFlight()
    fn = Pipeline(in_flight, Pipeline(in_flight, Retry(wait=0)), listeners=listeners).wrap(
        real_world.function(lambda: in_flight.now, ConnectionError, ValueError)
    )
    assert real_world.run(fn) == 2
    assert type(error_of(real_world, fn)) is ValueError
    assert in_flight.now == 0


def test_a_begin_that_raises_keeps_nothing(real_world: World) -> None:
    """A key that cannot be computed: its error comes out, and the permits of others are back."""
    in_flight = InFlight()
    bulkhead = Bulkhead(1, key=lambda x: [x])
    fn = Pipeline(in_flight, bulkhead).wrap(coloured(real_world, lambda x: x))
    for _ in range(2):
        assert type(error_of(real_world, fn, 1)) is TypeError
    assert in_flight.now == 0


@rest_and_full
def test_a_key_is_computed_from_the_same_arguments_at_rest(
    real_world: World, listeners: Any
) -> None:
    """A gate outside a chain of models sees the call as the caller made it."""
    seen: list[Any] = []
    bulkhead = Bulkhead(9, key=lambda model="none": seen.append(model))
    fn = Pipeline(bulkhead, ModelFallback("a", "b"), listeners=listeners).wrap(
        coloured(real_world, lambda model="m": model)
    )
    assert real_world.run(fn) == "a"
    assert seen[-1] == "none"


def test_the_users_error_is_not_replaced_by_a_rejection(real_world: World) -> None:
    """A policy that is no gate, and rejects, meets an attempt that was made at rest."""

    class Switch(Policy):
        resting = True
        off = False

        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def switch(call: Call) -> Any:
                if self.off:
                    raise RejectedError
                return await inner(call)

            return switch

    switch = Switch()

    def work() -> None:
        switch.off = True
        raise ConnectionError

    error = error_of(real_world, Pipeline(switch).wrap(coloured(real_world, work)))
    assert type(error) is ConnectionError


def test_a_policy_that_does_not_call_inward_keeps_no_permit(real_world: World) -> None:
    """What a gate further in has held for a call at rest is given back all the same."""

    class Answers(Policy):
        resting = True

        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def answers(call: Call) -> Any:
                return "without asking"

            return answers

    in_flight, bulkhead = InFlight(), Bulkhead(1)
    fn = Pipeline(Answers(), in_flight, bulkhead).wrap(real_world.function(ConnectionError))
    assert real_world.run(fn) == "without asking"
    assert (in_flight.now, free(bulkhead)) == (0, (1, 0))


def test_headers_and_models_together_are_at_rest(real_world: World, request_id: RequestId) -> None:
    """Two policies that rewrite arguments do so one after the other, as they would in the chain."""
    chained = Chained()
    fn = Pipeline(chained, request_id, ModelFallback("a", "b")).wrap(real_world.function("ok"))
    assert real_world.run(fn) == "ok"
    assert sent(real_world) == ["1"]
    assert real_world.calls[0][1]["model"] == "a"
    assert chained.calls == 0
