"""pybreaker's listeners: what they hear, and that they never touch a call."""

from __future__ import annotations

import logging
from typing import Any

import pybreaker
import pytest

from conftest import World
from resilience import CircuitBreaker, Consecutive, FailureRate, Pipeline
from resilience.circuit.listeners import Listeners
from support.calling import error_of
from support.circuits import Recorder, rejected, rests
from support.concurrency import in_threads


class Hearing(pybreaker.CircuitBreakerListener):
    """Records all that it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.heard.append(("call", args, kwargs))

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.heard.append(("failure", type(exc)))

    def success(self, cb: Any) -> None:
        self.heard.append(("success", cb.name))

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.heard.append((old_state.name, new_state.name, cb.current_state))


def test_a_listener_hears_it_all(world: World) -> None:
    """A pybreaker listener hears calls, failures, successes and changes of state."""
    listener = Hearing()
    breaker = CircuitBreaker(failures=1, reset_after=60, listeners=[listener], name="x")
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    error_of(world, guarded, 1)
    rejected(world, guarded)
    world.clock.advance(60)
    world.run(guarded, two=2)

    assert listener.heard == [
        ("call", (1,), {}),
        ("closed", "open", "open"),
        ("failure", ConnectionError),
        ("open", "half-open", "half-open"),
        ("call", (), {"two": 2}),
        ("half-open", "closed", "closed"),
        ("success", "x"),
    ]


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"failures": 3}, 3),
        ({"trip": Consecutive(3) | FailureRate(0.5)}, 3),
        ({"trip": FailureRate(0.5)}, 0),
    ],
)
def test_a_listener_sees_what_pybreaker_would_show(world: World, options: Any, limit: int) -> None:
    """What a listener is given has pybreaker's names: counters, limits, and our key."""
    seen: list[Any] = []

    class Looking(pybreaker.CircuitBreakerListener):
        def failure(self, cb: Any, exc: BaseException) -> None:
            seen.append((cb.name, cb.key, cb.fail_counter, cb.fail_max, cb.reset_timeout))

    breaker = CircuitBreaker(reset_after=7, name="x", key="model", listeners=[Looking()], **options)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    for _ in range(2):
        error_of(world, guarded, model="m")

    assert seen == [("x", "m", 1, limit, 7), ("x", "m", 2, limit, 7)]


def test_a_listener_sees_how_long_it_would_open_now(world: World) -> None:
    """Where that is a wait's to say: for the next opening, or for this one."""
    asked: list[Any] = []
    seen: list[Any] = []

    def wait(state: Any) -> float:
        asked.append((state.start_time, type(state.outcome.exception())))
        return 10.0 * state.attempt_number

    class Looking(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            seen.append((cb.current_state, cb.reset_timeout))

        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            seen.append((cb.current_state, cb.reset_timeout))

    breaker = CircuitBreaker(failures=1, reset_after=wait, listeners=[Looking()])
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    error_of(world, guarded)
    world.clock.advance(10)
    error_of(world, guarded)

    assert seen == [
        ("closed", 10),
        ("open", 10),
        ("half-open", 10),
        ("half-open", 10),
        ("open", 20),
    ]
    assert asked == [
        (1000, type(None)),
        *[(1000, ConnectionError)] * 2,
        *[(1010, ConnectionError)] * 4,
    ]


def test_a_listener_hears_of_manual_commands() -> None:
    """They are changes of state as well."""
    listener = Recorder()
    breaker = CircuitBreaker(listeners=[listener])
    breaker.open()
    breaker.open()
    breaker.isolate()
    breaker.close()

    assert listener.changes == [("closed", "open"), ("open", "isolated"), ("isolated", "closed")]


def test_a_listener_of_changes_only_leaves_the_pipeline_at_rest() -> None:
    """A listener that hears nothing of healthy calls costs them nothing."""
    assert rests(Pipeline(CircuitBreaker(listeners=[Recorder()])))
    assert not rests(Pipeline(CircuitBreaker(listeners=[Hearing()])))


def test_a_listener_is_told_which_function_is_called(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """With its arguments, and the circuit; of what it raises, the class is logged."""

    class Heard(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            calls.append((cb.name, cb.current_state, func, args, kwargs))

        def success(self, cb: Any) -> None:
            raise LookupError("secret")

    calls: list[Any] = []
    caplog.set_level(logging.WARNING, logger="resilience")
    fn = world.function("ok")
    breaker = CircuitBreaker(name="chat", listeners=[Heard()])
    assert world.run(Pipeline(breaker).wrap(fn), 1, size=2) == "ok"

    assert calls == [("chat", "closed", fn, (1,), {"size": 2})]
    assert caplog.messages == ["a pybreaker listener raised LookupError"]


def test_no_listeners_are_nobody_to_tell() -> None:
    """pybreaker is not imported for nothing."""
    assert Listeners.of(()) is None


# A listener that goes wrong


def test_a_listener_that_raises_is_only_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What a listener raises never touches the call; it goes to the log."""

    def boom(*args: Any) -> Any:
        raise ZeroDivisionError

    class Broken(Hearing):
        before_call = failure = success = state_change = boom  # type: ignore[assignment]

    breaker = CircuitBreaker(failures=1, listeners=[Broken()])
    guarded = Pipeline(breaker).wrap(world.function("ok", ConnectionError))

    assert world.run(guarded) == "ok"
    assert type(error_of(world, guarded)) is ConnectionError
    assert breaker.state == "open"
    assert {each.levelname for each in caplog.records if "listener" in each.msg} == {"ERROR"}


@pytest.mark.fault(28)
@pytest.mark.parametrize("where", ["before_call", "state_change"])
@pytest.mark.parametrize("options", [{}, {"wait_for_trial": 5}])
def test_a_listener_interrupted_while_a_trial_is_admitted(
    world: World, where: str, options: dict[str, Any]
) -> None:
    """Ctrl-C in a listener comes out, and the trial's slot is free for the next call, also while
    somebody still looks at the interrupt."""
    interrupts = [KeyboardInterrupt]

    def interrupt(self: Any, cb: Any, *args: Any) -> None:
        if cb.current_state == "half-open" and interrupts:
            raise interrupts.pop()

    listener = type("Interrupted", (pybreaker.CircuitBreakerListener,), {where: interrupt})()
    breaker = CircuitBreaker(reset_after=60, listeners=[listener], **options)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    world.clock.advance(60)
    with pytest.raises(KeyboardInterrupt) as held:
        world.run(guarded)
    assert (breaker.state, world.calls) == ("half-open", [])
    assert breaker.snapshot().trials == 0

    assert world.run(guarded) == "ok"
    assert breaker.state == "closed"
    assert held.type is KeyboardInterrupt


# Locks


@pytest.mark.real
@pytest.mark.fault(20)
def test_listeners_and_predicates_run_under_no_lock() -> None:
    """A listener or a predicate may ask the breaker, or wait for another thread that calls."""
    found: list[str] = []

    def down() -> None:
        raise ConnectionError

    def elsewhere() -> None:
        in_threads(1, lambda number: found.append(breaker.state))
        in_threads(1, lambda number: found.append(str(Pipeline(breaker).outcome(down).error)))

    class Listener(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old: Any, new: Any) -> None:
            elsewhere()
            if new.name == "open":
                breaker.close()

    def predicate(failure: Any) -> bool:
        in_threads(1, lambda number: found.append(breaker.state))
        return True

    breaker = CircuitBreaker(failures=2, on=predicate, listeners=[Listener()])
    pipeline = Pipeline(breaker)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            pipeline.call(down)
    assert breaker.state == "closed"
    assert found
