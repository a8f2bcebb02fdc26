"""How many calls a pipeline can lead to, and how long it can take: at most, whatever happens."""

from __future__ import annotations

import math
from typing import Any

from attrs import astuple, evolve, frozen

from resilience.waits import LONGEST

from .layers import Layer, Layers

__all__ = ["Bounds", "bounds"]


@frozen
class Bounds:
    """Of what is inside some layer, at most.

    - `calls`, `seconds`: for one call that comes in. The calls are those of all the rounds in which
      a chain comes to one model, unless what is inside begins `anew` in each of them.
    - `model_seconds`: over all those rounds. Infinite where only their number limits it.
    - `pause`: the longest wait after which a chain may come back; None if it never does.
    - `rejection`: seconds that a call may wait only to be rejected; None if nothing rejects it.
    """

    calls: float = 1
    seconds: float = math.inf
    anew: bool = False
    model_seconds: float = math.inf
    pause: float | None = None
    rejection: float | None = None


def bounds(layers: Layers, *, stranger: bool, in_chain: bool = False) -> Bounds:
    """The bounds of layers, outermost first, around a function that has no limits.

    `stranger`: for a call that names a model of its own. A chain that is inside another one is
    called with that one's names.
    """
    if not layers:
        return Bounds()
    layer, *rest = layers
    if layer.turns:
        return _of_chain(layer, tuple(rest), stranger=stranger, in_chain=in_chain)
    inner = bounds(tuple(rest), stranger=stranger, in_chain=in_chain)
    effect = layer.effect
    calls = effect.calls * inner.calls
    seconds = min(
        effect.limit,
        effect.calls * inner.seconds + effect.waits,
        effect.until + inner.seconds,
    )
    outer = evolve(inner, calls=calls, seconds=seconds)
    if layer.rejects:
        outer = evolve(outer, rejection=(inner.rejection or 0.0) + effect.waits)
    if effect.pause is None:
        same = effect.calls == 1 and not effect.waits
        return evolve(outer, model_seconds=inner.model_seconds if same else math.inf)
    pause = max(effect.pause, inner.pause or 0.0)
    return evolve(outer, model_seconds=math.inf if inner.anew else seconds, pause=pause)


def _of_chain(chain: Layer, inside: Layers, *, stranger: bool, in_chain: bool) -> Bounds:
    effect = chain.effect
    turns = [
        bounds((*around, *inside), stranger=stranger, in_chain=True) for _, around in chain.turns
    ]
    if effect.stranger and (stranger or in_chain):
        turns.append(_worst(turns))
    calls = seconds = 0.0
    for turn in turns:
        again = 0
        if turn.pause is not None and (len(turns) > 1 or turn.anew):  # else nobody leaves anything
            again = effect.rounds - 1
        back = _back(turn) if again else 0.0
        calls += turn.calls * (again + 1 if turn.anew else 1)
        seconds += min(
            (again + 1) * turn.seconds + again * back,
            turn.model_seconds + (again * back if turn.rejection is not None else 0.0),
        )
    worst = _worst(turns)
    seconds = min(effect.limit, seconds + effect.waits)
    return Bounds(calls, seconds, True, pause=worst.pause, rejection=worst.rejection)


def _worst(turns: list[Bounds]) -> Bounds:
    """The most of each figure."""
    columns: Any = zip(*map(astuple, turns), strict=True)
    worst: Any = (max((x for x in each if x is not None), default=None) for each in columns)
    return Bounds(*worst)


def _back(turn: Bounds) -> float:
    """Seconds that a chain waits before it comes back to a model."""
    circuit = 0.0 if turn.rejection is None else LONGEST
    return max(turn.pause or 0.0, circuit) + (turn.rejection or 0.0)
