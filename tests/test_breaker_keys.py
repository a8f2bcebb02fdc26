"""Circuits of a key: what they cost, when they are forgotten, and when never."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilience import CircuitBreaker, FailureRate, Pipeline, SlowCalls
from resilience.policies._circuit import Circuit, Permit
from resilience.testing import VirtualTime, virtual_time


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


@pytest.mark.parametrize(
    ("number", "trip"),
    [
        (100_000, None),
        (10_000, FailureRate(0.5)),
        (10_000, FailureRate(0.5, calls=100) | SlowCalls(10, 0.5)),
    ],
    ids=["failures", "time", "calls"],
)
def test_fault_118_a_key_costs_less_than_two_kilobytes(number: int, trip: Any) -> None:
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
    assert len(breaker._circuits) == number
    assert used / number < 2000


def test_fault_118_a_million_keys_stay_within_the_bound() -> None:
    """Values without end, some failing: at most `keep` circuits, those used last."""
    with virtual_time():
        breaker = CircuitBreaker(key="model", keep=100)
        guarded = Pipeline(breaker).wrap(answer)
        for number in range(20_000):
            guarded.outcome(f"bad {number}" if number % 3 else str(number))
        assert len(breaker._circuits) <= 101
        assert len(breaker._circuits.restless) <= 101
        assert str(19_998) in breaker._circuits


def test_idle_circuits_are_forgotten(clock: VirtualTime) -> None:
    """After `forget_after` seconds without a call, when others are made; not before."""
    breaker = CircuitBreaker(key="model", forget_after=60)
    guarded = Pipeline(breaker).wrap(answer)
    guarded("old")
    for number in range(10):
        guarded(f"a{number}")
    assert "old" in breaker._circuits
    clock.advance(61)
    for number in range(12):
        guarded(f"b{number}")
    assert "old" not in breaker._circuits
    assert len(breaker._circuits) == 12


def test_a_circuit_in_use_is_kept(clock: VirtualTime) -> None:
    """Of too many, the one that is called again and again stays."""
    breaker = CircuitBreaker(key="model", keep=10)
    guarded = Pipeline(breaker).wrap(answer)
    guarded("busy")
    kept = id(breaker._circuits["busy"])
    for number in range(200):
        clock.advance(0.1)
        guarded("busy")
        guarded(str(number))
    assert id(breaker._circuits["busy"]) == kept
    assert len(breaker._circuits) <= 11


def one_failure(circuit: Circuit) -> None:
    circuit.admit(0).failed()


def rests(pipeline: Pipeline) -> bool:
    return pipeline.rest.token is not None


def in_a_trial(circuit: Circuit, clock: VirtualTime) -> Permit:
    circuit.open()
    clock.advance(20_000)
    return circuit.admit(clock.now())


def after_a_trial(circuit: Circuit, clock: VirtualTime) -> None:
    in_a_trial(circuit, clock).released()


def ramping(circuit: Circuit, clock: VirtualTime) -> None:
    in_a_trial(circuit, clock).succeeded()


def shadowed_and_open(circuit: Circuit, clock: VirtualTime) -> None:
    circuit.shadow()
    circuit.admit(clock.now()).failed()


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
    for number in range(100):
        breaker.circuit(str(number))
    assert "x" in breaker._circuits
    assert (breaker.circuit("x").state, breaker.circuit("x").snapshot().shadow) == (state, shadow)
    del held


@pytest.mark.parametrize(
    ("act", "seconds"),
    [(lambda circuit, clock: circuit.open(), 20_000), (after_a_trial, 0)],
    ids=["open", "half open"],
)
def test_fault_118_an_open_circuit_that_nobody_tries_is_forgotten(
    clock: VirtualTime, act: Callable[[Circuit, VirtualTime], None], seconds: float
) -> None:
    """`forget_after` seconds after it might have been tried, with the error that opened it."""
    breaker = CircuitBreaker(key="model", forget_after=60, reset_after=20_000)
    pipeline = Pipeline(breaker)
    act(breaker.circuit("x"), clock)
    clock.advance(seconds + 59)
    for number in range(10):
        breaker.circuit(str(number))
    assert "x" in breaker._circuits
    assert not rests(pipeline)
    clock.advance(1)
    for number in range(10):
        breaker.circuit(f"more {number}")
    assert "x" not in breaker._circuits
    assert rests(pipeline)
    assert breaker.circuit("x").state == "closed"


@pytest.mark.parametrize(
    "act", [lambda circuit, clock: circuit.open(), after_a_trial], ids=["open", "half open"]
)
def test_fault_118_of_too_many_open_circuits_those_that_are_due_go(
    clock: VirtualTime, act: Callable[[Circuit, VirtualTime], None]
) -> None:
    """The oldest first, however long `forget_after` is; rest comes back with the last of them."""
    breaker = CircuitBreaker(key="model", keep=10, forget_after=1e9, reset_after=20_000)
    pipeline = Pipeline(breaker)
    for number in range(50):
        act(breaker.circuit(f"open {number}"), clock)
    clock.advance(20_000)
    for number in range(200):
        breaker.circuit(f"more {number}")
    assert len(breaker._circuits) <= 11
    assert rests(pipeline)


def test_an_open_circuit_that_is_held_is_found_again_open(clock: VirtualTime) -> None:
    """Forgotten, but somebody has it: where it is needed again, there is no rest."""
    breaker = CircuitBreaker(key="model", keep=2, reset_after=10)
    pipeline = Pipeline(breaker)
    held = breaker.circuit("x")
    held.open()
    clock.advance(10)
    for number in range(10):
        breaker.circuit(str(number))
    assert rests(pipeline)
    assert breaker.circuit("x") is held
    assert not rests(pipeline)
    assert pipeline.call(answer, "x") == "x"
    assert held.state == "closed"
    assert rests(pipeline)


def test_rest_after_a_ramp_that_nobody_has_called_since(clock: VirtualTime) -> None:
    """A call with any key ends it, as far as its time is over."""
    breaker = CircuitBreaker(key="model", failures=2, reset_after=1, ramp=10)
    pipeline = Pipeline(breaker)
    for key in ("x", "y", "x"):  # at last, y's ends in 9 seconds, x's in 10
        breaker.circuit(key).open()
        clock.advance(1)
        assert pipeline.call(answer, key) == key
    clock.advance(5)
    breaker.circuit("y").admit(clock.now(), lambda: 0.0).failed()
    breaker.circuit("y").admit(clock.now(), lambda: 0.0).succeeded()
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


def ramps_kept(breaker: CircuitBreaker) -> list[Any]:
    return [circuit.key for circuit in breaker._circuits._ramping]


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


def test_a_circuit_with_failures_is_not_forgotten_for_being_idle(clock: VirtualTime) -> None:
    """Only where there are too many of them."""
    breaker = CircuitBreaker(key="model", forget_after=1)
    one_failure(breaker.circuit("x"))
    clock.advance(10)
    for number in range(10):
        breaker.circuit(str(number))
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
    one_failure(breaker.circuit("x"))

    def bad_calls_of_x() -> int:
        for number in range(10):
            breaker.circuit(f"{clock.now()} {number}")
        gc.collect()
        return breaker.circuit("x").snapshot().readings[0].bad

    clock.advance(10)
    assert bad_calls_of_x() == 1
    clock.advance(60)
    assert ("x" in breaker._circuits, bad_calls_of_x()) == (True, kept)


def test_a_circuit_that_is_held_is_found_again(clock: VirtualTime) -> None:
    """Forgotten or not: for one value, never two circuits at a time."""
    breaker = CircuitBreaker(key="model", keep=2)
    held = breaker.circuit("x")
    for number in range(10):
        breaker.circuit(str(number))
    assert "x" not in breaker._circuits
    assert breaker.circuit("x") is held


@pytest.mark.parametrize("trip", [None, FailureRate(1, calls=2, minimum=1)])
def test_fault_028_a_failure_of_a_forgotten_circuits_call_counts(
    clock: VirtualTime, trip: Any
) -> None:
    """A permit that is out brings its circuit back."""
    breaker = CircuitBreaker(key="model", keep=2, trip=trip, failures=None if trip else 1)
    permit = breaker.circuit("x").admit(clock.now())
    for number in range(10):
        breaker.circuit(str(number))
    assert "x" not in breaker._circuits
    permit.failed()
    del permit
    gc.collect()
    assert breaker.circuit("x").state == "open"


def test_fault_021_late_answers_do_not_reach_a_successor(clock: VirtualTime) -> None:
    """A call begun before the last change of a forgotten circuit is late for the next one, too."""
    breaker = CircuitBreaker(key="model", keep=2, failures=1)
    early = breaker.circuit("x").admit(clock.now()).epoch
    breaker.circuit("x").open()
    breaker.circuit("x").close()
    for number in range(10):
        breaker.circuit(str(number))
    gc.collect()
    assert not breaker._circuits._parted
    successor = breaker.circuit("x")
    successor.resume(early, clock.now()).failed()
    assert successor.closed


def test_idle_for_just_so_long_is_idle(clock: VirtualTime) -> None:
    """At `forget_after` to the second; bad calls of a window that is over are no reason to stay."""
    breaker = CircuitBreaker(
        key="model", forget_after=30, trip=FailureRate(1, window=30, minimum=2)
    )
    breaker.circuit("x").admit(clock.now()).failed()
    breaker.circuit("x").admit(clock.now()).succeeded()
    clock.advance(29.9)
    breaker.circuit("a")
    assert "x" in breaker._circuits
    clock.advance(0.1)
    breaker.circuit("b")
    breaker.circuit("c")
    assert "x" not in breaker._circuits


def test_as_many_as_are_kept_are_kept(clock: VirtualTime) -> None:
    """The first one is forgotten when there is one more."""
    breaker = CircuitBreaker(key="model", keep=2)
    for value in ("a", "b"):
        breaker.circuit(value)
    assert [value in breaker._circuits for value in "ab"] == [True, True]
    breaker.circuit("c")
    assert [value in breaker._circuits for value in "abc"] == [False, True, True]


def test_a_circuit_just_made_is_not_forgotten_at_once(clock: VirtualTime) -> None:
    """Not even where there are too many, and no other can go."""
    breaker = CircuitBreaker(key="model", keep=1)
    breaker.circuit("a").open()
    breaker.circuit("b")
    gc.collect()
    assert "b" in breaker._circuits


def test_a_good_call_of_a_forgotten_circuit_brings_it_back(clock: VirtualTime) -> None:
    """Where a window counts such calls."""
    breaker = CircuitBreaker(key="model", keep=2, trip=FailureRate(0.5))
    permit = breaker.circuit("x").admit(clock.now())
    for number in range(10):
        breaker.circuit(str(number))
    assert "x" not in breaker._circuits
    permit.succeeded()
    assert "x" in breaker._circuits


def test_a_circuit_that_was_made_meanwhile_is_taken(clock: VirtualTime) -> None:
    """By another thread, say: for one value, never two."""
    breaker = CircuitBreaker(key="model")
    made = breaker.circuit("x")
    assert breaker._circuits._made("x") is made


def test_rest_comes_back_with_the_last_circuit_that_closes(clock: VirtualTime) -> None:
    """Not with the first of two; also for pipelines made while they were open."""
    breaker = CircuitBreaker(key="model")
    before = Pipeline(breaker)
    breaker.circuit("a").open()
    breaker.circuit("b").open()
    after = Pipeline(breaker)
    breaker.circuit("a").close()
    assert [each.rest.token for each in (before, after)] == [None, None]
    breaker.circuit("b").close()
    assert None not in [each.rest.token for each in (before, after)]


def test_what_is_no_key_is_refused_by_its_type() -> None:
    """And a breaker without a key has no circuits by value."""
    with pytest.raises(TypeError) as caught:
        CircuitBreaker(key="model").circuit([])
    assert str(caught.value) == "key must be hashable, got a list"
    with pytest.raises(TypeError) as caught:
        CircuitBreaker().circuit("a")
    assert str(caught.value) == (
        "this breaker has no key: use its own state, open(), close(), isolate()"
    )
    with pytest.raises(TypeError) as caught:
        CircuitBreaker(failures=None)
    assert str(caught.value) == "failures must be a whole number where there is no trip, got None"


def test_forgetting_gives_rest_back(clock: VirtualTime) -> None:
    """Where the only circuit with failures is forgotten, pipelines rest again."""
    breaker = CircuitBreaker(key="model", keep=2)
    pipeline = Pipeline(breaker)
    pipeline.outcome(answer, "bad")
    assert pipeline.rest.token is None
    for number in range(10):
        breaker.circuit(str(number))
    assert pipeline.rest.token is not None


@pytest.mark.real
def test_each_circuit_has_a_lock_of_its_own() -> None:
    """A thread that holds one circuit's lock holds up no other circuit's calls."""
    breaker = CircuitBreaker(key="model", failures=3)
    first, second = breaker.circuit("a"), breaker.circuit("b")
    done = threading.Event()

    def work() -> None:
        second.admit(0).failed()
        second.admit(0).succeeded()
        breaker.circuit("c").admit(0).failed()
        done.set()

    with first._lock:
        threading.Thread(target=work, daemon=True).start()
        assert done.wait(10)


@pytest.mark.real
def test_threads_agree_on_the_circuits_while_they_are_forgotten() -> None:
    """8 threads over 60 values with room for 20: who holds a circuit finds that very one."""
    breaker = CircuitBreaker(key="model", keep=20, failures=1000)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for number in range(3000):
            value = str((number * seed) % 60)
            circuit = breaker.circuit(value)
            permit = circuit.admit(0)
            if breaker.circuit(value) is not circuit:
                wrong.append(value)
            (permit.failed if number % 2 else permit.succeeded)()

    threads = [
        threading.Thread(target=work, args=(seed,)) for seed in (1, 7, 11, 13, 17, 19, 23, 29)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not wrong
    assert len(breaker._circuits) <= 29
