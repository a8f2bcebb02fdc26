"""Exception groups: one is as bad as the worst of its members."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from resilience.failures import Advice, Failure, describe

__all__ = ["read"]

_MOST = 256
"""Members looked at, of any depth, groups included; one of more is not judged, and not retried."""

_GRAVITY = [Advice.RETRY, Advice.WAIT, Advice.FALLBACK, Advice.STOP]


def read(error: Exception) -> Failure | None:
    """The worst member's failure, but retried no sooner and no oftener than any member allows."""
    failures = [describe(leaf) for leaf in _leaves(error)]
    if not failures:
        return None
    worst = max(failures, key=lambda failure: _GRAVITY.index(failure.advice))
    waits = [failure.retry_after for failure in failures if failure.retry_after is not None]
    limits = [failure.retry_limit for failure in failures if failure.retry_limit is not None]
    sent = [failure.sent for failure in failures]
    return evolve(
        worst,
        retry_after=max(waits, default=None),
        retry_limit=min(limits, default=None) if worst.advice in _GRAVITY[:2] else None,
        sent=True if True in sent else None if None in sent else False,
        error=error,
    )


def _leaves(group: Exception) -> list[Any]:
    """The members that are no groups, depth first; none where there are too many to look at."""
    leaves: list[Any] = []
    pending: list[object] = [group]
    for _ in range(1 + _MOST):
        one = pending.pop()
        members = _members(one)
        if members is None:
            leaves.append(one)
        else:
            pending.extend(reversed(members))
        if not pending:
            return leaves
    return []


def _members(one: object) -> tuple[object, ...] | None:
    """What a group holds; None for anything else."""
    for base in type(one).__mro__:
        if base.__name__ == "BaseExceptionGroup" and base.__module__ in _HOMES:
            return tuple(base.__dict__["exceptions"].__get__(one))
    return None


_HOMES = ("builtins", "exceptiongroup", "exceptiongroup._exceptions")
