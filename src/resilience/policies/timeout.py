"""Bound the time of what is inside: each attempt, or the whole call.

Async calls are cancelled. A sync call moves the user's function to a worker thread, where one that
hangs is left behind (threads cannot be stopped); `pass_as` hands the time to the callee instead.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

from attrs import frozen

from resilience._core.arguments import slot_of
from resilience._core.fields import (
    call_repr,
    checked,
    plain,
    suggesting,
    to_number,
    to_seconds,
    to_text,
)
from resilience._core.record import current
from resilience._core.scope import Scope
from resilience.errors import DeadlineExceededError
from resilience.typing import Call, Runtime, Seconds

__all__ = ["Timeout"]


def _to_limit(name: str, value: Any) -> Any:
    if callable(value) and not isinstance(value, type):
        return value
    return to_seconds(name, value)


@suggesting
@frozen(eq=False, repr=False)
class Timeout:
    """After `seconds`, raise `DeadlineExceededError` (a TimeoutError too).

    `seconds` may be a function of the call's arguments. The call's own TimeoutError stays its own.

    With `pass_as="timeout"` the time left is given to the callee as that argument at each attempt,
    and nothing is enforced here: no thread, no cancellation. A smaller number that the caller
    passed wins, and so does anything that is not a number. SDK timeouts count per phase (connect,
    read), so this is a hint, not a bound.

    A plain function that is not known yet, called where an event loop runs, is called on the spot
    and not bounded that first time: it may turn out to be async and to need that loop.
    `asynchronous=False` on the pipeline says that it will not.

    Values only: safe from any thread.
    """

    role: ClassVar = "timeout"

    seconds: Seconds | Callable[..., Seconds] = checked(_to_limit)
    pass_as: str | None = checked(to_text, None, optional=True)

    def __repr__(self) -> str:
        return call_repr(self, ("seconds",))

    def fits(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function that does not take the argument to pass the time in."""
        if self.pass_as is not None:
            slot_of(fn, self.pass_as)

    def fits_block(self, *, asynchronous: bool) -> None:
        """Raise TypeError for a sync block, which nothing can cut."""
        if not asynchronous and self.pass_as is None:
            raise TypeError(
                f"{self!r} cannot bound a sync block: a block runs in its own thread, and nothing "
                f"can stop it there; give Timeout a pass_as, or guard a function"
            )

    def bind(self, call: Call, runtime: Runtime) -> Call:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            record = current()
            try:
                limit = self._limit(args, kwargs)
                if self.pass_as is None:
                    return await runtime.within(limit, lambda: call(*args, **kwargs))
                scope = Scope(runtime.now() + limit, limit, record.scope, pass_as=self.pass_as)
                with record.scoped(scope):
                    return await call(*args, **kwargs)
            except DeadlineExceededError as error:
                record.cut(error, runtime.now())
                raise

        return timed

    def _limit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        if callable(self.seconds):
            found = self.seconds(*args, **kwargs)
            limit = to_number(
                "seconds", found.total_seconds() if isinstance(found, timedelta) else found
            )
            if limit <= 0:
                raise DeadlineExceededError(limit)  # the time was up before the call
            return limit
        return plain(self.seconds)
