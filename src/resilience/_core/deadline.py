"""Deadlines, each inside an outer one, and which of them comes first."""

from __future__ import annotations

import threading

__all__ = ["Deadline", "UserDeadline", "live", "nearest"]


class Deadline:
    """One `Timeout` at work: until `end`, on the runtime's clock, inside `outer`.

    - `thread`: the thread that enforces it, by leaving a worker thread behind. None for one that
      is enforced by cancelling a task, or only passed on as the argument `pass_as`.
    - `ended`: its `Timeout` is over; a task that outlives it ignores it.
    - `fired`: time was up. A worker thread that was left behind obeys this.
    """

    __slots__ = ("end", "ended", "fired", "outer", "pass_as", "passed_on", "thread")

    def __init__(
        self,
        end: float,
        outer: Deadline | None,
        thread: int | None = None,
        pass_as: str | None = None,
    ) -> None:
        self.end = end
        self.outer = outer
        self.thread = thread
        self.pass_as = pass_as
        self.passed_on: bool = pass_as is not None or (outer is not None and outer.passed_on)
        """Whether this one or one outside it is passed on."""
        self.ended = self.fired = False


class UserDeadline(Deadline):
    """One that `deadline()` has set around several calls: each of them sees to it by itself."""

    __slots__ = ()


def live(deadline: Deadline | None) -> Deadline | None:
    """The innermost one, from this one outward, that has not ended.

    On the way, what is behind an ended one is let go: a task may start its own successor for ever.
    """
    innermost = _skip(deadline)
    each = innermost
    while each is not None:
        outer = each.outer
        if outer is not None and outer.ended:  # itself it stays: calls know what they were born in
            further = _skip(outer.outer)
            outer.outer, outer = further, further
        each = outer
    return innermost


def _skip(deadline: Deadline | None) -> Deadline | None:
    while deadline is not None and deadline.ended:
        deadline = deadline.outer
    return deadline


def nearest(deadline: Deadline | None, *, threaded: bool = False) -> Deadline | None:
    """Of this deadline and those outside it, the one that ends first; of two, the outer one.

    `threaded`: among those that this thread enforces.
    """
    found = None
    while deadline is not None:
        if (
            not deadline.ended
            and (not threaded or deadline.thread == threading.get_ident())
            and (found is None or deadline.end <= found.end)
        ):
            found = deadline
        deadline = deadline.outer
    return found
