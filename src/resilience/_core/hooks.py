"""What a pipeline's policies do for a call at rest, put together for one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from resilience.policy import Arguments, Policy

from .in_hand import Held
from .signals import BUSY, NO_VERDICT

__all__ = ["Hooks"]


class Hooks:
    """What a call at rest goes through: `rewrite` gives the arguments of its first attempt, `begin`
    what is held for it, `end` gives that back; each is None where no policy has it. `start` does
    the work of the first two where a policy that begins is further out than one that rewrites."""

    __slots__ = (
        "_begins",
        "_ends",
        "_owners",
        "_rewrites",
        "begin",
        "empty",
        "end",
        "rewrite",
        "start",
    )

    rewrite: Callable[..., Any] | None
    begin: Callable[..., Any] | None
    end: Callable[..., bool] | None
    start: Callable[..., Any] | None

    def __init__(self, policies: Sequence[Policy], fn: Callable[..., Any]) -> None:
        steps = [(policy, policy.at_rest(fn), policy.rewrite_first(fn)) for policy in policies]
        pairs = [(policy, pair) for policy, pair, _ in steps if pair is not None]
        self._rewrites = [rewrite for _, _, rewrite in steps if rewrite is not None]
        self.empty = not self._rewrites and not pairs
        self._owners = [policy for policy, _ in pairs]
        self._begins = [begin for _, (begin, _) in pairs]
        self._ends = [end for _, (_, end) in pairs]
        self.rewrite = self.begin = self.end = self.start = None
        if len(self._rewrites) == 1:
            self.rewrite = self._rewrites[0]
        elif self._rewrites:
            self.rewrite = self._rewrite
        if len(pairs) == 1:
            self.begin, self.end = self._begins[0], self._ends[0]
        elif pairs:
            self.begin, self.end = self._begin, self._end
        first = next((n for n, (_, pair, _) in enumerate(steps) if pair is not None), len(steps))
        if any(rewrite is not None for _, _, rewrite in steps[first:]):
            in_order = [(None if pair is None else pair[0], rewrite) for _, pair, rewrite in steps]
            self.start, self.end = partial(self._start, in_order), self._end

    def permits(self, held: Any) -> Held | None:
        """What is still held for a call: for the chain that goes on with it."""
        if not self._owners:
            return None
        if len(self._owners) == 1 and self.start is None:
            return Held([(self._owners[0], held)])
        return Held(list(zip(self._owners, held, strict=False)))

    def give_back(self, held: Held) -> None:
        """Give back what no policy of the chain has taken: one of them did not call inward."""
        ends = dict(zip(map(id, self._owners), self._ends, strict=True))
        for owner, permit in held.drain():
            ends[id(owner)](permit, NO_VERDICT, None)

    def _rewrite(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        for rewrite in self._rewrites:
            args, kwargs = rewrite(args, kwargs)
        return args, kwargs

    def _start(
        self,
        steps: Sequence[tuple[Callable[..., Any] | None, Callable[..., Any] | None]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Each policy sees the arguments as those further out have left them."""
        held: list[Any] = []
        try:
            for begin, rewrite in steps:
                if begin is not None:
                    found = begin(args, kwargs)
                    if found is BUSY:
                        self._end(held, NO_VERDICT, None)
                        return BUSY
                    held.append(found)
                if rewrite is not None:
                    args, kwargs = rewrite(args, kwargs)
        except BaseException:
            self._end(held, NO_VERDICT, None)
            raise
        return args, kwargs, held

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        held: list[Any] = []
        for begin in self._begins:
            try:
                found = begin(args, kwargs)
            except BaseException:
                self._end(held, NO_VERDICT, None)
                raise
            if found is BUSY:
                self._end(held, NO_VERDICT, None)
                return BUSY
            held.append(found)
        return held

    def _end(self, held: list[Any], error: BaseException | None, result: Any) -> bool:
        """Innermost first; one that returns False leaves the rest to the chain."""
        while held:
            if not self._ends[len(held) - 1](held[-1], error, result):
                return False
            held.pop()
        return True
