"""`@resilient` and `@resilient(...)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, overload

from ._core.options import suggesting
from ._core.pipeline import Pipeline
from .policy import Policy

__all__ = ["resilient"]

F = TypeVar("F", bound=Callable[..., Any])


class _Decorator(Protocol):
    def __call__(self, fn: F, /) -> F: ...


@overload
def resilient(
    first: Policy,
    /,
    *policies: Policy,
    asynchronous: bool | None = None,
    name: str | None = None,
    listeners: Sequence[Callable[[Any], object]] = (),
) -> _Decorator: ...
@overload
def resilient(
    *,
    asynchronous: bool | None = None,
    name: str | None = None,
    listeners: Sequence[Callable[[Any], object]] = (),
) -> _Decorator: ...
@overload
def resilient(fn: F, /) -> F: ...
@suggesting
def resilient(
    *policies: Any,
    asynchronous: bool | None = None,
    name: str | None = None,
    listeners: Sequence[Callable[[Any], object]] = (),
) -> Any:
    """Guard a function with policies, outermost first: what comes out is a function like it.

    `@resilient` alone means `Retry()` over `CircuitBreaker()`, a breaker of the function's own;
    `@resilient(Timeout(60), Retry())` what it says. The options are those of `Pipeline`; what else
    can be done with the function is `guarded(fn)`'s.
    """
    bare = len(policies) == 1 and _is_function(policies[0])
    if bare or not policies:
        from .policies import CircuitBreaker, Retry  # imported where first needed

        chosen: Sequence[Policy] = (Retry(), CircuitBreaker())
    else:
        chosen = policies
    pipeline = Pipeline(
        *chosen,
        asynchronous=asynchronous,
        name=name,
        listeners=listeners,
    )
    return pipeline.wrap(policies[0]) if bare else pipeline


def _is_function(value: Any) -> bool:
    """Whether the bare decorator was meant."""
    if isinstance(value, type):
        return not issubclass(value, Policy)
    return not isinstance(value, Policy)
