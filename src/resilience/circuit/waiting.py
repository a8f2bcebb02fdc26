"""Calls beyond the trials, which wait for the verdict instead of being rejected."""

from __future__ import annotations

from resilience.policy import Call, Runtime

from .circuit import Circuit

__all__ = ["wait_for_verdict"]


async def wait_for_verdict(circuit: Circuit, call: Call, runtime: Runtime, end: float) -> bool:
    """Wait until there may be a slot for a trial; False if there is no point in asking again."""
    now = runtime.now()
    if now >= end or not runtime.may_wait:
        return False
    waiter = runtime.waiter()
    due = circuit._queue(waiter, now)
    if due is None:
        return False
    try:
        await waiter.wait(min(due, end - now), call)
    finally:
        circuit._unqueue(waiter)
    return True
