"""A circuit and those who use it, in every order of threads: trials, late answers, commands.

See support/interleaving.py. Each scene is tried again without one of its locks, or with a mistake
in it: then an order that breaks it must be found.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from resilience import CircuitOpenError, FailureRate
from resilience._core.idle import epochs
from resilience.circuit.circuit import Circuit
from resilience.circuit.machine import Permit
from resilience.circuit.pybreaker import Storages
from resilience.circuit.states import HalfOpen
from support.interleaving import WatchedList, every_order, watch
from support.scenes import (  # noqa: F401
    Scene,
    check,
    fail,
    is_found_out,
    watchable,
    watched_circuits,
    without,
)

pytestmark = [pytest.mark.real, pytest.mark.steady, pytest.mark.usefixtures("watched_circuits")]

RATE = FailureRate(0.5, calls=8, minimum=8)


# Trial slots


class Ended(Scene):
    """An open circuit whose time is up, with one trial slot."""

    epochs = False

    def __init__(self, without: str | None = None, **options: Any) -> None:
        super().__init__(without)
        self.only = self.breaker(failures=1, **options)
        self.one = self.only._only
        self.one.open()
        self.expire(self.one)
        self.published.clear()
        self.first: Permit | None = None
        self.second: Permit | None = None
        self.third: Permit | None = None

    def ask_first(self) -> None:
        self.first = self.admit(self.one)

    def ask_second(self) -> None:
        self.second = self.admit(self.one)

    def ask_third(self) -> None:
        self.third = self.admit(self.one)

    @property
    def trials(self) -> int:
        """Under way."""
        return self.one.snapshot().trials


@pytest.mark.fault(18)
@without("circuit")
def test_one_of_two_threads_is_let_through(without: str | None) -> None:
    """Of two that ask at the same moment exactly one gets the slot."""
    check(
        Ended,
        without,
        Ended.ask_first,
        Ended.ask_second,
        holds=lambda scene: (
            (scene.first is None) is not (scene.second is None)
            and scene.trials == 1
            and scene.published == [("open", "half-open")]
        ),
        stops=2,
    )


@pytest.mark.fault(18)
def test_two_of_three_threads_get_two_slots() -> None:
    """With a third thread, and a second slot."""

    def holds(scene: Ended) -> bool:
        through = [scene.first, scene.second, scene.third]
        return sum(permit is not None for permit in through) == scene.trials == 2

    asking = Ended.ask_first, Ended.ask_second, Ended.ask_third
    assert every_order(lambda: Ended(trials=2), *asking, holds=holds) >= 6


class Trials(Ended):
    """Guarded calls; the circuit closes after the second trial that goes well."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without, successes=2)
        self.inside = self.through = self.rejected = 0
        self.together = False
        self.guarded = self.pipeline(self.only).wrap(self.trial)
        watch(self, but=["without", "published", "only", "one", "guarded"])

    def trial(self) -> None:
        self.through += 1
        self.inside += 1
        if self.inside > 1:
            self.together = True
        self.inside -= 1

    def call(self) -> None:
        try:
            self.guarded()
        except CircuitOpenError:
            self.rejected += 1


@pytest.mark.fault(18)
@without("circuit")
def test_two_guarded_trials_are_never_under_way_together(without: str | None) -> None:
    """The second is rejected, or let in when the first has come out; no slot is lost."""
    check(
        Trials,
        without,
        Trials.call,
        Trials.call,
        holds=lambda scene: (
            not scene.together
            and scene.through + scene.rejected == 2
            and scene.trials == 0
            and scene.one.snapshot().passed == scene.through % 2
            and scene.one.state == ("closed" if scene.through == 2 else "half-open")
        ),
        stops=2,
    )


class Begun(Ended):
    """A closed circuit: one thread begins a call that fails, the other opens it and tries it."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.one.close()

    def call(self) -> None:
        self.first = self.admit(self.one)
        self.settle(self.first, True)

    def retry(self) -> None:
        self.one.open()
        self.expire(self.one)
        self.ask_second()

    def holds(self) -> bool:
        """The call was rejected or was the trial itself; or it was begun before the opening."""
        if self.first is None or type(self.first.state) is HalfOpen:
            return True
        trying = self.second is not None and type(self.second.state) is HalfOpen
        return trying and (self.one.state, self.trials) == ("half-open", 1)


@pytest.mark.fault(21)
def test_a_call_begun_in_the_very_moment_of_the_opening_is_no_trial() -> None:
    """Admitted by a closed circuit, it does not end somebody else's trial."""
    assert every_order(Begun, Begun.call, Begun.retry, holds=Begun.holds) > 1


class Twice(Ended):
    """One of two trial slots is taken; its permit is settled by two threads."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without, trials=2, successes=9)
        self.ask_first()
        self.ask_second()

    def succeed(self) -> None:
        self.settle(self.first, False)

    def release(self) -> None:
        self.settle(self.first, None)


@pytest.mark.fault(29)
@pytest.mark.parametrize("other", [Twice.succeed, Twice.release])
def test_a_permit_settled_by_two_threads(other: Any) -> None:
    """Once counts; the other slot stays taken."""

    def holds(scene: Twice) -> bool:
        return scene.trials == 1 and scene.one.snapshot().passed <= 1

    assert every_order(Twice, Twice.succeed, other, holds=holds) > 1


class Waiting(Ended):
    """A trial under way, and a call that waits for its verdict."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.ask_first()
        self.woken = False
        self.due: float | None = None

    def set(self) -> None:
        self.woken = True

    def wait(self) -> None:
        self.due = self.one._locked(partial(self.one._queue, self, 1.0))  # type: ignore[arg-type]

    def hasty(self) -> None:
        """As it must not be: it looks first and puts itself down afterwards."""
        state = self.one._state
        if type(state) is HalfOpen and self.one._trials(state, 1.0):
            self.one._waiting.append(self)  # type: ignore[arg-type]
            self.due = 60.0

    def succeed(self) -> None:
        self.settle(self.first, False)

    def holds(self) -> bool:
        """It is woken, or learns that there is nothing to wait for."""
        return self.woken or not self.due


def test_a_call_that_waits_for_a_verdict_is_woken() -> None:
    """Whatever the trial's end and its own beginning to wait do to one another."""
    assert every_order(Waiting, Waiting.wait, Waiting.succeed, holds=Waiting.holds) > 1
    is_found_out(Waiting, Waiting.hasty, Waiting.succeed, holds=Waiting.holds)


class Held(Ended):
    """A circuit isolated by two, each of whom lets go."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.holds_on = self.one.isolate(), self.one.isolate()
        self.published.clear()

    @classmethod
    def alone(cls) -> Held:
        """With one of the two."""
        scene = cls()
        scene.let_go_too()
        return scene

    def let_go(self) -> None:
        self.holds_on[0].release()

    def let_go_too(self) -> None:
        self.holds_on[1].release()

    def isolate(self) -> None:
        self.one.isolate()


def test_the_last_of_two_isolations_closes_the_circuit() -> None:
    """Once, whoever is the last."""

    def holds(scene: Held) -> bool:
        return scene.one.state == "closed" and scene.published == [("isolated", "closed")]

    assert every_order(Held, Held.let_go, Held.let_go_too, holds=holds) > 1


def test_an_isolation_while_others_end_is_never_lost() -> None:
    """Whoever isolates it while the last of the others lets go has it isolated."""

    def holds(scene: Held) -> bool:
        return scene.one.state == "isolated"

    assert every_order(Held.alone, Held.let_go, Held.isolate, holds=holds) > 1


# Answers that come late


class Late(Scene):
    """A call under way: in a circuit one failure short of opening, or as a trial."""

    epochs = False

    def __init__(self, without: str | None = None, *, trial: bool) -> None:
        super().__init__(without)
        only = self.breaker(failures=2)
        self.idle = self.pipeline(only)._idle
        self.one = only._only
        self.fail_once(self.one)
        if trial:
            self.reopen()
        self.permit = self.admit(self.one)
        self.next: Permit | None = None
        self.published.clear()

    def succeed(self) -> None:
        self.settle(self.permit, False)

    def fail(self) -> None:
        self.settle(self.permit, True)

    def open(self) -> None:
        self.one.open()

    def close(self) -> None:
        self.one.close()

    def isolate(self) -> None:
        self.one.isolate()

    def reopen(self) -> None:
        self.one.open()
        self.expire(self.one)

    def retry(self) -> None:
        """Open, and let a new trial in."""
        self.reopen()
        self.next = self.admit(self.one)


AGAINST = [  # where the call is, its answer, what is commanded, what may have been published
    (False, Late.fail, Late.open, ["closed open"]),
    (False, Late.fail, Late.close, ["", "closed open closed"]),
    (False, Late.fail, Late.isolate, ["closed isolated", "closed open isolated"]),
    (False, Late.succeed, Late.open, ["closed open"]),
    (True, Late.fail, Late.open, ["half-open open"]),
    (True, Late.fail, Late.close, ["half-open closed", "half-open open closed"]),
    (True, Late.succeed, Late.open, ["half-open open", "half-open closed open"]),
    (True, Late.succeed, Late.close, ["half-open closed"]),
    (True, Late.succeed, Late.isolate, ["half-open isolated", "half-open closed isolated"]),
]
LEFT = {Late.open: "open", Late.close: "closed", Late.isolate: "isolated"}


def locked(trial: bool, answer: Any) -> list[str | None]:
    """The whole machine, and where it needs the circuit's lock, one without. A success in a closed
    circuit only writes to the state that its call was admitted in."""
    return [None] if answer is Late.succeed and not trial else [None, "circuit"]


def steps(path: str) -> list[tuple[str, str]]:
    """The changes of state on a path, in the order of the alphabet: two threads publish them."""
    states = path.split()
    return sorted(pairwise(states))


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("trial", "answer", "change", "paths", "without"),
    [(*each, lock) for each in AGAINST for lock in locked(*each[:2])],
)
def test_an_answer_against_a_manual_command(
    trial: bool, answer: Any, change: Any, paths: list[str], without: str | None
) -> None:
    """What was commanded stands, the count is clean, and each change is published once."""

    def holds(scene: Late) -> bool:
        now = scene.one.snapshot()
        return (
            now.state == LEFT[change]
            and (now.failures, now.passed, now.trials) == (0, 0, 0)
            and (scene.idle.period is not None) is (change is Late.close)
            and sorted(scene.published) in [steps(path) for path in paths]
        )

    check(lambda without: Late(without, trial=trial), without, answer, change, holds=holds, stops=2)


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("trial", "answer", "without"),
    [
        (trial, answer, lock)
        for trial in (False, True)
        for answer in (Late.succeed, Late.fail)
        for lock in locked(trial, answer)
    ],
)
def test_an_answer_against_a_new_trial(trial: bool, answer: Any, without: str | None) -> None:
    """A late answer of the state before neither ends the new trial nor gives its slot away."""
    check(
        lambda without: Late(without, trial=trial),
        without,
        answer,
        Late.retry,
        holds=lambda scene: (
            scene.one.state == "half-open"
            and scene.next is not None
            and type(scene.next.state) is HalfOpen
            and (scene.one.snapshot().passed, scene.one.snapshot().trials) == (0, 1)
            and scene.idle.period is None
        ),
        stops=2,
    )


class Counted(Scene):
    """A call at rest that has ended well, while its circuit is opened and closed by command."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.one = self.breaker(trip=RATE)._only
        self.state: Any = self.one._state
        watch(self.state.gauges[0])
        self.epoch = epochs.now

    def count(self) -> None:
        self.one._count_success(self.state, 0.0, 0.0)

    def turn(self) -> None:
        self.one.open()
        self.one.close()

    def holds(self) -> bool:
        return self.one.snapshot().readings[0].calls == 0


@pytest.mark.fault(21)
def test_an_answer_at_rest_that_is_counted_late() -> None:
    """Counted before, it is cleared away; counted afterwards, it changes nothing."""
    assert every_order(Counted, Counted.count, Counted.turn, holds=Counted.holds) > 1


# Failures at the threshold


class Threshold(Scene):
    """Two calls that fail, both begun at rest perhaps, and a circuit that opens after two."""

    epochs = False

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        only = self.breaker(failures=2)
        pipeline = self.pipeline(only)
        self.idle = pipeline._idle
        self.one = only._only
        self.guarded = pipeline.wrap(fail)
        self.own: list[Any] = WatchedList()

    def call(self) -> None:
        self.own.append(self.error_of(self.guarded))


@pytest.mark.fault(18)
@without("circuit")
def test_two_failures_at_the_threshold_open_once(without: str | None) -> None:
    """Neither is lost, the change is published once, and each caller has its own error."""
    check(
        Threshold,
        without,
        Threshold.call,
        Threshold.call,
        holds=lambda scene: (
            scene.own == [ConnectionError] * 2
            and scene.one.state == "open"
            and scene.published == [("closed", "open")]
            and scene.idle.period is None
        ),
        stops=2,
    )


# Shared circuits


class Attaching(Scene):
    """A circuit that is to be shared, for two threads that call it first."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.one = self.breaker()._only
        self.made: list[object] = WatchedList()
        self.had: list[object] = WatchedList()
        self.storages = Storages(self, keyed=False, refresh=0.0)
        self.storages._lock = self.lock("storages")

    def share(self, circuit: Circuit, refresh: float) -> Any:
        self.made.append(object())
        return self.made[-1]

    def attach(self) -> None:
        self.had.append(self.storages.at_once(self.one))

    def holds(self) -> bool:
        return self.made * 2 == self.had


@without("storages")
def test_a_circuit_is_shared_once(without: str | None) -> None:
    """Both have the same to ask."""
    check(Attaching, without, Attaching.attach, Attaching.attach, holds=Attaching.holds)
