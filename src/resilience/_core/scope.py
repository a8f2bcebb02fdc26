"""A deadline that knows when it is over."""

from __future__ import annotations

__all__ = ["Expired", "Scope", "live"]


class Scope:
    """One `Timeout` at work: until `end` (on the runtime's clock), inside `outer`.

    `pass_as` names the argument in which the remaining time is handed to the callee instead of
    being enforced. `ended` is set on leaving: a task that outlives the scope ignores it. `fired`
    is set when the caller has left because time was up: a worker thread still inside obeys it.
    """

    __slots__ = ("end", "ended", "fired", "outer", "pass_as", "seconds")

    def __init__(
        self, end: float, seconds: float, outer: Scope | None, pass_as: str | None = None
    ) -> None:
        self.end = end
        self.seconds = seconds
        self.outer = outer
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
    while scope is not None and scope.ended and not scope.fired:
        scope = scope.outer
    return scope
