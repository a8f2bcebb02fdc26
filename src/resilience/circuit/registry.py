"""The circuits of one breaker: made where first needed, and forgotten when long idle.

Closed ones are forgotten, and those that nobody tries although their open time is over. One that
somebody still holds (a call under way, a caller of `circuit(value)`) is found again as long as it
is held, so a value never has two.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any
from weakref import WeakValueDictionary, ref

from resilience._core.clock import now as clock_now
from resilience._core.locks import new_lock
from resilience.policy import Emitters, Idle

from .circuit import Circuit
from .limits import Limits
from .states import Change, Closed, HalfOpen, Open

__all__ = ["Circuits"]

_LOOKED_AT = 2  # circuits that may be forgotten whenever one is made: two out for one in


class Circuits:
    """Safe from any thread. Its lock is for making and forgetting circuits, not for calls."""

    __slots__ = (
        "__weakref__",
        "_all",
        "_floor",
        "_forget_after",
        "_forgotten",
        "_idles",
        "_lock",
        "_most",
        "_queue",
        "_ramping",
        "_restless",
        "audience",
        "find",
        "limits",
        "name",
        "publish",
    )

    def __init__(
        self,
        limits: Limits,
        name: str | None,
        most: int,
        forget_after: float,
        publish: Callable[[Circuit, Change], None],
        audience: Emitters | None,
    ) -> None:
        self.limits = limits
        self.name = name
        self._most = most
        self._forget_after = forget_after
        self.publish: Any = publish  # typed, it would be taken for a method
        """Tells everybody of a change of state."""
        self.audience = audience
        self._lock: Any = new_lock()
        self._all: dict[Hashable, Circuit] = {}
        self.find: Callable[[Hashable], Circuit | None] = self._all.get
        """The circuit for a value, if there is one."""
        self._forgotten: WeakValueDictionary[Hashable, Circuit] = WeakValueDictionary()
        self._queue: deque[Hashable] = deque()  # of all; to be looked at first
        self._floor = 0  # no forgotten one has changed after this epoch
        # Those that may keep calls from being at rest.
        self._restless: dict[Circuit, None] = {}
        # Those just closed; until when, those that end first.
        self._ramping: dict[Circuit, float] = {}
        self._idles: tuple[ref[Any], ...] = ()  # of pipelines

    def all(self) -> dict[Hashable, Circuit]:
        """Those that exist, by the value of the key."""
        with self._lock:
            return dict(self._all)

    def at(self, value: Hashable) -> Circuit:
        """The circuit for one value of the key."""
        if self._ramping:
            self._end_ramps()
        try:
            circuit = self._all.get(value)
        except TypeError:
            raise TypeError(f"key must be hashable, got {type(value).__name__}") from None
        return circuit if circuit is not None else self._made(value)

    def _made(self, value: Hashable) -> Circuit:
        with self._lock:
            circuit = self._all.get(value)
            if circuit is not None:
                return circuit
            circuit = self._forgotten.get(value)
            if circuit is None:
                # Answers to calls begun before its predecessor's last change change nothing.
                circuit = Circuit(self, value)
                circuit._state.epoch = self._floor
            circuit = self._keep(circuit)
            self._forget(circuit)
            return circuit

    def _keep(self, circuit: Circuit) -> Circuit:
        """Keep a circuit, or the one that a handler of this thread has made in the meantime."""
        circuit._used = circuit._seen = clock_now()
        kept = self._all.setdefault(circuit.key, circuit)
        if kept is circuit:
            self._queue.append(circuit.key)
            self._forgotten.pop(circuit.key, None)
            if not circuit._idle:
                self.update(circuit)
        return kept

    def _forget(self, fresh: Circuit) -> None:
        """Let go of circuits that nobody has used for long, or that are too many.

        The oldest are looked at in turn; one that was used since is put last.
        """
        now = clock_now()
        for _ in range(_LOOKED_AT):
            circuit = self._all.get(self._queue.popleft())
            if circuit is None:
                continue
            crowded = len(self._all) > self._most and circuit._used == circuit._seen
            idle = 0.0 if crowded else self._forget_after
            if circuit is fresh or not _may_go(circuit, now, idle, crowded=crowded):
                circuit._seen = circuit._used
                self._queue.append(circuit.key)
                continue
            self._let_go(circuit)
            if not _may_go(circuit, now, idle, crowded=crowded):  # it has changed in this moment
                self._keep(circuit)
            elif crowded and len(self._all) <= self._most:
                return  # the next one stays the oldest

    def _let_go(self, circuit: Circuit) -> None:
        state = circuit._state
        self._floor = max(self._floor, state.epoch)
        if type(state) is Closed:
            state.permit = None  # which leads back to the circuit
        self._forgotten[circuit.key] = circuit  # gone at once unless somebody holds it
        self._all.pop(circuit.key, None)
        self._restless.pop(circuit, None)
        self._ramping.pop(circuit, None)
        self._notify_idles()

    # For pipelines

    def watch(self, idle: Idle) -> None:
        """Tell `idle` of changes of `busy`."""
        with self._lock:
            alive = (each for each in self._idles if each() is not None)
            self._idles = (*alive, ref(idle))

    def busy(self) -> bool:
        """Whether a circuit is not closed and clean."""
        while self._restless:
            circuit = _first(self._restless)
            if circuit is not None and self._is_restless(circuit):
                return True
        return False

    def _is_restless(self, circuit: Circuit) -> bool:
        """Whether a circuit keeps calls from being at rest; it is in `_restless` as long as it
        does. Looked at again after it was taken out: it may change in between."""
        if circuit._idle:
            self._restless.pop(circuit, None)
            if circuit._idle:
                return False
        self._restless[circuit] = None
        return True

    # For circuits

    def suspend(self, circuit: Circuit) -> None:
        """Something may change in a circuit: no call may be at rest until that is known."""
        self._restless[circuit] = None
        for reference in self._idles:
            idle = reference()
            if idle is not None:
                idle.suspend()

    def update(self, circuit: Circuit) -> None:
        """It has changed, or has not."""
        self.remember(circuit)
        self._is_restless(circuit)
        state = circuit._state
        end = state.ramp if type(state) is Closed else None
        if end is not None and self._ramping.get(circuit) != end:
            self._ramping.pop(circuit, None)
            self._ramping[circuit] = end
        self._notify_idles()

    def remember(self, circuit: Circuit) -> None:
        """A call of it was counted: if it was forgotten meanwhile, it is kept again."""
        if self._all.get(circuit.key) is not circuit:
            with self._lock:
                if circuit.key not in self._all:
                    self._keep(circuit)

    def _notify_idles(self) -> None:
        for reference in self._idles:
            idle = reference()
            if idle is not None:
                idle.update()

    def _end_ramps(self) -> None:
        """Let circuits come to rest whose time after closing is over, whether they are called
        again or not."""
        now = clock_now()
        while (circuit := _first(self._ramping)) is not None:
            if self._ramping.get(circuit, -math.inf) > now:
                return
            self._ramping.pop(circuit, None)
            circuit._apply(partial(circuit._end_ramp, now))
            if circuit in self._ramping:  # it has begun anew, or a handler's change comes later
                return


def _may_go(circuit: Circuit, now: float, idle: float, *, crowded: bool) -> bool:
    """Whether a circuit may be forgotten.

    Closed: if it was unused for `idle` seconds and has nothing to remember. Open or half open: if
    it might have been tried for so long, and nobody has. If they are too many, a closed one in any
    case.
    """
    state = circuit._state
    if circuit._shadow:
        return False
    if type(state) is Closed and state.ramp is None:
        unused = now - circuit._used
        clean = state.run == 0 and all(gauge.clean(unused) for gauge in state.gauges)
        return crowded or (unused >= idle and clean)
    if type(state) is Open:
        return now - state.until >= idle
    if type(state) is not HalfOpen or circuit._trials(state, now):
        return False
    return now - circuit._used >= idle


def _first(circuits: dict[Circuit, Any]) -> Circuit | None:
    """The first of them; other threads may change the dict at any time."""
    while circuits:
        try:
            return next(iter(circuits))
        except (RuntimeError, StopIteration):
            continue
    return None
