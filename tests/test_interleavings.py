"""The machines that threads share, in every order in which threads can take turns.

See interleaving.py. Each machine is tried again without one of its locks, or with a mistake in it:
then an order that breaks it must be found. That is how each of these tests is known to be able to
fail.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest

from interleaving import (
    Broken,
    Lock,
    NoLock,
    Stuck,
    WatchedDict,
    WatchedList,
    WatchedSet,
    every_order,
    orders,
    watch,
)
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    FailureRate,
    Pipeline,
    WorkersBusyError,
)
from resilience._core import locks
from resilience._core.driver import drive
from resilience._core.rest import Epochs, epochs
from resilience._runtimes import workers
from resilience._runtimes.threads import threads
from resilience.policies._circuit import Change, Circuit, Permit
from resilience.policies._pybreaker import Storages

pytestmark = [pytest.mark.real, pytest.mark.steady]

RATE = FailureRate(0.5, calls=8, minimum=8)


@pytest.fixture(autouse=True)
def _watchable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All new locks can be watched; what there is only one of is put back."""
    monkeypatch.setattr(locks, "threading", SimpleNamespace(RLock=Lock))
    monkeypatch.setattr(epochs, "_lock", epochs._lock)
    for name in ("_pool", "_Worker", "LIMIT"):
        monkeypatch.setattr(workers, name, getattr(workers, name))
    with pytest.raises(ConnectionError):  # what a first failure imports is imported
        Pipeline(CircuitBreaker()).call(fail)
    yield
    epochs.__class__ = Epochs


def is_found_out(
    make: Callable[[], Any], *threads: Any, holds: Callable[[Any], bool], stops: int = 1
) -> None:
    """An order that breaks it is found among those that stop a running thread a few times."""
    with pytest.raises(Broken):
        orders(make, *threads, holds=holds, stops=stops)


def check(
    make: Callable[[str | None], Any],
    without: str | None,
    *threads: Any,
    holds: Callable[[Any], bool],
    stops: int = 1,
) -> None:
    """The whole machine holds in every order; without one of its locks it is found out."""
    if without is None:
        kinds = every_order(lambda: make(None), *threads, holds=holds)
        assert kinds > 1
    else:
        is_found_out(lambda: make(without), *threads, holds=holds, stops=stops)


def without(*names: str) -> pytest.MarkDecorator:
    """The whole machine, and one without each of these locks."""
    return pytest.mark.parametrize("without", [None, *names])


def fail() -> None:
    raise ConnectionError


class Scene:
    """What the threads of one run share: made anew for each order."""

    def __init__(self, without: str | None = None) -> None:
        self.without = without
        epochs.__class__ = Epochs
        epochs._lock = self.lock("epochs")
        watch(epochs, but=["_lock"])
        self.told: list[tuple[str, str]] = WatchedList()

    def lock(self, name: str) -> Any:
        return NoLock() if name == self.without else Lock()

    def breaker(self, *keys: str, **options: Any) -> CircuitBreaker:
        """A breaker with its circuits, without one of its locks perhaps."""
        breaker = CircuitBreaker(key="key" if keys else None, **options)
        kept = breaker._circuits
        kept._lock = self.lock("breaker")
        kept.restless, kept._resting = WatchedSet(), WatchedSet()
        kept._all = WatchedDict(kept._all)
        kept.find = kept._all.get
        for circuit in [breaker.circuit(key) for key in keys] or [breaker._only]:
            circuit._changed = self.hear
            circuit._lock = self.lock("circuit")
            circuit._places, circuit._bells = WatchedDict(), WatchedList()
            # Neither what never changes, nor what is only told to people or to who tidies up.
            told = ["used", "seen", "_last", "_refused", "_opened", "_openings"]
            fixed = [
                "limits",
                "name",
                "key",
                "backing",
                "_changed",
                "_stirred",
                "_counted",
                "_lock",
            ]
            watch(circuit, but=[*fixed, *told])
        return breaker

    def hear(self, circuit: Circuit, change: Change) -> None:
        if change.old != change.new:  # else a command, of which only others are to hear
            self.told.append((change.old, change.new))

    def pipeline(self, *breakers: CircuitBreaker) -> Pipeline:
        pipeline = Pipeline(*breakers)
        pipeline.rest._lock = self.lock("rest")
        pipeline.rest._stirring = WatchedSet(pipeline.rest._stirring)
        watch(pipeline.rest, but=["first", "_lock", "_stirring"])
        return pipeline


def expire(circuit: Circuit) -> None:
    """Let the open time pass."""
    circuit._until = 0.0


# The net under the tests


class CheckThenTake:
    """How a place must not be taken: looked for first, taken afterwards."""

    def __init__(self) -> None:
        self.out = 0
        self.taken: list[bool] = []
        watch(self)

    def take(self) -> None:
        free = self.out < 1
        if free:
            self.out += 1
        self.taken.append(free)

    def holds(self) -> bool:
        return self.taken.count(True) == 1


class UnderLock(CheckThenTake):
    """And how it must."""

    def __init__(self) -> None:
        self.lock = Lock()
        super().__init__()

    def take(self) -> None:
        with self.lock:
            super().take()


def test_a_place_looked_for_and_then_taken_is_found_out() -> None:
    """The mistake itself, in its barest form; under a lock it is none."""
    is_found_out(CheckThenTake, *[CheckThenTake.take] * 2, holds=CheckThenTake.holds)
    with pytest.raises(Broken, match="1 writes out"):
        every_order(CheckThenTake, *[CheckThenTake.take] * 2, holds=CheckThenTake.holds)
    assert every_order(UnderLock, *[UnderLock.take] * 2, holds=UnderLock.holds) == 2
    assert every_order(UnderLock, *[UnderLock.take] * 3, holds=UnderLock.holds) == 6


class Crossed:
    """Two locks, taken in two ways round."""

    def __init__(self) -> None:
        self.left, self.right = Lock(), Lock()

    def take(self, one: Lock, other: Lock) -> None:
        with one, other:
            pass


def test_locks_taken_in_two_ways_round_are_found_out() -> None:
    """Threads that wait for one another are told, with the way there."""
    with pytest.raises(Stuck, match="1 enters lock"):
        every_order(
            Crossed,
            lambda scene: scene.take(scene.left, scene.right),
            lambda scene: scene.take(scene.right, scene.left),
            holds=lambda scene: True,
        )


class Written:
    """Small programs of reads, writes and additions, some of them under locks."""

    def __init__(self) -> None:
        self.locks = [Lock(), Lock()]
        self.seen: list[list[int]] = [[], [], []]
        self.x = self.y = 0
        watch(self, but=["locks", "seen"])

    @classmethod
    def random(cls, chance: random.Random, length: int) -> list[Any]:
        """Lines of a program: an action and a name, or a lock and a program under it."""
        lines: list[Any] = []
        while length > 0:
            if length > 1 and chance.random() < 0.35:
                inner = chance.randint(1, length - 1)
                lines.append((chance.randrange(2), cls.random(chance, inner)))
                length -= inner + 1
            else:
                lines.append((chance.choice("rwa"), chance.choice("xy")))
                length -= 1
        return lines

    def run(self, me: int, lines: list[Any]) -> None:
        for action, what in lines:
            if action == "r":
                self.seen[me].append(getattr(self, what))
            elif action == "w":
                setattr(self, what, me + 1)
            elif action == "a":
                setattr(self, what, getattr(self, what) * 3 + me + 1)
            else:
                with self.locks[action]:
                    self.run(me, what)

    @classmethod
    def points(cls, lines: list[Any]) -> int:
        """How often such a program can be stopped."""
        nested = [what for action, what in lines if isinstance(action, int)]
        return len(lines) + sum(action == "a" for action, _ in lines) + sum(map(cls.points, nested))

    @classmethod
    def outcomes(cls, search: Any, programs: list[Any]) -> set[Any]:
        """All that can come out; a program may end in a deadlock as well."""
        found: set[Any] = set()

        def note(scene: Written) -> bool:
            found.add((scene.x, scene.y, str(scene.seen)))
            return True

        threads = [
            lambda scene, me=me, lines=lines: scene.run(me, lines)
            for me, lines in enumerate(programs)
        ]
        try:
            search(cls, *threads, holds=note)
        except Stuck:
            return {"deadlock"}
        return found


@pytest.mark.parametrize("threads", [2, 3])
def test_one_order_of_each_kind_gives_all_that_all_orders_give(threads: int) -> None:
    """Over random programs: nothing that can come out is overlooked."""
    chance = random.Random(threads)
    tried = 0
    while tried < 30:
        programs = [Written.random(chance, chance.randint(1, 4)) for _ in range(threads)]
        if sum(map(Written.points, programs)) > 8:
            continue
        tried += 1
        assert Written.outcomes(every_order, programs) == Written.outcomes(orders, programs)


# Trial places


class Ended(Scene):
    """An open circuit whose time is up, with one trial place."""

    def __init__(self, without: str | None = None, **options: Any) -> None:
        super().__init__(without)
        self.only = self.breaker(failures=1, **options)
        self.one = self.only._only
        self.one.open()
        expire(self.one)
        self.told.clear()
        self.first: Permit | None = None
        self.second: Permit | None = None
        self.third: Permit | None = None

    def ask(self) -> Permit | None:
        try:
            return self.one.admit(1.0)
        except CircuitOpenError:
            return None

    def ask_first(self) -> None:
        self.first = self.ask()

    def ask_second(self) -> None:
        self.second = self.ask()

    def ask_third(self) -> None:
        self.third = self.ask()


@without("circuit")
def test_fault_018_one_of_two_threads_is_let_through(without: str | None) -> None:
    """Of two that ask at the same moment exactly one gets the place."""
    check(
        Ended,
        without,
        Ended.ask_first,
        Ended.ask_second,
        holds=lambda scene: (
            (scene.first is None) is not (scene.second is None)
            and len(scene.one._places) == 1
            and scene.told == [("open", "half-open")]
        ),
    )


def test_fault_018_two_of_three_threads_get_two_places() -> None:
    """With a third thread, and a second place."""

    def holds(scene: Ended) -> bool:
        through = [scene.first, scene.second, scene.third]
        return sum(permit is not None for permit in through) == len(scene.one._places) == 2

    threads = Ended.ask_first, Ended.ask_second, Ended.ask_third
    assert every_order(lambda: Ended(trials=2), *threads, holds=holds) >= 6


class Trials(Ended):
    """Guarded calls; the circuit closes after the second trial that goes well."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without, successes=2)
        self.inside = self.through = self.refused = 0
        self.together = False
        self.guarded = self.pipeline(self.only).wrap(self.trial)
        watch(self, but=["without", "told", "only", "one", "guarded"])

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
            self.refused += 1


@without("circuit")
def test_fault_018_two_guarded_trials_are_never_under_way_together(without: str | None) -> None:
    """The second is refused, or let in when the first has come out; no place is lost."""
    check(
        Trials,
        without,
        Trials.call,
        Trials.call,
        holds=lambda scene: (
            not scene.together
            and scene.through + scene.refused == 2
            and len(scene.one._places) == 0
            and scene.one._passed == scene.through % 2
            and scene.one.state == ("closed" if scene.through == 2 else "half-open")
        ),
    )


class Begun(Ended):
    """A closed circuit: one thread begins a call that fails, the other opens it and tries it."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.one.close()

    def call(self) -> None:
        self.first = self.ask()
        if self.first is not None:
            self.first.failed()

    def retry(self) -> None:
        self.one.open()
        expire(self.one)
        self.ask_second()

    def holds(self) -> bool:
        """The call was refused or was the trial itself; or it was begun before the opening."""
        if self.first is None or self.first.trial:
            return True
        trying = self.second is not None and self.second.trial
        return trying and (self.one.state, len(self.one._places)) == ("half-open", 1)


def test_fault_021_a_call_begun_in_the_very_moment_of_the_opening_is_no_trial() -> None:
    """Admitted by a closed circuit, it does not end somebody else's trial."""
    assert every_order(Begun, Begun.call, Begun.retry, holds=Begun.holds) > 1


class Twice(Ended):
    """One of two trial places is taken; its permit is settled by two threads."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without, trials=2, successes=9)
        self.ask_first()
        self.ask_second()
        assert self.first is not None
        self.permit = watch(self.first, but=["circuit", "epoch", "trial"])

    def succeed(self) -> None:
        self.permit.succeeded()

    def release(self) -> None:
        self.permit.released()


@pytest.mark.parametrize("other", [Twice.succeed, Twice.release])
def test_fault_029_a_permit_settled_by_two_threads(other: Any) -> None:
    """Once counts; the other place stays taken."""

    def holds(scene: Twice) -> bool:
        return len(scene.one._places) == 1 and scene.one._passed <= 1

    assert every_order(Twice, Twice.succeed, other, holds=holds) > 1


class Waiting(Ended):
    """A trial under way, and a call that waits for its verdict."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.ask_first()
        self.rung = False
        self.due: float | None = None

    def ring(self) -> None:
        self.rung = True

    def wait(self) -> None:
        self.due = self.one.queue(self, 1.0)

    def hasty(self) -> None:
        """As it must not be: it looks first and puts itself down afterwards."""
        state, full = self.one.state, len(self.one._places) > 0
        if state == "half-open" and full:
            self.one._bells.append(self)
            self.due = 60.0

    def succeed(self) -> None:
        assert self.first is not None
        self.first.succeeded()

    def holds(self) -> bool:
        """It is woken, or told that there is nothing to wait for."""
        return self.rung or not self.due


def test_a_call_that_waits_for_a_verdict_is_woken() -> None:
    """Whatever the trial's end and its own beginning to wait do to one another."""
    assert every_order(Waiting, Waiting.wait, Waiting.succeed, holds=Waiting.holds) > 1
    is_found_out(Waiting, Waiting.hasty, Waiting.succeed, holds=Waiting.holds)


class Held(Ended):
    """A circuit isolated by two, each of whom lets go."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.holds_on = self.one.isolate(), self.one.isolate()
        self.one._isolations = WatchedSet(self.one._isolations)
        self.told.clear()

    def let_go(self) -> None:
        self.holds_on[0].release()

    def let_go_too(self) -> None:
        self.holds_on[1].release()


def test_the_last_of_two_isolations_closes_the_circuit() -> None:
    """Once, whoever is the last."""

    def holds(scene: Held) -> bool:
        return scene.one.closed and scene.told == [("isolated", "closed")]

    assert every_order(Held, Held.let_go, Held.let_go_too, holds=holds) > 1


# Answers that come late


class Late(Scene):
    """A call under way: in a circuit one failure short of opening, or as a trial."""

    def __init__(self, without: str | None = None, *, trial: bool) -> None:
        super().__init__(without)
        only = self.breaker(failures=2)
        self.rest = self.pipeline(only).rest
        self.one = only._only
        self.one.admit(0.0).failed()
        if trial:
            self.reopen()
        self.permit = self.one.admit(1.0)
        self.next: Permit | None = None
        self.told.clear()

    def succeed(self) -> None:
        self.permit.succeeded()

    def fail(self) -> None:
        self.permit.failed()

    def open(self) -> None:
        self.one.open()

    def close(self) -> None:
        self.one.close()

    def reopen(self) -> None:
        self.one.open()
        expire(self.one)

    def retry(self) -> None:
        """Open, and let a new trial in."""
        self.reopen()
        try:
            self.next = self.one.admit(1.0)
        except CircuitOpenError:
            self.next = None


AGAINST = [  # where the call is, its answer, what is done by hand, what was possible to hear
    (False, Late.fail, Late.open, ["closed open"]),
    (False, Late.fail, Late.close, ["", "closed open closed"]),
    (False, Late.succeed, Late.open, ["closed open"]),
    (True, Late.fail, Late.open, ["half-open open"]),
    (True, Late.fail, Late.close, ["half-open closed", "half-open open closed"]),
    (True, Late.succeed, Late.open, ["half-open open", "half-open closed open"]),
    (True, Late.succeed, Late.close, ["half-open closed"]),
]


def steps(path: str) -> list[tuple[str, str]]:
    """The changes of state on a path, in the order of the alphabet: two threads tell them."""
    states = path.split()
    return sorted(pairwise(states))


@pytest.mark.parametrize(("trial", "answer", "change", "paths"), AGAINST)
@without("circuit")
def test_fault_021_an_answer_against_a_change_by_hand(
    trial: bool, answer: Any, change: Any, paths: list[str], without: str | None
) -> None:
    """What was done by hand stands, the count is clean, and each change is told once."""
    closed = change is Late.close
    check(
        lambda without: Late(without, trial=trial),
        without,
        answer,
        change,
        holds=lambda scene: (
            scene.one.state == ("closed" if closed else "open")
            and (scene.one.failures, scene.one._passed, len(scene.one._places)) == (0, 0, 0)
            and (scene.rest.token is not None) is closed
            and sorted(scene.told) in [steps(path) for path in paths]
        ),
    )


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("answer", [Late.succeed, Late.fail])
@without("circuit")
def test_fault_021_an_answer_against_a_new_trial(
    answer: Any, trial: bool, without: str | None
) -> None:
    """A late answer of the state before neither ends the new trial nor gives its place away."""
    check(
        lambda without: Late(without, trial=trial),
        without,
        answer,
        Late.retry,
        holds=lambda scene: (
            scene.one.state == "half-open"
            and scene.next is not None
            and scene.next.trial
            and (scene.one._passed, len(scene.one._places)) == (0, 1)
            and scene.rest.token is None
        ),
    )


# Failures at the threshold


class Threshold(Scene):
    """Two calls that fail, both begun at rest perhaps, and a circuit that opens after two."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        only = self.breaker(failures=2)
        pipeline = self.pipeline(only)
        self.rest = pipeline.rest
        self.one = only._only
        self.guarded = pipeline.wrap(fail)
        self.own: list[type] = WatchedList()

    def call(self) -> None:
        try:
            self.guarded()
        except Exception as error:
            self.own.append(type(error))


@without("circuit")
def test_fault_018_two_failures_at_the_threshold_open_once(without: str | None) -> None:
    """Neither is lost, the change is told once, and each caller has its own error."""
    check(
        Threshold,
        without,
        Threshold.call,
        Threshold.call,
        holds=lambda scene: (
            scene.own == [ConnectionError] * 2
            and scene.one.state == "open"
            and scene.told == [("closed", "open")]
            and scene.rest.token is None
        ),
    )


# Being at rest


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
            self.one.admit(0.0).failed()
        self.failed = self.answered = self.failed_before = self.answered_before = False
        self.failing = self.pipe.wrap(self.fail)
        self.answering = self.pipe.wrap(self.answer)
        watch(self, but=["without", "told", "one", "pipe", "failing", "answering"])

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
        (self.answer if self.pipe.rest.token is not None else self.answering)()
        self.answered = True

    def holds(self) -> bool:
        """Neither outcome is lost, and the pipeline rests exactly if the circuit is clean."""
        possible = {0, 1}
        if self.failed_before:
            possible = {0}
        if self.answered_before:
            possible = {1}
        rests = self.pipe.rest.token is not None
        return self.one.failures in possible and rests is (self.one.failures == 0)


@pytest.mark.parametrize("failures", [0, 1])
def test_an_answer_against_a_failure_at_rest(failures: int) -> None:
    """Whichever ended last has the last word; none is lost, and no rest is stale."""
    every_order(
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
    )


class Counted(Scene):
    """A call at rest that has ended well, while its circuit is opened and closed by hand."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.one = self.breaker(trip=RATE)._only
        watch(self.one._gauges[0])
        self.epoch = epochs.now

    def tell(self) -> None:
        self.one.heard((), {}, self.epoch, 0.0, 0.0)

    def turn(self) -> None:
        self.one.open()
        self.one.close()

    def holds(self) -> bool:
        return self.one.snapshot().readings[0].calls == 0


@without("circuit")
def test_fault_021_an_answer_at_rest_that_is_told_late(without: str | None) -> None:
    """Told before, it is cleared away; told afterwards, it does not count."""
    check(Counted, without, Counted.tell, Counted.turn, holds=Counted.holds, stops=2)


class Changing(Scene):
    """A call begun at rest that fails, while its circuit is opened and closed by hand."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        only = self.breaker(failures=1)
        self.one = only._only
        self.pipe = self.pipeline(only)
        self.guarded = self.pipe.wrap(fail)
        self.changed = self.changed_before = False
        self.outcome: type | None = None
        watch(self, but=["without", "told", "one", "pipe", "guarded"])

    def call(self) -> None:
        self.changed_before = self.changed
        try:
            self.guarded()
        except Exception as error:
            self.outcome = type(error)

    def change(self) -> None:
        self.one.open()
        self.one.close()
        self.changed = True

    def reused(self) -> None:
        """The same change in a pipeline that goes on with the token it had."""
        token = self.pipe.rest.token
        self.change()
        if token is not None:
            self.pipe.rest.token = token

    def holds(self) -> bool:
        """A failure begun before the change is not counted, one begun after it is."""
        state = self.one.state
        if self.changed_before and state != "open":
            return False
        rests = self.pipe.rest.token is not None
        return self.outcome in (ConnectionError, CircuitOpenError) and rests is (state == "closed")


def test_fault_021_a_failure_at_rest_against_a_circuit_opened_and_closed() -> None:
    """It counts from the state of affairs in which it was begun."""
    every_order(Changing, Changing.call, Changing.change, holds=Changing.holds)


def test_fault_021_a_token_used_again_is_found_out() -> None:
    """What is begun later would be taken for older than the change."""
    is_found_out(Changing, Changing.call, Changing.reused, holds=Changing.holds)


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

    def stir(self) -> None:
        self.left.open()

    def settle(self) -> None:
        self.right.close()

    def settle_the_other(self) -> None:
        self.left.close()


@without("rest")
def test_one_breaker_stirs_while_another_settles(without: str | None) -> None:
    """The pipeline that both are in is not at rest."""
    check(
        lambda without: Pair(without, keyed=False),
        without,
        Pair.stir,
        Pair.settle,
        holds=lambda scene: scene.pipe.rest.token is None,
        stops=2,
    )


@without("breaker")
def test_one_circuit_of_a_breaker_stirs_while_another_settles(without: str | None) -> None:
    """A breaker with an open circuit keeps its pipelines from rest."""
    check(
        lambda without: Pair(without, keyed=True),
        without,
        Pair.stir,
        Pair.settle,
        holds=lambda scene: scene.pipe.rest.token is None,
    )


@pytest.mark.parametrize("keyed", [False, True])
def test_both_settle(keyed: bool) -> None:
    """When the last circuit has closed, the pipeline is at rest."""
    every_order(
        lambda: Pair(keyed=keyed, both=True),
        Pair.settle_the_other,
        Pair.settle,
        holds=lambda scene: scene.pipe.rest.token is not None,
    )


class Counting(Scene):
    """Circuits that change at once: each change is an epoch of its own."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.before = epochs.now
        self.one: list[int] = []
        self.other: list[int] = []

    def advance(self) -> None:
        self.one = [epochs.advance()]

    def advance_twice(self) -> None:
        self.other = [epochs.advance(), epochs.advance()]

    def holds(self) -> bool:
        given = [number - self.before for number in self.one + self.other]
        return sorted(given) == [1, 2, 3] and epochs.now == self.before + 3


@without("epochs")
def test_fault_021_every_change_is_an_epoch_of_its_own(without: str | None) -> None:
    """None is given out twice, and none goes back."""
    check(Counting, without, Counting.advance, Counting.advance_twice, holds=Counting.holds)


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
    """It is told, or finds out itself."""
    every_order(
        Joining,
        Joining.join,
        Joining.open,
        holds=lambda scene: scene.joined is not None and scene.joined.rest.token is None,
    )


class Fresh(Scene):
    """A keyed breaker that has no circuit yet, for two threads whose calls fail."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.keyed = self.breaker("another", failures=9)
        self.pipe = self.pipeline(self.keyed)

    def call(self) -> None:
        circuit = self.keyed.circuit("new")
        circuit.admit(0.0).failed()

    def hasty(self) -> None:
        """As it must not be: looked for first, put there afterwards."""
        kept = self.keyed._circuits
        if "new" not in kept:
            limits = self.keyed.circuit("another").limits
            kept._keep(Circuit(limits, None, "new", self.hear, kept._stirred, kept._counted))
        kept["new"].admit(0.0).failed()

    def holds(self) -> bool:
        return self.keyed.circuit("new").failures == 2 and self.pipe.rest.token is None


def test_fault_018_the_first_use_of_a_key_makes_one_circuit() -> None:
    """Which counts the calls of both threads."""
    assert every_order(Fresh, Fresh.call, Fresh.call, holds=Fresh.holds) > 1
    is_found_out(Fresh, Fresh.hasty, Fresh.hasty, holds=Fresh.holds)


class Forgotten(Scene):
    """A breaker that keeps one circuit: a call of it fails while another value comes along."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.keyed = self.breaker("old", keep=1, failures=9)
        self.pipe = self.pipeline(self.keyed)
        self.keyed.circuit("old").seen = self.keyed.circuit("old").used

    def call(self) -> None:
        self.keyed.circuit("old").admit(0.0).failed()

    def come(self) -> None:
        self.keyed.circuit("new")
        self.keyed.circuit("old")

    def holds(self) -> bool:
        """The failure is remembered, wherever it was counted."""
        return self.keyed.circuit("old").failures == 1 and self.pipe.rest.token is None


@without("breaker")
def test_a_circuit_forgotten_while_a_call_of_it_fails(without: str | None) -> None:
    """Its failure is not forgotten with it."""
    check(Forgotten, without, Forgotten.call, Forgotten.come, holds=Forgotten.holds)


class Back(Scene):
    """A circuit that was forgotten while a call of it was under way, and another that comes."""

    def __init__(self, without: str | None = None) -> None:
        super().__init__(without)
        self.keyed = self.breaker("old", keep=1, trip=RATE)
        self.held = self.keyed.circuit("old")
        self.permit = self.held.admit(0.0)
        self.held.used = self.held.seen
        self.keyed.circuit("new")
        assert "old" not in self.keyed._circuits

    def end(self) -> None:
        self.permit.failed()

    def come(self) -> None:
        self.keyed.circuit("old")

    def holds(self) -> bool:
        """It is there again, and to be looked at once."""
        kept = self.keyed._circuits
        return kept["old"] is self.held and kept._queue.count("old") == 1


@without("breaker")
def test_a_forgotten_circuit_comes_back_once(without: str | None) -> None:
    """With the end of the one call or with the other's beginning."""
    check(Back, without, Back.end, Back.come, holds=Back.holds)


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
        self.had.append(drive(self.storages.attach(self.one, threads)))

    def holds(self) -> bool:
        return self.made * 2 == self.had


@without("storages")
def test_a_circuit_is_shared_once(without: str | None) -> None:
    """Both have the same to ask."""
    check(Attaching, without, Attaching.attach, Attaching.attach, holds=Attaching.holds)


# Worker threads


class Inbox:
    """A worker's inbox, in which the idle time is over whenever it is empty."""

    def __init__(self) -> None:
        self.jobs: Any = WatchedList()

    def put(self, job: Any) -> None:
        self.jobs.append(job)

    def get(self, timeout: float) -> Any:
        if self.jobs:
            return self.jobs.pop(0)
        raise Empty


class Worker(workers._Worker):
    """A worker that is served by a thread of the test."""

    def __init__(self, pool: Any, first: Any) -> None:
        self.pool = pool
        self.inbox: Any = Inbox()
        self.inbox.put(first)


class Job:
    """A job that counts how often it was run."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self) -> None:
        self.runs += 1


class Works(Scene):
    """A pool whose one worker may be idle too long any moment, and callers that bring a job each.

    A caller who gets a new worker then is that worker's thread.
    """

    def __init__(
        self, without: str | None = None, *, limit: int, pool: Any = workers._Pool
    ) -> None:
        super().__init__(without)
        workers.LIMIT = self.limit = limit
        workers._Worker = self.hire  # type: ignore[assignment,misc]
        workers._pool = self.pool = pool()
        self.idle = Worker(self.pool, Job())
        self.idle.inbox.get(0)
        self.pool._lock = self.lock("pool")
        self.pool._idle = WatchedList([self.idle])
        self.pool._alive = 1
        watch(self.pool, but=["_lock", "_idle"])
        self.jobs = Job(), Job()
        self.hired: dict[Job, Worker] = WatchedDict()
        self.refused: list[Job] = WatchedList()
        self.most = 1

    def hire(self, pool: Any, first: Any) -> Worker:
        """What the pool makes when it wants one more."""
        self.most = max(self.most, self.pool._alive)
        self.hired[first] = worker = Worker(pool, first)
        return worker

    def serve(self) -> None:
        self.idle._serve()

    def first(self) -> None:
        self.call(self.jobs[0])

    def second(self) -> None:
        self.call(self.jobs[1])

    def call(self, job: Any) -> None:
        try:
            self.pool.start(job)
        except WorkersBusyError:
            self.refused.append(job)
        if job in self.hired:
            self.hired[job]._serve()

    def holds(self) -> bool:
        """Each job was run once or refused with all workers taken; in the end none is left."""
        ended = (self.pool._alive, len(self.pool._idle)) == (0, 0)
        counts = [job.runs + self.refused.count(job) for job in self.jobs]
        room = len(self.refused) <= max(0, 2 - self.limit)
        return ended and room and self.most <= self.limit and counts == [1, 1]


class Careless(workers._Pool):
    """Lets go a worker that was given a job a moment ago."""

    def retire(self, worker: Any) -> bool:
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
            self._alive -= 1
            return True


@pytest.mark.parametrize("limit", [1, 2])
def test_fault_106_no_job_is_given_to_a_worker_that_ends(limit: int) -> None:
    """Two callers, a worker that ends or not: every job is run, or refused by name."""
    kinds = every_order(
        lambda: Works(limit=limit), Works.serve, Works.first, Works.second, holds=Works.holds
    )
    assert kinds > 1


def test_fault_106_a_pool_without_its_lock_is_found_out() -> None:
    """The same job twice, a worker too many, a job for nobody: one of these is found."""
    is_found_out(
        lambda: Works("pool", limit=1), Works.serve, Works.first, Works.second, holds=Works.holds
    )


def test_fault_106_a_pool_that_lets_go_too_early_is_found_out() -> None:
    """The job it was given a moment ago is never run."""
    is_found_out(
        lambda: Works(limit=2, pool=Careless),
        Works.serve,
        Works.first,
        Works.second,
        holds=Works.holds,
    )
