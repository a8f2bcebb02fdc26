"""The last resort: a value, or a function's result, in place of an error.

Outermost, as a rule. Not for trying another model: that is `ModelFallback`, which keeps retries
and circuits apart for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from attrs import frozen

from resilience._core.fields import checked, suggesting, title, to_callable
from resilience._core.record import Record, current
from resilience._core.results import is_awaitable
from resilience.failures import Failure
from resilience.matching import Match, raised, to_match
from resilience.typing import Call, Runtime

__all__ = ["Fallback"]


_NOTHING = object()


@suggesting
@frozen(eq=False, repr=False)
class Fallback:
    """`Fallback(value)` returns the value; `Fallback(call=function)` what the function returns.

    The function gets the `Failure`, then the call's own arguments; in an async call it may be
    async. What it raises comes out. `on` (`Exception`): which failures. An `Outcome` of such a call
    is marked degraded. Values only: safe from any thread.
    """

    role: ClassVar = "fallback"
    rests: ClassVar = True

    value: Any = _NOTHING
    call: Callable[..., Any] | None = checked(to_callable, None, optional=True)
    on: Match = checked(to_match, raised(Exception))

    def __attrs_post_init__(self) -> None:
        if (self.value is _NOTHING) == (self.call is None):
            given = "neither" if self.call is None else "both"
            raise TypeError(f"Fallback takes a value or call=, got {given}")

    def __repr__(self) -> str:
        what = repr(self.value) if self.call is None else f"call={title(self.call)}"
        on = "" if self.on == raised(Exception) else f", on={self.on!r}"
        return f"Fallback({what}{on})"

    def fits_block(self, *, asynchronous: bool) -> None:
        """Raise TypeError: a block has no value that could be replaced."""
        raise TypeError(f"{self!r} has no value to give to a block of code; guard a function")

    def bind(self, call: Call, runtime: Runtime) -> Call:
        async def resorted(*args: Any, **kwargs: Any) -> Any:
            record = current()
            try:
                return await call(*args, **kwargs)
            except Exception as error:
                found = self._handles(record, error)
                if found is None:
                    raise
            record.turn()
            record.degraded = True
            record.served = None
            if self.call is None:
                del found  # the failure holds the error, and the error this frame
                return self.value
            try:
                result = self.call(found, *args, **kwargs)
            finally:
                del found
            if not is_awaitable(result):
                return result
            if runtime.asynchronous:
                return await result
            if hasattr(result, "close"):
                result.close()
            raise TypeError(
                f"Fallback(call={title(self.call)}) is async, but the call is sync; if the guarded "
                f"function is async too, say so with asynchronous=True"
            )

        return resorted

    def _handles(self, record: Record, error: Exception) -> Failure | None:
        failure = record.failure(record.own(error))
        return failure if record.matches(self.on, failure) else None
