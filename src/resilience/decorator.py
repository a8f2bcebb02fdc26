"""`@resilient` and `@resilient(...)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, overload

from ._core.fields import suggesting
from ._core.guarded import Guarded
from ._core.pipeline import Pipeline
from .policies import CircuitBreaker, Retry
from .typing import Policy

__all__ = ["resilient"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def resilient(fn: Callable[P, T], /) -> Guarded[P, T]: ...
@overload
def resilient(
    *policies: Policy,
    asynchronous: bool | None = None,
    name: str | None = None,
    listeners: Sequence[Callable[[Any], object]] = (),
) -> Pipeline: ...
@suggesting
def resilient(
    *policies: Any,
    asynchronous: bool | None = None,
    name: str | None = None,
    listeners: Sequence[Callable[[Any], object]] = (),
) -> Any:
    """Guard a function with policies, outermost first.

    `@resilient` alone means `Retry()` over `CircuitBreaker()`, a breaker of the function's own;
    `@resilient(Timeout(60), Retry())` what it says. The options are those of `Pipeline`.
    """
    if len(policies) == 1 and _is_function(policies[0]):
        default = Pipeline(
            Retry(), CircuitBreaker(), asynchronous=asynchronous, name=name, listeners=listeners
        )
        return Guarded.around(default, policies[0])
    if not policies:
        policies = (Retry(), CircuitBreaker())
    return Pipeline(*policies, asynchronous=asynchronous, name=name, listeners=listeners)


def _is_function(value: Any) -> bool:
    """Whether the bare decorator was meant: policies are not called, pipelines aside."""
    if isinstance(value, Pipeline) or (isinstance(value, type) and hasattr(value, "bind")):
        return False
    return callable(value) or not hasattr(value, "bind")
