"""The facts of one call. A `Record` belongs to one call and is never shared by two."""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import define

from resilience import events
from resilience.errors import DeadlineExceededError, RejectedError, is_refusal
from resilience.failures import Failure, describe

from .arguments import slot_of
from .around import Surroundings, around
from .attempt import Attempt
from .handover import Carried, HandOver, Ready, Resumed
from .results import Unguardable
from .scope import Expired, Scope, live
from .world import moment, monotonic

if TYPE_CHECKING:
    from resilience.matching import Match

    from .callables import Facts

__all__ = ["Record", "Try", "current"]

S = TypeVar("S")
_KEPT = 1000  # attempts kept of one call, half of them the first ones
_number = itertools.count(1).__next__


@define(eq=False)
class Try:
    """An attempt while it is being made."""

    number: int
    started: float
    model: str | None
    waited: float
    duration: float | None = None
    failure: Failure | None = None
    retry_at: datetime | None = None


class _Progress(Generic[S]):
    """Leaves a policy's state in the record if a hand-over passes; a plain class, for its cost."""

    __slots__ = ("_owner", "_record", "_state")

    def __init__(self, record: Record, owner: object, state: S) -> None:
        self._record = record
        self._owner = owner
        self._state = state

    def __enter__(self) -> S:
        return self._state

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is HandOver:
            if self._record._left is None:
                self._record._left = []
            self._record._left.append((self._owner, self._state))


class _Scoped:
    """A deadline while it is set; a plain class, for its cost."""

    __slots__ = ("_before", "_record", "_scope")

    def __init__(self, record: Record, scope: Scope) -> None:
        self._record = record
        self._scope = scope
        self._before = record.scope

    def __enter__(self) -> None:
        self._record.scope = self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._record.scope = self._before
        self._scope.ended = True
        # By its kind: a user's error may lie about its class, or refuse to be asked.
        if kind is Expired and cast(Expired, error).scope is self._scope:
            raise DeadlineExceededError(self._scope.seconds) from None


class Record(Surroundings):
    """From a call's first attempt to the error or value that comes out."""

    # Most calls leave most of these as they are: defaults on the class cost nothing per call.
    calls: tuple[int, ...] = ()
    """The numbers of this call and of those it is in, innermost first; no two calls share one."""
    pipeline: str | None = None
    emit: Callable[[events.Event], None] | None = None
    began = 0.0
    since = 0.0
    """Start of the last attempt on the real clock, whatever world this is."""
    made = 0
    """Attempts so far."""
    waited = 0.0
    """Seconds waited since the last attempt."""
    model: str | None = None
    """Whose turn it is, once a model chain has spoken."""
    substituted = False
    """Is `fn` the function of another model?"""
    served: str | None = None
    degraded = False
    opened = False
    """Is a circuit open that the last attempt went through?"""
    refusal: RejectedError | None = None
    remarks: tuple[str, ...] = ()
    alternatives: Callable[[Failure], bool] | None = None
    """Asks a model chain whether another of its models is free, and may do better."""
    refuses: Callable[[tuple[Any, ...], dict[str, Any]], bool] | None = None
    """Asks the pipeline whether a call would be turned away now."""
    resumed: Resumed | None = None
    ready: Ready | None = None
    _left: list[tuple[object, Any]] | None = None
    """Where policies stood when the call was handed over, innermost first."""

    def __init__(
        self,
        outer: Surroundings | None,
        fn: Callable[..., Any],
        facts: Facts,
        settled: bool | None = None,
    ) -> None:
        self.inherit(outer)
        around_call = outer.call if outer is not None else None
        self.fn = fn
        self.facts = facts
        self.settled = settled
        """Async or not, as the user said; None: by what comes back."""
        self.asynchronous = facts.asynchronous if settled is None else settled
        self.tries: list[Try] = []
        self._born_in = self.scope  # what is passed on there is for somebody else's function
        self.calls = (_number(), *(around_call.calls if around_call is not None else ()))

    @property
    def call(self) -> Record:
        return self

    # Attempts

    def begin(self, now: float, kwargs: dict[str, Any], since: float | None = None) -> Try:
        """Note the start of an attempt; `since` is that of one made at rest, on the real clock."""
        model = self.model
        if model is None and isinstance(named := kwargs.get("model"), str):
            model = named
        self.made += 1
        this = Try(self.made, now, model, self.waited)
        self.tries.append(this)
        if len(self.tries) > _KEPT:  # of an endless Retry, the first and the last are kept
            del self.tries[_KEPT // 2]
        self.waited = 0.0
        self.opened = False
        self.since = monotonic() if since is None else since
        return this

    def withdraw(self, this: Try) -> None:
        """The attempt has not happened, or not yet: it goes on where its awaitable is awaited."""
        self.made -= 1
        self.tries.pop()
        self.waited = this.waited

    def unstarted(self, scope: Scope) -> Expired:
        """What to raise when time is up before the function was called: no attempt was made."""
        self.withdraw(self.tries[-1])
        return Expired(scope)

    def succeeded(self, this: Try, now: float) -> None:
        this.duration = now - this.started
        self.served = this.model
        self._ended(this)

    def failed(self, this: Try, error: Exception, now: float) -> None:
        this.duration = now - this.started
        this.failure = self.failure(error)
        this.retry_at = moment(this.failure.retry_after)
        self._ended(this)

    def cut(self, error: DeadlineExceededError, now: float) -> None:
        """A time limit has ended the attempt under way, if one was."""
        last = self.tries[-1] if self.tries else None
        if last is not None and last.duration is None:
            self.failed(last, error, now)

    def _ended(self, this: Try) -> None:
        if self.emit is not None:
            self.emit(events.AttemptEnded(self.pipeline, self.seen(this)))

    def seen(self, this: Try) -> Attempt:
        return Attempt(
            this.number,
            this.started - self.began,
            this.duration,
            this.model,
            this.failure,
            this.waited,
            this.retry_at,
        )

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return tuple(map(self.seen, self.tries))

    # Errors

    def failure(self, error: Exception) -> Failure:
        """What an error means, read once for each attempt."""
        if type(error) is Carried:
            error = error.error
        known = self.tries[-1].failure if self.tries else None
        return known if known is not None and known.error is error else describe(error)

    def own(self, error: Exception) -> Exception:
        """The call's own last error in place of a refusal, if the call was made at all."""
        if is_refusal(error):
            for this in reversed(self.tries):
                if this.failure is not None and this.failure.error is not None:
                    self.refusal = cast(RejectedError, error)
                    own = this.failure.error
                    return Carried(own) if issubclass(type(own), StopIteration) else own
        return error

    def matches(self, match: Match, failure: Failure) -> bool:
        """Ask a policy's `on`. If it raises, that is noted and the answer is no."""
        if type(failure.error) is Unguardable:
            return False  # a mistake in the program, not a failure of the call
        try:
            return bool(match(failure))
        except Exception as problem:
            self.remark(f"on= raised {type(problem).__name__}")
            return False

    def bad(self, on_result: Callable[[Any], Any] | None, result: Any) -> bool:
        """Ask a policy's `on_result`. If it raises, the result is taken for good."""
        if on_result is None:
            return False
        try:
            return bool(on_result(result))
        except Exception as problem:
            self.grumble("on_result", problem)
            return False

    def grumble(self, what: str, problem: Exception) -> None:
        """Log what went wrong in a user's option after a call that has itself gone well."""
        logging.getLogger("resilience").warning("%s raised %s", what, type(problem).__name__)

    # Time

    def deadline(self, *, threaded: bool = False) -> Scope | None:
        """The live scope that ends first; with `threaded`, of those that this thread enforces."""
        nearest = None
        scope = live(self.scope)
        while scope is not None:
            ours = not threaded or (scope.threaded and scope.thread == threading.get_ident())
            if ours and (nearest is None or scope.end <= nearest.end):  # of two, the outer one
                nearest = scope
            scope = live(scope.outer)
        return nearest

    def room(self, now: float) -> float:
        """Seconds left until the nearest deadline."""
        nearest = self.deadline()
        return math.inf if nearest is None else nearest.end - now

    def waiting(self, seconds: float) -> None:
        """Note a wait that is about to begin."""
        self.waited += seconds
        if self.emit is not None:
            self.emit(events.WaitBegan(self.pipeline, self.seen(self.tries[-1]), seconds))

    def lend(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], now: float
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with what is left of the time where a `Timeout` passes it on."""
        scope = live(self.scope)
        while scope is not None and scope is not self._born_in:
            if scope.pass_as is not None:
                if scope.end <= now:
                    raise self.unstarted(scope)
                left = max(self.room(now), 0.001)
                slot = slot_of(self.fn, scope.pass_as)
                own = slot.given(args, kwargs)
                number = isinstance(own, (int, float)) and not isinstance(own, bool)
                if own is None or (number and not 0 <= own <= left):
                    args, kwargs = slot.replaced(args, kwargs, left)
            scope = live(scope.outer)
        return args, kwargs

    def scoped(self, scope: Scope) -> _Scoped:
        """Set a deadline for a `with` block; if it expires, raise `DeadlineExceededError`."""
        return _Scoped(self, scope)

    # Going another way

    def progress(self, owner: object, fresh: Callable[[], S]) -> _Progress[S]:
        """Where `owner` stands in this call, for a `with` block: at the start, or where it was
        when the call was handed over to async mode."""
        left = self._left
        state = left.pop()[1] if left and left[-1][0] is owner else fresh()
        return _Progress(self, owner, state)

    def turn(self) -> None:
        """The call goes another way: drop what a hand-over has left for the old one."""
        self._left = None
        ready, self.ready = self.ready, None
        if ready is not None:
            ready.discard()

    def remark(self, text: str) -> None:
        """Something to be told in the note on the error."""
        self.remarks = (*self.remarks, text)

    def close(self) -> None:
        """Let go of errors, so that no traceback ends up in a cycle with its own record."""
        self.turn()
        for this in self.tries:
            this.failure = None
        self.tries = []
        self.refusal = self.resumed = None
        self.alternatives = self.refuses = None


def current() -> Record:
    """The record of the call under way; only policies and runtimes ask, inside a chain."""
    return around.get()  # type: ignore[return-value]  # within a chain it is a record
