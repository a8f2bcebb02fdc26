"""Ends reads that block a thread for too long: one watchdog for all sync streams.

Closing a stream from another thread does not end a read that blocks; shutting its socket down does.
The socket is that of the stream's response, or the first one in the frames of the blocked thread.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import ref

from .frames import frames_by_thread

if TYPE_CHECKING:
    import socket

__all__ = ["Watch"]

_READER = "resilience._core.streams"
"""The module that reads: what called it has sockets of its own, which are none of ours."""

_AGAIN = 0.05
"""Seconds after which a read that goes on is ended again: a client may have tried another."""
_MANY = 1000
"""Entries from which on those that are over are looked for."""
_IDLE = 2.0
"""Seconds for which the thread stays with nothing to watch."""

_now = time.monotonic


class Watch:
    """Watches the reads of one stream. The reading thread notes what it does without a lock.

    At first one wait of `limit` seconds is watched, in the thread that makes this; after `limit_to`
    each wait for content, in the thread that reads. `end` is when it is over in any case, `total`
    seconds after its beginning.
    """

    __slots__ = (
        "__weakref__",
        "_end",
        "_flowing",
        "_limit",
        "_since",
        "_total",
        "_waited",
        "fired",
        "queued",
        "stream",
        "thread",
    )

    def __init__(self, limit: float, end: float, total: float) -> None:
        self._limit = limit
        self._end = end
        self._total = total
        self._since: float | None = _now()
        self._waited = 0.0
        self._flowing = False
        self.fired: float | None = None
        """The limit that was exceeded, in seconds."""
        self.queued = math.inf
        """When the watchdog looks at it next, at the latest."""
        self.thread = threading.get_ident()
        self.stream: Any = None
        _watchdog.add(self)

    def limit_to(self, idle: float | None) -> None:
        """There was content: from now on limit each wait for more."""
        self._since = None
        self._flowing = True
        self._limit = math.inf if idle is None else idle
        _watchdog.add(self)

    def begin(self) -> None:
        """This thread begins to wait."""
        self.thread = threading.get_ident()
        self._since = _now()

    def end(self, content: bool) -> None:
        """It has an item."""
        since, self._since = self._since, None
        self._waited = 0.0 if content else self._waited + _now() - (since or _now())

    def touch(self) -> None:
        """There was a sign of life."""
        self._waited = 0.0
        if self._since is not None and self._flowing:
            self._since = _now()

    def stop(self) -> None:
        """It is over."""
        self._limit = self._end = math.inf
        self._since = self.stream = None

    def due(self, now: float) -> float:
        """When to look, at the earliest; infinite if never again."""
        since = self._since
        return min((now if since is None else since) + self._limit - self._waited, self._end)

    def look(self, now: float) -> float:
        """End a wait that has taken too long. When to look again."""
        import socket  # whoever has a stream has it already

        due, since = self.due(now), self._since
        if due <= now and since is not None:
            found = _of_response(self.stream) or _of_frames(self.thread)
            # If the wait is over by now, the socket may be another's.
            if found is not None and self._since is since:
                self.fired = self._total if self._end <= now else self._limit
                with contextlib.suppress(OSError):
                    found.shutdown(socket.SHUT_RDWR)
        return max(due, now + _AGAIN)


class _Watchdog:
    def __init__(self) -> None:
        self._change = threading.Condition()
        self._heap: list[tuple[float, int, ref[Watch]]] = []
        self._numbers = count()
        self._runs = False
        self._full = _MANY

    def add(self, watch: Watch) -> None:
        due = watch.due(_now())
        if due >= watch.queued:  # also where there is nothing to look for
            return
        with self._change:
            watch.queued = due
            if len(self._heap) >= self._full:  # of those that are over, none is kept for long
                self._heap = [entry for entry in self._heap if entry[2]() is not None]
                heapq.heapify(self._heap)
                self._full = 2 * len(self._heap) + _MANY
            heapq.heappush(self._heap, (due, next(self._numbers), ref(watch)))
            if not self._runs:
                threading.Thread(target=self._run, name="resilience-watchdog", daemon=True).start()
                self._runs = True
            elif self._heap[0][0] == due:
                self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                if not self._heap and not self._change.wait(_IDLE) and not self._heap:
                    self._runs = False
                    return
                now = _now()
                if not self._heap or self._heap[0][0] > now:
                    self._change.wait(min(self._heap[0][0] - now, 60.0) if self._heap else _IDLE)
                    continue
                watch = heapq.heappop(self._heap)[2]()
                if watch is not None:
                    watch.queued = math.inf  # before it is looked at: a limit set since is seen
            if watch is not None:
                try:
                    again = watch.look(now)
                except Exception:  # of an odd response: it is tried again
                    again = now + _AGAIN
                if again < math.inf:
                    with self._change:
                        watch.queued = again
                        heapq.heappush(self._heap, (again, next(self._numbers), ref(watch)))
            del watch


_watchdog = _Watchdog()


def _renew() -> None:
    global _watchdog
    _watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def _of_response(stream: Any) -> socket.socket | None:
    """The socket behind a stream's response, as httpx has it."""
    stream = getattr(stream, "completion_stream", stream)
    for name in ("response", "_response", "http_response"):
        extensions = getattr(getattr(stream, name, None), "extensions", None)
        if isinstance(extensions, dict) and "network_stream" in extensions:
            found: socket.socket | None = extensions["network_stream"].get_extra_info("socket")
            return found
    return None


def _of_frames(thread: int) -> socket.socket | None:
    """The socket that a thread reads from: in its innermost frame that has one."""
    import socket

    frame = frames_by_thread().get(thread)
    while frame is not None and frame.f_globals.get("__name__") != _READER:
        for value in list(frame.f_locals.values()):
            held = getattr(value, "_sock", None) if not isinstance(value, socket.socket) else value
            if isinstance(held, socket.socket):
                return held
        frame = frame.f_back
    return None
