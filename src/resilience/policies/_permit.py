"""What a circuit hands out: leave to make a call, and a hold by hand."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define

from resilience.failures import Failure

from ._states import Change

if TYPE_CHECKING:
    from ._circuit import Circuit

__all__ = ["Bell", "Isolation", "Permit"]


class Bell(Protocol):
    """What wakes a call that waits for a trial's verdict."""

    def ring(self) -> Any:
        """Wake it, from any thread."""


@define(eq=False)
class Permit:
    """Leave to make one call. It is settled once: by a verdict, or given back without one."""

    circuit: Circuit
    epoch: int
    began: float
    trial: bool = False
    settled: bool = False
    call: int | None = None
    """A trial's call, by its number."""
    process: int | None = None
    """Where a trial is made."""
    part: bool = False
    """Is it a call inside a trial of the same circuit? Then it is the trial that has a say."""

    def succeeded(self) -> Change | None:
        """The call went well."""
        return self.circuit._settle(self, failed=False)

    def failed(
        self, cause: BaseException | None = None, failure: Failure | None = None
    ) -> Change | None:
        """The call failed in a way that tells against the service."""
        return self.circuit._settle(self, failed=True, cause=cause, failure=failure)

    def released(self) -> None:
        """No verdict: cancelled, interrupted, or failed for a reason of the caller's own."""
        if not self.settled:
            self.circuit._settle(self, failed=None)


class Isolation:
    """A hold on a circuit that refuses all calls; see `Circuit.isolate`."""

    __slots__ = ("_circuit",)

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit

    def release(self) -> None:
        """Let go; the circuit closes with the last of its isolations. Again: nothing happens."""
        self._circuit._released(self)

    def __enter__(self) -> Isolation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<isolation of {self._circuit!r}>"
