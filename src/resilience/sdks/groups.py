"""Exception groups: one is as bad as the worst of its members."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from resilience.failures import Advice, Failure, describe

__all__ = ["read"]

_MOST = 256
"""Members looked at, of any depth; a group of more is not judged, and so not retried."""

_GRAVITY = [Advice.RETRY, Advice.WAIT, Advice.FALLBACK, Advice.STOP]


def read(error: Exception) -> Failure | None:
    """The worst member's failure, but retried no sooner and no oftener than any member allows."""
    failures: list[Failure] = []
    for leaf in _leaves(error):
        if len(failures) == _MOST:
            return None
        failures.append(describe(leaf))
    worst = max(failures, key=lambda failure: _GRAVITY.index(failure.advice), default=None)
    if worst is None:
        return None
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


def _leaves(group: BaseException) -> Iterator[Exception]:
    """The members that are no groups, depth first; an odd group has none."""
    pending: list[object] = [group]
    seen = 0
    while pending and seen <= 2 * _MOST:
        seen += 1
        one = pending.pop()
        members = _members(one)
        if members is not None:
            pending.extend(reversed(members))
        elif isinstance(one, Exception):
            yield one


def _members(one: object) -> tuple[object, ...] | None:
    """What a group holds; None for anything else."""
    for base in type(one).__mro__:
        if base.__name__ == "BaseExceptionGroup" and base.__module__ in _HOMES:
            return tuple(base.__dict__["exceptions"].__get__(one))
    return None


_HOMES = ("builtins", "exceptiongroup", "exceptiongroup._exceptions")
