"""A function that does what a script says, step by step."""

from __future__ import annotations

import inspect
import threading
from typing import Any

from attrs import define, field

__all__ = ["Script", "script"]


@define(eq=False)
class Script:
    """Call it like the function it stands for; `calls` has the arguments of each call."""

    steps: tuple[Any, ...]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(factory=list, init=False)
    _lock: Any = field(factory=threading.Lock, init=False, repr=False)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self.calls.append((args, kwargs))
            step = self.steps[min(len(self.calls), len(self.steps)) - 1]
        if isinstance(step, BaseException) or (
            isinstance(step, type) and issubclass(step, BaseException)
        ):
            raise step
        return step(*args, **kwargs) if inspect.isroutine(step) else step


class _AsyncScript(Script):
    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        result = super().__call__(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result


def script(*steps: Any, asynchronous: bool = False) -> Script:
    """A function whose nth call does the nth step; the last step is then repeated.

    A step that is an exception (or a class of one) is raised; a function is called with the call's
    arguments; anything else is returned. With `asynchronous`, an async function (and functions in
    it may be async). Raises ValueError without steps.
    """
    if not steps:
        raise ValueError("steps must be one or more, got none")
    return (_AsyncScript if asynchronous else Script)(steps)
