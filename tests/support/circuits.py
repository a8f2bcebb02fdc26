"""Circuits asked directly, and calls through them that end when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pybreaker
import pytest
import trio

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience import guarded as handle
from resilience._core.clock import now
from resilience._core.context import get_ambient
from resilience._runtimes.loops import runtime_for
from resilience.circuit.circuit import Circuit
from resilience.circuit.limits import Limits
from resilience.circuit.states import Change
from resilience.failures import Failure

in_tasks = pytest.mark.parametrize("world", ["asyncio", "trio"], indirect=True)
"""For a test whose calls are under way at the same time, in tasks of one loop."""


def fail(*args: Any, **kwargs: Any) -> Any:
    """A service that is down."""
    raise ConnectionError


def model_first(model: str = "small", *, prompt: str = "") -> str:
    """A function of a model; bad ones are down."""
    if model.startswith("bad"):
        raise ConnectionError(model)
    return model


def states_after(world: World, breaker: CircuitBreaker, *steps: Any) -> list[str]:
    """The state after each step of a script."""
    guarded = Pipeline(breaker).wrap(world.function(*steps))
    found = []
    for _ in steps:
        world.run(handle(guarded).outcome)
        found.append(breaker.state)
    return found


def rests(pipeline: Pipeline) -> bool:
    """Whether calls through it are at rest."""
    return pipeline._idle.period is not None


def slots_of(circuit: Circuit) -> list[Any]:
    """The trials of a circuit that have not ended; none unless it is half open."""
    return [trial for slot in getattr(circuit._state, "slots", ()) if (trial := slot()) is not None]


def rejected(world: World, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> CircuitOpenError:
    """The error of a call that must be rejected, without the function being called."""
    before = len(world.calls)
    with pytest.raises(CircuitOpenError) as caught:
        world.run(fn, *args, **kwargs)
    assert type(caught.value) is CircuitOpenError
    assert len(world.calls) == before
    return caught.value


def opened(world: World, **options: Any) -> CircuitBreaker:
    """A breaker whose open time has just ended."""
    breaker = CircuitBreaker(**{"failures": 1, "reset_after": 10, **options})
    (breaker if breaker.key is None else breaker.circuit("a")).open()
    world.clock.advance(10)
    return breaker


class Elsewhere:
    """A call that is inside no other."""

    journal = None

    def is_inside(self, journal: Any) -> bool:
        return False


class UnderWay:
    """A call that a circuit has admitted and that has not ended."""

    def __init__(self, circuit: Circuit, permit: Any) -> None:
        self.circuit = circuit
        self.permit = permit

    @property
    def trial(self) -> bool:
        return bool(self.permit.trial)

    def succeed(self) -> None:
        self.circuit._settle(self.permit, False, now())

    def fail(self, cause: BaseException | None = None, failure: Failure | None = None) -> None:
        self.circuit._settle(self.permit, True, now(), cause, failure)

    def drop(self) -> None:
        """End it without a verdict."""
        self.circuit._settle(self.permit, None, now())


def admit(circuit: Circuit, call: Any = None) -> UnderWay:
    """A call that begins now, or `CircuitOpenError`."""
    runtime = runtime_for(get_ambient(), asynchronous=False)
    permit = circuit._admit(Elsewhere() if call is None else call, runtime)  # type: ignore[arg-type]
    if permit is None:
        raise circuit._refusal(runtime.now())
    return UnderWay(circuit, permit)


class Told:
    """A circuit of its own, the changes that it publishes, and whether calls may be at rest."""

    audience = None

    def __init__(self, name: str | None = None, key: Any = None, **limits: Any) -> None:
        self.limits = Limits(**{"failures": 1, "reset_after": 10.0, **limits})
        self.name = name
        self.changes: list[Change] = []
        self.listener: Callable[[Change], object] = self.changes.append
        self.circuit = Circuit(self, key)
        self.idle = self.circuit._idle
        self.held: UnderWay | None = None

    def suspend(self, circuit: Circuit) -> None:
        self.idle = False

    def update(self, circuit: Circuit) -> None:
        self.idle = circuit._idle

    def remember(self, circuit: Circuit) -> None:
        pass

    def publish(self, circuit: Circuit, change: Change) -> None:
        self.listener(change)


class Recorder(pybreaker.CircuitBreakerListener):
    """A listener that records the changes of state."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.changes.append((old_state.name, new_state.name))


def outcomes(world: World, fn: Callable[..., Any], starts: list[float]) -> list[Any]:
    """Calls begun at these seconds, in tasks of one loop: the result or the type of the error, and
    when it ended."""
    found: list[Any] = [None] * len(starts)
    begin = world.clock.now()

    async def one(number: int, at: float) -> None:
        if at:
            await world.clock.asleep(at)
        try:
            result: Any = await fn()
        except Exception as error:
            result = type(error)
        found[number] = (result, world.clock.now() - begin)

    async def in_asyncio() -> None:
        await asyncio.gather(*(one(n, at) for n, at in enumerate(starts)))

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for number, at in enumerate(starts):
                nursery.start_soon(one, number, at)

    world.run(in_asyncio if world.name == "asyncio" else in_trio)
    return found
