"""The frame in which each thread is."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Mapping
from types import FrameType

__all__ = ["frames_by_thread"]

_one_at_a_time = threading.RLock()  # a signal handler may ask in the midst

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_one_at_a_time.release,
    )


def frames_by_thread() -> Mapping[int, FrameType]:
    """Innermost frames by the identity of their threads, this one's included.

    Up to Python 3.11 `sys._current_frames()` may collect garbage while it holds a lock that every
    thread takes as it begins and ends, and a finalizer that is interrupted there stops the
    interpreter for good (CPython issue 106883). So no garbage is collected meanwhile.
    """
    with _one_at_a_time:
        collects = gc.isenabled()
        try:
            gc.disable()
            return sys._current_frames()
        finally:
            if collects:
                gc.enable()
