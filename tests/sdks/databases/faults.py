"""Functions that make a client raise, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

__all__ = ["Faults", "Way"]

Way: TypeAlias = "Callable[[Any], object]"


class Faults(dict[str, Way]):
    """What can go wrong; a function of a server is added by decorating it with its name."""

    def __call__(self, name: str) -> Callable[[Way], Way]:
        def add(way: Way) -> Way:
            assert name not in self
            self[name] = way
            return way

        return add

    def asynchronous(self, name: str) -> Callable[[Callable[[Any], Awaitable[Any]]], Any]:
        """The same for a coroutine function."""

        def add(way: Callable[[Any], Any]) -> Any:
            self(name)(lambda server: asyncio.run(way(server)))
            return way

        return add
