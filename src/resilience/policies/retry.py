"""Retry transient failures: a rate limit, an outage, a cut connection.

Not for permanent ones (a bad request, an exhausted quota): `TRANSIENT` leaves those out. Put it
inside `ModelFallback` and outside `CircuitBreaker`, and one only on any path: an outer `Retry` does
not retry an error on which an inner one has given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, cast

from attrs import Factory, field, frozen
from tenacity import RetryCallState
from tenacity.retry import retry_base

from resilience._core.arguments import used_up
from resilience._core.control_flow import control_flow_in
from resilience._core.locks import new_lock
from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    flag,
    plain,
    seconds,
    suggesting,
    title,
    to_count,
    to_plain_function,
    warn,
)
from resilience.errors import RejectedError
from resilience.events import GaveUp
from resilience.failures import Advice, Failure, Kind
from resilience.matching import TRANSIENT, Match, On, kind, to_match
from resilience.policy import Call, Effect, Inner, Policy, Runtime
from resilience.waits import LONGEST, RetryAfter, State, Wait, is_own, to_wait

__all__ = ["Retry"]

T = TypeVar("T")


def _to_on(name: str, value: Any) -> Match | retry_base:
    if isinstance(value, retry_base):
        if "asyncio" in type(value).__module__:
            raise TypeError(f"{name} must be a plain predicate, not an async one, got {value!r}")
        return value
    return to_match(name, value)


def _to_stop(value: Callable[[RetryCallState], object] | None) -> Any:
    if value is not None and (isinstance(value, type) or not callable(value)):
        raise TypeError(f"stop must be a tenacity stop such as stop_after_delay(9), got {value!r}")
    return value


def _to_idempotent(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if not callable(value):
        raise TypeError(f"{name} must be True, False or a function, got {value!r}")
    return to_plain_function(name, value)


_counting = new_lock()


class _Tally:
    """What counts for `attempts`: those that were begun. In a chain of models they are one model's,
    over all the rounds and in all branches of the call."""

    begun = 0
    started = waited = 0.0
    limits: Mapping[object, int] = MappingProxyType({})

    def begin(self, most: int | None) -> bool:
        """Count one more, unless there are as many as there may be."""
        with _counting:
            if most is not None and self.begun >= most:
                return False
            self.begun += 1
            return True


class _Run:
    """Where one line of attempts stands in this policy, once one of them has failed."""

    __slots__ = ("call", "runtime", "tally")

    def __init__(self, call: Call, runtime: Runtime, tally: _Tally) -> None:
        self.call = call
        self.runtime = runtime
        self.tally = tally
        with _counting:
            tally.begun += 1


class _OptionError(Exception):
    """An `option` has raised `problem`."""

    def __init__(self, option: str, problem: Exception) -> None:
        self.option = option
        self.problem = problem


def _ask(option: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """The result of a function that was given as an option."""
    try:
        return fn(*args, **kwargs)
    except Exception as problem:
        raise _OptionError(option, problem) from None


def _told(problem: Exception) -> str:
    """What has raised, and the class of what it has raised; never its text."""
    if type(problem) is _OptionError:
        return f"{problem.option} raised {type(problem.problem).__name__}"
    return f"a policy further in raised {type(problem).__name__}"


@suggesting
@frozen(eq=False, repr=False)
class Retry(Policy):
    """Call again while `on` matches the failure, up to `attempts` times in all.

    - `attempts` (3): calls in all, the first included; None for no end, as by default with `stop`.
      In a chain of models, calls of each model. Where a policy outside makes several calls at the
      same time, each makes its first attempt, and they share the others; a policy inside makes its
      calls in each attempt.
    - `on` (`TRANSIENT`): which failures; see `resilience.matching`. Also a tenacity `retry_if_*`.
      A rejection is retried where its class or kind is named: not before its `retry_at`.
    - `wait` (`RetryAfter()`): how long before the next; see `resilience.waits`. Also any tenacity
      wait, or seconds.
    - `within` (None): seconds for all attempts; no wait begins that would end later.
    - `stop` (None): a tenacity stop, which may end it earlier.
    - `adjust` (None): a function of the failed `Attempt`, its args and its kwargs that gives the
      `(args, kwargs)` of the next one.
    - `patience` (5): in a chain of models, the longest wait that a server may ask for (advice
      WAIT). While another model is available, the chain moves on from one that asks for more, or
      gives no number, or has not answered in time.
    - `idempotent` (True): with False, only failures where the request surely was not executed.
      Also a function of the call's arguments that says which.
    - `retry_exhausted` (False): retry also an error on which a `Retry` inside has given up.

    The failing call's own exception comes out. No wait and no attempt when a circuit inside has
    just opened, when the wait would end after the nearest deadline, or when an argument can be
    read only once (an iterator, a file that has been read) and `adjust` does not make a new one.
    An advice with a limit (`Failure.retry_limit`) is followed where `on` matched by advice. Values
    only: safe anywhere.
    """

    role: ClassVar[str | None] = "retry"

    stop: Callable[[RetryCallState], object] | None = field(
        default=None, converter=_to_stop, kw_only=True
    )
    attempts: int | None = checked(
        to_count,
        Factory(lambda self: 3 if self.stop is None else None, takes_self=True),
        optional=True,
        metadata={"shown": 3},
    )
    on: On | retry_base = checked(_to_on, TRANSIENT)
    wait: Wait = checked(to_wait, Factory(RetryAfter))
    within: Seconds | None = seconds(None, optional=True)
    adjust: Callable[..., Any] | None = checked(to_plain_function, None, optional=True)
    patience: Seconds = seconds(5.0, positive=False)
    idempotent: bool | Callable[..., bool] = checked(_to_idempotent, True)
    retry_exhausted: bool = flag(False)
    resting: bool = field(
        default=Factory(lambda self: not isinstance(self.on, retry_base), takes_self=True),
        init=False,
        repr=False,
    )

    def __repr__(self) -> str:
        return call_repr(self)

    def effect(self) -> Effect:
        from resilience._core.certainty import may_name
        from resilience._core.schedule import in_words, longest_rejected, longest_waits

        attempts = math.inf if self.attempts is None else self.attempts
        longest, waits = longest_waits(self.wait, attempts - 1)
        rejected = longest_rejected(self.wait)
        reactions: tuple[tuple[Any, str], ...] = ((self.on, self._in_words()),)
        if not may_name(self.on, Kind.REJECTED):
            reactions = ((kind(Kind.REJECTED), ""), *reactions)
        elif attempts > 1:
            waits = max(waits, (attempts - 1) * max(longest, rejected))
        line = f"up to {attempts:g} attempts" if attempts > 1 else "one attempt"
        if self.attempts is None:
            line = f"attempts {'without end' if self.stop is None else f'until {_of(self.stop)}'}"
        if attempts > 1:
            line += f"; waits {in_words(self.wait, attempts - 1)}"
        if self.within is not None:
            line += f"; no wait that would end {plain(self.within):g} s after it began"
        return Effect(
            line=line,
            calls=attempts,
            waits=waits,
            until=plain(self.within),
            reactions=reactions if attempts > 1 else (),
            pause=max(longest, rejected),
        )

    def _in_words(self) -> str:
        """What it does about a failure."""
        words = "retried"
        if self.attempts is not None:
            words = "retried once" if self.attempts == 2 else f"retried {self.attempts - 1} times"
        if self.idempotent is True:
            return words
        words += ", if it was surely not executed"
        return words if self.idempotent is False else f"{words} or {_of(self.idempotent)} allows it"

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:  # noqa: C901
        looks = not self.resting
        timed = looks or self.within is not None or self.stop is not None or not is_own(self.wait)

        # One loop for errors, rejections and results, with many branches: every function more is a
        # frame more in each attempt.
        async def retry(call: Call) -> Any:
            run: _Run | None = None
            started = _begun(call, runtime) if timed else 0.0
            if call.branch is not call.journal:  # others may be making attempts meanwhile
                run = self._run(call, runtime, started)
            if looks:
                call.journal.keeps = True  # attempts that it repeats for their results count, too
            while True:
                number = call.branch.number
                try:
                    result = await inner(call)
                except RejectedError as error:
                    if self.on is TRANSIENT and call.alternatives is None:
                        raise  # the call was not even begun
                    run = run or self._run(call, runtime, started)
                    pause = self._after_rejection(run, error)
                    if pause is None:
                        raise
                except Exception as error:
                    run = run or self._run(call, runtime, started)
                    pause = self._after_error(run, number, error)
                    if pause is None:
                        raise
                else:
                    if not looks:
                        return result
                    run = run or self._run(call, runtime, started)
                    pause = self._after_result(run, result)
                    if pause is None:
                        return result
                    del result
                call = run.call
                await runtime.sleep(pause, call)

        return retry

    def _run(self, call: Call, runtime: Runtime, started: float) -> _Run:
        if call.model is None and call.branch is call.journal:
            tally = _Tally()
        else:
            tally = call.journal.remember((self, call.place, call.model), _Tally)
        if not tally.begun:
            tally.started = started
        return _Run(call, runtime, tally)

    def _after_error(  # noqa: C901
        self, run: _Run, number: int, error: Exception
    ) -> float | None:
        """Seconds to wait before the next attempt; None to let the error out."""
        call = run.call
        if not call.journal.attempts:
            return None  # the call was never made
        failure = call.failure(error)
        if failure.kind is Kind.REJECTED or failure.error is None:
            return None
        # Many branches, as there are many reasons not to retry; each is one or two lines.
        try:
            why_not = self._why_not(run, number, failure)
            if why_not is not None:
                return _gives_up(call, why_not, remark=False)
            if self.attempts is not None and run.tally.begun >= self.attempts:
                if self.attempts > 1:
                    call.report(failure.error, exhausted=True)
                made = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
                return _gives_up(call, f"{made} made", remark=False)
            if call.refuses(self):
                return _gives_up(call, "its circuit is open or a limit is reached")
            pause = self._pause(run, self._state(run, failure, failure.error, None))
            if pause is None or self._leaves(run, failure, pause):
                return None
            if self.adjust is not None:
                _ask("Retry(adjust=)", self._adjust, run, self.adjust)
            elif (used := used_up(call.args, call.kwargs)) is not None:
                return _gives_up(call, f"{used} can be read only once")
            if not run.call.afford():
                return _gives_up(call, "the retry budget is spent")
            if len(call.journal.attempts) > 1:
                _trim(call, failure.error)
            return pause if run.tally.begin(self.attempts) else None
        except Exception as problem:  # the call's own error wins
            return _gives_up(call, _told(problem))

    def _after_rejection(self, run: _Run, error: RejectedError) -> float | None:
        """The same for a call that was rejected: it is worth trying when `retry_at` is there."""
        call = run.call
        failure = call.failure(error)
        try:
            named = _ask("Retry(on=)", self._names, run, failure)
            if not named:
                run.tally.begun -= 1
            if failure.retry_after is None or not (named or call.alternatives is not None):
                return None
            if self.attempts is not None and run.tally.begun >= self.attempts:
                return None
            pause = self._pause(run, self._state(run, failure, error, None), failure.retry_after)
            if pause is None:
                return None
            if named and self._offer(run, failure) > pause:
                return pause if run.tally.begin(self.attempts) else None
            call.report(error, wait=pause, latest=self._latest(run))
        except Exception as problem:
            call.journal.remark(f"no retry: {_told(problem)}")
        return None

    def _names(self, run: _Run, failure: Failure) -> bool:
        """Whether `on` means this rejection, and not just any error."""
        any_error = Failure(Kind.UNKNOWN, Advice.STOP, error=Exception())
        if isinstance(self.on, retry_base):
            return all(
                bool(self.on(self._state(run, each, each.error, None))) is meant
                for each, meant in ((failure, True), (any_error, False))
            )
        on = cast(Match, self.on)
        matches = run.call.matches
        if not matches(on, failure, self) or on.by_advice(failure):
            return False
        return not matches(on, any_error, self)

    def _leaves(self, run: _Run, failure: Failure, pause: float) -> bool:
        """Whether the next attempt is left to another model, which is available sooner."""
        call = run.call
        if call.alternatives is None:
            return False
        if failure.kind is Kind.TIMEOUT and failure.status != 408:
            reason, most = "did not retry a silent model", 0.0
        elif failure.advice is Advice.WAIT:
            asked = failure.retry_after
            if asked is not None and asked <= plain(self.patience):
                return False
            reason, most = "did not wait", pause
        else:
            return False
        if self._offer(run, failure) > most:
            return False
        call.journal.remark(f"{reason}: another model is free")
        _gives_up(call, "another model is free", remark=False)
        assert failure.error is not None
        call.report(failure.error, wait=pause, latest=self._latest(run))
        return True

    @staticmethod
    def _offer(run: _Run, failure: Failure) -> float:
        """Seconds until another model may be asked; infinite without one."""
        alternatives = run.call.alternatives
        return math.inf if alternatives is None else alternatives(failure)

    def _after_result(self, run: _Run, result: Any) -> float | None:
        """Seconds to wait because tenacity's predicate wants another result; None to return it."""
        try:
            state = self._state(run, None, None, result)
            if not _ask("Retry(on=)", cast(Any, self.on), state) or not self._repeatable(run.call):
                return None
            if self.attempts is not None and run.tally.begun >= self.attempts:
                return None
            if run.call.refuses(self):
                return None
            pause = self._pause(run, state)
            if pause is None:
                return None
            if self.adjust is not None:
                _ask("Retry(adjust=)", self._adjust, run, self.adjust)
            if not run.call.afford():
                return _gives_up(run.call, "the retry budget is spent")
            return pause if run.tally.begin(self.attempts) else None
        except Exception as problem:  # the call has succeeded, and this must not undo it
            warn("%s", _told(problem))
            return None

    def _why_not(self, run: _Run, number: int, failure: Failure) -> str | None:
        """Why this failure is not to be retried at all; None if it is."""
        error = failure.error
        assert error is not None
        if not self.retry_exhausted:
            for report in run.call.reported(number, error):
                if report.exhausted:
                    return "retried further in"
        sure = self.idempotent is True or failure.sent is False
        if not sure and not self._repeatable(run.call):
            return "it may have been executed"
        unwanted = f"{failure.kind.value} is not retried"
        if isinstance(self.on, retry_base):
            if control_flow_in(error):
                return unwanted
            state = self._state(run, failure, error, None)
            return None if _ask("Retry(on=)", self.on, state) else unwanted
        on = cast(Match, self.on)
        if not run.call.matches(on, failure, self):
            return unwanted
        limit = failure.retry_limit
        if limit is None or not _ask("Retry(on=)", on.by_advice, failure):
            return None
        tally, subject = run.tally, failure.code or failure.kind
        times = tally.limits.get(subject, 0) + 1
        tally.limits = {**tally.limits, subject: times}
        return None if times <= limit else f"{unwanted} more than {limit} times"

    def _repeatable(self, call: Call) -> bool:
        """Whether a request that may have been executed may be sent again."""
        idempotent = self.idempotent
        if isinstance(idempotent, bool):
            return idempotent
        return bool(_ask("Retry(idempotent=)", idempotent, *call.args, **call.kwargs))

    def _pause(self, run: _Run, state: State, least: float = 0.0) -> float | None:
        """The wait, `least` seconds or more, unless there is a reason not to begin it."""
        call = run.call
        pause = max(least, _seconds(self.wait, state))
        if math.isinf(pause) or (least > LONGEST and not isinstance(self.wait, RetryAfter)):
            return _gives_up(call, _too_long(call))
        state.upcoming_sleep = run.tally.waited = pause
        if self.stop is not None and _ask("Retry(stop=)", self.stop, state):
            return _gives_up(call, "its stop ended it", remark=False)
        room = self._room(run)
        if pause >= room:
            left = f"{max(0.0, room):.3g} s left"
            return _gives_up(call, f"a wait of {pause:.3g} s would not have fitted into the {left}")
        return pause

    def _latest(self, run: _Run) -> float:
        """When another attempt may be made at the latest."""
        return math.inf if self.within is None else run.tally.started + plain(self.within)

    def _room(self, run: _Run) -> float:
        """Seconds left for a wait."""
        if self.within is None and run.call.deadline is None:
            return math.inf
        now = run.runtime.now()
        return min(run.call.room(now), self._latest(run) - now)

    def _state(
        self, run: _Run, failure: Failure | None, error: Exception | None, result: Any
    ) -> State:
        """The state that tenacity's objects get, by our clock."""
        call = run.call
        return State(
            call.fn,
            call.args,
            call.kwargs,
            number=run.tally.begun,
            started=run.tally.started,
            ended=run.runtime.now(),
            waited=run.tally.waited,
            failure=failure,
            error=error,
            result=result,
            chance=run.runtime.random,
        )

    def _adjust(self, run: _Run, adjust: Callable[..., Any]) -> None:
        call = run.call
        args, kwargs = adjust(call.last_attempt(), call.args, call.kwargs)
        run.call = call.replace(args=tuple(args), kwargs=dict(kwargs))


def _seconds(wait: Any, state: State) -> float:
    try:
        found = float(wait(state))
        if math.isnan(found):
            raise ValueError
    except Exception as problem:
        raise _OptionError("Retry(wait=)", problem) from None
    return found


def _begun(call: Call, runtime: Runtime) -> float:
    """When the attempt in hand began, if it was made already."""
    in_hand = call.branch.in_hand
    return in_hand.started if in_hand is not None and in_hand.made else runtime.now()


def _of(option: Any) -> str:
    """A function's name, or the class of one of tenacity's objects."""
    name = title(option)
    return type(option).__name__ if name.startswith("<") and "lambda" not in name else name


def _gives_up(call: Call, reason: str, *, remark: bool = True) -> float | None:
    """Say why there is no other attempt, as an event and in the note on the error. Returns no
    wait."""
    call.journal.reason = reason
    if remark:
        call.journal.remark(f"no retry: {reason}")
    attempts = call.journal.attempts
    call.emit(GaveUp, attempt=attempts[-1] if attempts else None, reason=reason)
    return None


def _too_long(call: Call) -> str:
    last = call.last_attempt()
    asked = last.failure.retry_after if last.failure is not None else None
    if asked is None:
        return "its wait said to give up"
    at = f" (retry at {last.retry_at:%Y-%m-%d %H:%M:%S} UTC)" if last.retry_at else ""
    return f"the server asked for {asked:.6g} s, longer than the longest wait{at}"


def _trim(call: Call, error: Exception) -> None:
    """Keep the traceback of an exception object that is raised again and again from growing."""
    attempts = call.journal.attempts
    before = attempts[-2].failure
    if before is not None and before.error is error:
        try:
            error.__traceback__ = None
        except Exception:
            return
