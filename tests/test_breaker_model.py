"""One circuit against a plain model of what it should do, after every step of any story."""

from __future__ import annotations

import os
from typing import Any

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience import CircuitOpenError
from resilience._core.rest import epochs
from resilience.policies._circuit import Change, Circuit, Limits
from resilience.testing import virtual_time

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"


@define
class Plain:
    """What a circuit is to do, in the plainest way: written from the specification alone."""

    limits: Limits
    state: str = "closed"
    age: int = 0  # how often it was set anew; a permit of another age changes nothing
    bad: int = 0
    good: int = 0
    until: float = 0.0
    cause: Any = None
    held: dict[int, tuple[int, bool]] = field(factory=dict)  # permit: its age, and is it a trial

    def become(self, state: str, now: float = 0.0, cause: Any = None) -> tuple[str, str] | None:
        old, self.state = self.state, state
        self.age, self.bad, self.good = self.age + 1, 0, 0
        self.until = now + self.limits.reset_after if state == "open" else 0.0
        self.cause = cause if state == "open" else self.cause if state == "half-open" else None
        return None if old == state else (old, state)

    @property
    def out(self) -> int:
        return sum(age == self.age and trial for age, trial in self.held.values())

    def due(self, now: float) -> bool:
        return self.state == "open" and now >= self.until

    def refuses(self, now: float) -> bool:
        if self.state == "half-open":
            return self.out >= self.limits.trials
        return self.state != "closed" and not self.due(now)

    def left(self, now: float) -> float | None:
        left = {"open": max(0.0, self.until - now), "half-open": 0.0}
        return left.get(self.state)

    def settle(self, permit: int, verdict: str, now: float, cause: Any) -> tuple[str, str] | None:
        age, _ = self.held.pop(permit, (-1, False))
        if age != self.age or verdict == "released":
            return None
        if self.state == "half-open" and verdict == "succeeded":
            self.good += 1
            return self.become("closed") if self.good == self.limits.successes else None
        self.bad = self.bad + 1 if verdict == "failed" else 0
        wanted = 1 if self.state == "half-open" else self.limits.failures
        return self.become("open", now, cause) if self.bad >= wanted else None


class Story(RuleBasedStateMachine):
    """Calls begun, ended, ended twice and too late; time; and a hand on the switch."""

    def __init__(self) -> None:
        super().__init__()
        self.world = virtual_time()
        self.clock = self.world.__enter__()
        self.changes: list[tuple[str, str]] = []
        self.expected: list[tuple[str, str]] = []
        self.permits: list[Any] = []
        self.calm = True

    def teardown(self) -> None:
        self.world.__exit__(None, None, None)

    @initialize(
        failures=st.integers(1, 3),
        reset_after=st.sampled_from([1.0, 10.0]),
        trials=st.integers(1, 3),
        successes=st.integers(1, 4),
    )
    def build(self, **limits: Any) -> None:
        """A circuit, another one that has nothing to do with it, and the model."""

        def stirred(circuit: Circuit, calm: bool) -> None:
            self.calm = calm

        self.circuit = Circuit(
            Limits(**limits), "c", "k", lambda _, change: self.heard(change), stirred
        )
        self.other = Circuit(Limits(failures=1))
        self.plain = Plain(Limits(**limits))

    def heard(self, change: Change) -> None:
        """The circuit tells of a change: never under its lock, never of one to the same state."""
        assert not self.circuit._lock._is_owned()
        self.changes.append((change.old, change.new))

    def expect(self, change: tuple[str, str] | None) -> None:
        """The model has changed."""
        if change is not None:
            self.expected.append(change)

    @rule()
    def admit(self) -> None:
        """A call comes along."""
        now = self.clock.now()
        assert self.circuit.refuses(now) is self.plain.refuses(now)
        if self.plain.due(now):
            self.expect(self.plain.become("half-open"))
        if self.plain.refuses(now):
            with pytest.raises(CircuitOpenError) as caught:
                self.circuit.admit(now)
            assert caught.value.retry_after == self.plain.left(now)
            assert caught.value.__cause__ is self.plain.cause
            assert (caught.value.name, caught.value.key) == ("c", "k")
            return
        permit = self.circuit.admit(now)
        assert permit.trial is (self.plain.state == "half-open")
        self.plain.held[len(self.permits)] = (self.plain.age, permit.trial)
        self.permits.append(permit)

    @precondition(lambda self: self.plain.state == "closed" and self.plain.bad == 0)
    @rule()
    def begin_at_rest(self) -> None:
        """A call that only notes the epoch, and is heard of when it ends."""
        self.plain.held[len(self.permits)] = (self.plain.age, False)
        self.permits.append(epochs.now)

    @precondition(lambda self: self.permits)
    @rule(
        which=st.integers(0, 40),
        late=st.booleans(),
        verdict=st.sampled_from(["succeeded", "failed", "released", "failed", "succeeded"]),
    )
    def settle(self, which: int, late: bool, verdict: str) -> None:
        """A call ends: one of the newest or, late, any one, which may have ended before."""
        number = which % len(self.permits) if late else max(0, len(self.permits) - 1 - which % 3)
        if isinstance(self.permits[number], int):
            self.permits[number] = self.circuit.resume(self.permits[number], self.clock.now())
        cause = ConnectionError()
        expected = self.plain.settle(number, verdict, self.clock.now(), cause)
        self.expect(expected)
        ended = getattr(self.permits[number], verdict)
        change = ended(cause) if verdict == "failed" else ended()
        assert expected == (None if change is None else (change.old, change.new))

    @rule(verb=st.sampled_from(["open", "close", "isolate"]))
    def by_hand(self, verb: str) -> None:
        """Somebody sets it."""
        state = {"open": "open", "close": "closed", "isolate": "isolated"}[verb]
        self.expect(self.plain.become(state, self.clock.now()))
        getattr(self.circuit, verb)()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 9.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        """Wait; the open time may end in this very moment."""
        self.clock.advance(seconds)

    @rule()
    def another_circuit_changes(self) -> None:
        """The epoch advances, and that is no affair of this circuit's."""
        self.other.open()

    @invariant()
    def agrees(self) -> None:
        """Everything that can be seen of the circuit is what the model says."""
        if not hasattr(self, "plain"):
            return
        circuit, plain, now = self.circuit, self.plain, self.clock.now()
        assert circuit.state == plain.state
        assert circuit.closed is (plain.state == "closed")
        assert circuit.failures == plain.bad
        assert circuit._out == plain.out <= plain.limits.trials
        assert circuit.retry_after == plain.left(now)
        assert (circuit.retry_at is None) is (plain.left(now) is None)
        assert circuit.refuses(now) is plain.refuses(now)
        assert self.calm is (plain.state == "closed" and plain.bad == 0)
        assert self.changes == self.expected


Story.TestCase.settings = settings(
    max_examples=3000 if DEEP else 150,
    stateful_step_count=80 if DEEP else 40,
    deadline=None,
)
TestStory = Story.TestCase
