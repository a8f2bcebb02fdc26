"""How a call gets its permit: at once, after waiting for a trial's verdict, or not at all."""

from __future__ import annotations

from resilience.errors import CircuitOpenError
from resilience.typing import Runtime

from ._backing import Backing
from ._circuit import Circuit
from ._permit import Permit

__all__ = ["admitted"]


async def admitted(
    circuit: Circuit,
    runtime: Runtime,
    backing: Backing | None,
    patience: float | None,
    calls: tuple[int, ...],
) -> Permit:
    """The permit, or `CircuitOpenError`; `patience` is how long to wait for a trial's verdict."""
    end = runtime.now() + patience if patience is not None else 0.0
    while True:
        try:
            permit = circuit.admit(runtime.now(), runtime.random, calls)
        except CircuitOpenError:
            if patience is None or not await _verdict(circuit, runtime, end):
                raise
            continue
        if backing is None or not permit.trial:
            return permit
        granted = False
        try:
            granted = await backing.claim(runtime, permit)
        finally:
            if not granted:
                permit.released()
        if granted:
            return permit
        raise circuit.refusal(runtime.now())


async def _verdict(circuit: Circuit, runtime: Runtime, end: float) -> bool:
    """Wait until there may be a place; False if there is no point in asking again."""
    now = runtime.now()
    if now >= end:
        return False
    bell = runtime.bell()
    due = circuit.queue(bell, now) if bell is not None else None
    if bell is None or due is None:
        return False
    try:
        await bell.wait(min(due, end - now))
    finally:
        circuit.leave(bell)
    return True
