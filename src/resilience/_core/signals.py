"""What policies and the core say to one another, besides a call's result and its errors."""

from __future__ import annotations

from math import inf
from typing import Any, Final, NamedTuple

from .deadline import Deadline
from .in_hand import InHand

__all__ = ["BUSY", "NO_VERDICT", "Carried", "Deferred", "Expired", "HandOver", "Report", "plain"]


class NoVerdict(BaseException):
    """The type of `NO_VERDICT`."""

    def __repr__(self) -> str:
        return "NO_VERDICT"


NO_VERDICT: Final = NoVerdict()
"""How an attempt ended that says nothing about the service: it was cancelled or abandoned."""

BUSY: Final[Any] = object()
"""What a `begin` hook returns for a call that must take the full path."""


class Report(NamedTuple):
    """What was done about an error further in: its retries are exhausted; circuits counted it; or
    another attempt was left undone that might be made in `wait` seconds, until `latest`.

    `number` is that of the attempt in which it was done.
    """

    number: int
    error: Exception
    exhausted: bool
    circuits: tuple[object, ...]
    wait: float | None = None
    latest: float = inf


class HandOver(BaseException):
    """Carries an awaitable, found in a sync call, out to where the call goes on in async mode.

    A BaseException, so that it is nobody's failure: permits go back, nothing is counted.
    """

    def __init__(self, in_hand: InHand) -> None:
        super().__init__()
        self.in_hand = in_hand


class Deferred(BaseException):
    """Carries a result for which nothing has been done yet out to where it is given to the caller,
    with the policies around what it does later."""

    def __init__(self, in_hand: InHand) -> None:
        super().__init__()
        self.in_hand = in_hand


class Expired(BaseException):
    """Unwinds a sync call whose deadline has passed, as a cancellation does an async one.

    Only the `within` that set the deadline turns it into an error.
    """

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self.deadline = deadline


class Carried(Exception):
    """Carries a user's StopIteration past coroutine frames, where it would become RuntimeError."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def plain(error: Exception) -> Exception:
    """The user's own error."""
    return error.error if type(error) is Carried else error
