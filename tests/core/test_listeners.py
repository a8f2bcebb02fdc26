"""Listeners that misbehave: the call goes on as without them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, Pipeline, Retry
from resilience._core import listening
from resilience.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    CircuitOpened,
    Event,
    WaitBegan,
    listen,
    recording,
)
from support.calling import error_of

PLAIN = ["CallStarted", "AttemptStarted", "AttemptEnded", "CallEnded"]


@pytest.mark.fault(114)
def test_a_listener_that_raises(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The result is kept, and so is the error; the next listener is notified all the same; one
    warning names the listener and what it raised, not its text, which may tell of the call."""
    received: list[str] = []

    def bad(event: Any) -> None:
        raise ConnectionError("a secret")

    def good(event: Any) -> None:
        received.append(type(event).__name__)

    pipeline = Pipeline(Retry(attempts=2, wait=0), listeners=[bad, good])
    assert world.run(pipeline.wrap(world.function("ok"))) == "ok"
    assert received == PLAIN
    own = KeyError("own")
    assert error_of(world, pipeline.wrap(world.function(own))) is own
    warnings = [r.getMessage() for r in caplog.records if "listener" in r.getMessage()]
    name = "test_a_listener_that_raises.<locals>.bad"
    assert warnings == [f"the listener {name} raised ConnectionError at CallStarted"]
    assert "secret" not in caplog.text


class Odd:
    """An object that is called, has no hash, equals nothing, and does not even say its name."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.received: list[Any] = []

    def __eq__(self, other: object) -> bool:
        raise NotImplementedError

    def __getattribute__(self, name: str) -> Any:
        if name == "__qualname__":
            raise RuntimeError("nothing is there now")
        return object.__getattribute__(self, name)

    def __call__(self, event: Any) -> None:
        self.received.append(event)
        raise ConnectionError


@pytest.mark.fault(393)
def test_an_odd_object_may_listen(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """To one pipeline, and to all; each call is as without it, and other pipelines can be made."""
    own, other = Odd(), Odd()
    stop = listen(other)
    try:
        pipeline = Pipeline(Retry(), listeners=[own])
        assert world.run(pipeline.wrap(world.function("ok"))) == "ok"
        assert world.run(Pipeline().wrap(world.function("ok"))) == "ok"
    finally:
        stop()
    assert [type(event).__name__ for event in own.received] == PLAIN
    assert [type(event).__name__ for event in other.received] == PLAIN * 2
    assert caplog.text.count("<Odd> raised ConnectionError") == 2


@pytest.mark.fault(393)
def test_an_object_without_a_name_may_be_guarded() -> None:
    """Its error comes out as itself."""
    error = KeyError()

    class Fails(Odd):
        def __call__(self) -> Any:  # type: ignore[override]
            raise error

    with recording() as events, pytest.raises(KeyError) as caught:
        Pipeline(Retry()).call(Fails())
    assert caught.value is error
    assert events[-1].function.endswith("Fails>")


@pytest.mark.fault(114)
@pytest.mark.disorderly  # those who listen after that one are not told
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_stops_the_program_passes(error: type[BaseException]) -> None:
    """Ctrl-C while a listener runs is Ctrl-C."""

    def interrupted(event: Any) -> None:
        raise error

    with pytest.raises(error):
        Pipeline(Retry(), listeners=[(interrupted, CallEnded)]).call(lambda: "ok")


@pytest.mark.fault(114)
def test_an_async_listener_is_refused() -> None:
    """Nobody would await it."""

    async def listen_to(event: Any) -> None:
        pass

    with pytest.raises(TypeError, match="listeners"):
        Pipeline(listeners=[listen_to])
    with pytest.raises(TypeError, match="callback"):
        listen(listen_to)


def test_a_slow_listener_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds up the calls that it listens to."""
    clock = [0.0]
    monkeypatch.setattr(listening, "monotonic", lambda: clock[0])

    def slow(event: Any) -> None:
        clock[0] += 0.5

    pipeline = Pipeline(Retry(), listeners=[slow])
    assert [pipeline.call(lambda: "ok") for _ in range(3)] == ["ok"] * 3
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "slow took 0.5 s" in warnings[0]


def test_a_listener_that_calls_the_library_is_not_told_of_that() -> None:
    """Else it would never end; another one is told."""
    seen: list[Event] = []
    metrics = Pipeline(Retry(), name="metrics").wrap(lambda: None)

    def sends(event: Event) -> None:
        seen.append(event)
        metrics()

    stop = listen(sends)
    try:
        with recording(CallEnded) as events:
            Pipeline(Retry(), name="chat").call(lambda: "ok")
    finally:
        stop()
    assert [type(event).__name__ for event in seen] == PLAIN
    assert {event.pipeline for event in seen} == {"chat"}
    assert [event.pipeline for event in events] == ["metrics"] * 4 + ["chat"]


def test_a_listener_may_change_the_circuit_that_it_is_told_of() -> None:
    """It runs outside of every lock."""
    breaker = CircuitBreaker(failures=1)

    def closes(event: CircuitOpened) -> None:
        thread = threading.Thread(target=breaker.close)
        thread.start()
        thread.join()

    stop = listen(closes, CircuitOpened)
    try:
        breaker.open()
    finally:
        stop()
    assert breaker.state == "closed"


def test_a_listener_may_begin_and_end_listening(world: World) -> None:
    """While it is being told."""
    seen: list[Event] = []

    def once(event: Event) -> None:
        stop()
        listeners.append(listen(seen.append, WaitBegan))

    listeners: list[Any] = []
    stop = listen(once, WaitBegan)
    try:
        fn = world.function(ConnectionError, ConnectionError, "ok")
        assert world.run(Pipeline(Retry(wait=1)).call, fn) == "ok"
    finally:
        listeners[0]()
    assert len(listeners) == len(seen) == 1


def test_one_that_begins_to_listen_in_an_attempt(real_world: World) -> None:
    """It receives the whole call, that attempt's beginning included: nothing ends unbegun."""
    seen: list[Event] = []
    stops: list[Any] = []

    def fail(*args: Any) -> None:
        stops.append(listen(seen.append, CallStarted, AttemptStarted, AttemptEnded))
        raise ConnectionError

    try:
        fn = Pipeline(Retry(attempts=2, wait=0)).wrap(real_world.function(fail, "ok"))
        assert real_world.run(fn) == "ok"
    finally:
        stops[0]()
    told = ["CallStarted", "AttemptStarted", "AttemptEnded", "AttemptStarted", "AttemptEnded"]
    assert [type(event).__name__ for event in seen] == told
