"""What is known of a pipeline, as a value."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from resilience.failures import Kind

from .layers import Layers

__all__ = ["Facts"]


@frozen(eq=False, repr=False)
class Facts:
    """The fields of an `Explanation`, which says what they mean."""

    name: str | None
    policies: tuple[tuple[str, str], ...]
    most_calls: float
    longest: float
    own_model: tuple[float, float] | None
    own_retries: float | None
    failures: Mapping[Kind, tuple[str, ...]]
    hazards: tuple[str, ...]
    assumed: tuple[str, ...]
    _layers: Layers = field(alias="layers")

    def grouped(self) -> tuple[tuple[str, str], ...]:
        """The failures' table: kinds with which the same is done, and what that is."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for kind, steps in self.failures.items():
            groups.setdefault(steps, []).append(kind.value.replace("_", " "))
        return tuple((", ".join(kinds), ", then ".join(steps)) for steps, kinds in groups.items())
