"""What a policy does to a call, as a value: what `Pipeline.explain()` is made of."""

from __future__ import annotations

import math
from typing import Any

from attrs import frozen

__all__ = ["Effect"]


@frozen(eq=False, repr=False, kw_only=True)
class Effect:
    """What a policy does to a call, for `Pipeline.explain()`. Figures are the most there can be.

    - `line`: what it does, in plain words.
    - `calls` (1): how often it calls inward for one call; infinite without an end.
    - `waits` (0): seconds that it waits by itself in one call, all its waits together.
    - `limit` (infinite): seconds after which it ends what is inside it.
    - `until` (infinite): seconds after which it begins no further call inward.
    - `reactions`: pairs of a `Match` (what a policy's `on=` has become) and what is done
      with such a failure, in words; the first pair that matches counts, "" is nothing.
    - `ends` (False): a failure that it reacts to goes no further out.
    - `pause` (None): of a policy that leaves an attempt to another model (`Call.report(wait=...)`):
      the longest wait after which a chain of models may come back. Its `calls` and `waits` are
      for one model then, however often the chain comes back.
    - `turns`: of a chain of models: for each turn the model's name and the policy around it, or
      None. They take the place of `calls`.
    - `rounds` (1): how often each turn may come. `stranger` (False): a call that names something
      else has one more turn.
    - `restarts` (0): how often the whole call may be made anew after it has returned.
    - `parts`: policies that it is made of, outermost first; all else is theirs then.
    - `assumed` (False): the policy has no `effect` of its own; this is what most policies do.
    """

    line: str
    calls: float = 1
    waits: float = 0.0
    limit: float = math.inf
    until: float = math.inf
    reactions: tuple[tuple[Any, str], ...] = ()
    ends: bool = False
    pause: float | None = None
    turns: tuple[tuple[str, Any], ...] = ()
    rounds: int = 1
    stranger: bool = False
    restarts: int = 0
    parts: tuple[Any, ...] = ()
    assumed: bool = False
