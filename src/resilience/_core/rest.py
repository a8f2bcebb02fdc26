"""Being at rest: nothing is going on in a pipeline, so a call may run directly.

A policy takes part through three attributes, all optional:

- `rests`: true if the policy has nothing to do for a healthy call. Without it, never at rest.
- `watch(rest)`: a policy with shared state (a circuit) keeps `rest` and tells it, with `stir`
  and `settle`, when something begins and ceases to go on.
- `hears`: where the policy counts healthy calls, too, a function of the guarded one that gives a
  `Heard`; None where it does not.
- `first(fn)`: where the policy rewrites arguments (a model chain), a function of a call's
  arguments that gives the model and the arguments of its first attempt.

Whoever calls directly notes the token before and looks again afterwards: the same token means
that nothing happened in between. Circuits count the outcome as of the token's epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from .locks import new_lock

__all__ = ["Epochs", "First", "Heard", "Rest", "Rewritten", "Token", "epochs"]

Rewritten: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]
First: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Rewritten]
Heard: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any], int, float, float], bool]
"""Of the arguments, the token's epoch, and when the call began and ended on the real clock. False
if the call is to be reported in the full chain."""


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


class Token:
    """One uninterrupted stretch of rest."""

    __slots__ = ("epoch",)

    def __init__(self) -> None:
        self.epoch = epochs.now


class Rest:
    """Tells whether a pipeline is at rest: `token` is None while it is not.

    Safe from any thread, and from a signal handler: all our locks are reentrant. What stirs it may
    hold a lock of its own.
    """

    __slots__ = ("__weakref__", "_lock", "_stirring", "first", "hears", "token")

    def __init__(self, policies: Iterable[Any]) -> None:
        policies = tuple(policies)
        firsts = [p.first for p in policies if hasattr(p, "first")]
        hears = [p.hears for p in policies if getattr(p, "hears", None) is not None]
        self._lock = new_lock()
        self._stirring: set[int] = set()
        self.first: Callable[[Callable[..., Any]], First] | None = None
        self.hears: Callable[[Callable[..., Any]], Heard] | None = None
        self.token: Token | None = None
        if (
            len(firsts) > 1
            or len(hears) > 1
            or not all(getattr(p, "rests", False) for p in policies)
        ):
            return  # never at rest
        self.first = firsts[0] if firsts else None
        self.hears = hears[0] if hears else None
        self.token = Token()
        for policy in policies:
            if hasattr(policy, "watch"):
                policy.watch(self)

    def stir(self, source: object) -> None:
        """Something is going on in `source`."""
        with self._lock:
            self._stirring.add(id(source))
            self.token = None

    def settle(self, source: object) -> None:
        """Nothing is going on in `source` any more."""
        with self._lock:
            self._stirring.discard(id(source))
            if not self._stirring:
                self.token = Token()
