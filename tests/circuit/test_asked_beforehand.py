"""What a breaker tells other policies before a call: would it be rejected, and for how long."""

from __future__ import annotations

import math
from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, Pipeline
from resilience.policy import Call, Inner, Policy, Runtime
from support.circuits import admit


class Asking(Policy):
    """Asks the pipeline about each call before it is made."""

    def __init__(self) -> None:
        self.found: list[tuple[bool, float]] = []

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def asking(call: Call) -> Any:
            self.found.append((call.refuses(), call.free_in()))
            return await inner(call)

        return asking


def asked(world: World, breaker: CircuitBreaker, **kwargs: Any) -> tuple[bool, float]:
    """What is said about one call."""
    policy = Asking()
    try:
        world.run(Pipeline(policy, breaker).wrap(world.function("ok")), **kwargs)
    except Exception:
        pass
    (found,) = policy.found
    return found


@pytest.mark.parametrize("keyed", [False, True])
def test_what_is_said_in_each_state(world: World, keyed: bool) -> None:
    """Closed or disabled: nothing; open: until the end of the open time; nobody knows how long an
    isolation or a trial lasts."""
    breaker = CircuitBreaker(reset_after=10, key="model" if keyed else None)
    circuit = breaker.circuit("m") if keyed else breaker._only
    kwargs = {"model": "m"} if keyed else {}

    assert asked(world, breaker, **kwargs) == (False, 0)
    circuit.disable()
    assert asked(world, breaker, **kwargs) == (False, 0)
    circuit.open()
    world.clock.advance(4)
    assert asked(world, breaker, **kwargs) == (True, 6)
    world.clock.advance(6)
    held = admit(circuit)
    assert asked(world, breaker, **kwargs) == (True, math.inf)
    held.drop()
    assert asked(world, breaker, **kwargs) == (False, 0)
    circuit.isolate()
    assert asked(world, breaker, **kwargs) == (True, math.inf)
    circuit.shadow()
    assert asked(world, breaker, **kwargs) == (False, 0)


def test_a_call_inside_the_trial_is_let_in(world: World) -> None:
    """It is part of it: there is nothing to wait for."""
    breaker = CircuitBreaker(reset_after=10)
    policy = Asking()
    inner = Pipeline(policy, breaker).wrap(world.function("ok"))

    def trial() -> Any:
        return inner()

    async def atrial() -> Any:
        return await inner()

    breaker.open()
    world.clock.advance(10)
    outer = Pipeline(breaker).wrap(atrial if world.asynchronous else trial)
    assert world.run(outer) == "ok"
    assert policy.found == [(False, 0)]


def test_to_ask_makes_no_circuit(world: World) -> None:
    """A value that was never called with has nothing against it."""
    breaker = CircuitBreaker(key=lambda **kwargs: kwargs["model"])

    class Stopping(Asking):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def no_call(call: Call) -> Any:
                raise ConnectionError

            return super().bind(no_call, runtime)

    policy = Stopping()
    with pytest.raises(ConnectionError):
        world.run(Pipeline(policy, breaker).wrap(world.function("ok")), model="m")
    assert policy.found == [(False, 0)]
    assert "m" not in breaker._circuits._all


@pytest.mark.parametrize("key", ["model", lambda **kwargs: 1 / 0])
def test_a_key_that_cannot_be_computed_has_nothing_against_it(world: World, key: Any) -> None:
    """The call goes through; the log says why there, once."""
    assert asked(world, CircuitBreaker(key=key), model=["not hashable"]) == (False, 0)


@pytest.mark.fault(28)
def test_a_wait_that_is_still_to_be_asked(world: World) -> None:
    """Ctrl-C has kept it from being asked when the circuit opened: nobody knows how long until the
    next call asks it."""

    def interrupt(circuit: Any, state: Any) -> None:
        raise KeyboardInterrupt

    breaker = CircuitBreaker(reset_after=lambda state: 7.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(breaker._only), "_ask_open_time", interrupt)
        with pytest.raises(KeyboardInterrupt) as held:
            breaker.open()
    assert asked(world, breaker) == (True, math.inf)
    assert asked(world, breaker) == (True, 7)
    assert held.type is KeyboardInterrupt
