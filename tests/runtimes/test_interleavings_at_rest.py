"""Whether calls may be at rest, decided in every order of threads; and the circuits of one breaker.

See support/interleaving.py. Each scene is tried again without one of its locks, or with a mistake
in it: then an order that breaks it must be found.
"""

from __future__ import annotations

import pytest

from resilience import CircuitOpenError, FailureRate, Pipeline
from resilience.circuit.circuit import Circuit
from resilience.circuit.machine import Permit
from support.interleaving import watch
from support.scenes import (  # noqa: F401
    Scene,
    fail,
    is_found_out,
    stopped_twice,
    watchable,
    watched_rest,
)

pytestmark = [pytest.mark.real, pytest.mark.steady, pytest.mark.usefixtures("watched_rest")]

RATE = FailureRate(0.5, calls=8, minimum=8)


# Calls at rest


class Resting(Scene):
    """A thread whose call fails, and one whose call is answered, at rest or after a failure.

    Each function notes whether the other thread's call was over by then.
    """

    def __init__(self, without: str | None = None, *, failures: int = 0) -> None:
        super().__init__(without)
        only = self.breaker(failures=9)
        self.one = only._only
        self.pipe = self.pipeline(only)
        for _ in range(failures):
            self.fail_once(self.one)
        self.failed = self.answered = self.failed_before = self.answered_before = False
        self.failing = self.pipe.wrap(self.fail)
        self.answering = self.pipe.wrap(self.answer)
        watch(self, but=["without", "published", "one", "pipe", "failing", "answering"])

    def fail(self) -> None:
        self.answered_before = self.answered
        raise ConnectionError

    def answer(self) -> str:
        self.failed_before = self.failed
        return "ok"

    def call_failing(self) -> None:
        try:
            self.failing()
        except ConnectionError:
            self.failed = True

    def call_answering(self) -> None:
        self.answering()
        self.answered = True

    def hasty(self) -> None:
        """A call at rest as it must not be: it does not look again when it is done."""
        (self.answer if self.pipe._idle.period is not None else self.answering)()
        self.answered = True

    def holds(self) -> bool:
        """Neither outcome is lost, and the pipeline rests exactly if the circuit is clean."""
        possible = {0, 1}
        if self.failed_before:
            possible = {0}
        if self.answered_before:
            possible = {1}
        rests = self.pipe._idle.period is not None
        return self.one.failures in possible and rests is (self.one.failures == 0)


@pytest.mark.parametrize("failures", [0, 1])
def test_an_answer_against_a_failure_at_rest(failures: int) -> None:
    """Whichever ended last has the last word; none is lost, and no rest is stale."""
    stopped_twice(
        lambda: Resting(failures=failures),
        Resting.call_failing,
        Resting.call_answering,
        holds=Resting.holds,
    )


def test_an_answer_after_which_nobody_looks_again_is_found_out() -> None:
    """It is lost where a failure came in between."""
    is_found_out(Resting, Resting.call_failing, Resting.hasty, holds=Resting.holds, stops=2)


def test_an_answer_against_a_failure_without_the_circuits_lock_is_found_out() -> None:
    """The run of failures and the rest come to say different things."""
    is_found_out(
        lambda: Resting("circuit", failures=1),
        Resting.call_failing,
        Resting.call_answering,
        holds=Resting.holds,
        stops=2,
    )


class Changing(Scene):
    """A call begun at rest that fails, while its circuit is opened and closed by command."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        only = self.breaker(failures=1)
        self.one = only._only
        self.pipe = self.pipeline(only)
        self.guarded = self.pipe.wrap(fail)
        self.changed = self.changed_before = False
        self.outcome: type | None = None
        watch(self, but=["without", "published", "one", "pipe", "guarded", "outcome"])

    def call(self) -> None:
        self.changed_before = self.changed
        self.outcome = self.error_of(self.guarded)

    def change(self) -> None:
        self.one.open()
        self.one.close()
        self.changed = True

    def reused(self) -> None:
        """The same change in a pipeline that goes on with the period it had."""
        period = self.pipe._idle.period
        self.change()
        if period is not None:
            self.pipe._idle.period = period

    def holds(self) -> bool:
        """A failure begun before the change is not counted, one begun after it is."""
        state = self.one.state
        if self.changed_before and state != "open":
            return False
        rests = self.pipe._idle.period is not None
        return self.outcome in (ConnectionError, CircuitOpenError) and rests is (state == "closed")


@pytest.mark.fault(21)
def test_a_failure_at_rest_against_a_circuit_opened_and_closed() -> None:
    """It counts from the state of affairs in which it was begun."""
    stopped_twice(Changing, Changing.call, Changing.change, holds=Changing.holds)


@pytest.mark.fault(21)
def test_a_period_used_again_is_found_out() -> None:
    """What is begun later would be taken for older than the change."""
    is_found_out(Changing, Changing.call, Changing.reused, holds=Changing.holds)


# Several circuits


class Pair(Scene):
    """Two circuits, of one breaker or of two, and a pipeline that they keep from rest."""

    def __init__(self, without: str | None = None, *, keyed: bool, both: bool = False) -> None:
        super().__init__(without)
        if keyed:
            breakers = [self.breaker("left", "right")]
            self.left, self.right = map(breakers[0].circuit, ("left", "right"))
        else:
            breakers = [self.breaker(), self.breaker()]
            self.left, self.right = (breaker._only for breaker in breakers)
        self.pipe = self.pipeline(*breakers)
        self.right.open()
        if both:
            self.left.open()

    def open_left(self) -> None:
        self.left.open()

    def close_right(self) -> None:
        self.right.close()

    def close_left(self) -> None:
        self.left.close()


@pytest.mark.parametrize("keyed", [False, True])
def test_one_circuit_opens_while_another_closes(keyed: bool) -> None:
    """The pipeline that both are in is not at rest."""
    stopped_twice(
        lambda: Pair(keyed=keyed),
        Pair.open_left,
        Pair.close_right,
        holds=lambda scene: scene.pipe._idle.period is None,
    )


@pytest.mark.parametrize("keyed", [False, True])
def test_both_close(keyed: bool) -> None:
    """When the last circuit has closed, the pipeline is at rest."""
    stopped_twice(
        lambda: Pair(keyed=keyed, both=True),
        Pair.close_left,
        Pair.close_right,
        holds=lambda scene: scene.pipe._idle.period is not None,
    )


class One(Scene):
    """One circuit, and two threads that command it."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        only = self.breaker()
        self.one = only._only
        self.pipe = self.pipeline(only)
        self.one.open()

    def close(self) -> None:
        self.one.close()

    def isolate(self) -> None:
        self.one.isolate()

    def holds(self) -> bool:
        """Calls are at rest exactly if the circuit is closed."""
        return (self.pipe._idle.period is not None) is (self.one.state == "closed")


def test_a_circuit_isolated_while_it_closes_is_not_gone_past() -> None:
    """Whichever command comes last is the one that calls meet."""
    stopped_twice(One, One.close, One.isolate, holds=One.holds)


class Joining(Scene):
    """A breaker that opens while a pipeline is made of it."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.only = self.breaker()
        self.joined: Pipeline | None = None

    def join(self) -> None:
        self.joined = self.pipeline(self.only)

    def open(self) -> None:
        self.only.open()


def test_a_pipeline_made_while_its_circuit_opens_is_not_at_rest() -> None:
    """It is notified, or finds out itself."""
    stopped_twice(
        Joining,
        Joining.join,
        Joining.open,
        holds=lambda scene: scene.joined is not None and scene.joined._idle.period is None,
    )


# Circuits made and forgotten


class Fresh(Scene):
    """A keyed breaker that has no circuit yet, for two threads whose calls fail."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.keyed = self.breaker("another", failures=9)
        self.pipe = self.pipeline(self.keyed)

    def call(self) -> None:
        self.fail_once(self.keyed.circuit("new"))

    def hasty(self) -> None:
        """As it must not be: looked for first, put there afterwards."""
        kept = self.keyed._circuits
        circuit = kept._all.get("new")
        if circuit is None:
            circuit = Circuit(kept, "new")
            kept._all["new"] = circuit
            kept._queue.append("new")
        self.fail_once(circuit)

    def holds(self) -> bool:
        return self.keyed.circuit("new").failures == 2 and self.pipe._idle.period is None


@pytest.mark.fault(18)
def test_the_first_use_of_a_key_makes_one_circuit() -> None:
    """Which counts the calls of both threads."""
    stopped_twice(Fresh, Fresh.call, Fresh.call, holds=Fresh.holds)
    is_found_out(Fresh, Fresh.hasty, Fresh.hasty, holds=Fresh.holds)


class Forgotten(Scene):
    """A breaker that keeps one circuit: a call of it fails while another value comes along."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.keyed = self.breaker("old", keep=1, failures=9)
        self.pipe = self.pipeline(self.keyed)
        self.keyed.circuit("old")._seen = self.keyed.circuit("old")._used

    def call(self) -> None:
        self.fail_once(self.keyed.circuit("old"))

    def come(self) -> None:
        self.keyed.circuit("new")
        self.keyed.circuit("old")

    def holds(self) -> bool:
        """The failure is remembered, wherever it was counted."""
        return self.keyed.circuit("old").failures == 1 and self.pipe._idle.period is None


def test_a_circuit_forgotten_while_a_call_of_it_fails() -> None:
    """Its failure is not forgotten with it."""
    stopped_twice(Forgotten, Forgotten.call, Forgotten.come, holds=Forgotten.holds)
    is_found_out(
        lambda: Forgotten("breaker"),
        Forgotten.call,
        Forgotten.come,
        holds=Forgotten.holds,
        stops=2,
    )


class Back(Scene):
    """A circuit that was forgotten while a call of it was under way, and another that comes."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.keyed = self.breaker("old", keep=1, trip=RATE)
        self.held = self.keyed.circuit("old")
        self.permit: Permit | None = self.admit(self.held)
        self.held._used = self.held._seen
        self.keyed.circuit("new")
        assert "old" not in self.keyed._circuits._all

    def end(self) -> None:
        self.settle(self.permit, True)

    def come(self) -> None:
        self.keyed.circuit("old")

    def holds(self) -> bool:
        """It is there again, and to be looked at once."""
        kept = self.keyed._circuits
        return kept._all.get("old") is self.held and kept._queue.count("old") == 1


def test_a_forgotten_circuit_comes_back_once() -> None:
    """With the end of the one call or with the other's beginning."""
    stopped_twice(Back, Back.end, Back.come, holds=Back.holds)
    is_found_out(lambda: Back("breaker"), Back.end, Back.come, holds=Back.holds, stops=2)
