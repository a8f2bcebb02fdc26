"""The last resort: a value, or a function's result, in place of an error.

Outermost, as a rule. Not for trying another model: that is `ModelFallback`, which keeps retries
and circuits apart for each.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from enum import Enum
from typing import Any, ClassVar, cast

from attrs import frozen

from resilience._core.options import checked, suggesting, title, to_callable, unquoted
from resilience._core.results import is_awaitable
from resilience.events import FellBack
from resilience.failures import Failure
from resilience.matching import Match, On, raised, to_match
from resilience.policy import Call, Effect, Inner, Policy, Runtime

__all__ = ["Fallback"]


class _Nothing(Enum):
    """No value was given."""

    NOTHING = "nothing"

    def __repr__(self) -> str:
        return "<nothing>"


_NOTHING = _Nothing.NOTHING


@suggesting
@frozen(eq=False, repr=False)
class Fallback(Policy):
    """`Fallback(value)` returns the value; `Fallback(call=function)` what the function returns.

    A list, dict or set is copied for each caller, nested values included. The function gets the
    `Failure`, then the call's own arguments; in an async call it may be async. Its own errors
    are raised. `on` (`Exception`): which failures. An `Outcome` of such a call is marked degraded.
    Values only: safe from any thread.
    """

    role: ClassVar[str | None] = "fallback"
    resting = True

    value: Any = _NOTHING
    call: Callable[..., Any] | None = checked(to_callable, None, optional=True)
    on: On = checked(to_match, raised(Exception))

    def __attrs_post_init__(self) -> None:
        if (self.value is _NOTHING) == (self.call is None):
            given = "neither" if self.call is None else "both"
            raise TypeError(f"Fallback takes a value or call=, got {given}")

    def __repr__(self) -> str:
        what = unquoted(self.value) if self.call is None else f"call={title(self.call)}"
        on = "" if self.on == raised(Exception) else f", on={self.on!r}"
        return f"Fallback({what}{on})"

    def check_block(self, *, asynchronous: bool) -> None:
        """Raise TypeError: a block has no value that could be replaced."""
        raise TypeError(f"{self!r} cannot replace the value of a block of code; guard a function")

    def effect(self) -> Effect:
        given = "the fallback value" if self.call is None else f"what {title(self.call)} gives"
        return Effect(
            line=f"returns {given} in place of an error",
            reactions=((self.on, f"replaced by {given}"),),
            ends=True,
        )

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def fallback(call: Call) -> Any:
            try:
                return await inner(call)
            except Exception as error:
                found = self._handled(call, error)
                if found is None:
                    raise
            call.journal.answered_by(None, degraded=True)
            call.journal.fell_back = True
            call.emit(FellBack, failure=found)
            if self.call is None:
                del found  # the failure holds the error, and the error this frame
                return _own_copy(self.value)
            try:
                result = self.call(found, *call.args, **call.kwargs)
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

        return fallback

    def _handled(self, call: Call, error: Exception) -> Failure | None:
        """What the error means, if it is to be handled."""
        failure = call.failure(call.journal.own(error))
        return failure if call.matches(cast(Match, self.on), failure, self) else None


def _own_copy(value: Any) -> Any:
    """A value that its caller may change; what cannot be copied is shared."""
    if not isinstance(value, (list, dict, set)):
        return value
    try:
        return deepcopy(value)
    except Exception:
        return copy(value)
