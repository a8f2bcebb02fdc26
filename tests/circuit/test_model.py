"""One circuit against a plain model of what it should do, after every step of any story."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience import CircuitOpenError, FailureRate, SlowCalls
from resilience._core.idle import epochs
from resilience.circuit.limits import Limits
from resilience.circuit.machine import permit_of
from resilience.circuit.states import MANUAL, Change
from resilience.failures import Advice, Failure, Kind
from resilience.testing import virtual_time
from support.circuits import Told, UnderWay, admit

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
Moved = Any  # a pair of states, or None

# Times are multiples of 0.5 and slices 1 s wide, so that the model's sums are exact.
RULES = [
    FailureRate(0.5, calls=4, minimum=2),
    FailureRate(1, window=10, minimum=2),
    SlowCalls(1, 0.5, calls=3, minimum=2),
    SlowCalls(0.5, 0.6, window=10, minimum=3),
]


def growing(state: Any) -> float:
    """A wait that grows with each opening in a row."""
    return 2.0 * min(4, state.attempt_number)


@define
class Held:
    """A permit that is out: of which age, is it a trial, since when, and given up on when."""

    age: int
    trial: bool
    began: float
    end: float


@define
class AtRest:
    """A call that was begun at rest: all that is noted of it."""

    epoch: int
    state: Any
    began: float


@define
class Plain:
    """What a circuit is to do, in the plainest way: written from the specification alone."""

    limits: Limits
    state: str = "closed"
    shadow: bool = False
    age: int = 0  # how often it was set anew; a permit of another age changes nothing
    bad: int = 0
    good: int = 0
    missed: int = 0
    openings: int = 0
    opened: float | None = None
    until: float = 0.0
    ramp: float | None = None
    refused: int = 0
    cause: Any = None
    ended: list[tuple[float, bool, float]] = field(factory=list)  # when, failed, how long it took
    held: dict[int, Held] = field(factory=dict)
    isolations: set[int] = field(factory=set)

    def become(self, state: str, now: float, cause: Any = None, asked: float = 0.0) -> Moved:
        old, self.state = self.state, state
        self.age, self.bad, self.good, self.missed = self.age + 1, 0, 0, 0
        self.cause = cause if state == "open" else self.cause if state == "half-open" else None
        self.ramp = None
        self.isolations.clear()
        if state in ("closed", "disabled"):
            self.openings, self.opened, self.refused = 0, None, 0
            self.ended.clear()
        elif self.opened is None:
            self.opened = now
        if state == "open":
            self.openings += 1
            grown = 2.0 * min(4, self.openings)
            own = self.limits.reset_after if self.limits.reset_after is not growing else grown
            self.until = now + max(own, asked)
        return None if old == state else (old, state)

    def out(self, now: float) -> int:
        return sum(h.age == self.age and h.trial and h.end > now for h in self.held.values())

    def due(self, now: float) -> bool:
        return self.state == "open" and now >= self.until

    def idle(self) -> bool:
        clean = self.ramp is None and (self.bad == 0 or bool(self.limits.rates))
        return self.state == "disabled" or (self.state == "closed" and clean)

    def full(self, now: float) -> bool:
        return self.out(now) >= self.limits.trials

    def refuses(self, now: float) -> bool:
        if self.shadow or self.state in ("closed", "disabled"):
            return False
        if self.state == "half-open":
            return self.full(now)
        return not self.due(now)

    def share(self, now: float) -> float | None:
        if self.ramp is None or now >= self.ramp:
            return None
        return 1 - (self.ramp - now) / self.limits.ramp

    def left(self, now: float) -> float | None:
        left = {"open": max(0.0, self.until - now), "half-open": 0.0}
        return left.get(self.state)

    def window(self, rule: Any, now: float) -> tuple[int, int]:
        """Calls and bad calls that the rule looks at."""
        found = self.ended[-rule.calls :] if rule.calls else self.ended
        if rule.window:
            found = [call for call in found if call[0] // 1 > now // 1 - 10]
        return len(found), sum(self.tells(rule, failed, took) for _, failed, took in found)

    @staticmethod
    def tells(rule: Any, failed: bool, took: float) -> bool:
        return took > rule.longer_than if isinstance(rule, SlowCalls) else failed

    def trips(self, rule: Any, now: float) -> bool:
        calls, bad = self.window(rule, now)
        last = self.tells(rule, *self.ended[-1][1:])
        return last and calls >= rule.minimum and bad / calls >= rule.ratio

    def settle(self, permit: int, verdict: str, now: float, cause: Any, asked: float) -> Moved:
        held = self.held.pop(permit, None)
        if held is None or held.age != self.age or verdict == "drop":
            return None
        if held.trial and held.end <= now:
            return None
        failed, took = verdict == "fail", now - held.began
        if not failed:
            cause, asked = None, 0.0  # it was slow: no failure to tell of
        if self.state == "half-open":
            slow = any(
                took > rule.longer_than for rule in self.limits.rates if isinstance(rule, SlowCalls)
            )
            if failed or slow:
                self.missed += 1
                over = self.missed > self.limits.failable_trials
                return self.become("open", now, cause, asked) if over else None
            self.good += 1
            if self.good < self.limits.successes:
                return None
            moved = self.become("closed", now)
            self.ramp = now + self.limits.ramp if self.limits.ramp else None
            return moved
        if self.state != "closed":
            return None
        self.bad = self.bad + 1 if failed else 0
        self.ended.append((now, failed, took))
        if self.bad >= self.limits.failures or any(
            self.trips(rule, now) for rule in self.limits.rates
        ):
            return self.become("open", now, cause, asked)
        return None


class Story(RuleBasedStateMachine):
    """Calls begun, ended, ended twice and too late; time; and manual commands."""

    def __init__(self) -> None:
        super().__init__()
        self.world = virtual_time()
        self.clock = self.world.__enter__()
        self.changes: list[tuple[str, str]] = []
        self.expected: list[tuple[str, str]] = []
        self.calls: list[Any] = []
        self.ended: set[int] = set()
        self.isolations: list[Any] = []

    def teardown(self) -> None:
        self.world.__exit__(None, None, None)

    @initialize(
        failures=st.sampled_from([1, 2, 3, math.inf]),
        reset_after=st.sampled_from([1.0, 10.0, growing]),
        trials=st.integers(1, 3),
        successes=st.integers(1, 4),
        failable_trials=st.sampled_from([0, 0, 1, 2]),
        rates=st.lists(st.sampled_from(RULES), max_size=2, unique=True).map(tuple),
        trial_timeout=st.sampled_from([math.inf, 1.0, 9.0]),
        ramp=st.sampled_from([0.0, 0.0, 4.0]),
    )
    def build(self, **limits: Any) -> None:
        """A circuit, another one that has nothing to do with it, and the model."""
        self.told = Told("c", "k", **limits)
        self.told.listener = self.heard
        self.circuit = self.told.circuit
        self.other = Told().circuit
        self.plain = Plain(Limits(**limits))

    def heard(self, change: Change) -> None:
        """The circuit publishes a change: never under its lock; of one to the same state only
        where it was a manual command."""
        assert not self.circuit._lock._is_owned()
        if change.old != change.new:
            self.changes.append((change.old, change.new))
        else:
            assert change.event in MANUAL

    def expect(self, change: Moved) -> None:
        """The model has changed."""
        if change is not None:
            self.expected.append(change)

    @rule(drawn=st.sampled_from([0.0, 0.3, 0.7, 0.99]))
    def admit(self, drawn: float) -> None:
        """A call comes along; on a ramp, chance has a say."""
        plain, now = self.plain, self.clock.now()
        self.clock.random = lambda: drawn
        assert self.circuit._refuses(now) is plain.refuses(now)
        if plain.due(now):
            self.expect(plain.become("half-open", now))
        share = plain.share(now)
        unlucky = plain.state == "closed" and share is not None and drawn >= share
        full = plain.state == "half-open" and plain.full(now)
        rejected = unlucky or full or plain.state in ("open", "isolated")
        plain.refused += rejected
        if rejected and not plain.shadow:
            with pytest.raises(CircuitOpenError) as caught:
                admit(self.circuit)
            left = plain.ramp - now if unlucky and plain.ramp is not None else plain.left(now)
            assert caught.value.retry_after == left
            assert caught.value.__cause__ is plain.cause
            assert (caught.value.name, caught.value.key) == ("c", "k")
            return
        if plain.state == "closed" and share is None:
            plain.ramp = None
        call = admit(self.circuit)
        assert call.trial is (plain.state == "half-open" and not full)
        if not rejected:  # else, in shadow, it has no say
            end = now + plain.limits.trial_timeout
            plain.held[len(self.calls)] = Held(plain.age, call.trial, now, end)
        self.calls.append(call)

    @rule(drawn=st.sampled_from([0.0, 0.99]))
    def its_time_comes(self, drawn: float) -> None:
        """It opens, if it has not, the open time passes, and a call comes along."""
        if self.plain.state != "open":
            self.command("open")
        self.clock.advance(self.plain.left(self.clock.now()) or 0.0)
        self.admit(drawn)

    @precondition(lambda self: self.plain.state == "half-open" and self.plain.held)
    @rule(
        failed=st.booleans(), ends=st.integers(1, 3), seconds=st.sampled_from([0.0, 0.0, 1.0, 1.5])
    )
    def trials_end(self, failed: bool, ends: int, seconds: float) -> None:
        """Some of the trials that are out end, one like the other, and others begin."""
        self.clock.advance(seconds)
        for number in list(self.plain.held)[-ends:]:
            self.end(number, "fail" if failed else "succeed", None)
            if self.plain.state == "half-open":
                self.admit(0.0)

    @precondition(lambda self: self.plain.idle())
    @rule()
    def begin_at_rest(self) -> None:
        """A call that only notes the state or the epoch, and is heard of when it ends."""
        now = self.clock.now()
        self.plain.held[len(self.calls)] = Held(self.plain.age, False, now, math.inf)
        self.calls.append(AtRest(epochs.now, self.circuit._state, now))

    @precondition(lambda self: self.calls)
    @rule(
        which=st.integers(0, 40),
        late=st.booleans(),
        verdict=st.sampled_from(["succeed", "fail", "drop", "fail", "succeed"]),
        asked=st.sampled_from([None, None, 0.5, 20.0]),
    )
    def settle(self, which: int, late: bool, verdict: str, asked: float | None) -> None:
        """A call ends: one of the newest or, late, any one; a trial may have ended before."""
        number = which % len(self.calls) if late else max(0, len(self.calls) - 1 - which % 3)
        self.end(number, verdict, asked)

    def end(self, number: int, verdict: str, asked: float | None) -> None:
        """A call ends."""
        call = self.calls[number]
        if number in self.ended and not (isinstance(call, UnderWay) and call.trial):
            return  # what is no trial ends once: whoever lets it in sees to that
        self.ended.add(number)
        cause, now = ConnectionError(), self.clock.now()
        expected = self.plain.settle(number, verdict, now, cause, asked or 0.0)
        self.expect(expected)
        if isinstance(call, AtRest):
            if self.plain.limits.rates:
                took = now - call.began
                counted = verdict == "drop" or (
                    verdict == "succeed" and self.circuit._count_success(call.state, took, now)
                )
                if counted:  # as at rest
                    assert expected is None
                    return
                permit = permit_of(self.circuit, call.state, call.began, None)
            else:
                permit = self.circuit._resume(call.epoch, call.began)
            call = UnderWay(self.circuit, permit)
        failure = Failure(Kind.UNAVAILABLE, Advice.WAIT, retry_after=asked, error=cause)
        call.fail(cause, failure) if verdict == "fail" else getattr(call, verdict)()

    @rule(verb=st.sampled_from(["open", "close", "disable", "shadow"]))
    def command(self, verb: str) -> None:
        """Somebody gives a manual command."""
        states = {"open": "open", "close": "closed", "disable": "disabled", "shadow": "closed"}
        self.expect(self.plain.become(states[verb], self.clock.now()))
        self.plain.shadow = verb == "shadow"
        getattr(self.circuit, verb)()

    @rule()
    def isolate(self) -> None:
        """Somebody isolates it, once more perhaps."""
        others = set(self.plain.isolations)
        self.expect(self.plain.become("isolated", self.clock.now()))
        self.plain.isolations = others | {len(self.isolations)}
        self.plain.shadow = False
        self.isolations.append(self.circuit.isolate())

    @precondition(lambda self: self.isolations)
    @rule(which=st.integers(0, 10))
    def release(self, which: int) -> None:
        """An isolation is released, which may have ended before."""
        number = which % len(self.isolations)
        if number in self.plain.isolations:
            self.plain.isolations.remove(number)
            if not self.plain.isolations:
                self.expect(self.plain.become("closed", self.clock.now()))
        self.isolations[number].release()

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
        assert circuit.failures == plain.bad
        assert circuit.retry_after == plain.left(now)
        assert (circuit.retry_at is None) is (plain.left(now) is None)
        assert circuit._refuses(now) is plain.refuses(now)
        assert self.told.idle is circuit._idle is plain.idle()
        assert self.changes == self.expected
        seen = circuit.snapshot()
        assert seen.shadow is plain.shadow
        assert seen.trials == plain.out(now) <= plain.limits.trials
        assert (seen.passed, seen.failed, seen.refused) == (plain.good, plain.missed, plain.refused)
        assert seen.opened_for == (None if plain.opened is None else now - plain.opened)
        assert seen.ramp == plain.share(now)
        found = [(reading.calls, reading.bad) for reading in seen.readings]
        assert found == [plain.window(rule, now) for rule in plain.limits.rates]


Story.TestCase.settings = settings(
    max_examples=3000 if DEEP else 200,
    stateful_step_count=80 if DEEP else 40,
    deadline=None,
)
TestStory = Story.TestCase
