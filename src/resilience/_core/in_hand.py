"""What a call on the full path begins with: an attempt that was made, or begun, before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CoroutineType
from typing import Any, TypeAlias

__all__ = ["Args", "Held", "InHand", "Kwargs"]

Args: TypeAlias = tuple[Any, ...]
Kwargs: TypeAlias = dict[str, Any]


class Held:
    """What is held for a call by the policies of its pipeline, outermost first."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[tuple[object, Any]]) -> None:
        self._pairs = pairs

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def pop(self, policy: object, otherwise: Any = None) -> Any:
        """Take what a policy holds, if it does. One that stands in several places of the pipeline
        takes that of its outermost place first."""
        for place, (owner, found) in enumerate(self._pairs):
            if owner is policy:
                del self._pairs[place]
                return found
        return otherwise

    def drain(self) -> Iterator[tuple[object, Any]]:
        """Take what is left, innermost first."""
        while self._pairs:
            yield self._pairs.pop()


class InHand:
    """The outcome of an attempt made at rest, or the awaitable of one begun; used once."""

    __slots__ = (
        "__weakref__",
        "args",
        "dropped",
        "epoch",
        "error",
        "held",
        "kwargs",
        "ready",
        "reports",
        "result",
        "started",
    )

    def __init__(
        self,
        args: Args,
        kwargs: Kwargs,
        ready: Any = None,
        result: Any = None,
        error: Exception | None = None,
        epoch: int = 0,
        started: float = 0.0,
        held: Held | None = None,
        reports: tuple[Any, ...] = (),
    ) -> None:
        self.args = args
        self.kwargs = kwargs
        self.ready = ready
        """An awaitable that the function has returned; it serves the same arguments only."""
        self.result = result
        self.error = error
        """Either came of an attempt made at rest."""
        self.epoch = epoch
        self.started = started
        """When that attempt began, by the circuits' count and by the real clock."""
        self.held = held
        """What policies' `begin` hooks gave; `held.pop(policy)` takes it, to be given back."""
        self.dropped: Callable[[], object] | None = None
        """Called if nobody ever awaits the guarded call whose awaitable this is."""
        self.reports = reports
        """What a guarded call inside that attempt has reported about its error."""

    @property
    def made(self) -> bool:
        """Whether the attempt is over; else it goes on when its awaitable is awaited."""
        return self.ready is None

    def deliver(self) -> Any:
        """Return the result or raise the error. Once: nothing of it is kept."""
        result, error = self.result, self.error
        self.result = self.error = None
        if error is None:
            return result
        try:
            raise error
        finally:
            del error

    def serves(self, args: Args, kwargs: Kwargs) -> bool:
        """Whether the awaitable is that of a call with these arguments."""
        return (
            len(args) == len(self.args)
            and kwargs.keys() == self.kwargs.keys()
            and all(map(_same, args, self.args))
            and all(_same(value, self.kwargs[name]) for name, value in kwargs.items())
        )

    def take(self) -> Any:
        """The awaitable, to be awaited now."""
        ready, self.ready = self.ready, None
        return ready

    def serve(self, *args: Any, **kwargs: Any) -> Any:
        """In the function's place: the awaitable that it has returned for these arguments."""
        return self.take()

    def discard(self) -> None:
        """Close a coroutine, cancel a future: whatever was begun is not left behind."""
        ready = self.take()
        for verb in ("close", "cancel"):
            if callable(end := getattr(ready, verb, None)):
                end()
                return

    def __del__(self) -> None:
        # A guarded call that nobody awaits did what is right: its coroutine is closed quietly.
        if self.ready is not None:
            if type(self.ready) is CoroutineType:
                self.ready.close()
            if self.dropped is not None:
                self.dropped()


def _same(new: Any, old: Any) -> bool:
    """The same object; or, as model overrides are merged anew each time, a dict of the same."""
    return new is old or (
        type(new) is dict
        and type(old) is dict
        and new.keys() == old.keys()
        and all(_same(value, old[name]) for name, value in new.items())
    )
