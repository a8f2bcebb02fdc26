"""The typed handle for a guarded function: what else can be done with it besides calling it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from resilience.policy import Policy
from resilience.sdks.retries import retries_of

from .guard import Guard, guard_of
from .options import title
from .outcome import Outcome
from .pipeline import Pipeline

if TYPE_CHECKING:
    from resilience.explaining import Explanation

__all__ = ["Guarded", "guarded"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Guarded(Generic[P, T_co]):
    """What `guarded(fn)` gives for a guarded function or bound method."""

    __slots__ = ("_bound", "_guard")

    def __init__(self, guard: Guard | None = None, bound: tuple[Any, ...] = ()) -> None:
        if type(guard) is not Guard:
            raise TypeError("a Guarded is what guarded(fn) gives; it is not made by hand")
        self._guard = guard
        self._bound = bound

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that guards it."""
        return cast(Pipeline, self._guard.pipeline)

    @overload
    def outcome(  # type: ignore[overload-overlap]  # the first is the narrower one
        self: Guarded[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Outcome[R]]: ...
    @overload
    def outcome(self, /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T_co]: ...
    def outcome(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it, and give an `Outcome`: an error is in it, not raised."""
        return self._guard.run((*self._bound, *args), kwargs, outcome=True)

    def explain(self) -> Explanation:
        """What its pipeline does, as of `Pipeline.explain()`; and how often its client repeats each
        request by itself, if that is known."""
        from resilience.explaining import explain

        pipeline, fn = self.pipeline, self._guard.fn
        return explain(pipeline.policies, pipeline._flat, title(fn), retries_of(fn))

    def with_policies(self, *policies: Policy) -> Callable[P, T_co]:
        """The function under these policies only, for one call site."""
        return self._under(Pipeline(*policies, asynchronous=self.pipeline.asynchronous))

    def replacing(self, *policies: Policy, at: int | None = None) -> Callable[P, T_co]:
        """The function under the same policies, with the one of each type given replaced.

        Policies of nested pipelines are found, too. Where there are several of a type, `at` says
        which: 0 is the outermost, -1 the innermost. ValueError if there is none of that type, or
        if there are several and `at` is missing or out of range.
        """
        pipeline = self.pipeline
        for policy in policies:
            pipeline = _replaced(pipeline, policy, at)
        return self._under(pipeline)

    def _under(self, pipeline: Pipeline) -> Callable[P, T_co]:
        made = pipeline.wrap(self._guard.fn)
        return MethodType(made, *self._bound) if self._bound else made

    def __repr__(self) -> str:
        return f"<guarded {title(self._guard.fn)} under {self.pipeline!r}>"


def guarded(fn: Callable[P, T], /) -> Guarded[P, T]:
    """The handle for a guarded function; of a bound method, with its `self`.

    TypeError for what is not guarded: a function that wraps a guarded one is another function.
    """
    bound = type(fn) is MethodType
    found = guard_of(fn.__func__ if bound else fn)  # type: ignore[attr-defined]
    if found is None:
        raise TypeError(f"{title(fn)} is not guarded: decorate it with @resilient(...) first")
    return Guarded(found, (fn.__self__,) if bound else ())  # type: ignore[attr-defined]


def _replaced(pipeline: Pipeline, policy: Policy, at: int | None) -> Pipeline:
    kind = type(policy)
    places = [i for i, old in enumerate(pipeline._flat) if type(old) is kind]
    if not places:
        raise ValueError(f"replacing found no {kind.__name__} in {pipeline!r}")
    if at is None and len(places) > 1:
        each = ", ".join(f"{n}: {pipeline._flat[i]!r}" for n, i in enumerate(places))
        raise ValueError(
            f"there are {len(places)} policies of type {kind.__name__}: say which to replace with "
            f"at= ({each})"
        )
    try:
        place = places[at or 0]
    except IndexError:
        raise ValueError(
            f"at must be one of the {len(places)} places of {kind.__name__}, got {at}"
        ) from None
    return pipeline._with(place, policy)
