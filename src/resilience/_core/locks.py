"""Locks that are reentrant, for signal handlers, and free again in a forked child."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

__all__ = ["new_lock"]

_locks: WeakSet[Any] = WeakSet()


def new_lock() -> Any:
    """A lock that a thread may take again; in a child of fork nobody holds it."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def _renew() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
