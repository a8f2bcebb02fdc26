"""The seam to whatever shares a circuit with others: a pybreaker storage, a server.

A breaker's `storage` gives a backing for a circuit. It is asked and told at a few moments, and must
never break a call: what it raises on its own account it keeps to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from resilience.failures import Failure
from resilience.typing import Runtime

from ._permit import Permit
from ._states import Change

if TYPE_CHECKING:
    from ._circuit import Circuit

__all__ = ["Backing", "Sharing"]


class Backing(Protocol):
    """One circuit's link to others."""

    async def refresh(self, runtime: Runtime) -> None:
        """Before a call is admitted: take over (`circuit.adopt`) what others say."""

    async def claim(self, runtime: Runtime, permit: Permit) -> bool:
        """A trial place was given here: do the others leave it to us? False refuses the call."""
        ...

    def blame(self, cause: BaseException, failure: Failure) -> None:
        """An admitted call has failed, and that counts; its verdict is next."""

    async def verdict(self, runtime: Runtime, permit: Permit, *, failed: bool) -> None:
        """An admitted call has ended and counts."""

    def released(self, permit: Permit) -> None:
        """An admitted call has ended without a verdict; it may be cancelled, so no waiting."""

    def note(self, change: Change) -> None:
        """The circuit has changed state, by a call or by `adopt`; or something was done by hand,
        which may change nothing. No waiting here, but for what was done by hand outside any event
        loop."""


@runtime_checkable
class Sharing(Protocol):
    """A `storage=` that serves any number of circuits: one backing for each."""

    def share(self, circuit: Circuit, refresh: float) -> Backing:
        """The circuit's backing; called once, and no waiting. Read every `refresh` seconds."""
        ...
