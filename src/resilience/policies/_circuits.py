"""The circuits of one breaker: made where first needed, and forgotten when long idle.

Closed ones are forgotten, and such as nobody tries although their open time is over. One that
somebody still holds (a call under way, a caller of `circuit(value)`) is found again as long as it
is held, so a value never has two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, ItemsView, ValuesView
from weakref import WeakSet, WeakValueDictionary

from resilience._core.locks import new_lock
from resilience._core.rest import Rest
from resilience._core.world import now as world_now

from ._circuit import Circuit
from ._limits import Limits
from ._states import Change

__all__ = ["Circuits"]

_LOOKED_AT = 2  # circuits that may be forgotten whenever one is made: two out for one in


class Circuits:
    """Safe from any thread. Its lock is for making, forgetting and resting, not for calls."""

    __slots__ = (
        "_all",
        "_changed",
        "_counted",
        "_floor",
        "_forget_after",
        "_limits",
        "_lock",
        "_most",
        "_name",
        "_parted",
        "_queue",
        "_ramping",
        "_resting",
        "_stirred",
        "find",
        "restless",
    )

    def __init__(
        self,
        limits: Limits,
        name: str | None,
        most: int,
        forget_after: float,
        changed: Callable[[Circuit, Change], None],
    ) -> None:
        self._limits = limits
        self._name = name
        self._most = most
        self._forget_after = forget_after
        self._changed = changed
        # One bound method for all: each access would make another.
        self._stirred: Callable[[Circuit, bool], None] = self._on_stirred
        self._counted: Callable[[Circuit], None] = self._on_counted
        self._lock = new_lock()
        self._all: dict[Hashable, Circuit] = {}
        self.find = self._all.get
        """The circuit for a value, if there is one; as `at`, for less."""
        self._parted: WeakValueDictionary[Hashable, Circuit] = WeakValueDictionary()
        self._queue: deque[Hashable] = deque()  # the values of all, those to be looked at first
        self._ramping: dict[Circuit, float] = {}  # just closed; until when, those that end first
        self._resting: WeakSet[Rest] = WeakSet()
        self._floor = 0  # no forgotten circuit has changed state after this epoch
        self.restless: set[int] = set()
        """Circuits that are not closed and clean."""

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, value: object) -> bool:
        return value in self._all

    def __getitem__(self, value: Hashable) -> Circuit:
        return self._all[value]

    def values(self) -> ValuesView[Circuit]:
        return self._all.values()

    def items(self) -> ItemsView[Hashable, Circuit]:
        return self._all.items()

    def at(self, value: Hashable) -> Circuit:
        """The circuit for one value of the key."""
        if self._ramping:
            self._end_ramps()
        try:
            circuit = self._all.get(value)
        except TypeError:
            raise TypeError(f"key must be hashable, got a {type(value).__name__}") from None
        return circuit if circuit is not None else self._made(value)

    def _made(self, value: Hashable) -> Circuit:
        with self._lock:
            circuit = self._all.get(value)
            if circuit is None:
                circuit = self._parted.pop(value, None)
            if circuit is None:
                circuit = Circuit(
                    self._limits, self._name, value, self._changed, self._stirred, self._counted
                )
                # Answers to calls begun before its predecessor's last change change nothing.
                circuit._since = self._floor
            if value not in self._all:
                self._keep(circuit)
                self._forget(circuit)
            return circuit

    def _keep(self, circuit: Circuit) -> None:
        circuit.used = circuit.seen = world_now()
        self._all[circuit.key] = circuit
        self._queue.append(circuit.key)
        if not circuit.calm:
            self._note(circuit, calm=False)

    def _forget(self, fresh: Circuit) -> None:
        """Let go of circuits that nobody has used for long, or that are too many.

        The oldest are looked at in turn; one that was used since is put last.
        """
        now = world_now()
        for _ in range(_LOOKED_AT):
            value = self._queue.popleft()
            circuit = self._all[value]
            crowded = len(self._all) > self._most and circuit.used == circuit.seen
            if circuit is not fresh and circuit.forgettable(
                now, self._forget_after, crowded=crowded
            ):
                del self._all[value]
                self._floor = max(self._floor, circuit._since)
                self._parted[value] = circuit  # gone at once unless somebody holds it
                self._note(circuit, calm=True)
                if crowded and len(self._all) <= self._most:
                    return  # the next one stays the oldest
            else:
                circuit.seen = circuit.used
                self._queue.append(value)

    # Rest

    def watch(self, rest: Rest) -> None:
        """Tell `rest` when a circuit ceases to be calm, and when all are again."""
        with self._lock:
            self._resting.add(rest)
            if self.restless:
                rest.stir(self)

    def _on_stirred(self, circuit: Circuit, calm: bool) -> None:
        with self._lock:
            self._on_counted(circuit)
            self._note(circuit, calm=calm)

    def _on_counted(self, circuit: Circuit) -> None:
        """A call of one that was forgotten meanwhile has ended: it is kept again."""
        if self._all.get(circuit.key) is not circuit:
            with self._lock:
                if circuit.key not in self._all:
                    self._keep(circuit)

    def _end_ramps(self) -> None:
        """Let circuits come to rest whose time after closing is over, whether they are called
        again or not."""
        now = world_now()
        over: list[Circuit] = []
        with self._lock:
            for circuit, end in self._ramping.items():
                if end > now:
                    break
                over.append(circuit)
            for circuit in over:
                del self._ramping[circuit]
        for circuit in over:
            circuit.end_ramp(now)  # takes the circuit's lock: never within ours

    def _note(self, circuit: Circuit, *, calm: bool) -> None:
        ramp = circuit.ramp
        if ramp is not None and self._ramping.get(circuit) != ramp:
            self._ramping.pop(circuit, None)
            self._ramping[circuit] = ramp
        before = bool(self.restless)
        (self.restless.discard if calm else self.restless.add)(id(circuit))
        for rest in list(self._resting):
            if self.restless and not before:
                rest.stir(self)
            elif not self.restless:
                rest.settle(self)  # a new token: what was noted before is out of date
