"""Bound the time of what is inside: each attempt, or the whole call.

Async calls are cancelled. A sync call moves the user's function to a worker thread, where one that
hangs is left behind (threads cannot be stopped); `pass_as` hands the time to the callee instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from attrs import frozen

from resilience._core.arguments import time_slot
from resilience._core.deadline import Deadline
from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    plain,
    suggesting,
    title,
    to_number,
    to_seconds,
    to_text,
)
from resilience.policy import Call, Effect, Inner, Policy, Runtime

__all__ = ["Timeout"]


def _to_limit(name: str, value: Any) -> Any:
    if callable(value) and not isinstance(value, type):
        return value
    return to_seconds(name, value)


@suggesting
@frozen(eq=False, repr=False)
class Timeout(Policy):
    """After `seconds`, raise `DeadlineExceededError` (a TimeoutError too).

    `seconds` may be a function of the call's arguments. The call's own TimeoutError stays its own.

    With `pass_as="timeout"` the time left is given to the callee as that argument at each attempt,
    and nothing is enforced here: no thread, no cancellation. A smaller number that the caller
    passed wins, and so does anything that is not a number. SDK timeouts count per phase (connect,
    read), so this is a hint, not a bound; and a client that retries by itself takes that time for
    each try. An argument whose name ends in `_ms` gets whole milliseconds. The methods of Google's
    `client.models` take a "timeout" too: it is put into their `config`. Auriko's client takes none.

    A plain function that is not known yet, called where an event loop runs, is called on the spot
    and not bounded that first time: it may turn out to be async and to need that loop.
    `asynchronous=False` on the pipeline says that it will not.

    Values only: safe from any thread.
    """

    role: ClassVar[str | None] = "timeout"

    seconds: Seconds | Callable[..., Seconds] = checked(_to_limit)
    pass_as: str | None = checked(to_text, None, optional=True)

    def __repr__(self) -> str:
        return call_repr(self, ("seconds",))

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function that does not take the argument to pass the time in."""
        if self.pass_as is not None:
            time_slot(fn, self.pass_as)

    def check_block(self, *, asynchronous: bool) -> None:
        """Raise TypeError for a sync block, which nothing can cut."""
        if not asynchronous and self.pass_as is None:
            raise TypeError(
                f"{self!r} cannot bound a sync block: a block runs in its own thread, and nothing "
                f"can stop it there; give Timeout a pass_as, or guard a function"
            )

    def effect(self) -> Effect:
        seconds = self.seconds
        limit = f"what {title(seconds)} says" if callable(seconds) else f"{plain(seconds):g} s"
        if self.pass_as is not None:
            return Effect(line=f"gives the function what is left of {limit}, as {self.pass_as}=")
        line = f"ends what is inside it after {limit}"
        return Effect(line=line, limit=math.inf if callable(seconds) else plain(seconds))

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        bounded = runtime.bounded if self.pass_as is None else partial(self._passed_on, runtime)
        if not callable(self.seconds):
            return bounded(plain(self.seconds), inner)

        async def timeout(call: Call) -> Any:
            limit = self._limit(call)
            if limit <= 0:
                raise call.expired(limit)  # the time was up before the call
            return await bounded(limit, inner)(call)

        return timeout

    def _passed_on(self, runtime: Runtime, limit: float, inner: Inner) -> Inner:
        async def timeout(call: Call) -> Any:
            end = runtime.now() + limit
            deadline = Deadline(end, call.deadline, pass_as=self.pass_as)
            return await call.within(deadline, limit, inner)

        return timeout

    def _limit(self, call: Call) -> float:
        """What the function of the arguments gives."""
        assert callable(self.seconds)
        found = self.seconds(*call.args, **call.kwargs)
        return to_number(
            "seconds", found.total_seconds() if isinstance(found, timedelta) else found
        )
