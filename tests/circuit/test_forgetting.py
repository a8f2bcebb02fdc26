"""Circuits of a key: what they cost, when they are forgotten, and when never."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from resilience import CircuitBreaker, FailureRate, Pipeline, SlowCalls
from resilience._core.idle import epochs
from resilience.circuit.circuit import Circuit
from resilience.testing import VirtualTime, virtual_time
from support.circuits import UnderWay, admit, rests
from support.concurrency import fast_switching, in_threads  # noqa: F401


@pytest.fixture
def clock() -> Iterator[VirtualTime]:
    """Virtual time."""
    with virtual_time() as clock:
        yield clock


def answer(model: str) -> str:
    """Fails for models whose name says so."""
    if "bad" in model:
        raise ConnectionError
    return model


def crowd(breaker: CircuitBreaker, name: str = "", number: int = 10) -> None:
    """Make so many other circuits."""
    for each in range(number):
        breaker.circuit(f"{name} {each}")


@pytest.mark.fault(118)
@pytest.mark.parametrize(
    ("number", "trip"),
    [
        (100_000, None),
        (10_000, FailureRate(0.5)),
        (10_000, FailureRate(0.5, calls=100) | SlowCalls(10, 0.5)),
    ],
    ids=["failures", "time", "calls"],
)
def test_a_key_costs_less_than_two_kilobytes(number: int, trip: Any) -> None:
    """So many keys, each with its circuit, its lock and its windows."""
    breaker = CircuitBreaker(key="model", trip=trip)
    keys = [str(each) for each in range(number)]
    gc.collect()
    tracemalloc.start()
    for key in keys:
        breaker.circuit(key)
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(breaker._circuits._all) == number
    assert used / number < 2000


@pytest.mark.fault(118)
def test_a_million_keys_stay_within_the_bound() -> None:
    """Values without end, some failing: at most `keep` circuits, those used last."""
    with virtual_time():
        breaker = CircuitBreaker(key="model", keep=100)
        pipeline = Pipeline(breaker)
        for number in range(20_000):
            pipeline.outcome(answer, f"bad {number}" if number % 3 else str(number))
        assert len(breaker._circuits._all) <= 101
        assert len(breaker._circuits._restless) <= 101
        assert str(19_998) in breaker._circuits._all


def test_idle_circuits_are_forgotten(clock: VirtualTime) -> None:
    """After `forget_after` seconds without a call, when others are made; not before."""
    breaker = CircuitBreaker(key="model", forget_after=60)
    guarded = Pipeline(breaker).wrap(answer)
    guarded("old")
    for number in range(10):
        guarded(f"a{number}")
    assert "old" in breaker._circuits._all
    clock.advance(61)
    for number in range(12):
        guarded(f"b{number}")
    assert "old" not in breaker._circuits._all
    assert len(breaker._circuits._all) == 12


def test_a_circuit_in_use_is_kept(clock: VirtualTime) -> None:
    """Of too many, the one that is called again and again stays."""
    breaker = CircuitBreaker(key="model", keep=10)
    guarded = Pipeline(breaker).wrap(answer)
    guarded("busy")
    kept = id(breaker._circuits.find("busy"))
    for number in range(200):
        clock.advance(0.1)
        guarded("busy")
        guarded(str(number))
    assert id(breaker._circuits.find("busy")) == kept
    assert len(breaker._circuits._all) <= 11


def in_a_trial(circuit: Circuit, clock: VirtualTime) -> UnderWay:
    circuit.open()
    clock.advance(20_000)
    return admit(circuit)


def after_a_trial(circuit: Circuit, clock: VirtualTime) -> None:
    in_a_trial(circuit, clock).drop()


def ramping(circuit: Circuit, clock: VirtualTime) -> None:
    in_a_trial(circuit, clock).succeed()


def shadowed_and_open(circuit: Circuit, clock: VirtualTime) -> None:
    circuit.shadow()
    admit(circuit).fail()


# What is never forgotten


@pytest.mark.parametrize(
    "act",
    [
        lambda circuit, clock: circuit.open(),
        lambda circuit, clock: circuit.isolate(),
        lambda circuit, clock: circuit.disable(),
        lambda circuit, clock: circuit.shadow(),
        shadowed_and_open,
        in_a_trial,
        ramping,
    ],
    ids=["open", "isolated", "disabled", "in shadow", "open in shadow", "in a trial", "ramp"],
)
def test_what_a_circuit_still_has_to_do_is_never_forgotten(
    clock: VirtualTime, act: Callable[[Circuit, VirtualTime], Any]
) -> None:
    """However long nobody calls, and however many others come."""
    breaker = CircuitBreaker(
        key="model", keep=5, forget_after=1, failures=1, reset_after=20_000, ramp=20_000
    )
    held = act(breaker.circuit("x"), clock)
    state, shadow = breaker.circuit("x").state, breaker.circuit("x").snapshot().shadow
    clock.advance(10_000)
    crowd(breaker, number=100)
    assert "x" in breaker._circuits._all
    assert (breaker.circuit("x").state, breaker.circuit("x").snapshot().shadow) == (state, shadow)
    del held


def test_a_circuit_with_failures_is_not_forgotten_for_being_idle(clock: VirtualTime) -> None:
    """Only where there are too many of them."""
    breaker = CircuitBreaker(key="model", forget_after=1)
    admit(breaker.circuit("x")).fail()
    clock.advance(10)
    crowd(breaker)
    gc.collect()
    assert breaker.circuit("x").failures == 1


@pytest.mark.parametrize(
    ("trip", "kept"),
    [
        (FailureRate(0.5, window=60), 0),
        (FailureRate(0.5, calls=10, minimum=10), 1),
        (FailureRate(0.5, window=60) | SlowCalls(10, 0.5), 0),
    ],
)
def test_bad_calls_in_a_window_are_remembered(clock: VirtualTime, trip: Any, kept: int) -> None:
    """An idle circuit is forgotten when the window has ended, and by number never."""
    breaker = CircuitBreaker(key="model", forget_after=1, trip=trip)
    admit(breaker.circuit("x")).fail()

    def bad_calls_of_x() -> int:
        crowd(breaker, f"{clock.now()}")
        gc.collect()
        return breaker.circuit("x").snapshot().readings[0].bad

    clock.advance(10)
    assert bad_calls_of_x() == 1
    clock.advance(60)
    assert ("x" in breaker._circuits._all, bad_calls_of_x()) == (True, kept)


def test_a_circuit_just_made_is_not_forgotten_at_once(clock: VirtualTime) -> None:
    """Not even where there are too many, and no other can go."""
    breaker = CircuitBreaker(key="model", keep=1)
    breaker.circuit("a").open()
    breaker.circuit("b")
    gc.collect()
    assert "b" in breaker._circuits._all


# What is


@pytest.mark.fault(118)
@pytest.mark.parametrize(
    ("act", "seconds"),
    [(lambda circuit, clock: circuit.open(), 20_000), (after_a_trial, 0)],
    ids=["open", "half open"],
)
def test_an_open_circuit_that_nobody_tries_is_forgotten(
    clock: VirtualTime, act: Callable[[Circuit, VirtualTime], None], seconds: float
) -> None:
    """`forget_after` seconds after it might have been tried, with the error that opened it."""
    breaker = CircuitBreaker(key="model", forget_after=60, reset_after=20_000)
    pipeline = Pipeline(breaker)
    act(breaker.circuit("x"), clock)
    clock.advance(seconds + 59)
    crowd(breaker)
    assert "x" in breaker._circuits._all
    assert not rests(pipeline)
    clock.advance(1)
    crowd(breaker, "more")
    assert "x" not in breaker._circuits._all
    assert rests(pipeline)
    assert breaker.circuit("x").state == "closed"


@pytest.mark.fault(118)
@pytest.mark.parametrize(
    "act", [lambda circuit, clock: circuit.open(), after_a_trial], ids=["open", "half open"]
)
def test_of_too_many_open_circuits_those_that_are_due_go(
    clock: VirtualTime, act: Callable[[Circuit, VirtualTime], None]
) -> None:
    """The oldest first, however long `forget_after` is; rest comes back with the last of them."""
    breaker = CircuitBreaker(key="model", keep=10, forget_after=1e9, reset_after=20_000)
    pipeline = Pipeline(breaker)
    for number in range(50):
        act(breaker.circuit(f"open {number}"), clock)
    clock.advance(20_000)
    crowd(breaker, "more", 200)
    assert len(breaker._circuits._all) <= 11
    assert rests(pipeline)


def test_idle_for_just_so_long_is_idle(clock: VirtualTime) -> None:
    """At `forget_after` to the second; bad calls of a window that is over are no reason to stay."""
    breaker = CircuitBreaker(
        key="model", forget_after=30, trip=FailureRate(1, window=30, minimum=2)
    )
    admit(breaker.circuit("x")).fail()
    admit(breaker.circuit("x")).succeed()
    clock.advance(29.9)
    breaker.circuit("a")
    assert "x" in breaker._circuits._all
    clock.advance(0.1)
    breaker.circuit("b")
    breaker.circuit("c")
    assert "x" not in breaker._circuits._all


def test_as_many_as_are_kept_are_kept(clock: VirtualTime) -> None:
    """The first one is forgotten when there is one more."""
    breaker = CircuitBreaker(key="model", keep=2)
    for value in ("a", "b"):
        breaker.circuit(value)
    assert [value in breaker._circuits._all for value in "ab"] == [True, True]
    breaker.circuit("c")
    assert [value in breaker._circuits._all for value in "abc"] == [False, True, True]


def test_forgetting_gives_rest_back(clock: VirtualTime) -> None:
    """Where the only circuit with failures is forgotten, pipelines rest again."""
    breaker = CircuitBreaker(key="model", keep=2)
    pipeline = Pipeline(breaker)
    pipeline.outcome(answer, "bad")
    assert not rests(pipeline)
    crowd(breaker)
    assert rests(pipeline)


@pytest.mark.parametrize("changed", [False, True])
def test_a_forgotten_circuit_is_gone_at_once(clock: VirtualTime, changed: bool) -> None:
    """It does not wait for the garbage collector, whatever it has been before."""
    breaker = CircuitBreaker(key="model", keep=2)
    Pipeline(breaker).call(answer, "x")
    gone = weakref.ref(breaker.circuit("x"))
    gc.disable()
    try:
        if changed:
            breaker.circuit("x").open()
            breaker.circuit("x").close()
        crowd(breaker)
        assert gone() is None
    finally:
        gc.enable()


# Found again


def test_a_circuit_that_is_held_is_found_again(clock: VirtualTime) -> None:
    """Forgotten or not: for one value, never two circuits at a time."""
    breaker = CircuitBreaker(key="model", keep=2)
    held = breaker.circuit("x")
    crowd(breaker)
    assert "x" not in breaker._circuits._all
    assert breaker.circuit("x") is held


def test_an_open_circuit_that_is_held_is_found_again_open(clock: VirtualTime) -> None:
    """Forgotten, but somebody has it: where it is needed again, there is no rest."""
    breaker = CircuitBreaker(key="model", keep=2, reset_after=10)
    pipeline = Pipeline(breaker)
    held = breaker.circuit("x")
    held.open()
    clock.advance(10)
    crowd(breaker)
    assert rests(pipeline)
    assert breaker.circuit("x") is held
    assert not rests(pipeline)
    assert pipeline.call(answer, "x") == "x"
    assert held.state == "closed"
    assert rests(pipeline)


@pytest.mark.fault(28)
@pytest.mark.parametrize("trip", [None, FailureRate(1, calls=2, minimum=1)])
def test_a_failure_of_a_forgotten_circuits_call_counts(clock: VirtualTime, trip: Any) -> None:
    """A permit that is out brings its circuit back."""
    breaker = CircuitBreaker(key="model", keep=2, trip=trip, failures=None if trip else 1)
    call = admit(breaker.circuit("x"))
    crowd(breaker)
    assert "x" not in breaker._circuits._all
    call.fail()
    del call
    gc.collect()
    assert breaker.circuit("x").state == "open"


def test_a_good_call_of_a_forgotten_circuit_brings_it_back(clock: VirtualTime) -> None:
    """Where a window counts such calls."""
    breaker = CircuitBreaker(key="model", keep=2, trip=FailureRate(0.5))
    call = admit(breaker.circuit("x"))
    crowd(breaker)
    assert "x" not in breaker._circuits._all
    call.succeed()
    assert "x" in breaker._circuits._all
    assert breaker.circuit("x").snapshot().readings[0].calls == 1


@pytest.mark.fault(21)
def test_late_answers_do_not_reach_a_successor(clock: VirtualTime) -> None:
    """A call begun before the last change of a forgotten circuit is late for the next one, too."""
    breaker = CircuitBreaker(key="model", keep=2, failures=1)
    breaker.circuit("x")
    early = epochs.now
    breaker.circuit("x").open()
    breaker.circuit("x").close()
    crowd(breaker)
    gc.collect()
    assert not breaker._circuits._forgotten
    successor = breaker.circuit("x")
    UnderWay(successor, successor._resume(early, clock.now())).fail()
    assert successor.state == "closed"
    UnderWay(successor, successor._resume(epochs.now, clock.now())).fail()
    assert successor.state == "open"


def test_a_circuit_that_was_made_meanwhile_is_taken(clock: VirtualTime) -> None:
    """By another thread, say: for one value, never two."""
    breaker = CircuitBreaker(key="model")
    made = breaker.circuit("x")
    assert breaker._circuits._made("x") is made


def test_a_circuit_that_fails_in_the_moment_of_being_forgotten_is_kept(
    clock: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, between the look that says it may go and its going."""
    breaker = CircuitBreaker(key="model", keep=2, failures=1, reset_after=1e6)
    pipeline = Pipeline(breaker)
    calls = [admit(breaker.circuit("x"))]
    kept = breaker._circuits
    let_go = type(kept)._let_go

    def meanwhile(self: Any, circuit: Circuit) -> None:
        if circuit.key == "x" and calls:
            calls.pop().fail()
        let_go(self, circuit)

    monkeypatch.setattr(type(kept), "_let_go", meanwhile)
    crowd(breaker)
    gc.collect()
    assert not calls
    assert breaker.circuit("x").state == "open"
    assert not rests(pipeline)


# Ramps


def ramps_kept(breaker: CircuitBreaker) -> list[Any]:
    return [circuit.key for circuit in breaker._circuits._ramping]


def test_rest_after_a_ramp_that_nobody_has_called_since(clock: VirtualTime) -> None:
    """A call with any key ends it, as far as its time is over."""
    breaker = CircuitBreaker(key="model", failures=2, reset_after=1, ramp=10)
    pipeline = Pipeline(breaker)
    for key in ("x", "y", "x"):  # at last, y's ends in 9 seconds, x's in 10
        breaker.circuit(key).open()
        clock.advance(1)
        assert pipeline.call(answer, key) == key
    clock.advance(5)
    clock.random = lambda: 0.0
    admit(breaker.circuit("y")).fail()
    admit(breaker.circuit("y")).succeed()
    clock.advance(3)
    assert pipeline.call(answer, "other") == "other"
    assert ramps_kept(breaker) == ["y", "x"]
    clock.advance(1)
    assert pipeline.call(answer, "other") == "other"
    assert ramps_kept(breaker) == ["x"]
    assert not rests(pipeline)
    clock.advance(1)
    assert pipeline.call(answer, "other") == "other"
    assert ramps_kept(breaker) == []
    assert rests(pipeline)


def test_a_ramp_that_was_cut_short(clock: VirtualTime) -> None:
    """A circuit isolated in the meantime is left as it is when its ramp would have ended."""
    breaker = CircuitBreaker(key="model", reset_after=1, ramp=10)
    pipeline = Pipeline(breaker)
    breaker.circuit("x").open()
    clock.advance(1)
    assert pipeline.call(answer, "x") == "x"
    breaker.circuit("x").isolate()
    clock.advance(10)
    assert pipeline.call(answer, "other") == "other"
    assert breaker.circuit("x").state == "isolated"
    assert not rests(pipeline)


def test_ramps_that_end_at_the_same_time(clock: VirtualTime) -> None:
    """One call ends them all."""
    breaker = CircuitBreaker(key="model", reset_after=1, ramp=10)
    pipeline = Pipeline(breaker)
    for key in ("x", "y"):
        breaker.circuit(key).open()
    clock.advance(1)
    for key in ("x", "y"):
        pipeline.call(answer, key)
    clock.advance(10)
    assert pipeline.call(answer, "other") == "other"
    assert rests(pipeline)


def test_a_circuit_forgotten_on_its_ramp_does_not_come_back(clock: VirtualTime) -> None:
    """Opened again on it, and nobody has tried it since."""
    breaker = CircuitBreaker(key="model", reset_after=1, ramp=100, keep=2)
    pipeline = Pipeline(breaker)
    held = breaker.circuit("x")
    held.open()
    clock.advance(1)
    assert pipeline.call(answer, "x") == "x"
    held.open()
    clock.advance(1)
    crowd(breaker)
    clock.advance(100)
    assert pipeline.call(answer, "other") == "other"
    assert "x" not in breaker.circuits()


# Pipelines


def test_pipelines_that_are_gone_are_not_told(clock: VirtualTime) -> None:
    """A breaker outlives thousands of pipelines without keeping anything of them."""
    breaker = CircuitBreaker()
    for _ in range(1000):
        Pipeline(breaker)
    gc.collect()
    last = Pipeline(breaker)
    assert len(breaker._circuits._idles) < 10
    breaker.open()
    assert not rests(last)


# Threads


@pytest.mark.real
def test_threads_agree_on_the_circuits_while_they_are_forgotten(clock: VirtualTime) -> None:
    """8 threads over 60 values with room for 20: who holds a circuit finds that very one. (While
    the clock stands still, no circuit looks as if it had been used since.)"""
    breaker = CircuitBreaker(key="model", keep=20, failures=1000)
    seeds = (1, 7, 11, 13, 17, 19, 23, 29)
    contexts = [copy_context() for _ in seeds]

    def work(thread: int) -> None:
        for number in range(3000):
            value = str((number * seeds[thread]) % 60)
            circuit = breaker.circuit(value)
            call = admit(circuit)
            assert breaker.circuit(value) is circuit
            (call.fail if number % 2 else call.succeed)()

    in_threads(len(seeds), lambda thread: contexts[thread].run(work, thread), limit=50)
    assert len(breaker._circuits._all) <= 29


@pytest.mark.real
@pytest.mark.usefixtures("fast_switching")
def test_pipelines_made_while_circuits_change() -> None:
    """Four threads make pipelines, four open and close: in the end all are at rest, and every one
    is told of the next opening."""
    breaker = CircuitBreaker()
    made: list[Pipeline] = []

    def work(thread: int) -> None:
        for _ in range(300):
            if thread % 2:
                made.append(Pipeline(breaker))
            else:
                breaker.open()
                breaker.close()

    in_threads(8, work)
    assert all(map(rests, made))
    breaker.open()
    assert not any(map(rests, made))
