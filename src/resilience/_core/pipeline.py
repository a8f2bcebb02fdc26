"""Policies in order, around any callable."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar, cast, overload

from attrs import field, frozen

from resilience import events
from resilience._runtimes import runtime_for
from resilience.typing import Call, Policy, Runtime

from . import served
from .around import around
from .base import base
from .block import Attempts
from .callables import Facts, refuse_unguardable
from .driver import drive
from .fields import suggesting, to_flag, to_plain_function, to_text
from .guarded import Guarded
from .handover import Carried, HandOver, Ready, Resumed
from .history import remember
from .identity import Identity
from .order import warn_of_order
from .outcome import Outcome
from .record import Record
from .rest import Rest

__all__ = ["Pipeline"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


@suggesting
@frozen(init=False, eq=False, repr=False)
class Pipeline(Identity):
    """Policies, outermost first, around any callable, sync or async.

    One object may guard many functions; they then share its circuits. It is a policy too, so
    pipelines nest. Safe from any thread and any event loop.

    `asynchronous` settles whether results are awaited; None (the default) decides by what comes
    back. `name` is for people. `listeners` are functions that get each event.
    """

    policies: tuple[Policy, ...]
    asynchronous: bool | None
    name: str | None
    listeners: tuple[events.Listener, ...]
    rest: Rest
    _announce: Callable[[events.Event], None] | None
    flat: tuple[Any, ...]
    _refusing: tuple[Any, ...]
    _chains: dict[Runtime, Call] = field(factory=dict, init=False)

    def __init__(
        self,
        *policies: Policy,
        asynchronous: bool | None = None,
        name: str | None = None,
        listeners: Sequence[Callable[[Any], object]] = (),
    ) -> None:
        for policy in policies:
            _check_policy(policy)
        if asynchronous is not None:
            to_flag("asynchronous", asynchronous)
        if name is not None:
            to_text("name", name)
        given: Any = listeners
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"listeners must be a list of functions, got {given!r}")
        heard = tuple(to_plain_function("listeners", each) for each in listeners)
        for inner in policies:
            if isinstance(inner, Pipeline):  # what was said of a part holds for the whole
                heard += inner.listeners
                asynchronous = inner.asynchronous if asynchronous is None else asynchronous
        flat = tuple(_flattened(policies))
        restless = bool(heard) or asynchronous is True
        cast(Any, self).__attrs_init__(
            policies,
            asynchronous,
            name,
            heard,
            rest=Rest([None] if restless else flat),
            announce=events.announcer(heard),
            flat=flat,
            refusing=tuple(policy for policy in flat if hasattr(policy, "refuses")),
        )
        warn_of_order(flat)

    # Using it

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn` under the policies. An awaitable comes back if `fn` gives one."""
        return Guarded.bare(self, fn)(*args, **kwargs)  # type: ignore[no-any-return]

    @overload
    def outcome(  # type: ignore[overload-overlap]  # the first is the narrower one
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Outcome[R]]: ...
    @overload
    def outcome(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]: ...
    def outcome(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` like `call`, but give an `Outcome`: an error is in it, not raised."""
        return Guarded.bare(self, fn).outcome(*args, **kwargs)

    def wrap(self, fn: F) -> F:
        """`fn` under the policies, with its signature and its overloads: see `Guarded`."""
        return Guarded.around(self, fn)  # type: ignore[no-any-return]

    def __call__(self, fn: Callable[P, T], /) -> Guarded[P, T]:
        """The same as `wrap`; what makes a pipeline a decorator."""
        return Guarded.around(self, fn)  # type: ignore[no-any-return]

    def attempts(self) -> Attempts:
        """A block of code instead of a function, for a `for` loop, or an `async for`:

            for attempt in pipeline.attempts():
                with attempt:
                    ...

        The block is admitted at `with`, its error or success is the verdict, and the wait before
        the next attempt is done in the loop. After the block's success the loop ends; its last
        error comes out. A `Fallback` has no value to give a block, and a `Timeout` cannot cut a
        sync one: TypeError (a Timeout with `pass_as` is allowed).
        """
        return Attempts(self)

    def __repr__(self) -> str:
        parts = [repr(policy) for policy in self.policies]
        if self.asynchronous is not None:
            parts.append(f"asynchronous={self.asynchronous}")
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        return f"Pipeline({', '.join(parts)})"

    # Being a policy

    def bind(self, call: Call, runtime: Runtime) -> Call:
        """The chain of all policies around `call`."""
        for policy in reversed(self.policies):
            call = policy.bind(call, runtime)
        return call

    # What Guarded asks for

    def vet(self, fn: Callable[..., Any], *, decorating: bool) -> None:
        """Raise TypeError for a function that cannot be guarded, or that a policy cannot serve."""
        refuse_unguardable(fn, decorating=decorating)
        for policy in self.flat:
            fits = getattr(policy, "fits", None)
            if fits is not None:
                fits(fn)

    def run(
        self,
        fn: Callable[..., Any],
        facts: Facts,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        asynchronous: bool | None = None,
        resumed: Resumed | None = None,
        ready: Ready | None = None,
        outcome: bool = False,
    ) -> Any:
        """Make a full call: its result, or an awaitable of it where the function is async.

        `resumed` is the outcome of a first attempt made at rest, `ready` an awaitable that the
        function has already returned, `asynchronous` what is known of this very call. With
        `outcome`, an `Outcome` stands for the result.
        """
        outer = around.get()
        record = Record(outer, fn, facts, self.asynchronous)
        self.equip(record)
        record.resumed = resumed
        record.ready = ready
        if asynchronous is not None:
            record.asynchronous = asynchronous
        if record.asynchronous:
            return self.conduct(record, args, kwargs, outcome)
        stop = None
        try:
            return drive(self.conduct(record, args, kwargs, outcome))
        except HandOver as over:
            record.ready = over.ready
        except Carried as carried:
            stop = carried.error
        if stop is not None:
            try:
                raise stop
            finally:
                del stop
        record.asynchronous = True
        return self.conduct(record, args, kwargs, outcome)

    def equip(self, record: Record) -> None:
        """Give a call's record what it needs to know of its pipeline."""
        record.pipeline = self.name
        record.emit = self._announce
        record.refuses = self.refuses

    def refuses(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a policy would turn such a call away right now."""
        return any(policy.refuses(args, kwargs) for policy in self._refusing)

    async def conduct(
        self,
        record: Record,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        outcome: bool = False,
        runtime: Runtime | None = None,
    ) -> Any:
        """Run the chain for one call, in the runtime that is found here or in the one given."""
        if runtime is None:
            runtime = runtime_for(record, asynchronous=record.asynchronous)
        if record.resumed is not None:
            record.began = record.resumed.started
        elif not record.tries:
            record.began = runtime.now()
        outer, token = around.get(), None
        end = record.close
        try:
            token = around.set(record)
            chain = base(runtime) if record.disabled else self._chain(runtime)
            result = await chain(*args, **(kwargs or {}))
        except HandOver:
            end = _goes_on
            raise
        except Exception as error:
            if outcome:
                return self._outcome(record, runtime, error=error)
            final = record.own(error)
            self._ended(record, runtime, final)
            if final is error:
                del final
                raise
        else:
            if outcome:
                return self._outcome(record, runtime, value=result)
            self._ended(record, runtime, None)
            return result
        finally:
            # The very first thing, and no function of ours: Ctrl-C is heard between two calls, and
            # a record that stays behind keeps this thread from ever being at rest again.
            try:
                around.reset(token)  # type: ignore[arg-type]
            except ValueError:
                pass  # an abandoned coroutine is being closed in another context
            except TypeError:
                around.set(outer)  # Ctrl-C came before there was a token
            end()
        try:
            raise final
        finally:
            del final

    def _chain(self, runtime: Runtime) -> Call:
        chain = self._chains.get(runtime)
        if chain is None:
            chain = self.bind(base(runtime), runtime)
            if getattr(runtime, "lasting", False):
                self._chains[runtime] = chain
        return chain

    def _outcome(
        self, record: Record, runtime: Runtime, *, value: Any = None, error: Exception | None = None
    ) -> Outcome[Any]:
        if error is not None:
            error = _plain(record.own(error))
        self._ended(record, runtime, error)
        well = error is None
        return Outcome(
            value,
            error,
            record.attempts,
            record.served if well else None,
            record.degraded and well,
            runtime.now() - record.began,
        )

    def _ended(self, record: Record, runtime: Runtime, error: Exception | None) -> None:
        if error is not None:
            error = _plain(error)
            remember(error, record)
        if record.model is not None:
            served.note(record.served if error is None else None)
        if record.emit is not None:
            elapsed = runtime.now() - record.began
            record.emit(
                events.CallEnded(
                    self.name, record.attempts, elapsed, record.served, record.degraded, error
                )
            )


def _goes_on() -> None:
    """The record of a call that is handed over stays open: the async call goes on with it."""


def _plain(error: Exception) -> Exception:
    return error.error if type(error) is Carried else error


def _flattened(policies: Iterable[Policy]) -> Iterator[Policy]:
    for policy in policies:
        if isinstance(policy, Pipeline):
            yield from _flattened(policy.policies)
        else:
            yield policy


def _check_policy(policy: Any) -> None:
    if isinstance(policy, type):
        raise TypeError(
            f"policies must be policy objects, got the class {policy.__name__}: "
            f"write {policy.__name__}()"
        )
    if not callable(getattr(policy, "bind", None)):
        raise TypeError(f"policies must be policy objects such as Retry(), got {policy!r}")
