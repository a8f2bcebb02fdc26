"""Leave to make one call through a circuit."""

from __future__ import annotations

from typing import Any

from resilience.policy import Call, Runtime

from .states import HalfOpen, State

__all__ = ["Permit", "is_inside", "permit_of"]


class Permit:
    """Leave to make one call through a circuit, in one of its states.

    `state` is None for a call inside a trial of the same circuit: the trial is the one that
    counts. A trial's permit also has a `journal`, a `process`, an end and perhaps a lease.
    """

    __slots__ = (
        "__weakref__",
        "began",
        "circuit",
        "journal",
        "lease",
        "process",
        "runtime",
        "state",
        "until",
    )

    circuit: Any
    state: State | None
    began: float
    runtime: Runtime | None
    journal: Any
    """The trial's call: calls inside it need no slot of their own."""
    process: int
    until: float
    """When the trial is given up on."""
    lease: Any
    """What a shared storage has granted for the trial."""

    @property
    def trial(self) -> bool:
        """Whether it is a trial's."""
        return type(self.state) is HalfOpen


def permit_of(circuit: Any, state: State | None, began: float, runtime: Runtime | None) -> Permit:
    """A permit; made so, without an `__init__`, it costs half."""
    permit = _new(Permit)
    permit.circuit = circuit
    permit.state = state
    permit.began = began
    permit.runtime = runtime
    return permit


def is_inside(call: Call | None, trials: list[Any]) -> bool:
    """Whether a call is one of these trials, or was made inside one."""
    return call is not None and any(call.is_inside(trial.journal) for trial in trials)


_new = object.__new__
