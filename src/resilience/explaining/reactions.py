"""What a pipeline does with a failure, step by step, in words."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from resilience._core.certainty import surely
from resilience.failures import Advice, Failure, Kind

from .layers import Layer, Layers

__all__ = ["ADVICE", "reactions"]

ADVICE = {kind: kind.advice for kind in Kind} | {
    Kind.REJECTED: Advice.STOP,
    Kind.UNKNOWN: Advice.STOP,
}
"""What failures of each kind mostly come with."""


@frozen
class _Step:
    """What one policy does: `sure` to, whether nothing is called again, whether it is the end."""

    words: str
    sure: bool
    still: bool
    ends: bool


def reactions(layers: Layers, failure: Failure) -> tuple[str, ...]:
    """What is done with such a failure at every attempt, from the inside out; the last word is how
    it comes out."""
    words: list[str] = []
    still = True
    for step in _of_layers(layers, failure):
        words.append(step.words)
        still = still and step.still
        if step.ends and step.sure:
            return tuple(words)
    return (*words, "raised at once" if still else "raised")


def _of_layers(layers: Layers, failure: Failure) -> Iterator[_Step]:
    if not layers:
        return
    layer, *rest = layers
    yield from _of_layers(tuple(rest), failure)
    yield from _of_turns(layer, failure)
    yield from _of_layer(layer, failure)


def _of_turns(chain: Layer, failure: Failure) -> Iterator[_Step]:
    """What is done in the turns of a chain's models alone: where they differ, with their names."""
    each = [(name, list(_of_layers(around, failure))) for name, around in chain.turns]
    if all(steps == each[0][1] for _, steps in each):
        yield from each[0][1] if each else ()
        return
    for name, steps in each:
        for step in steps:
            yield _Step(f"{step.words} ({name})", False, step.still, step.ends)


def _of_layer(layer: Layer, failure: Failure) -> Iterator[_Step]:
    effect = layer.effect
    still = effect.calls <= 1 and not effect.turns
    for match, words in effect.reactions:
        found = surely(match, failure)
        if found and words:
            yield _Step(words, True, still, effect.ends)
        elif found is None and words:
            yield _Step(f"{words} if on={_shown(match)} matches", False, still, effect.ends)
        if found:
            return


def _shown(match: object) -> str:
    """A condition for people; tenacity's by their names."""
    shown = repr(match)
    return type(match).__name__ if shown.startswith("<") else shown
