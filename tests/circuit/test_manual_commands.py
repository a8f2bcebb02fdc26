"""Manual commands: open, close, isolate, disable, shadow."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, Pipeline, Retry
from resilience.testing import virtual_time
from support.calling import error_of
from support.circuits import Recorder, rejected, rests


def test_open_close_isolate(world: World) -> None:
    """Open for a while, closed, or out of service until closed again."""
    breaker = CircuitBreaker(reset_after=5)
    guarded = Pipeline(breaker).wrap(world.function("ok"))

    assert breaker.state == "closed"
    assert breaker.retry_at is None
    breaker.open()
    assert breaker.state == "open"
    assert rejected(world, guarded).retry_after == 5
    breaker.close()
    assert world.run(guarded) == "ok"
    breaker.isolate()
    assert breaker.state == "isolated"
    world.clock.advance(1e9)
    error = rejected(world, guarded)
    assert (error.retry_after, error.retry_at, breaker.retry_at) == (None, None, None)
    breaker.close()
    assert world.run(guarded) == "ok"


def test_close_forgets_earlier_failures(world: World) -> None:
    """Closing starts the count anew."""
    breaker = CircuitBreaker(failures=2)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    error_of(world, guarded)
    breaker.close()
    error_of(world, guarded)

    assert breaker.state == "closed"


# Isolations


def test_isolations_are_counted(world: World) -> None:
    """It stays isolated until the last of them is released; releasing twice counts once."""
    breaker = CircuitBreaker(reset_after=1)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    first, second, third = (breaker.isolate() for _ in range(3))
    third.release()
    third.release()
    first.release()
    world.clock.advance(1000)
    error = rejected(world, guarded)
    assert (error.retry_after, error.retry_at) == (None, None)
    second.release()
    assert (breaker.state, world.run(guarded)) == ("closed", "ok")


def test_an_isolation_for_a_block() -> None:
    """`with` releases it, also when the block raises."""
    breaker = CircuitBreaker(name="chat")
    with breaker.isolate() as hold:
        assert breaker.state == "isolated"
        assert repr(hold) == "<isolation of <circuit chat: isolated>>"
    assert breaker.state == "closed"
    with pytest.raises(ValueError, match="text"), breaker.isolate():
        raise ValueError("text")
    assert breaker.state == "closed"


@pytest.mark.parametrize("command", ["open", "close", "disable", "shadow"])
def test_another_command_ends_all_isolations(command: str) -> None:
    """What is released after it changes nothing, not even a later isolation."""
    breaker = CircuitBreaker()
    hold = breaker.isolate()
    getattr(breaker, command)()
    state = breaker.state
    hold.release()
    assert breaker.state == state != "isolated"
    breaker.isolate()
    hold.release()
    assert breaker.state == "isolated"


@pytest.mark.parametrize("before", ["open", "disable"])
def test_the_last_isolation_closes_what_was_open_or_disabled_before(before: str) -> None:
    """Whoever isolates it takes it over."""
    breaker = CircuitBreaker()
    getattr(breaker, before)()
    with breaker.isolate():
        pass
    assert breaker.state == "closed"


# Disabled


def test_disabled_lets_all_through_and_counts_nothing(world: World) -> None:
    """Failures do not open it, and none of them is left when it is closed again."""
    breaker = CircuitBreaker(failures=2)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    breaker.disable()
    for _ in range(5):
        error_of(world, guarded)
    assert (breaker.state, breaker.snapshot().failures) == ("disabled", 0)
    breaker.close()
    error_of(world, guarded)
    assert (breaker.state, breaker.snapshot().failures) == ("closed", 1)


def test_a_disabled_circuit_is_at_rest() -> None:
    """It costs what a healthy one costs."""
    breaker = CircuitBreaker()
    pipeline = Pipeline(breaker)
    breaker.open()
    assert not rests(pipeline)
    breaker.disable()
    assert rests(pipeline)


def test_listeners_hear_of_the_calls_of_a_disabled_circuit(world: World) -> None:
    """It decides nothing, but the calls are made through it."""
    heard: list[str] = []

    class Listener(Recorder):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            heard.append("call")

        def failure(self, cb: Any, exc: BaseException) -> None:
            heard.append("failure")

        def success(self, cb: Any) -> None:
            heard.append("success")

    breaker = CircuitBreaker(listeners=[Listener()])
    breaker.disable()
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    error_of(world, guarded)
    world.run(guarded)
    assert heard == ["call", "failure", "call", "success"]


# In shadow


def test_a_command_that_changes_nothing_is_no_change() -> None:
    """Listeners hear of changes of state only."""
    listener = Recorder()
    breaker = CircuitBreaker(listeners=[listener])
    breaker.close()
    breaker.open()
    breaker.open()
    assert listener.changes == [("closed", "open")]


def test_a_shadow_counts_and_reports_and_rejects_nothing(world: World) -> None:
    """It opens, is tried and closes as it would, while every call goes through."""
    listener = Recorder()
    breaker = CircuitBreaker(failures=2, reset_after=10, listeners=[listener])
    breaker.shadow()
    bad = ConnectionError
    guarded = Pipeline(breaker).wrap(world.function(bad, bad, bad, "ok", "ok"))
    for _ in range(3):
        error_of(world, guarded)
    now = breaker.snapshot()
    assert (breaker.state, now.shadow, now.refused) == ("open", True, 1)
    assert world.run(guarded) == "ok"  # open, and no trial: no verdict
    world.clock.advance(10)
    assert world.run(guarded) == "ok"
    assert listener.changes == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]
    assert len(world.calls) == 5


def test_a_shadow_ends_with_a_command(world: World) -> None:
    """From then on it rejects."""
    breaker = CircuitBreaker(failures=1)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    breaker.shadow()
    breaker.close()
    error_of(world, guarded)
    rejected(world, guarded)


def test_a_shadow_does_not_keep_a_retry_from_trying_again() -> None:
    """It rejects nothing, so nobody need stop for it."""
    breaker = CircuitBreaker(failures=1, reset_after=1e6)
    breaker.shadow()
    with virtual_time() as clock:
        world = World("sync", clock)
        guarded = Pipeline(Retry(wait=1), breaker).wrap(world.function(ConnectionError, "ok"))
        assert guarded() == "ok"
        assert breaker.state == "open"


# Keyed


def test_commands_of_a_keyed_breaker_are_its_circuits() -> None:
    """Each value's circuit has them all; the breaker itself refuses to guess."""
    breaker = CircuitBreaker(key="model")
    circuit = breaker.circuit("a")
    for command in ("isolate", "disable", "shadow", "open", "close", "snapshot"):
        getattr(circuit, command)()
        with pytest.raises(TypeError, match=r"circuit\(value\)"):
            getattr(breaker, command)()
    for name in ("state", "retry_at"):
        with pytest.raises(TypeError, match=r"circuit\(value\)"):
            getattr(breaker, name)
    assert breaker.circuit("b").state == "closed"
    with pytest.raises(TypeError, match=r"^this breaker has no key: use its own state, .*\(\)$"):
        CircuitBreaker().circuit("x")
