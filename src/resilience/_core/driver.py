"""Drives a coroutine that never suspends to its end, in one go."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["drive"]

T = TypeVar("T")


async def _into(box: list[T], coroutine: Coroutine[Any, Any, T]) -> None:
    # The result goes into a box and the root returns None: then no StopIteration is built.
    box.append(await coroutine)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` without an event loop and return what it returns."""
    box: list[T] = []
    root = _into(box, coroutine)
    for _ in root.__await__():
        culprit = _innermost(coroutine)
        root.close()
        raise RuntimeError(
            f"{culprit} waited for an event loop in a sync call; a policy may only wait by its "
            f"runtime (await runtime.sleep(...))"
        )
    return box.pop()  # frames that a traceback keeps alive must not keep the result too


def _innermost(coroutine: Coroutine[Any, Any, Any]) -> str:
    """The name of the policy's coroutine that has suspended."""
    inner: Any = coroutine
    name = str(inner.__qualname__)
    while (inner := getattr(inner, "cr_await", None)) is not None:
        found = str(getattr(inner, "__qualname__", ""))
        if ".bind." in found:
            name = found
    return name
