"""A deadline around several calls, and the time that is left: for the user's own code."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType

from .clock import now
from .context import Ambient, Surroundings, ambient, get_ambient
from .deadline import UserDeadline, live, nearest
from .options import Seconds, to_seconds

__all__ = ["TimeLimit", "deadline", "remaining"]


class TimeLimit:
    """What `deadline(seconds)` gives: a context manager, for `with` and `async with`, once."""

    __slots__ = ("_deadline", "_seconds", "_token")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._deadline: UserDeadline | None = None
        self._token: Token[Ambient | None] | None = None

    def __enter__(self) -> None:
        if self._token is not None:
            raise RuntimeError("deadline() is for one block; call it again for another")
        outer = get_ambient()
        around = Surroundings(outer)
        if self._seconds is not None:
            self._deadline = UserDeadline(now() + self._seconds, live(around.deadline))
            around.deadline = self._deadline
        self._token = ambient.set(around)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._deadline is not None:
            self._deadline.ended = True
        assert self._token is not None
        try:
            ambient.reset(self._token)
        except ValueError:
            pass  # left in another context than it was entered in, as generators may be

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def deadline(seconds: Seconds | None) -> TimeLimit:
    """One deadline for all guarded calls in a block, `seconds` after the block is entered:

        with deadline(30):  # in sync and in async code; `async with` is the same
            plan = ask("Plan it.")
            answer = ask(plan)

    Every guarded call inside, those in functions called from there included, is bounded as by a
    `Timeout` of what is left, outermost: it raises `DeadlineExceededError` when time is up, and
    begins no wait that would not fit. The code between the calls is not cut; it can ask
    `remaining()`. A sync block of `attempts()` is not cut either, but is not begun too late.

    Deadlines nest, and the nearest counts. It holds for the calling thread or task and the tasks
    that it starts, until the block ends. None sets no limit. TypeError for what is no time,
    ValueError for a negative one; 0 is up at once.
    """
    return TimeLimit(None if seconds is None else to_seconds("seconds", seconds, positive=False))


def remaining() -> float | None:
    """Seconds until the nearest deadline around the caller, 0 when it is past; None without one.

    Deadlines are those of `deadline()`, and inside a guarded function those of its `Timeout`s. None
    is no limit in most libraries, so it can be handed on: `get(url, timeout=remaining())`.
    """
    here = get_ambient()
    found = None if here is None else nearest(here.deadline)
    return None if found is None else max(0.0, found.end - now())
