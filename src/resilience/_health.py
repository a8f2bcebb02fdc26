"""How the library stands in this process, for readiness probes and dashboards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

from attrs import asdict

from ._core.guard import CODES, Guard
from ._core.options import title
from ._runtimes.frames import frames_by_thread
from ._runtimes.workers import LIMIT, in_use
from .policies.breaker import CircuitBreaker, breakers
from .policies.bulkhead import Bulkhead, bulkheads
from .policies.hold import Hold, holds
from .policies.rate_limit import rate_limits
from .policies.retry_budget import RetryBudget, budgets

__all__ = ["health"]

_OUTCOMES = (Guard.run.__code__, Guard.conduct.__code__)
"""What `outcome()` calls, with no guarded function around it."""


def health() -> dict[str, Any]:
    """How the library stands in this process, as plain data that `json.dumps` takes.

    - "circuits": how many there are in each state; "not_closed": those that are not closed, each as
      `Snapshot.to_dict()` has it. Its key is there only where it is a model's name, as any other
      may be a secret: `CircuitBreaker.circuits()` has them all.
    - "bulkheads": of each with calls, its name and `limit`, and how many calls are `inside` and
      `waiting`, over all values of its key.
    - "holds": what is held, for how many `seconds` more, each value of a key by itself, its key as
      with circuits. "rate_limits": of each with calls that wait, its name and how many.
    - "calls": how many calls of each guarded function are under way, in threads and in tasks of the
      event loop that runs here.
    - "workers": threads that serve calls with a time limit, `busy` ones and `idle` ones, of a
      `limit`; those left behind are busy.
    - "budgets": for each `RetryBudget` the extra calls that are `left`, of at most `burst`, and how
      many were `refused`; of a keyed one for each value that is not full, its key as with circuits.
    - "storages": of circuits shared with other processes, whether the storage replied.

    It makes nothing and changes nothing; calls pay nothing for it. From any thread.
    """
    states: Counter[str] = Counter()
    not_closed: list[dict[str, Any]] = []
    storages: list[dict[str, Any]] = []
    for breaker in breakers:
        reachable = []
        for circuit in breaker.circuits().values():
            states[circuit.state] += 1
            if circuit.state != "closed":
                not_closed.append(_of_circuit(breaker, circuit))
            if circuit._storage is not None:
                reachable.append(circuit._storage.reachable)
        if breaker.storage is not None:
            kind = type(breaker.storage).__name__
            storages.append({"circuit": breaker.name, "storage": kind, "reachable": all(reachable)})
    busy, idle = in_use()
    return {
        "circuits": dict(states),
        "not_closed": not_closed,
        "bulkheads": [_of_bulkhead(each) for each in bulkheads if each.rooms()],
        "calls": dict(Counter(_under_way())),
        "holds": [each for hold in holds for each in _of_hold(hold)],
        "rate_limits": [
            {"rate_limit": limit.name, "waiting": limit.waiting}
            for limit in rate_limits
            if limit.waiting
        ],
        "budgets": [each for budget in budgets for each in _of_budget(budget)],
        "workers": {"busy": busy, "idle": idle, "limit": LIMIT},
        "storages": storages,
    }


def _of_circuit(breaker: CircuitBreaker, circuit: Any) -> dict[str, Any]:
    found: dict[str, Any] = circuit.snapshot().to_dict()
    if breaker.key != "model":
        del found["key"]
    return found


def _of_bulkhead(bulkhead: Bulkhead) -> dict[str, Any]:
    loads = bulkhead.rooms().values()
    return {
        "bulkhead": bulkhead.name,
        "limit": bulkhead.limit,
        "inside": sum(bulkhead.limit - load.free for load in loads),
        "waiting": sum(load.waiting for load in loads),
    }


def _of_hold(hold: Hold) -> Iterator[dict[str, Any]]:
    for key, left in hold.held().items():
        found: dict[str, Any] = {"hold": hold.name, "seconds": left}
        yield {**found, "key": key} if hold.key == "model" else found


def _of_budget(budget: RetryBudget) -> Iterator[dict[str, Any]]:
    for key, level in budget.snapshots().items():
        if budget.key is None or level.left < level.burst:
            found: dict[str, Any] = {"budget": budget.name, **asdict(level)}
            yield {**found, "key": key} if budget.key == "model" else found


def _under_way() -> Iterator[str]:
    """The names of the guarded functions that are being called."""
    for frame in frames_by_thread().values():
        above: Any = frame
        while above is not None:
            yield from _name_of(above)
            above = above.f_back
    try:
        current, tasks = asyncio.current_task(), asyncio.all_tasks()
    except RuntimeError:  # no event loop runs here
        return
    for task in tasks - {current}:
        inner: Any = task.get_coro()
        while inner is not None:
            suspended = getattr(inner, "cr_frame", None)
            if suspended is not None:
                yield from _name_of(suspended)
            inner = getattr(inner, "cr_await", None)


def _name_of(frame: Any) -> Iterator[str]:
    if frame.f_code in CODES:
        yield title(frame.f_locals["fn"])
    elif frame.f_code in _OUTCOMES and frame.f_locals.get("outcome"):
        yield title(frame.f_locals["self"].fn)
