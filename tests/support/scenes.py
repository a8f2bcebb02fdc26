"""Scenes for `interleaving`: circuits, pipelines and what they share, made anew for each order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest

from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience._core import idle, locks
from resilience._core.idle import Epochs, Idle, epochs
from resilience.circuit.circuit import Circuit
from resilience.circuit.machine import Permit
from resilience.circuit.registry import Circuits
from resilience.circuit.states import Change, Closed, HalfOpen, Isolated, Open
from support.interleaving import (
    Broken,
    Lock,
    NoLock,
    WatchedDict,
    WatchedList,
    every_order,
    orders,
    watch,
    watch_slots,
)

__all__ = ["Scene", "check", "fail", "is_found_out", "watchable", "watched_circuits"]
__all__ += ["stopped_twice", "watched_rest", "without"]

CIRCUITS = {Circuit: {"_state", "_waiting", "_publishing"}, Closed: {"run", "ramp"}}
CIRCUITS |= {Open: {"until", "asked"}, HalfOpen: {"slots", "passed", "failed"}}
CIRCUITS |= {Isolated: {"holds"}}
"""What is written in a circuit and its states, but for what is only shown to people. Whether a
change is being made is only looked at by the thread that makes it."""
RESTING = {Circuit: {"_state"}, Closed: {"run", "ramp"}, Idle: {"period", "_version"}}
RESTING |= {Circuits: {"_idles"}}
"""What is written that tells whether calls may be at rest."""


@pytest.fixture
def watchable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All new locks can be watched; what there is only one of is put back."""
    with pytest.raises(ConnectionError):  # what a first failure imports is imported
        Pipeline(CircuitBreaker()).call(fail)
    monkeypatch.setattr(locks, "threading", SimpleNamespace(RLock=Lock))
    monkeypatch.setattr(locks, "_locks", WeakSet())
    monkeypatch.setattr(epochs, "_lock", epochs._lock)
    yield
    epochs.__class__ = Epochs


@pytest.fixture
def watched_circuits(watchable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All circuits are watched: their states, and what is queued in them. What tells whether calls
    may be at rest is not."""
    monkeypatch.setattr(idle, "new_lock", threading.RLock)
    for cls, names in CIRCUITS.items():
        _watch(monkeypatch, cls, names)
    make = Circuit.__init__

    def made(self: Circuit, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self._inbox, self._outbox = WatchedList(), WatchedList()
        self._waiting = WatchedList()

    monkeypatch.setattr(Circuit, "__init__", made)


@pytest.fixture
def watched_rest(watchable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells whether calls may be at rest is watched, and the circuits of a breaker."""
    for cls, names in RESTING.items():
        _watch(monkeypatch, cls, names)
    make = Circuits.__init__

    def made(self: Circuits, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self._restless, self._ramping = WatchedDict(), WatchedDict()
        self._all = WatchedDict()
        self.find = self._all.get

    monkeypatch.setattr(Circuits, "__init__", made)


def _watch(patch: pytest.MonkeyPatch, cls: type, names: set[str]) -> None:
    slots = {name for each in cls.__mro__ for name in getattr(each, "__slots__", ())}
    watch_slots(patch, cls, *sorted(names & slots))


def fail() -> None:
    raise ConnectionError


def is_found_out(
    make: Callable[[], Any], *threads: Any, holds: Callable[[Any], bool], stops: int = 1
) -> None:
    """An order that breaks it is found among those that stop a running thread a few times."""
    with pytest.raises(Broken):
        orders(make, *threads, holds=holds, stops=stops)


def stopped_twice(make: Callable[[], Any], *threads: Any, holds: Callable[[Any], bool]) -> None:
    """It holds in all orders in which a running thread is stopped twice at most.

    Where much is looked at without a lock, there are too many kinds of orders to try them all.
    """
    assert orders(make, *threads, holds=holds, stops=2) > 1


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


class _Calling:
    """A call and its runtime, as far as a circuit looks at them. It is made at second 1."""

    def __init__(self) -> None:
        self.journal = object()

    def is_inside(self, journal: object) -> bool:
        return journal is self.journal

    def now(self) -> float:
        return 1.0

    def random(self) -> float:
        return 0.0


class Scene:
    """What the threads of one run share."""

    epochs = True
    """Whether the count of changes is watched, too."""

    def __init__(self, without: str | None = None) -> None:
        self.without = without
        epochs.__class__ = Epochs
        epochs._lock = self.lock("epochs")
        if self.epochs:
            watch(epochs, but=["_lock"])
        self.published: list[tuple[str, str]] = WatchedList()

    def lock(self, name: str) -> Any:
        return NoLock() if name == self.without else Lock()

    def breaker(self, *keys: str, **options: Any) -> CircuitBreaker:
        """A breaker with its circuits, without one of its locks perhaps."""
        options.setdefault("reset_after", 60)
        breaker = CircuitBreaker(key="key" if keys else None, **options)
        kept = breaker._circuits
        kept._lock = self.lock("breaker")
        kept.publish = self.receive
        for circuit in [breaker.circuit(key) for key in keys] or [breaker._only]:
            circuit._lock = self.lock("circuit")
        return breaker

    def pipeline(self, *breakers: CircuitBreaker) -> Pipeline:
        return Pipeline(*breakers)

    def receive(self, circuit: Circuit, change: Change) -> None:
        if change.old != change.new:  # else it concerns only those who share the circuit
            self.published.append((change.old, change.new))

    # What calls do to a circuit

    def admit(self, circuit: Circuit) -> Permit | None:
        """A permit, or None for a rejected call."""
        calling: Any = _Calling()
        return circuit._admit(calling, calling)

    def settle(self, permit: Permit | None, failed: bool | None) -> None:
        """The call has ended: well, badly, or without a verdict."""
        if permit is not None:
            permit.circuit._settle(permit, failed, 1.0)

    def fail_once(self, circuit: Circuit) -> None:
        """A call that fails, from its beginning to its end."""
        self.settle(self.admit(circuit), True)

    def expire(self, circuit: Circuit) -> None:
        """Let the open time pass."""
        state = circuit._state
        if type(state) is Open:
            state.until = 0.0

    def error_of(self, fn: Callable[..., Any], *args: Any) -> type[Exception] | None:
        """What comes out of a guarded call."""
        try:
            fn(*args)
        except (ConnectionError, CircuitOpenError) as error:
            return type(error)
        return None
