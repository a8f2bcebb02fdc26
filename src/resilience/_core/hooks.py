"""What a pipeline's policies do for a call at rest, put together for one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from resilience.policy import Arguments, Policy

from .in_hand import Held
from .signals import BUSY, NO_VERDICT

__all__ = ["Hooks"]


class Hooks:
    """What a call at rest goes through: `rewrite` gives the arguments of its first attempt, `begin`
    what is held for it, `end` gives that back; each is None where no policy has it.

    `resting` is False where a policy that begins stands outside one that rewrites: it would be
    asked with the wrong arguments, so such calls take the full path.
    """

    __slots__ = ("_begins", "_ends", "_owners", "_rewrites", "begin", "end", "resting", "rewrite")

    def __init__(self, policies: Sequence[Policy], fn: Callable[..., Any]) -> None:
        self._owners: list[Policy] = []
        self._begins: list[Callable[..., Any]] = []
        self._ends: list[Callable[..., bool]] = []
        self._rewrites: list[Callable[..., Arguments]] = []
        self.resting = True
        for policy in policies:
            if (pair := policy.at_rest(fn)) is not None:
                self._owners.append(policy)
                self._begins.append(pair[0])
                self._ends.append(pair[1])
            if (rewrite := policy.rewrite_first(fn)) is not None:
                self._rewrites.append(rewrite)
                self.resting = self.resting and not self._owners
        self.rewrite = _one(self._rewrites, self._rewrite)
        self.begin = _one(self._begins, self._begin)
        self.end = _one(self._ends, self._end)

    def permits(self, held: Any) -> Held | None:
        """What is still held for a call: for the chain that goes on with it."""
        if len(self._owners) == 1:
            return Held([(self._owners[0], held)])
        return Held(list(zip(self._owners, held, strict=False))) if self._owners else None

    def give_back(self, held: Held) -> None:
        """Give back what no policy of the chain has taken: one of them did not call inward."""
        ends = dict(zip(map(id, self._owners), self._ends, strict=True))
        for owner, permit in held.drain():
            ends[id(owner)](permit, NO_VERDICT, None)

    def _rewrite(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        for rewrite in self._rewrites:
            args, kwargs = rewrite(args, kwargs)
        return args, kwargs

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        held: list[Any] = []
        try:
            for begin in self._begins:
                found = begin(args, kwargs)
                if found is BUSY:
                    break
                held.append(found)
            else:
                return held
        except BaseException:
            self._end(held, NO_VERDICT, None)
            raise
        self._end(held, NO_VERDICT, None)
        return BUSY

    def _end(self, held: list[Any], error: BaseException | None, result: Any) -> bool:
        """Innermost first; one that returns False to a success leaves the rest to the chain."""
        while held:
            if not self._ends[len(held) - 1](held[-1], error, result) and error is None:
                return False
            held.pop()
        return True


def _one(steps: list[Any], several: Callable[..., Any]) -> Any:
    """The only step as it is; None for none."""
    return several if len(steps) > 1 else steps[0] if steps else None
