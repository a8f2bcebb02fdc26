"""A circuit asked directly: each state, each command, what is told of a change, what is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilience import CircuitBreaker, CircuitOpenError, FailureRate, Pipeline, SlowCalls
from resilience._core.rest import epochs
from resilience.failures import Advice, Failure, Kind
from resilience.policies._circuit import Circuit
from resilience.policies._limits import Limits
from resilience.policies._states import Change, Event
from resilience.policies._trip import Gauge
from resilience.policies._window import CallWindow, TimeWindow
from resilience.testing import VirtualTime, virtual_time


@pytest.fixture
def clock() -> Iterator[VirtualTime]:
    """Virtual time from 0."""
    with virtual_time(start=0.0) as clock:
        yield clock


class Told:
    """A circuit, and the changes that it tells of."""

    def __init__(self, **limits: Any) -> None:
        self.changes: list[Change] = []
        self.circuit = Circuit(
            Limits(**{"failures": 1, "reset_after": 10.0, **limits}),
            changed=lambda circuit, change: self.changes.append(change),
        )


def closed(told: Told, clock: VirtualTime) -> None:
    """As it is made."""


def opened(told: Told, clock: VirtualTime) -> None:
    told.circuit.open()


def half_open(told: Told, clock: VirtualTime) -> None:
    told.circuit.open()
    clock.advance(10)
    told.circuit.admit(clock.now()).released()


def full(told: Told, clock: VirtualTime) -> None:
    told.circuit.open()
    clock.advance(10)
    told.held = told.circuit.admit(clock.now())


def isolated(told: Told, clock: VirtualTime) -> None:
    told.circuit.isolate()


def disabled(told: Told, clock: VirtualTime) -> None:
    told.circuit.disable()


def shadowed(told: Told, clock: VirtualTime) -> None:
    told.circuit.shadow()
    told.circuit.admit(clock.now()).failed()


def ramping(told: Told, clock: VirtualTime) -> None:
    half_open(told, clock)
    told.circuit.admit(clock.now()).succeeded()


ACTS = [closed, opened, half_open, full, isolated, disabled, shadowed, ramping]


def made(act: Callable[[Told, VirtualTime], None], clock: VirtualTime) -> Told:
    """A circuit that has come into this state, with nothing told yet."""
    told = Told(ramp=20.0, trial_timeout=4.0)
    act(told, clock)
    told.changes.clear()
    return told


# Whom it lets through


@pytest.mark.parametrize(
    ("act", "refuses"),
    list(zip(ACTS, [False, True, False, True, True, False, False, False], strict=True)),
)
def test_whether_it_would_refuse(
    clock: VirtualTime, act: Callable[[Told, VirtualTime], None], refuses: bool
) -> None:
    """Asked without a call; in shadow and on the ramp it does not say so beforehand."""
    assert made(act, clock).circuit.refuses(clock.now()) is refuses


def test_when_the_time_is_up_it_would_not_refuse(clock: VirtualTime) -> None:
    """To the second."""
    circuit = made(opened, clock).circuit
    assert circuit.refuses(9.999)
    assert not circuit.refuses(10.0)


@pytest.mark.parametrize(
    ("act", "due"),
    list(zip(ACTS, [0.0, None, 0.0, 4.0, None, 0.0, None, None], strict=True)),
)
def test_how_long_to_wait_for_a_verdict(
    clock: VirtualTime, act: Callable[[Told, VirtualTime], None], due: float | None
) -> None:
    """Only where trials are under way; where there is a place, not at all."""
    circuit = made(act, clock).circuit
    bell: Any = object()

    assert circuit.queue(bell, clock.now()) == due
    assert (bell in circuit._bells) is (act is full)
    circuit.leave(bell)
    assert not circuit._bells


def test_a_lot_is_drawn_only_on_the_ramp(clock: VirtualTime) -> None:
    """Elsewhere nobody's random numbers are used up."""
    told = made(opened, clock)
    clock.advance(10)
    told.circuit.admit(clock.now(), lambda: pytest.fail("drawn")).succeeded()
    clock.advance(5)

    told.circuit.admit(clock.now(), lambda: 0.2499)
    with pytest.raises(CircuitOpenError) as caught:
        told.circuit.admit(clock.now(), lambda: 0.25)
    assert caught.value.retry_after == 15


def test_disabled_while_a_call_is_being_admitted_it_lets_it_through(clock: VirtualTime) -> None:
    """The permit is one of that circuit, and its answer changes nothing."""
    circuit = made(ramping, clock).circuit

    def meanwhile() -> float:
        circuit.disable()
        return 0.99

    permit = circuit.admit(clock.now(), meanwhile)
    permit.failed()
    assert circuit.state == "disabled"
    assert circuit.snapshot().last_failure is None


def test_in_shadow_a_call_beyond_the_trials_has_no_say(clock: VirtualTime) -> None:
    """It is let through; the trial's verdict counts, the other's does not."""
    circuit = made(shadowed, clock).circuit
    clock.advance(10)
    trial, beyond = circuit.admit(clock.now()), circuit.admit(clock.now())
    beyond.failed()
    assert circuit.state == "half-open"
    circuit.admit(clock.now()).succeeded()
    assert circuit.state == "half-open"
    assert circuit.snapshot().refused == 2
    trial.succeeded()
    assert circuit.state == "closed"


def test_refused_calls_are_counted(clock: VirtualTime) -> None:
    """Each of them, until it closes."""
    circuit = made(opened, clock).circuit
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            circuit.admit(clock.now())
    assert circuit.snapshot().refused == 3
    circuit.close()
    assert circuit.snapshot().refused == 0


# What changes it


FAILURE = Failure(Kind.OVERLOADED, Advice.WAIT, retry_after=30.0)


def test_a_refusal_has_its_cause(clock: VirtualTime) -> None:
    """What opened it, also while it is half open; a bad trial's after that; by hand none."""
    circuit = Told(failures=1).circuit
    first, second = ConnectionError("first"), ConnectionError("second")
    circuit.admit(0.0).failed(first, FAILURE)
    assert circuit.retry_after == 30
    assert circuit.refusal(1.0).__cause__ is first
    clock.advance(30)
    trial = circuit.admit(clock.now())
    assert circuit.refusal(clock.now()).__cause__ is first
    trial.failed(second, FAILURE)
    assert circuit.retry_after == 30
    assert circuit.refusal(clock.now()).__cause__ is second
    with circuit.isolate():
        assert circuit.refusal(clock.now()).__cause__ is None


def test_each_change_is_told_with_its_reason(clock: VirtualTime) -> None:
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
        Change("isolated", "closed", Event.FREES),
        Change("closed", "disabled", Event.DISABLES),
        Change("disabled", "closed", Event.CLOSES),
    ]


@pytest.mark.parametrize(
    ("act", "said", "state"),
    [
        (closed, "closed", None),
        (closed, "open", "open"),
        (closed, "half-open", "open"),
        (opened, "open", None),
        (opened, "closed", "closed"),
        (half_open, "closed", "closed"),
        (half_open, "open", None),
        (isolated, "closed", None),
        (isolated, "open", None),
        (closed, "strange", None),
        (opened, "strange", None),
    ],
)
def test_what_a_storage_says_is_taken_over(
    clock: VirtualTime, act: Callable[[Told, VirtualTime], None], said: str, state: str | None
) -> None:
    """Where it may change this state; None: it may not, and nothing is told."""
    told = made(act, clock)
    before = told.circuit.state
    told.circuit.adopt(said, 7.0, clock.now())

    assert told.circuit.state == (state or before)
    assert [(change.old, change.new) for change in told.changes] == (
        [(before, state)] if state else []
    )
    if state == "open":
        assert told.circuit.retry_after == 7
        assert told.circuit.snapshot().opened_for == 0
    elif act is opened and state is None:
        assert told.circuit.retry_after == 10


@pytest.mark.parametrize(
    ("act", "said", "state", "told_of"),
    [
        (closed, "open", "open", True),
        (half_open, "open", "open", True),
        (opened, "open", "open", False),
        (closed, "isolated", "isolated", True),
        (opened, "isolated", "isolated", True),
        (opened, "closed", "closed", True),
        (half_open, "closed", "closed", True),
        (isolated, "closed", "closed", True),
        (closed, "closed", "closed", False),
        (disabled, "open", "disabled", False),
    ],
)
def test_it_follows_a_shared_circuit(
    clock: VirtualTime,
    act: Callable[[Told, VirtualTime], None],
    said: str,
    state: str,
    told_of: bool,
) -> None:
    """Open for as long as that says; a change is told, and older answers count no more."""
    told = made(act, clock)
    circuit = told.circuit
    before, permit = circuit.state, circuit.resume(epochs.now, clock.now())
    circuit.follow(said, 7.0, clock.now())

    assert circuit.state == state
    assert [(change.old, change.new) for change in told.changes] == (
        [(before, state)] if told_of else []
    )
    if state == "open":
        assert circuit.retry_after == 7
    if said == "closed":
        assert not circuit.counts(permit)
        snapshot = circuit.snapshot()
        assert snapshot.ramp == (None if act is closed else 0.0)


def test_whose_answers_count(clock: VirtualTime) -> None:
    """Those of calls begun in this stretch of being closed."""
    circuit = Told().circuit
    permit = circuit.admit(0.0)
    assert circuit.counts(permit)
    circuit.open()
    assert not circuit.counts(permit)
    assert not circuit.counts(circuit.resume(epochs.now, 0.0))
    circuit.close()
    assert not circuit.counts(permit)
    assert circuit.counts(circuit.admit(0.0))


def test_a_storages_count_is_for_a_closed_circuit(clock: VirtualTime) -> None:
    """A higher one is taken over; an open circuit has nothing to count."""
    circuit = Told(failures=9).circuit
    circuit.count(3)
    circuit.count(2)
    assert circuit.failures == 3
    circuit.open()
    circuit.count(5)
    assert circuit.failures == 0


# How calls end


def test_a_permit_is_settled_once(clock: VirtualTime) -> None:
    """Whatever is said after the verdict changes nothing."""
    circuit = Told().circuit
    permit = circuit.admit(0.0)
    permit.succeeded()
    permit.failed()
    assert circuit.state == "closed"


def test_the_last_failure_outlives_a_success(clock: VirtualTime) -> None:
    """It is told until the next one."""
    circuit = Told(failures=5).circuit
    circuit.admit(0.0).failed(ConnectionError(), FAILURE)
    circuit.admit(0.0).succeeded()
    assert circuit.snapshot().last_failure == FAILURE


@pytest.mark.parametrize("replaced", [False, True])
def test_a_trial_that_was_given_up_on_has_no_say(clock: VirtualTime, replaced: bool) -> None:
    """Its answer comes too late, whether its place is taken again or not; nothing is told."""
    told = Told(trial_timeout=0.5)
    told.circuit.open()
    clock.advance(10)
    trial = told.circuit.admit(clock.now())
    told.changes.clear()
    clock.advance(0.5)
    assert told.circuit.snapshot().trials == 0
    if replaced:
        told.held = told.circuit.admit(clock.now())
    trial.succeeded()
    assert (told.circuit.state, told.changes) == ("half-open", [])


def test_a_trial_of_the_first_second_that_was_given_up_on(clock: VirtualTime) -> None:
    """By any clock, also one that has just begun."""
    circuit = Told(trial_timeout=0.2, reset_after=0.1).circuit
    circuit.open()
    clock.advance(0.1)
    trial = circuit.admit(clock.now())
    clock.advance(0.3)
    held = circuit.admit(clock.now())
    trial.succeeded()
    assert not held.settled
    assert circuit.state == "half-open"


def test_a_trial_that_takes_just_so_long_is_not_slow(clock: VirtualTime) -> None:
    """Longer is: then it has gone badly."""
    for took, state in [(2.0, "closed"), (2.001, "open")]:
        circuit = Told(rates=(SlowCalls(2),)).circuit
        circuit.open()
        clock.advance(10)
        trial = circuit.admit(clock.now())
        clock.advance(took)
        trial.succeeded()
        assert circuit.state == state


def test_a_healthy_call_at_rest_is_counted_where_it_belongs(clock: VirtualTime) -> None:
    """In the window and against the run; a slow one is left to the full chain, a late one is
    nobody's."""
    circuit = Told(failures=3, rates=(SlowCalls(10), FailureRate(0.5))).circuit
    circuit.admit(0.0).failed()
    early = epochs.now

    assert circuit.heard((), {}, early, 10.0, 20.0)
    assert circuit.failures == 0
    assert circuit.used == 20
    assert [reading.calls for reading in circuit.snapshot().readings] == [2, 2]
    assert not circuit.heard((), {}, early, 10.0, 20.5)
    circuit.open()
    assert circuit.heard((), {}, epochs.now, 100.0, 101.0)
    circuit.close()
    assert circuit.heard((), {}, early, 100.0, 101.0)
    assert [reading.calls for reading in circuit.snapshot().readings] == [0, 0]


# What it tells


@pytest.mark.parametrize(
    ("name", "key", "shown"),
    [
        (None, None, "<circuit without a name: closed>"),
        ("chat", None, "<circuit chat: closed>"),
        ("chat", "a", "<circuit chat for 'a': closed>"),
    ],
)
def test_a_circuit_is_printed_with_its_name_and_its_key(name: Any, key: Any, shown: str) -> None:
    """Where it has them, and with its state."""
    assert repr(Circuit(Limits(), name, key)) == shown
    assert Circuit(Limits(), name, key).snapshot().key == key


def test_a_snapshot_tells_how_the_trials_stand(clock: VirtualTime) -> None:
    """Those that went well, those that did not, and those under way."""
    circuit = Told(trials=3, successes=5, missable=2).circuit
    circuit.open()
    clock.advance(10)
    for _ in range(2):
        circuit.admit(clock.now()).succeeded()
    circuit.admit(clock.now()).failed()
    held = circuit.admit(clock.now())

    snapshot = circuit.snapshot()
    assert (snapshot.passed, snapshot.missed, snapshot.trials) == (2, 1, 1)
    assert not held.settled


@pytest.mark.parametrize("act", [opened, isolated, half_open])
def test_a_snapshot_tells_since_when_it_is_not_closed(
    clock: VirtualTime, act: Callable[[Told, VirtualTime], None]
) -> None:
    """Whatever it has been since."""
    circuit = made(act, clock).circuit
    since = 10 if act is half_open else 0
    clock.advance(3)
    assert circuit.snapshot().opened_for == since + 3


def test_the_last_second_of_an_open_circuit(clock: VirtualTime) -> None:
    """A part of a second is told as that."""
    circuit = made(opened, clock).circuit
    clock.advance(9.75)
    assert circuit.retry_after == 0.25


def test_while_a_wait_is_being_asked_nobody_knows_how_long() -> None:
    """The circuit is open, and for how long is None."""
    seen: list[Any] = []

    def wait(state: Any) -> float:
        seen.append((breaker.state, breaker.snapshot().retry_after))
        return 5.0

    breaker = CircuitBreaker(failures=1, reset_after=wait)
    with virtual_time():
        breaker.open()
        assert seen == [("open", None)]
        assert breaker.snapshot().retry_after == 5


# What it counts in


@pytest.mark.parametrize(
    ("rule", "bad", "unused", "clean"),
    [
        (FailureRate(0.5), 0, 0.0, True),
        (FailureRate(0.5), 1, 59.9, False),
        (FailureRate(0.5), 1, 60.0, True),
        (FailureRate(0.5), 2, 0.0, False),
        (FailureRate(0.5, calls=9), 0, 0.0, True),
        (FailureRate(0.5, calls=9), 1, 1e9, False),
        (FailureRate(0.5, calls=9), 2, 1e9, False),
    ],
)
def test_whether_a_window_has_something_to_remember(
    rule: FailureRate, bad: int, unused: float, clean: bool
) -> None:
    """Bad calls, as long as they are in it."""
    gauge = Gauge(rule)
    for _ in range(bad):
        gauge.trips(0.0, True, 0.0)
    assert gauge.clean(unused) is clean


def test_a_window_of_one_call() -> None:
    """It holds the last one."""
    window = CallWindow(1)
    for bad, held in [(True, 1), (True, 1), (False, 0), (True, 1)]:
        window.add(0.0, bad)
        assert (window.calls, window.bad) == (1, held)


def test_a_window_of_one_second_is_as_long_as_it_says() -> None:
    """A call is in it for nine tenths at least, and not for more than all of it."""
    window = TimeWindow(1.0)
    window.good(0.55)
    window.turn(1.45)
    assert window.calls == 1
    window.turn(1.55)
    assert window.calls == 0


def test_the_first_circuits_of_a_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything has ever changed."""
    monkeypatch.setattr(epochs, "now", 0)
    breaker = CircuitBreaker(failures=1, key="model")

    def fails(model: str) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Pipeline(breaker).call(fails, "a")
    assert breaker.circuit("a").state == "open"
