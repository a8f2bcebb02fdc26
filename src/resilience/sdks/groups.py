"""Exception groups: one is as bad as the worst of its members."""

from __future__ import annotations

import threading
from typing import Any

from attrs import evolve

from resilience._core.anatomy import leaves
from resilience.failures import Advice, Failure, describe

__all__ = ["read"]

_MOST = 256
"""Members looked at, of any depth; a group of more is not judged, and not retried."""

_DEEPEST = 8
"""Groups that caused members of groups."""

_GRAVITY = [Advice.RETRY, Advice.WAIT, Advice.FALLBACK, Advice.STOP]


class _Reading(threading.local):
    """What this thread is reading: a member may have been caused by a group, this one even."""

    depth = 0
    left = 0


_reading = _Reading()


def read(error: Exception) -> Failure:
    """The worst member's failure, but retried no sooner and no oftener than any member allows."""
    if _reading.depth == 0:
        _reading.left = _MOST
    _reading.depth += 1
    try:
        if _reading.depth > _DEEPEST:
            raise ValueError("too many to look at")
        failures: list[Failure] = []
        leaf: Any
        for leaf in leaves(error):
            if _reading.left == 0:
                raise ValueError("too many to look at")
            _reading.left -= 1
            failures.append(describe(leaf))
    finally:
        _reading.depth -= 1
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
