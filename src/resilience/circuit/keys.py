"""The key of a call: which of a breaker's circuits it goes through."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from resilience._core.arguments import slot_of

__all__ = ["reader_of"]


def reader_of(
    fn: Callable[..., Any], key: str | Callable[..., Hashable]
) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    """What computes the key from a call's `args` and `kwargs`: the value of the argument of that
    name, or what a function of the arguments says. It may raise."""
    if isinstance(key, str):
        return slot_of(fn, key, reading=True).read
    return lambda args, kwargs: key(*args, **kwargs)
