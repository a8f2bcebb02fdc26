"""A circuit's backing in a call that may wait for nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define

from resilience._core.aside import aside
from resilience.failures import Failure
from resilience.typing import Runtime

from ._backing import Backing
from ._permit import Permit
from ._states import Change

__all__ = ["Later"]


@define(eq=False)
class Later:
    """Stands for a backing where asking it would stop an event loop; see `hurried`.

    Nothing is asked before the call. If it is handed over, the async call asks. If it ends here,
    its verdict, a trial's place and what the others say are seen to in a worker thread.
    """

    attach: Callable[[Runtime], Awaitable[Backing | None]]

    async def refresh(self, runtime: Runtime) -> None:
        """Not now."""

    async def claim(self, runtime: Runtime, permit: Permit) -> bool:
        """Nobody is asked before the call."""
        return True

    def blame(self, cause: BaseException, failure: Failure) -> None:
        """The backing itself is told, where there is one."""

    async def verdict(self, runtime: Runtime, permit: Permit, *, failed: bool) -> None:
        """Ask and tell elsewhere all that is left to be asked and told."""
        aside(lambda elsewhere: self._catch_up(elsewhere, permit, failed))

    def released(self, permit: Permit) -> None:
        """No place was asked for."""

    def note(self, change: Change) -> None:
        """The backing itself hears of changes."""

    async def _catch_up(self, runtime: Runtime, permit: Permit, failed: bool) -> None:
        backing = await self.attach(runtime)
        if backing is None:
            return
        if permit.trial:
            await backing.claim(runtime, permit)
        await backing.verdict(runtime, permit, failed=failed)
        await backing.refresh(runtime)
