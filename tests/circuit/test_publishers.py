"""What is told to others: all of it, one thing at a time, and also at the end of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field

from resilience._core.outside import drive, sync_runtime
from resilience.circuit.machine import Holder, Permit
from resilience.circuit.states import Change, Ending
from resilience.circuit.storage import SharedState
from resilience.policy import Runtime
from resilience.testing import virtual_time
from support.circuits import Told


@define(eq=False)
class Telling(SharedState):
    """Tells what is `left`, but not sooner than `every` seconds after it was last asked."""

    left: list[str] = field(factory=list, init=False)
    told: list[str] = field(factory=list, init=False)
    meanwhile: Callable[[], Any] = field(default=lambda: None, init=False)

    reachable = True

    @property
    def unpublished(self) -> bool:
        return bool(self.left)

    def _is_due(self, now: float) -> bool:
        return self.unpublished and self._is_time(now)

    async def _publish_next(self, runtime: Runtime, holder: Holder) -> bool:
        self._asked = runtime.now()
        self.told.append(self.left[0])
        self.meanwhile()
        return self.left.pop(0) != "fails"

    def record(self, permit: Permit, ending: Ending) -> bool:
        return False

    def on_change(self, change: Change) -> None: ...


def telling(*left: str, every: float = 0.0) -> Telling:
    found = Telling(Told().circuit, every)
    found.left.extend(left)
    return found


@pytest.mark.parametrize(
    ("left", "told"),
    [((), []), (("a", "b", "c"), ["a", "b", "c"]), (("a", "fails", "c"), ["a", "fails"])],
)
def test_a_call_publishes_all_that_is_left(left: tuple[str, ...], told: list[str]) -> None:
    """Where that fails, the rest is left to a later call."""
    with virtual_time():
        shared = telling(*left)
        drive(shared.refresh(sync_runtime()))
    assert shared.told == told


def test_one_thread_at_a_time_publishes() -> None:
    """What others have to tell meanwhile is told by it, too."""

    def meanwhile() -> None:
        if shared.told == ["a"]:
            shared.left.append("b")
        drive(shared.publish(sync_runtime()))

    with virtual_time():
        shared = telling("a")
        shared.meanwhile = meanwhile
        drive(shared.publish(sync_runtime()))
    assert shared.told == ["a", "b"]


def test_at_the_end_of_the_program_what_is_left_is_published() -> None:
    """Although the others were asked just now; and nobody is waited for."""
    with virtual_time(start=0.0) as clock:
        shared = telling("a", every=60)
        drive(shared.publish(sync_runtime()))
        shared.left.append("b")
        drive(shared.publish(sync_runtime()))
        assert shared.told == ["a"]
        drive(shared._finish(sync_runtime(), 1.0))
        assert shared.told == ["a", "b"]
        assert clock.now() == 0


def test_at_the_end_of_the_program_whoever_publishes_gets_a_second() -> None:
    """Nobody else tells what is left."""
    with virtual_time(start=0.0) as clock:
        shared = telling("a")
        holder = shared._begin_publishing(clock.now())
        drive(shared._finish(sync_runtime(), 1.0))
        assert holder is not None
        assert 1 <= clock.now() < 1.005
        assert shared.told == []
