"""A signal handler or a finalizer may arrive between any two steps of ours, in the same thread:
what it does to a circuit is neither lost nor undone, and rest goes by the state in the end."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pybreaker
import pytest

import resilience
from resilience import CircuitBreaker, CircuitOpenError, FailureRate, Pipeline
from resilience._core.idle import epochs
from resilience._core.locks import new_lock
from resilience.circuit import machine
from resilience.testing import virtual_time
from support.arriving import Arrival, at_the_end_of_a_with, interrupt
from support.arriving import arriving as arriving_in
from support.circuits import Recorder, admit, rests, slots_of

HOME = Path(resilience.__file__).parent
OURS = {
    str(path)
    for path in [
        *(HOME / "circuit").glob("*.py"),
        HOME / "policies" / "breaker.py",
        HOME / "policy.py",
        HOME / "_core" / "idle.py",
    ]
}


arriving = partial(arriving_in, files=OURS)


class Scene:
    """A circuit about to change, a call that changes it, and what its listener hears."""

    def __init__(self, before: str, well: bool, *, keyed: bool, rates: bool, ramp: bool) -> None:
        self.listener = Recorder()
        enough = 2 if before == "closed" and well else 1
        options: dict[str, Any] = {"failures": enough}
        if rates:
            options = {"trip": FailureRate(1, calls=enough, minimum=enough)}
        self.breaker = CircuitBreaker(
            reset_after=1e-9,
            key="key" if keyed else None,
            ramp=1e-9 if ramp else None,
            listeners=[self.listener],
            **options,
        )
        self.circuit = self.breaker.circuit("a") if keyed else self.breaker._only
        self.pipeline = Pipeline(self.breaker)
        self.guarded = self.pipeline.wrap(self.body)
        self.well = well
        self.rates = rates
        self.made = 0
        if before == "half-open":  # with the call, which is the trial
            self.circuit.open()
        elif well:
            self.fail()
        self.made = 0

    def body(self, key: str, well: bool) -> str:
        self.made += 1
        if not well:
            raise ConnectionError
        return key

    def call(self, well: bool | None = None) -> None:
        try:
            self.guarded("a", self.well if well is None else well)
        except (ConnectionError, CircuitOpenError):
            pass

    def fail(self) -> None:
        self.call(well=False)

    def check(self) -> None:
        """State and rest belong together; everything was published, in order; nothing is held."""
        circuit = self.circuit
        if self.breaker.key is not None:
            self.breaker.circuit("other")  # ends a ramp whose time is over
        assert rests(self.pipeline) is circuit._idle
        assert circuit._idle is (circuit.state == "closed" and (self.rates or not circuit.failures))
        assert slots_of(circuit) == []
        assert (circuit._inbox, circuit._outbox) == ([], [])
        assert not circuit._lock._is_owned()
        assert [old for old, _ in self.listener.changes] == [
            "closed",
            *(new for _, new in self.listener.changes[:-1]),
        ][: len(self.listener.changes)]
        assert (self.listener.changes or [("", "closed")])[-1][1] == circuit.state


changes = pytest.mark.parametrize(
    ("before", "well"),
    [
        pytest.param("closed", True, id="closed, counting"),
        pytest.param("closed", False, id="closed to open"),
        pytest.param("half-open", True, id="half-open to closed"),
        pytest.param("half-open", False, id="half-open to open"),
    ],
)
kinds = pytest.mark.parametrize(
    "kind",
    [
        {"keyed": False, "rates": False, "ramp": False},
        {"keyed": True, "rates": True, "ramp": True},
    ],
    ids=["plain", "keyed with rates and ramp"],
)


def at_every_step(
    before: str, well: bool, kind: dict[str, bool], act: Callable[[Scene], Callable[[], None]]
) -> None:
    """Have a handler act at each step in turn, and what `act` gives back check it in the end."""
    for step in count(1):
        scene = Scene(before, well, **kind)
        checks: list[Callable[[], None]] = []
        if not arriving(partial(_have, checks, act, scene), step, scene.call):
            assert step > 20
            return
        scene.check()
        (check,) = checks
        check()
        scene.check()


def _have(found: list[Any], act: Callable[..., Any], *args: Any) -> None:
    """Do it, and keep what comes of it."""
    found.append(act(*args))


@changes
@kinds
@pytest.mark.fault(28, 200)
def test_an_isolation_at_any_step_is_neither_lost_nor_unreleasable(
    before: str, well: bool, kind: dict[str, bool]
) -> None:
    """It holds, whatever was being changed, until it is released."""

    def isolate(scene: Scene) -> Callable[[], None]:
        hold = scene.circuit.isolate()

        def check() -> None:
            assert scene.circuit.state == "isolated"
            made = scene.made
            scene.call()
            assert scene.made == made
            hold.release()
            assert scene.circuit.state == "closed"

        return check

    at_every_step(before, well, kind, isolate)


@pytest.mark.fault(200)
@pytest.mark.parametrize("way", ["admitted", "rejected", "waiting", "snapshot"])
def test_an_isolation_at_any_step_of_what_changes_nothing(way: str) -> None:
    """A call that is admitted, or rejected, or waits beyond the trials, and a look at the circuit:
    no change follows that would bring the isolation along."""
    for step in count(1):
        patience = 1e-9 if way == "waiting" else None
        breaker = CircuitBreaker(reset_after=1e-9, wait_for_trial=patience)
        pipeline = Pipeline(breaker)
        call: Callable[[], object] = partial(pipeline.outcome, int)
        if way != "admitted":
            breaker.open()
        trial = admit(breaker._only)
        call: Callable[[], object] = partial(pipeline.outcome, int)
        if way == "snapshot":
            call = breaker.snapshot
        elif way == "admitted":
            call = partial(_admit, breaker)
        holds: list[Any] = []
        if not arriving(partial(_have, holds, breaker.isolate), step, call):
            assert step > 20
            return
        assert breaker.state == "isolated", step
        trial.succeed()
        holds[0].release()
        assert breaker.state == "closed"
        assert rests(pipeline)
        assert breaker._only._waiting == []


@changes
@kinds
@pytest.mark.fault(28, 200)
@pytest.mark.parametrize("leaving", [False, True], ids=["taken", "released"])
def test_an_isolation_whenever_a_call_locks_the_circuit(
    before: str, well: bool, kind: dict[str, bool], leaving: bool
) -> None:
    """It is done as soon as the lock is free: in that call, and not with the next one."""
    for nth in count(1):
        scene = Scene(before, well, **kind)
        scene.circuit._lock = lock = Arrival(
            scene.circuit._lock, scene.circuit.isolate, nth, leaving=leaving
        )
        scene.call()
        scene.circuit._lock = lock.lock
        if lock.left > 0:
            assert nth > 1
            return
        assert scene.circuit.state == "isolated"
        scene.check()


@pytest.mark.fault(200)
@pytest.mark.parametrize("way", ["admitted", "rejected", "waiting"])
def test_an_isolation_whenever_one_that_changes_nothing_locks_the_circuit(way: str) -> None:
    """A call that is admitted, rejected, or waits for a trial's verdict."""
    for nth in count(1):
        patience = 1e-9 if way == "waiting" else None
        rate = FailureRate(1, calls=2, minimum=2)  # a call is admitted by the lock
        breaker = CircuitBreaker(trip=rate, reset_after=1e-9, wait_for_trial=patience)
        pipeline = Pipeline(breaker, listeners=[lambda event: None])
        circuit = breaker._only
        if way != "admitted":
            breaker.open()
        trial = admit(circuit)
        circuit._lock = lock = Arrival(circuit._lock, breaker.isolate, nth, leaving=False)
        pipeline.outcome(int)
        circuit._lock = lock.lock
        if lock.left > 0:
            assert nth > 1
            return
        assert breaker.state == "isolated"
        assert circuit._inbox == []
        trial.succeed()
        assert breaker.state == "isolated"


@pytest.mark.fault(28, 200)
def test_a_circuit_that_a_handler_asks_for_while_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is one of it, and both have that one."""
    breaker = CircuitBreaker(key="key")
    had: list[Any] = []

    def lock() -> Any:
        monkeypatch.undo()
        had.append(breaker.circuit("a"))
        return new_lock()

    monkeypatch.setattr(machine, "new_lock", lock)
    assert breaker.circuit("a") is had[0]
    assert breaker.circuits() == {"a": had[0]}


@pytest.mark.fault(28, 200)
def test_a_circuit_that_a_handler_opens_while_it_is_forgotten() -> None:
    """It stays, and is forgotten later as any other."""
    with virtual_time() as clock:
        breaker = CircuitBreaker(key="key", forget_after=10)
        pipeline = Pipeline(breaker)
        kept = breaker.circuit("a")
        clock.advance(20)
        idle: Any = pipeline._idle
        act = lambda: breaker.circuit("a").open()  # noqa: E731
        idle._lock = lock = Arrival(idle._lock, act, 1, leaving=False)
        breaker.circuit("b")
        idle._lock = lock.lock
        assert lock.left <= 0
        assert breaker.circuits()["a"] is kept
        assert kept.state == "open"
        kept.close()
        for name in range(5):
            clock.advance(20)
            breaker.circuit(name)
        assert "a" not in breaker.circuits()


@pytest.mark.fault(28, 200)
def test_a_ramp_that_a_handler_finds_over_while_a_call_locks_its_circuit() -> None:
    """It ends as soon as the lock is free."""
    for nth in count(1):
        scene = Scene("half-open", True, keyed=True, rates=True, ramp=True)
        other = partial(scene.breaker.circuit, "other")
        scene.circuit._lock = lock = Arrival(scene.circuit._lock, other, nth, leaving=False)
        scene.call()
        scene.circuit._lock = lock.lock
        assert scene.circuit.state == "closed"
        if lock.left > 0:
            assert nth > 1
            return
        scene.check()


@changes
@kinds
@pytest.mark.fault(28, 200)
def test_an_opening_at_any_step_holds(before: str, well: bool, kind: dict[str, bool]) -> None:
    """The call under way then is a late one; one that begins after it is a trial of its own."""

    def open_(scene: Scene) -> Callable[[], None]:
        made = scene.made
        scene.circuit.open()

        def check() -> None:
            if made:
                assert scene.circuit.state == "open"
            scene.circuit.close()

        return check

    at_every_step(before, well, kind, open_)


@changes
@kinds
@pytest.mark.fault(28, 200)
@pytest.mark.parametrize("command", ["close", "fail"])
def test_state_and_rest_stay_together_at_any_step(
    before: str, well: bool, kind: dict[str, bool], command: str
) -> None:
    """A handler that closes the circuit, or whose own call through it fails, whatever the circuit
    is then."""

    def act(scene: Scene) -> Callable[[], None]:
        scene.fail() if command == "fail" else scene.circuit.close()
        return scene.circuit.close

    at_every_step(before, well, kind, act)


@pytest.mark.fault(200)
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"failures": 2}, {"trip": FailureRate(1, calls=2, minimum=2)}],
    ids=["in a row", "rate"],
)
def test_no_failure_is_lost_at_any_step(keyed: bool, options: dict[str, Any]) -> None:
    """A handler's call fails while another's failure is being counted: the second of the two opens
    the circuit."""
    for step in count(1):
        breaker = CircuitBreaker(reset_after=1e6, key="key" if keyed else None, **options)
        pipeline = Pipeline(breaker)
        call = partial(pipeline.outcome, _down, "a")
        if not arriving(call, step, call):
            assert step > 100
            return
        circuit = breaker.circuit("a") if keyed else breaker._only
        assert circuit.state == "open", step
        assert not rests(pipeline)


@pytest.mark.fault(200)
def test_no_failure_is_left_unwritten_at_any_step() -> None:
    """A handler's call fails while another's failure is being written to a storage: whoever writes
    looks again before it ends."""
    for step in count(1):
        storage = pybreaker.CircuitMemoryStorage("closed")
        pipeline = Pipeline(CircuitBreaker(failures=9, storage=storage))
        call = partial(pipeline.outcome, _down, "a")
        with virtual_time():  # what is done in the background is done at once
            if not arriving(call, step, call):
                assert step > 100
                return
        assert storage.counter == 2, step


def _admit(breaker: CircuitBreaker) -> None:
    with contextlib.suppress(CircuitOpenError):
        admit(breaker._only)


def _down(key: str) -> None:
    raise ConnectionError


# Ctrl-C


@pytest.mark.fault(28)
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # one that was just to be awaited
@pytest.mark.parametrize("well", [True, False])
@kinds
def test_ctrl_c_at_any_step_of_a_trial_frees_its_slot(
    monkeypatch: pytest.MonkeyPatch, well: bool, kind: dict[str, bool]
) -> None:
    """The interrupt comes out, and once nobody looks at it any more the next call is a trial."""
    # The only lock that others share. Here, unlike in life, an interrupt may come between the end
    # of a `with` and the release of its lock; where it was the circuit's, there is no more to see.
    monkeypatch.setattr(epochs, "_lock", new_lock())
    for step in count(1):
        scene = Scene("half-open", well, **kind)
        try:
            if not arriving(interrupt, step, scene.call):
                assert step > 100
                return
        except KeyboardInterrupt as problem:
            if scene.circuit._lock._is_owned() and at_the_end_of_a_with(problem):
                continue
        assert not scene.circuit._lock._is_owned(), step
        if sys.version_info < (3, 11):
            gc.collect()  # traced frames have copies of their locals: an error and itself
        assert scene.circuit.snapshot().trials == 0
        scene.call(well=True)
        assert scene.circuit.state == "closed", step
        scene.circuit.close()
        assert rests(scene.pipeline)
        scene.circuit.open()
        assert scene.listener.changes[-1] == ("closed", "open")
