"""A function under policies. The one fast path of the library is here: a call at rest."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from . import served
from .around import around
from .callables import Facts, facts_of, underlying
from .fields import title
from .handover import Ready, Resumed
from .outcome import Outcome
from .rest import First, Heard, Rest, Rewritten, Token
from .results import PLAIN, check, is_awaitable
from .world import monotonic

if TYPE_CHECKING:
    from resilience.typing import Policy

    from .pipeline import Pipeline

__all__ = ["Guarded"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
T_co = TypeVar("T_co", covariant=True)

_surroundings = around.get

# What inspect.iscoroutinefunction looks for in things that are not functions.
_OF_FUNCTIONS = "__name__", "__code__", "__defaults__", "__kwdefaults__", "__annotations__"


class _Signature:
    """`inspect.signature` of a guarded function is that of the function."""

    def __get__(self, guarded: Guarded[Any, Any] | None, owner: type) -> inspect.Signature:
        if guarded is None:
            raise AttributeError("__signature__")
        return inspect.signature(guarded._fn)


class Guarded(Generic[P, T_co]):
    """What `resilient` and `Pipeline.wrap` give: call it like the function itself.

    It has the function's name, docs and signature, is a coroutine function if the function is
    one, binds as a method does, and pickles by its qualified name as functions do.
    """

    __slots__ = ("__dict__", "__weakref__", "_facts", "_fn", "_heard", "_pipeline", "_rest")

    __signature__ = _Signature()

    if TYPE_CHECKING:  # copied from the function, as functools.wraps does
        __name__: str
        __qualname__: str

        @property
        def __wrapped__(self) -> Callable[P, T_co]: ...

    _fn: Callable[..., Any]
    _facts: Facts
    _pipeline: Pipeline
    _rest: Rest
    _heard: Heard | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("make a Guarded with resilient(...) or Pipeline.wrap(fn)")

    @classmethod
    def bare(cls, pipeline: Pipeline, fn: Any) -> Guarded[Any, Any]:
        """For one call: nothing is copied from the function."""
        if isinstance(fn, Guarded) and fn._pipeline is pipeline:
            return fn
        guarded = Guarded._of(pipeline, fn, facts_of(fn))
        if pipeline not in guarded._facts.vetted:
            pipeline.vet(fn, decorating=False)
            if not isinstance(fn, functools.partial):  # what is bound differs from one to another
                guarded._facts.vetted.add(pipeline)
        return guarded

    @classmethod
    def around(cls, pipeline: Pipeline, fn: Any) -> Any:
        """To keep: with the function's name, docs, signature and colour."""
        if isinstance(fn, classmethod):
            return _ClassMethod(cls.around(pipeline, fn.__func__))
        if isinstance(fn, staticmethod):
            return staticmethod(cls.around(pipeline, fn.__func__))
        pipeline.vet(fn, decorating=True)
        guarded = Guarded._of(pipeline, fn, facts_of(fn))
        functools.update_wrapper(guarded, fn)
        function = underlying(fn)
        if inspect.iscoroutinefunction(function) and pipeline.asynchronous is not False:
            for name in _OF_FUNCTIONS:
                # An object's own annotations are empty, if it has any; those of its call are meant.
                guarded.__dict__[name] = guarded.__dict__.get(name) or getattr(function, name, None)
        return guarded

    @staticmethod
    def _of(pipeline: Pipeline, fn: Callable[..., Any], facts: Facts) -> Guarded[Any, Any]:
        rest = pipeline.rest
        guarded: Guarded[Any, Any]
        heard = None if rest.hears is None else rest.hears(fn)
        if rest.first is not None:
            guarded = chained = _FirstOfChain.__new__(_FirstOfChain)
            chained._first = rest.first(fn)
        elif heard is not None:
            guarded = _Counted.__new__(_Counted)
        else:
            guarded = Guarded.__new__(Guarded)
        guarded._heard = heard
        guarded._fn = fn
        guarded._facts = facts
        guarded._pipeline = pipeline
        guarded._rest = rest
        return guarded

    # Calling

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T_co:
        rest = self._rest
        token = rest.token
        if token is None or _surroundings() is not None:
            return self._pipeline.run(self._fn, self._facts, args, kwargs)  # type: ignore[no-any-return]
        started = monotonic()
        try:
            result = self._fn(*args, **kwargs)
        except Exception as error:
            resumed = Resumed(token.epoch, started, None, error)
        else:
            if type(result) in PLAIN and rest.token is token:
                return result  # type: ignore[no-any-return]
            if type(result) is CoroutineType and self._pipeline.asynchronous is None:
                return self._awaited(token, Ready(result, args, kwargs), args, kwargs)  # type: ignore[return-value]
            return self._looked(token, started, result, args, kwargs)  # type: ignore[no-any-return]
        return self._pipeline.run(self._fn, self._facts, args, kwargs, resumed=resumed)  # type: ignore[no-any-return]

    def _looked(
        self,
        token: Token,
        started: float,
        result: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        first: Rewritten | None = None,
    ) -> Any:
        """What to do with a result that is not plainly plain, or came when no longer at rest."""
        if self._pipeline.asynchronous is not False and is_awaitable(result):
            ready = Ready(result, *((args, kwargs) if first is None else first[1:]))
            return self._awaited(token, ready, args, kwargs, first)
        check(result)
        self._facts.plain = True
        if self._rest.token is token and self._counted(token, started, args, kwargs, first):
            return result
        resumed = Resumed(token.epoch, started, result, None)
        return self._pipeline.run(
            self._fn, self._facts, args, kwargs, asynchronous=False, resumed=resumed
        )

    def _counted(
        self,
        token: Token,
        started: float,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        first: Rewritten | None,
    ) -> bool:
        """Have a healthy call at rest counted where a policy hears of it; whether that is all."""
        if self._heard is None:
            return True
        if first is not None:
            _, args, kwargs = first
        return self._heard(args, kwargs, token.epoch, started, monotonic())

    async def _awaited(
        self,
        token: Token,
        ready: Ready,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        first: Rewritten | None = None,
    ) -> Any:
        """The rest of a call at rest whose function has returned an awaitable."""
        self._facts.awaitable = True
        resumed = None
        if self._rest.token is token and _surroundings() is None:
            if first is not None:
                served.note(first[0])
            started = monotonic()
            try:
                result = await ready.take()
            except Exception as error:
                resumed = Resumed(token.epoch, started, None, error)
            else:
                if type(result) not in PLAIN:
                    check(result)
                if self._rest.token is token and self._counted(token, started, args, kwargs, first):
                    return result
                resumed = Resumed(token.epoch, started, result, None)
        return await self._pipeline.run(
            self._fn,
            self._facts,
            args,
            kwargs,
            asynchronous=True,
            resumed=resumed,
            ready=ready if resumed is None else None,
        )

    # What else it can do

    @overload
    def outcome(  # type: ignore[overload-overlap]  # the first is the narrower one
        self: Guarded[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Outcome[R]]: ...
    @overload
    def outcome(self, /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T_co]: ...
    def outcome(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it, and tell what happened: an `Outcome`, with the error in it, not raised."""
        return self._pipeline.run(self._fn, self._facts, args, kwargs, outcome=True)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that guards it."""
        return self._pipeline

    def with_policies(self, *policies: Policy) -> Guarded[P, T_co]:
        """The function under these policies only, for one call site."""
        from .pipeline import Pipeline

        return self._under(Pipeline(*policies, asynchronous=self._pipeline.asynchronous))

    def replacing(self, *policies: Policy) -> Guarded[P, T_co]:
        """The function under the same policies, with the one of each type given replaced.

        Raises ValueError if the pipeline has none of that type, or more than one.
        """
        from .pipeline import Pipeline

        present = list(self._pipeline.policies)
        for policy in policies:
            at = [i for i, old in enumerate(present) if type(old) is type(policy)]
            if len(at) != 1:
                found = "none" if not at else f"{len(at)} of them"
                raise ValueError(
                    f"replacing needs exactly one {type(policy).__name__} in the pipeline, "
                    f"found {found} in {self._pipeline!r}"
                )
            present[at[0]] = policy
        pipeline = Pipeline(
            *present,
            asynchronous=self._pipeline.asynchronous,
            name=self._pipeline.name,
            listeners=self._pipeline.listeners,
        )
        return self._under(pipeline)

    def _under(self, pipeline: Pipeline) -> Guarded[P, T_co]:
        return Guarded.around(pipeline, self._fn)  # type: ignore[no-any-return]

    # Being like a function

    @overload
    def __get__(self, obj: None, owner: Any = None) -> Guarded[P, T_co]: ...
    @overload
    def __get__(
        self: Guarded[Concatenate[S, Q], T_co], obj: S, owner: Any = None
    ) -> Guarded[Q, T_co]: ...
    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None or not hasattr(type(self._fn), "__get__"):
            return self
        method = self._fn.__get__(obj, owner)
        facts = self._facts if self._facts.certain else facts_of(method)
        bound = Guarded._of(self._pipeline, method, facts)
        bound.__dict__ = self.__dict__  # name, docs, colour: shared, not copied
        return bound

    @property
    def __self__(self) -> Any:
        return self._fn.__self__  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Guarded):
            return NotImplemented
        return self._fn == other._fn and self._pipeline is other._pipeline

    def __hash__(self) -> int:
        return hash((self._fn, id(self._pipeline)))

    def __repr__(self) -> str:
        return f"<guarded {title(self._fn)} under {self._pipeline!r}>"

    def __reduce__(self) -> Any:
        """By qualified name, as functions pickle; a bound one by its object and name."""
        name = getattr(self._fn, "__qualname__", None)
        module = sys.modules.get(getattr(self._fn, "__module__", None) or "")
        if name is not None and inspect.ismethod(self._fn):
            return getattr, (self._fn.__self__, self._fn.__name__)
        found: Any = module
        for part in (name or "").split("."):
            found = getattr(found, part, None)
        if found is not self:
            raise TypeError(
                f"cannot pickle {self!r}: it pickles by name, and {name!r} in its module is "
                f"something else; decorate a function of a module to send it elsewhere"
            )
        return name

    def __copy__(self) -> Guarded[P, T_co]:
        return self

    def __deepcopy__(self, memo: Any) -> Guarded[P, T_co]:
        return self


class _ClassMethod(classmethod):  # type: ignore[type-arg]
    """A guarded class method: binds the guarded function itself, which Python 3.13 would not."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        return self.__func__.__get__(type(obj) if owner is None else owner, type)


class _Counted(Guarded[P, T_co]):
    """A guarded function whose healthy calls at rest a window counts."""

    __slots__ = ()

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T_co:
        rest = self._rest
        token = rest.token
        if token is None or _surroundings() is not None:
            return self._pipeline.run(self._fn, self._facts, args, kwargs)  # type: ignore[no-any-return]
        started = monotonic()
        try:
            result = self._fn(*args, **kwargs)
        except Exception as error:
            resumed = Resumed(token.epoch, started, None, error)
        else:
            if type(result) not in PLAIN or rest.token is not token:
                return self._looked(token, started, result, args, kwargs)  # type: ignore[no-any-return]
            if self._heard(args, kwargs, token.epoch, started, monotonic()):  # type: ignore[misc]
                return result  # type: ignore[no-any-return]
            resumed = Resumed(token.epoch, started, result, None)
        return self._pipeline.run(self._fn, self._facts, args, kwargs, resumed=resumed)  # type: ignore[no-any-return]


class _FirstOfChain(Guarded[P, T_co]):
    """A guarded function whose first attempt's arguments a model chain rewrites."""

    __slots__ = ("_first",)

    _first: First

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T_co:
        rest = self._rest
        token = rest.token
        if token is None or _surroundings() is not None:
            return self._pipeline.run(self._fn, self._facts, args, kwargs)  # type: ignore[no-any-return]
        first = self._first(args, kwargs)
        served.note(first[0])
        started = monotonic()
        try:
            result = self._fn(*first[1], **first[2])
        except Exception as error:
            resumed = Resumed(token.epoch, started, None, error)
        else:
            if type(result) not in PLAIN or rest.token is not token:
                return self._looked(token, started, result, args, kwargs, first)  # type: ignore[no-any-return]
            if self._counted(token, started, args, kwargs, first):
                return result  # type: ignore[no-any-return]
            resumed = Resumed(token.epoch, started, result, None)
        return self._pipeline.run(self._fn, self._facts, args, kwargs, resumed=resumed)  # type: ignore[no-any-return]
