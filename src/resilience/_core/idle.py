"""Being at rest: nothing is going on in a pipeline, so its calls run directly.

Whoever calls directly notes the period before and looks again afterwards: the same period means
that nothing happened in between. Circuits count the outcome as of the period's epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakSet

from resilience.policy import Policy

from .context import everywhere
from .emitter import Emitter
from .locks import new_lock

__all__ = ["BUSY_FOR_EVER", "Idle", "Period", "epochs", "hold_off"]


class Epochs:
    """Counts the changes of state of all circuits.

    A circuit remembers the epoch of its last change, a call the epoch it began in: an answer
    counts if the circuit has not changed since. One number thus stands for the generations of
    all the circuits that a call might meet.
    """

    __slots__ = ("_lock", "now")

    def __init__(self) -> None:
        self._lock = new_lock()
        self.now = 0

    def advance(self) -> int:
        """Begin a new epoch and return it."""
        with self._lock:
            self.now += 1
            return self.now


epochs = Epochs()


class Period:
    """One uninterrupted period at rest."""

    __slots__ = ("epoch",)

    def __init__(self) -> None:
        self.epoch = epochs.now


class Idle:
    """Tells whether a pipeline is at rest: `period` is None while it is not.

    Safe from any thread, and from a signal handler between any two steps: it is decided last, and
    again if anything happened meanwhile.
    """

    __slots__ = ("__weakref__", "_busy", "_emitter", "_lock", "_version", "period")

    def __init__(self, policies: Sequence[Policy], emitter: Emitter) -> None:
        busy = Policy.busy
        self._busy = [policy.busy for policy in policies if type(policy).busy is not busy]
        self._emitter = emitter
        emitter.idle = self
        self._lock = new_lock()
        self._version: object = None
        self.period: Period | None = None
        for policy in policies:
            policy.watch(self)
        with _switching:
            _known.add(self)
        self.update()

    def suspend(self) -> None:
        """Something may be going on; said before it is."""
        self._version = object()
        self.period = None

    def update(self) -> None:
        """Decide afresh, until nothing has happened while it was decided."""
        while True:
            self._version = version = object()  # of two who decide at once, one decides again
            period = None if everywhere.holders or self._emitter.healthy else Period()
            for busy in self._busy:
                if busy():
                    period = None
                    break
            with self._lock:  # whoever is late does not undo what another has decided meanwhile
                if self._version is version:
                    self.period = period
            if self._version is version:
                return


_known: WeakSet[Idle] = WeakSet()
_switching = new_lock()


def hold_off(by: int) -> None:
    """Press the off switch for the whole process (1), or let go of it (-1): no call is at rest
    while it is held, so that each looks at it."""
    with _switching:
        everywhere.holders += by
        for idle in list(_known):
            idle.update()


class _Never:
    """In place of an `Idle`, where calls never run directly."""

    period = None


BUSY_FOR_EVER = _Never()
