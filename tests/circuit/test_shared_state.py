"""What shares circuits in its own way: what a breaker asks it and tells it, and when."""

from __future__ import annotations

from typing import Any

import pybreaker
import pytest

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, Pipeline, Timeout
from resilience.circuit.circuit import Circuit
from resilience.circuit.machine import Permit
from resilience.circuit.states import Change, Ending
from resilience.circuit.storage import Sharing
from resilience.testing import _worlds
from support.circuits import in_tasks, rejected


class Shared:
    """Records what a circuit asks and tells; always has something to publish."""

    def __init__(self, grants: Any = True) -> None:
        self.grants = grants
        self.told: list[Any] = []
        self.asked: list[float] = []

    def share(self, circuit: Circuit, refresh: float) -> Shared:
        self.asked.append(refresh)
        return self

    async def refresh(self, runtime: Any) -> None:
        assert runtime.now() >= 0
        self.told.append("refresh")

    async def claim(self, runtime: Any, permit: Permit) -> bool:
        assert runtime.now() >= 0
        assert permit.trial
        if isinstance(self.grants, BaseException):
            raise self.grants
        self.told.append("claim")
        return bool(self.grants)

    def record(self, permit: Permit, ending: Ending) -> bool:
        assert type(permit) is Permit
        assert ending.now >= permit.began
        failed = ending.failed
        assert (failed is True) == (ending.cause is not None) == (ending.failure is not None)
        self.told.append(("record", failed))
        return failed is not None

    async def publish(self, runtime: Any) -> None:
        assert runtime.now() >= 0
        self.told.append("publish")

    def on_change(self, change: Change) -> None:
        self.told.append((change.old, change.new))


def test_it_is_known_by_what_it_offers() -> None:
    """Anything with `share` serves any number of circuits, keyed or not."""
    assert isinstance(Shared(), Sharing)
    CircuitBreaker(storage=Shared())
    CircuitBreaker(storage=Shared(), key="model")


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("ok", [("record", False), "publish"]),
        (ConnectionError, [("record", True), "publish"]),
        (KeyError, [("record", None)]),
        (KeyboardInterrupt, [("record", None)]),
    ],
)
def test_what_a_circuit_tells_of_a_call(world: World, step: Any, told: Any) -> None:
    """Before each call, and how it ended; what is to be published is published in the
    background."""
    shared = Shared()
    guarded = Pipeline(CircuitBreaker(failures=9, storage=shared, refresh=3)).wrap(
        world.function(step)
    )
    for _ in range(2):
        try:
            world.run(guarded)
        except (Exception, KeyboardInterrupt):
            assert step != "ok"

    assert shared.told == ["refresh", *told] * 2
    assert shared.asked == [3]


def test_a_disabled_circuit_has_nothing_to_tell_of_calls(world: World) -> None:
    """It counts nothing; only the command itself is told."""
    shared = Shared()
    breaker = CircuitBreaker(storage=shared)
    breaker.disable()
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    with pytest.raises(ConnectionError):
        world.run(guarded)
    assert shared.told == [("closed", "disabled"), "refresh"]


@pytest.mark.parametrize("patience", [None, 5])
def test_a_trial_is_made_where_the_others_leave_it_to_us(world: World, patience: Any) -> None:
    """Otherwise the call is rejected, and the slot is free again."""
    shared = Shared(grants=False)
    breaker = CircuitBreaker(reset_after=10, storage=shared, wait_for_trial=patience)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    world.clock.advance(10)
    assert rejected(world, guarded).retry_after == 0
    assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)
    shared.grants = True
    assert world.run(guarded) == "ok"
    assert shared.told[-4:] == [
        "claim",
        ("half-open", "closed"),
        ("record", False),
        "publish",
    ]
    assert world.run(guarded) == "ok"
    assert shared.told[-3:] == ["refresh", ("record", False), "publish"]


def test_rejected_by_others_who_have_closed_it_meanwhile(world: World) -> None:
    """The rejection tells how long the ramp will last."""

    class Closed(Shared):
        async def claim(self, runtime: Any, permit: Permit) -> bool:
            permit.circuit._follow("closed", 0.0, runtime.now())
            return False

    breaker = CircuitBreaker(reset_after=10, storage=Closed(), ramp=20)
    breaker.open()
    world.clock.advance(10)
    with pytest.raises(CircuitOpenError) as caught:
        world.run(Pipeline(breaker).wrap(world.function("ok")))
    assert caught.value.retry_after == 20


@pytest.mark.fault(28)
def test_a_slot_is_not_lost_while_others_are_asked(world: World) -> None:
    """If the call is interrupted there, the next one finds it free."""
    shared = Shared(grants=KeyboardInterrupt())
    breaker = CircuitBreaker(reset_after=10, storage=shared)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    world.clock.advance(10)
    with pytest.raises(KeyboardInterrupt) as held:
        world.run(guarded)
    assert breaker.snapshot().trials == 0
    shared.grants = True
    assert world.run(guarded) == "ok"
    assert held.type is KeyboardInterrupt


@pytest.mark.fault(28)
def test_a_slot_is_not_lost_while_listeners_are_told(world: World) -> None:
    """Ctrl-C in one of them: the others get back what they have granted."""

    class Interrupted(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    shared = Shared()
    breaker = CircuitBreaker(reset_after=10, storage=shared, listeners=[Interrupted()])
    breaker.open()
    world.clock.advance(10)
    with pytest.raises(KeyboardInterrupt) as held:
        world.run(Pipeline(breaker).wrap(world.function("ok")))
    assert shared.told[-2:] == ["claim", ("record", None)]
    assert breaker.snapshot().trials == 0
    assert held.type is KeyboardInterrupt


def test_a_manual_command_before_any_call_is_told() -> None:
    """Whoever gives it may never make a call."""
    shared = Shared()
    breaker = CircuitBreaker(storage=shared, key="model")
    breaker.circuit("m").isolate()
    assert shared.told == [("closed", "isolated")]


@in_tasks
@pytest.mark.parametrize(
    ("half_open", "told"),
    [
        (False, [("record", False), "publish", "refresh"]),
        (True, ["claim", ("record", False), "publish", "refresh"]),
    ],
)
def test_a_call_that_may_not_wait_is_told_of_afterwards(
    world: World, half_open: bool, told: list[Any]
) -> None:
    """A sync function not yet known, called in an event loop: nobody is asked before it; all that
    is made up for in the background."""
    shared = Shared()
    breaker = CircuitBreaker(reset_after=10, storage=shared, successes=2)
    if half_open:
        breaker.open()
        world.clock.advance(10)

    async def main() -> None:
        assert Pipeline(breaker).call(lambda: "ok") == "ok"

    world.run(main)
    assert [each for each in shared.told if each not in CHANGES] == told


@in_tasks
@pytest.mark.parametrize("half_open", [False, True])
def test_a_call_that_may_not_wait_and_has_no_verdict(world: World, half_open: bool) -> None:
    """The others are looked at all the same, and are not asked for a slot."""
    shared = Shared()
    breaker = CircuitBreaker(reset_after=10, storage=shared)
    if half_open:
        breaker.open()
        world.clock.advance(10)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            Pipeline(breaker).call(lambda: 1 / 0)

    world.run(main)
    assert [each for each in shared.told if each not in CHANGES] == [("record", None), "refresh"]


@in_tasks
@pytest.mark.parametrize("half_open", [False, True])
def test_without_a_thread_calls_that_may_not_wait_are_told_of_with_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch, half_open: bool
) -> None:
    """By that call, before it is admitted."""
    shared = Shared()
    breaker = CircuitBreaker(reset_after=10, storage=shared, successes=3)
    if half_open:
        breaker.open()
        world.clock.advance(10)

    async def main() -> None:
        for _ in range(2):
            assert Pipeline(breaker).call(lambda: "ok") == "ok"

    async def fine() -> str:
        return "fine"

    with monkeypatch.context() as patch:
        patch.setattr(_worlds._Virtual, "background", lambda self, job: None)
        world.run(main)
    assert [each for each in shared.told if each not in CHANGES] == []
    assert world.run(Pipeline(breaker).wrap(fine)) == "fine"
    claim = ["claim"] if half_open else []
    told = [*[*claim, ("record", False), "publish", "refresh"] * 2, "refresh"]
    assert [each for each in shared.told if each not in CHANGES][: len(told)] == told


@in_tasks
def test_a_call_with_a_time_limit_leaves_the_telling_to_a_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync one, where calls that could not wait have left something: it might take too long."""
    shared = Shared()
    breaker = CircuitBreaker(storage=shared)
    jobs: list[Any] = []
    monkeypatch.setattr(_worlds._Virtual, "background", lambda self, job: jobs.append(job))

    async def main() -> None:
        assert Pipeline(breaker).call(lambda: "ok") == "ok"

    world.run(main)
    jobs.clear()
    assert Pipeline(Timeout(5), breaker, Timeout(4)).call(lambda: "fine") == "fine"
    assert shared.told == ["refresh", ("record", False)]
    assert len(jobs) == 2


CHANGES = [("closed", "open"), ("open", "half-open")]
