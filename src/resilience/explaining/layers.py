"""The policies of a pipeline, each with its effect; nested pipelines laid out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from attrs import frozen

from resilience.policy import Effect, Gate, Policy

__all__ = ["Layer", "Layers", "layers_of"]


@frozen(eq=False)
class Layer:
    """A policy and its effect."""

    policy: Policy
    effect: Effect
    turns: tuple[tuple[str, tuple[Layer, ...]], ...] = ()
    """Of a chain of models: the name of each, and what is around its turn alone."""

    @property
    def name(self) -> str:
        return type(self.policy).__name__

    @property
    def rejects(self) -> bool:
        """Whether it may reject a call."""
        return isinstance(self.policy, Gate)


Layers: TypeAlias = tuple[Layer, ...]


def layers_of(policies: Iterable[Policy]) -> Layers:
    """The layers of policies in order, outermost first."""
    return tuple(_layers(policies))


def _layers(policies: Iterable[Policy]) -> Iterator[Layer]:
    for policy in policies:
        effect: Any = policy.effect()
        if not isinstance(effect, Effect):
            raise TypeError(
                f"{type(policy).__name__}.effect() must return an Effect, got {effect!r}"
            )
        if effect.parts:
            yield from _layers(effect.parts)
        else:
            yield Layer(policy, effect, _turns(effect))


def _turns(effect: Effect) -> tuple[tuple[str, Layers], ...]:
    """What is around each turn of a chain of models."""
    return tuple(
        (name, () if policy is None else layers_of((policy,))) for name, policy in effect.turns
    )
