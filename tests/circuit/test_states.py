"""One circuit asked directly: whom each state lets through, what leads from one to another, and
what is published of a change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resilience import CircuitBreaker, CircuitOpenError, FailureRate, SlowCalls
from resilience.circuit.states import MANUAL, TABLE, Change, Event
from resilience.failures import Advice, Failure, Kind
from resilience.testing import VirtualTime, virtual_time
from support.circuits import Told, admit
from support.states import (
    ACTS,
    Act,
    closed,
    disabled,
    half_open,
    isolated,
    isolated_by_others,
    made,
    open_,
    ramping,
    shadowed,
)


@pytest.fixture
def clock() -> Iterator[VirtualTime]:
    """Virtual time from 0."""
    with virtual_time(start=0.0) as clock:
        yield clock


# Whom it lets through


@pytest.mark.parametrize(
    ("act", "refuses"),
    list(zip(ACTS, [False, True, False, True, True, False, False, False], strict=True)),
)
def test_whether_it_would_reject(clock: VirtualTime, act: Act, refuses: bool) -> None:
    """Asked without a call; in shadow and on the ramp it does not say so beforehand."""
    assert made(act, clock).circuit._refuses(clock.now()) is refuses


def test_when_the_time_is_up_it_would_not_reject(clock: VirtualTime) -> None:
    """To the second."""
    circuit = made(open_, clock).circuit
    assert circuit._refuses(9.999)
    assert not circuit._refuses(10.0)


def test_the_last_second_of_an_open_circuit(clock: VirtualTime) -> None:
    """A part of a second is told as that."""
    circuit = made(open_, clock).circuit
    clock.advance(9.75)
    assert circuit.retry_after == 0.25


def test_in_shadow_a_call_beyond_the_trials_has_no_say(clock: VirtualTime) -> None:
    """It is let through; the trial's verdict counts, the other's does not."""
    circuit = made(shadowed, clock).circuit
    clock.advance(10)
    trial, beyond = admit(circuit), admit(circuit)
    beyond.fail()
    assert circuit.state == "half-open"
    admit(circuit).succeed()
    assert circuit.state == "half-open"
    assert circuit.snapshot().refused == 2
    trial.succeed()
    assert circuit.state == "closed"


def test_disabled_while_a_call_is_being_admitted_it_lets_it_through(clock: VirtualTime) -> None:
    """The permit is one of that circuit, and its answer changes nothing."""
    circuit = made(ramping, clock).circuit

    def meanwhile() -> float:
        circuit.disable()
        return 0.99

    clock.random = meanwhile
    permit = admit(circuit)
    permit.fail()
    assert circuit.state == "disabled"
    assert circuit.snapshot().last_failure is None


def test_rejected_calls_are_counted(clock: VirtualTime) -> None:
    """Each of them, until it closes."""
    circuit = made(open_, clock).circuit
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            admit(circuit)
    assert circuit.snapshot().refused == 3
    circuit.close()
    assert circuit.snapshot().refused == 0


FAILURE = Failure(Kind.OVERLOADED, Advice.WAIT, retry_after=30.0)


def test_a_rejection_has_its_cause(clock: VirtualTime) -> None:
    """What opened it, also while it is half open; a bad trial's after that; a manual command has
    none."""
    circuit = Told(failures=1).circuit
    first, second = ConnectionError("first"), ConnectionError("second")
    admit(circuit).fail(first, FAILURE)
    assert circuit.retry_after == 30
    assert circuit._refusal(1.0).__cause__ is first
    clock.advance(30)
    trial = admit(circuit)
    assert circuit._refusal(clock.now()).__cause__ is first
    trial.fail(second, FAILURE)
    assert circuit.retry_after == 30
    assert circuit._refusal(clock.now()).__cause__ is second
    with circuit.isolate():
        assert circuit._refusal(clock.now()).__cause__ is None


# What leads from one state to another


STATES: dict[str, Act] = {
    "closed": closed,
    "open": open_,
    "half-open": half_open,
    "isolated": isolated,
    "disabled": disabled,
}


def have(told: Told, event: str, clock: VirtualTime) -> None:
    """Have an event happen to a circuit, as far as it can in this state."""
    circuit, now = told.circuit, clock.now()
    commands = {
        Event.OPENS: circuit.open,
        Event.CLOSES: circuit.close,
        Event.ISOLATES: circuit.isolate,
        Event.DISABLES: circuit.disable,
        Event.OTHERS_OPENED: lambda: circuit._adopt("open", 7.0, now),
        Event.OTHERS_CLOSED: lambda: circuit._adopt("closed", 7.0, now),
        Event.SHARED_OPEN: lambda: circuit._follow("open", 7.0, now),
        Event.SHARED_CLOSED: lambda: circuit._follow("closed", 7.0, now),
        Event.SHARED_ISOLATED: lambda: circuit._follow("isolated", 7.0, now),
    }
    if event in commands:
        commands[event]()
    elif event in (Event.TRIPS, Event.FAILED):
        if circuit.state in ("closed", "half-open", "disabled"):
            admit(circuit).fail()
    elif event == Event.PASSED:
        if circuit.state in ("closed", "half-open", "disabled"):
            admit(circuit).succeed()
    elif event == Event.TIME:
        clock.advance(10)
        if circuit.state != "isolated":
            admit(circuit).drop()
    else:
        assert event == Event.RELEASED
        if circuit.state == "isolated":
            (hold,) = circuit._state.holds  # type: ignore[attr-defined]
            hold.release()


EVENTS = [value for name, value in vars(Event).items() if name.isupper()]
HAPPENING = {  # a failure trips a rule or fails a trial, by the state that it finds
    ("half-open", Event.TRIPS): "open",
    ("closed", Event.FAILED): "open",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_the_table_is_what_happens(clock: VirtualTime, state: str, event: str) -> None:
    """Each event in each state, against the table that the docs are drawn from."""
    told = made(STATES[state], clock, ramp=0.0)
    assert told.circuit.state == state
    have(told, event, clock)

    expected = TABLE.get((state, event), HAPPENING.get((state, event), state))
    assert told.circuit.state == expected
    published = [(change.old, change.new) for change in told.changes]
    if expected != state:
        assert published == [(state, expected)]
    else:
        assert published in ([], [(state, state)])
    assert told.idle is (expected in ("closed", "disabled"))


def test_each_change_is_published_with_its_reason(clock: VirtualTime) -> None:
    """A command even if it changes nothing here, as others may stand otherwise; but not the first
    of two isolations to end."""
    told = Told()
    circuit = told.circuit
    circuit.close()
    circuit.open()
    first, second = circuit.isolate(), circuit.isolate()
    first.release()
    assert circuit.state == "isolated"
    second.release()
    second.release()
    circuit.disable()
    circuit.shadow()

    assert told.changes == [
        Change("closed", "closed", Event.CLOSES),
        Change("closed", "open", Event.OPENS),
        Change("open", "isolated", Event.ISOLATES),
        Change("isolated", "isolated", Event.ISOLATES),
        Change("isolated", "closed", Event.RELEASED),
        Change("closed", "disabled", Event.DISABLES),
        Change("disabled", "closed", Event.CLOSES),
    ]
    assert all(change.event in MANUAL for change in told.changes)


# What a shared storage says


@pytest.mark.parametrize(
    ("act", "said", "state"),
    [
        (closed, "closed", None),
        (closed, "open", "open"),
        (closed, "half-open", "open"),
        (open_, "open", None),
        (open_, "closed", "closed"),
        (half_open, "closed", "closed"),
        (half_open, "open", None),
        (isolated, "closed", None),
        (isolated, "open", None),
        (closed, "strange", None),
        (open_, "strange", None),
    ],
)
def test_what_a_storage_says_is_taken_over(
    clock: VirtualTime, act: Act, said: str, state: str | None
) -> None:
    """Where it may change this state; None: it may not, and nothing is published."""
    told = made(act, clock)
    before = told.circuit.state
    told.circuit._adopt(said, 7.0, clock.now())

    assert told.circuit.state == (state or before)
    assert [(change.old, change.new) for change in told.changes] == (
        [(before, state)] if state else []
    )
    if state == "open":
        assert told.circuit.retry_after == 7
        assert told.circuit.snapshot().opened_for == 0
    elif act is open_ and state is None:
        assert told.circuit.retry_after == 10


@pytest.mark.parametrize(
    ("act", "said", "state", "published"),
    [
        (closed, "open", "open", True),
        (half_open, "open", "open", True),
        (open_, "open", "open", False),
        (closed, "isolated", "isolated", True),
        (open_, "isolated", "isolated", True),
        (isolated_by_others, "isolated", "isolated", False),
        (open_, "closed", "closed", True),
        (half_open, "closed", "closed", True),
        (isolated, "closed", "closed", True),
        (closed, "closed", "closed", False),
        (disabled, "open", "disabled", False),
    ],
)
def test_it_follows_a_shared_circuit(
    clock: VirtualTime, act: Act, said: str, state: str, published: bool
) -> None:
    """Open for as long as that says; a change is published, and older answers count no more."""
    told = made(act, clock)
    circuit = told.circuit
    before, earlier = circuit.state, circuit._state
    circuit._follow(said, 7.0, clock.now())

    assert circuit.state == state
    assert [(change.old, change.new) for change in told.changes] == (
        [(before, state)] if published else []
    )
    if state == "open":
        assert circuit.retry_after == 7
    if said == "closed":
        assert circuit._state is not earlier
        assert circuit.snapshot().ramp == (None if act is closed else 0.0)


def test_the_cause_that_others_know(clock: VirtualTime) -> None:
    """What is said to have opened the shared circuit is the cause of rejections here; where
    nothing is said, what is known here remains."""
    circuit = made(open_, clock).circuit
    error = ConnectionError()
    circuit._follow("open", 7.0, clock.now(), error)
    circuit._follow("open", 5.0, clock.now())
    assert circuit._refusal(clock.now()).__cause__ is error
    assert circuit.retry_after == 5


def test_who_has_isolated_it(clock: VirtualTime) -> None:
    """A manual command here, or others."""
    circuit = Told().circuit
    assert not circuit._isolated_here
    hold = circuit.isolate()
    assert circuit._isolated_here
    hold.release()
    circuit._follow("isolated", 0.0, clock.now())
    assert not circuit._isolated_here


def test_how_often_others_have_opened_it_counts_while_it_is_open(clock: VirtualTime) -> None:
    """The next open time grows with it; a closed circuit begins at one."""
    circuit = Told(reset_after=lambda state: 2.0 * state.attempt_number).circuit
    circuit._recount(9)
    circuit.open()
    assert circuit.retry_after == 2
    circuit._recount(5)
    clock.advance(2)
    admit(circuit).fail()
    assert circuit.retry_after == 12


def test_a_storages_count_is_for_a_closed_circuit(clock: VirtualTime) -> None:
    """A higher one is taken over; an open circuit has nothing to count."""
    told = Told(failures=9)
    circuit = told.circuit
    circuit._adopt("closed", 0.0, clock.now(), failures=3)
    circuit._adopt("closed", 0.0, clock.now(), failures=2)
    assert (circuit.failures, told.idle) == (3, False)
    circuit.open()
    circuit._adopt("closed", 0.0, clock.now(), failures=5)
    assert (circuit.state, circuit.failures) == ("closed", 0)


# What comes while this very thread has the lock


@pytest.mark.parametrize("then", ["a good call", "a bad call", "a call begins", "a look"])
def test_what_a_finalizer_changes_under_the_lock_is_done_next(
    clock: VirtualTime, then: str
) -> None:
    """In order, by whatever comes then."""
    told = Told(failures=9, rates=(FailureRate(0.5),))
    circuit = told.circuit
    call = admit(circuit)
    with circuit._lock:  # a finalizer may run between any two steps
        hold = circuit.isolate()
        circuit.open()
        assert circuit.state == "closed"
    if then == "a look":
        circuit.snapshot()
    elif then == "a call begins":
        admit(circuit)
    else:
        (call.succeed if then == "a good call" else call.fail)()

    assert [change.event for change in told.changes] == [Event.ISOLATES, Event.OPENS]
    assert not told.idle
    hold.release()
    assert circuit.state == "open"


# How calls end


def test_the_last_failure_outlives_a_success(clock: VirtualTime) -> None:
    """It is told until the next one."""
    circuit = Told(failures=5).circuit
    admit(circuit).fail(ConnectionError(), FAILURE)
    admit(circuit).succeed()
    assert circuit.snapshot().last_failure == FAILURE


@pytest.mark.parametrize("replaced", [False, True])
def test_a_trial_that_was_given_up_on_has_no_say(clock: VirtualTime, replaced: bool) -> None:
    """Its answer comes too late, whether its slot is taken again or not; nothing is published."""
    told = Told(trial_timeout=0.5)
    told.circuit.open()
    clock.advance(10)
    trial = admit(told.circuit)
    told.changes.clear()
    clock.advance(0.5)
    assert told.circuit.snapshot().trials == 0
    held = admit(told.circuit) if replaced else None
    trial.succeed()
    assert (told.circuit.state, told.changes) == ("half-open", [])
    assert told.circuit.snapshot().trials == (0 if held is None else 1)


def test_a_trial_of_the_first_second_that_was_given_up_on(clock: VirtualTime) -> None:
    """By any clock, also one that has just begun."""
    circuit = Told(trial_timeout=0.2, reset_after=0.1).circuit
    circuit.open()
    clock.advance(0.1)
    trial = admit(circuit)
    clock.advance(0.3)
    held = admit(circuit)
    trial.succeed()
    assert held.trial
    assert circuit.state == "half-open"


def test_a_trial_that_takes_just_so_long_is_not_slow(clock: VirtualTime) -> None:
    """Longer is: then it has gone badly."""
    for took, state in [(2.0, "closed"), (2.001, "open")]:
        circuit = Told(rates=(SlowCalls(2),)).circuit
        circuit.open()
        clock.advance(10)
        trial = admit(circuit)
        clock.advance(took)
        trial.succeed()
        assert circuit.state == state


# How it is shown


@pytest.mark.parametrize(
    ("name", "key", "by_model", "shown"),
    [
        (None, None, False, "<circuit without a name: closed>"),
        ("chat", None, False, "<circuit chat: closed>"),
        ("chat", "a", True, "<circuit chat for 'a': closed>"),
        ("chat", "tenant", False, "<circuit chat: closed>"),
        ("chat", ("a", 1), True, "<circuit chat: closed>"),
    ],
)
def test_a_circuit_is_printed_with_its_name_and_model(
    name: Any, key: Any, by_model: bool, shown: str
) -> None:
    """Where it has them, and with its state; any other key may be a secret."""
    circuit = Told(name, key, by_model=by_model).circuit
    assert repr(circuit) == shown
    assert (circuit.name, circuit.key) == (name, key)


def test_a_keyed_circuit_tells_its_times(clock: VirtualTime) -> None:
    """One circuit of a keyed breaker has state, failures, seconds, time and a repr of its own."""
    breaker = CircuitBreaker(key="model", reset_after=30, name="x")
    circuit = breaker.circuit("m")
    admit(circuit).fail()
    assert (circuit.state, circuit.failures, circuit.retry_after) == ("closed", 1, None)
    circuit.open()
    clock.advance(10)
    assert circuit.retry_after == pytest.approx(20)
    assert circuit.retry_at is not None
    assert circuit.retry_at.timestamp() == pytest.approx(clock.wall() + 20)
    assert repr(circuit) == "<circuit x for 'm': open>"
    assert breaker.circuit("m") is circuit
