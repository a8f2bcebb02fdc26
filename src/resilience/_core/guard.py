"""A function under policies: what it does at rest, and how its full path begins and ends.

What `Pipeline.wrap` gives is a real function, a closure over the user's function and its `Guard`.
At rest it calls the user's function directly; that is the only fast path of the library.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from types import CoroutineType, FunctionType
from typing import Any, NoReturn, TypeVar

from resilience._runtimes.loops import loop_runtime, runtime_for
from resilience._runtimes.threads import threads
from resilience.sdks.retries import check_retries, is_checked

from . import call as calls  # noqa: F401  # pyright: ignore[reportUnusedImport]  # for closures
from .arguments import Slot
from .call import Call, Journal
from .clock import monotonic  # noqa: F401  # pyright: ignore[reportUnusedImport]  # for closures
from .context import everywhere, get_ambient, is_disabled
from .deferred import async_generator_closure, deferred
from .emitter import Emitter
from .functions import facts_of, underlying
from .history import cut_short, ended, raised, reported_inside, returned
from .hooks import Hooks
from .idle import BUSY_FOR_EVER, Period
from .in_hand import Args, InHand, Kwargs
from .results import PLAIN, is_awaitable, is_plain
from .runtime import Runtime
from .signals import (
    BUSY,  # noqa: F401  # pyright: ignore[reportUnusedImport]  # for closures
    NO_VERDICT,
    Carried,
    Deferred,
    HandOver,
    plain,
)

__all__ = ["CODES", "Guard", "closure", "drive", "guard_of"]

T = TypeVar("T")

_new = object.__new__

# A closure takes what it needs from this module, not from its own globals: so a notebook can send
# it to another process by value. (A context variable's method, named in it, could not be sent.)
# The module is in a cell of its own, which is read faster than a global.
_here: Any = sys.modules[__name__]


def closure(guard: Guard) -> Callable[..., Any]:
    """The function that stands for a guard's, of the same colour."""
    asynchronous = guard.pipeline.asynchronous
    if asynchronous is None:
        asynchronous = guard.facts.certain
    function = underlying(guard.fn)
    if inspect.isgeneratorfunction(function):
        return _generator_closure(guard.fn, guard)
    if inspect.isasyncgenfunction(function):
        return async_generator_closure(guard.fn, guard)
    return (_async_closure if asynchronous else _sync_closure)(guard.fn, guard)


def guard_of(fn: Any) -> Guard | None:
    """The guard of a guarded function; None for anything else.

    `functools.wraps` copies a function's attributes: a guard is valid only if it is of this one.
    Nothing else is asked for its attributes: a proxy may have none just now.
    """
    if type(fn) is not FunctionType or fn.__code__ not in CODES:
        return None
    guard = fn.__dict__.get("__resilience__")
    own = any(cell.cell_contents is guard for cell in fn.__closure__ or ())
    return guard if type(guard) is Guard and own else None


# Each call at rest goes through one of these two, and no other function of ours: a second one would
# cost a tenth of it.


def _sync_closure(  # noqa: C901
    fn: Callable[..., Any], guard: Guard, here: Any = _here
) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912
        period = guard.idle.period
        if period is None or here.get_ambient() is not None:
            return guard.run(args, kwargs)
        first = args
        named = kwargs
        held = None
        in_hand: InHand | None
        hooks = guard.hooks
        if hooks is not None:
            try:
                if hooks.rewrite is not None:
                    first, named = hooks.rewrite(args, kwargs)
                if hooks.begin is not None:
                    held = hooks.begin(first, named)
            except Exception:
                held = here.BUSY  # the full path says what is wrong
            if held is here.BUSY:
                return guard.run(args, kwargs)
        serial = here.calls.serials
        started = here.monotonic()
        try:
            result = fn(*first, **named)
        except Exception as error:
            in_hand = guard.failed(error, serial, period, started, first, named, held)
        except BaseException:
            guard.abandoned(held)
            raise
        else:
            kind = type(result)
            if kind is guard.kind or kind in here.PLAIN:
                guard.kind = kind
                if guard.idle.period is period and (
                    hooks is None or hooks.end is None or hooks.end(held, None, result)
                ):
                    return result
                in_hand = guard.in_hand(period, started, first, named, held, result=result)
            else:
                in_hand = guard.looked(result, period, started, first, named, held)
                if in_hand is None:
                    return result
            result = None  # it is not kept alive by this frame
        return guard.run(args, kwargs, in_hand)

    return guarded


def _async_closure(fn: Callable[..., Any], guard: Guard, here: Any = _here) -> Callable[..., Any]:
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        period = guard.idle.period
        if period is None or here.get_ambient() is not None:
            return await guard.conduct(args, kwargs)
        first = args
        named = kwargs
        held = None
        in_hand: InHand | None
        hooks = guard.hooks
        if hooks is not None:
            try:
                if hooks.rewrite is not None:
                    first, named = hooks.rewrite(args, kwargs)
                if hooks.begin is not None:
                    held = hooks.begin(first, named)
            except Exception:
                held = here.BUSY  # the full path says what is wrong
            if held is here.BUSY:
                return await guard.conduct(args, kwargs)
        serial = here.calls.serials
        started = here.monotonic()
        try:
            result = await fn(*first, **named)
            at_once = type(result) in here.PLAIN or here.is_plain(result)
        except Exception as error:
            in_hand = guard.failed(error, serial, period, started, first, named, held)
        except BaseException:
            guard.abandoned(held)
            raise
        else:
            if (
                at_once
                and guard.idle.period is period
                and (hooks is None or hooks.end is None or hooks.end(held, None, result))
            ):
                return result
            in_hand = guard.in_hand(period, started, first, named, held, result=result)
            result = None  # it is not kept alive by this frame
        return await guard.conduct(args, kwargs, in_hand)

    return guarded


def _generator_closure(fn: Callable[..., Any], guard: Guard) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        stream = guard.run(args, kwargs)
        if not hasattr(stream, "__next__"):  # a value that stands for it
            yield stream
            return None
        return (yield from stream)

    return guarded


CODES = {
    make(print, None).__code__  # type: ignore[arg-type]
    for make in (_sync_closure, _async_closure, _generator_closure, async_generator_closure)
}
"""Of guarded functions. One that wraps such a function may have cells that are empty yet."""


class Guard:
    """What a guarded function knows: its pipeline, and what that does at rest for this function."""

    __slots__ = (
        "continues",
        "emit",
        "facts",
        "fn",
        "hooks",
        "idle",
        "kind",
        "pipeline",
        "restarts",
        "slots",
        "stream_end",
        "title",
        "unasked",
    )

    def __init__(self, pipeline: Any, fn: Callable[..., Any]) -> None:
        self.pipeline = pipeline
        self.fn = fn
        self.facts = facts = facts_of(fn)
        self.slots: dict[tuple[str, bool], Slot] = {}
        self.kind: type = type(None)
        """Of the latest plain result: most functions' are all of one kind."""
        self.restarts = 0
        self.continues = False
        self.stream_end: float | None = None
        """Of a stream that broke off: fresh attempts so far; whether this one continues it."""
        self.emit: Emitter = pipeline._emit
        self.title: str | None = None
        """The function's name, once somebody has asked for it."""
        self.idle: Any = pipeline._idle
        """`BUSY_FOR_EVER` once the function is known to call guarded functions: these must find
        the call in the context."""
        self.hooks: Hooks | None = None
        if pipeline._hooked:
            hooks = Hooks(pipeline._hooked, fn)
            if hooks.begin is not None or hooks.rewrite is not None:
                self.hooks = hooks
            if not hooks.resting:
                self.idle = BUSY_FOR_EVER
        self.unasked: Any = None
        """What `idle` will be once it is known whether the client retries, too."""
        if facts.of_client and pipeline._attempts > 1 and not is_checked(fn):
            self.unasked, self.idle = self.idle, BUSY_FOR_EVER

    def __reduce__(self) -> Any:
        return Guard, (self.pipeline, self.fn)

    # A call at rest that goes on in the full path

    def in_hand(
        self, period: Period, started: float, args: Args, kwargs: Kwargs, held: Any, **came: Any
    ) -> InHand:
        """What to hand to the chain; `came` is the `result`, or the `error` and the `reports`."""
        permits = None if self.hooks is None else self.hooks.permits(held)
        return InHand(args, kwargs, epoch=period.epoch, started=started, held=permits, **came)

    def failed(self, error: Exception, serial: int, *begun: Any) -> InHand:
        """What to hand to the chain after an error; `begun` is what `in_hand` takes."""
        reports = reported_inside(error, serial, self)
        if reports:
            self.nests()
        return self.in_hand(*begun, error=error, reports=reports)

    def nests(self) -> None:
        """The function calls guarded functions, which must find the call in the context."""
        self.idle = BUSY_FOR_EVER

    def looked(
        self, result: Any, period: Period, started: float, args: Args, kwargs: Kwargs, held: Any
    ) -> InHand | None:
        """What to hand to the chain after a sync call whose result is not known to be plain; None
        if that result is all."""
        if self.pipeline.asynchronous is not False and is_awaitable(result):
            self.facts.awaitable = True
            self.abandoned(held)  # nothing is held until it is awaited
            return InHand(args, kwargs, ready=result)
        try:
            at_once = is_plain(result)
        except BaseException:
            self.abandoned(held)
            raise
        self.facts.plain = True
        end = None if self.hooks is None else self.hooks.end
        if at_once and self.idle.period is period and (end is None or end(held, None, result)):
            return None
        return self.in_hand(period, started, args, kwargs, held, result=result)

    def abandoned(self, held: Any) -> None:
        """Give back what is held for a call at rest that was cancelled or interrupted."""
        if self.hooks is not None and self.hooks.end is not None:
            self.hooks.end(held, NO_VERDICT, None)

    def ask(self, args: Args, kwargs: Kwargs) -> None:
        """In the first call: whether the client retries by itself. Later calls may be at rest."""
        self.idle, self.unasked = self.unasked or self.idle, None  # another thread may be first
        check_retries(self.fn, self.pipeline._attempts, args, kwargs)

    # The full path. Its two functions are long: each one more would be a frame more in every call.

    def run(  # noqa: C901, PLR0912, PLR0915
        self, args: Args, kwargs: Kwargs, in_hand: InHand | None = None, outcome: bool = False
    ) -> Any:
        """A call on the full path: its result, or a coroutine of it where the function is async.

        With `outcome`, an `Outcome` stands for the result.
        """
        if self.unasked is not None:
            self.ask(args, kwargs)
        facts, settled = self.facts, self.pipeline.asynchronous
        if settled or (
            settled is None
            and (facts.certain or facts.likely or facts.awaitable)
            and (facts.asynchronous or (in_hand is not None and in_hand.ready is not None))
        ):
            return self.conduct(args, kwargs, in_hand, outcome)
        outer = get_ambient()
        journal = Journal(self, outer, in_hand)
        known = settled is False or (facts.plain and not facts.awaitable)
        if outer is None and known:
            runtime: Runtime = threads
        else:
            runtime = runtime_for(outer, asynchronous=False, unknown=not known)
        whole = self.pipeline._chains.get(runtime)
        if whole is None or outer is not None or everywhere.holders:
            whole = self.pipeline._chain(runtime, is_disabled(outer), journal.born_in)
        call = _new(Call)
        call.journal = call.branch = journal
        call.fn = self.fn
        call.args = args
        call.kwargs = kwargs
        call.model = call.alternatives = call.judge = call.terms = call.place = call.budgets = None
        call.deadline = journal.born_in
        if outcome:
            journal.keeps = True
        final: Exception | None = None
        try:
            if journal.keeps:
                journal.start(runtime)
            driven = whole(call)
            for _ in driven.__await__():
                _refuse_to_wait(driven)
        except HandOver as over:
            # Afresh, with the awaitable in hand; what policies remember in the journal stays.
            over.in_hand.dropped = partial(cut_short, journal, runtime)
            return self.conduct(args, kwargs, over.in_hand, outcome, journal)
        except Deferred as made:
            cut_short(journal, runtime)
            return deferred(self, args, kwargs, made.in_hand, outcome)
        except Exception as error:
            final = raised(journal, runtime, error, outcome)
            if final is error and type(error) is not Carried:
                del final
                raise
        except BaseException as error:
            cut_short(journal, runtime, error)
            raise
        else:
            result, journal.result = journal.result, None
            if type(result) in PLAIN and not outcome:
                if journal.keeps or journal.attempts or journal.reports or outer is not None:
                    ended(journal, runtime)
                return result
            journal.result = result
            returned(journal, runtime, outcome)
        finally:
            if in_hand is not None and in_hand.held and self.hooks is not None:
                self.hooks.give_back(in_hand.held)
        if final is None:
            return journal.take_result()
        try:
            raise plain(final)
        finally:
            del final

    async def conduct(  # noqa: C901, PLR0912, PLR0915
        self,
        args: Args,
        kwargs: Kwargs,
        in_hand: InHand | None = None,
        outcome: bool = False,
        journal: Journal | None = None,
        runtime: Runtime | None = None,
    ) -> Any:
        """The same in the event loop that runs here, or in the runtime given. `journal` is that of
        a call which began as a sync one."""
        if self.unasked is not None:
            self.ask(args, kwargs)
        if journal is None:
            journal = Journal(self, get_ambient(), in_hand)
        else:
            journal.in_hand = in_hand
        outer = journal.outer
        if runtime is None:
            runtime = loop_runtime() if outer is None else runtime_for(outer, asynchronous=True)
        chain = self.pipeline._chains.get(runtime)
        if chain is None or outer is not None or everywhere.holders:
            chain = self.pipeline._chain(runtime, is_disabled(outer), journal.born_in)
        call = _new(Call)
        call.journal = call.branch = journal
        call.fn = self.fn
        call.args = args
        call.kwargs = kwargs
        call.model = call.alternatives = call.judge = call.terms = call.place = call.budgets = None
        call.deadline = journal.born_in
        if outcome:
            journal.keeps = True
        final: Exception | None = None
        try:
            if journal.keeps:
                journal.start(runtime)
            result = await chain(call)
        except Deferred as made:
            cut_short(journal, runtime)
            return deferred(self, args, kwargs, made.in_hand, outcome)
        except Exception as error:
            final = raised(journal, runtime, error, outcome)
            if final is error and type(error) is not Carried:
                del final
                raise
        except BaseException as error:
            cut_short(journal, runtime, error)
            raise
        else:
            if type(result) in PLAIN and not outcome:
                if journal.keeps or journal.attempts or journal.reports or outer is not None:
                    ended(journal, runtime)
                return result
            journal.result = result
            returned(journal, runtime, outcome)
        finally:
            if in_hand is not None:
                if in_hand.ready is not None:
                    in_hand.discard()
                if in_hand.held and self.hooks is not None:
                    self.hooks.give_back(in_hand.held)
        if final is None:
            return journal.take_result()
        try:
            raise plain(final)
        finally:
            del final


def drive(inner: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends to its end, in one go, and return what it returns."""
    box: list[T] = []
    for _ in _into(box, inner).__await__():
        _refuse_to_wait(inner)
    return box.pop()


async def _into(box: list[T], inner: Coroutine[Any, Any, T]) -> None:
    box.append(await inner)


def _refuse_to_wait(inner: Coroutine[Any, Any, Any]) -> NoReturn:
    culprit = _innermost(inner)
    inner.close()
    raise RuntimeError(
        f"{culprit} waited for an event loop in a sync call; a policy may only wait by its "
        f"runtime (await runtime.sleep(seconds, call))"
    )


def _innermost(inner: Any) -> str:
    """The name of the policy's coroutine that has suspended."""
    name = str(inner.__qualname__)
    while isinstance(inner, CoroutineType):
        if ".bind." in inner.__qualname__:
            name = inner.__qualname__
        inner = inner.cr_await
    return name
