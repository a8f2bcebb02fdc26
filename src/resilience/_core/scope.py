"""A deadline that knows when it is over."""

from __future__ import annotations

import threading

__all__ = ["Expired", "Scope", "live"]


class Scope:
    """One `Timeout` at work: until `end` (on the runtime's clock), inside `outer`.

    `threaded`: enforced by leaving a worker thread behind; others are enforced by cancelling a
    task, or only passed on to the callee as argument `pass_as`. `ended` is set on leaving: a task
    that outlives the scope ignores it. `fired` is set when the caller of a worker thread has left
    it behind: what still runs there obeys. `thread` is the one that waits for it; nothing of it
    ever unwinds another.
    """

    __slots__ = ("end", "ended", "fired", "outer", "pass_as", "seconds", "thread", "threaded")

    def __init__(
        self,
        end: float,
        seconds: float,
        outer: Scope | None,
        *,
        threaded: bool = False,
        pass_as: str | None = None,
    ) -> None:
        self.end = end
        self.seconds = seconds
        self.outer = outer
        self.threaded = threaded
        self.thread = threading.get_ident()
        self.pass_as = pass_as
        self.ended = False
        self.fired = False


class Expired(BaseException):
    """Unwinds a sync call whose deadline has passed, as a cancellation does an async one.

    Only the `within` that owns the scope turns it into an error.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self.scope = scope


def live(scope: Scope | None) -> Scope | None:
    """The innermost scope, from this one outward, that still has a say."""
    while scope is not None and scope.ended:
        scope = scope.outer
    return scope
