"""Call again what failed in passing: a rate limit, an outage, a cut connection.

Not for errors that will come again (a bad request, an empty quota): `TRANSIENT` leaves those out.
Put it inside `ModelFallback` and outside `CircuitBreaker`, and one retry only on any path: what an
inner `Retry` has given up on, an outer one leaves alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from attrs import Factory, define, frozen
from tenacity import Future, RetryCallState
from tenacity.retry import retry_base
from tenacity.stop import stop_base

from resilience._core.fields import (
    call_repr,
    checked,
    count,
    flag,
    plain,
    seconds,
    suggesting,
    to_plain_function,
)
from resilience._core.history import spend, spent_inside
from resilience._core.record import Record, current
from resilience.errors import is_refusal
from resilience.failures import Advice, Failure, Kind
from resilience.matching import TRANSIENT, Match, to_match
from resilience.typing import Call, Runtime, Seconds
from resilience.waits import RetryAfter, to_wait

__all__ = ["Retry"]


def _to_on(name: str, value: Any) -> Match | retry_base:
    if isinstance(value, retry_base):
        if "asyncio" in type(value).__module__:
            raise TypeError(f"{name} must not be an async predicate (it is always true): {value!r}")
        return value
    return to_match(name, value)


def _to_stop(name: str, value: Any) -> Any:
    if isinstance(value, type) or not (isinstance(value, stop_base) or callable(value)):
        raise TypeError(
            f"{name} must be a tenacity stop such as stop_after_delay(9), got {value!r}"
        )
    return value


@define(eq=False)
class _Run:
    """Where one call stands in this policy."""

    started: float
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: int = 0
    limits: dict[object, int] = Factory(dict)
    waited: float = 0.0


@suggesting
@frozen(eq=False, repr=False)
class Retry:
    """Call again, up to `attempts` times in all, while `on` matches the failure.

    - `attempts` (3): calls in all, the first included; None for no end.
    - `on` (`TRANSIENT`): which failures; see `resilience.matching`. Also a tenacity `retry_if_*`.
    - `wait` (`RetryAfter()`): how long before the next; see `resilience.waits`. Also any tenacity
      wait, or seconds.
    - `within` (None): seconds of retrying in all; a wait that would end later is not begun.
    - `stop` (None): a tenacity stop, asked as well.
    - `on_result` (None): a function of the result, true if it is to be called again. When attempts
      run out, the last result is returned.
    - `adjust` (None): a function of the failed `Attempt`, its args and its kwargs that gives the
      `(args, kwargs)` of the next one.
    - `patience` (None): how long it may wait for a model that asks for it (advice WAIT) while a
      `ModelFallback` has another free model; by default it leaves to that model at once.
    - `idempotent` (True): with False, only failures where the request surely was not executed.
    - `again` (False): retry even what a `Retry` further in has given up on.

    The failing call's own exception comes out. No wait and no attempt when a circuit inside has
    just opened, or when the wait would end after the nearest deadline. An advice with a limit
    (`Failure.retry_limit`) is followed where `on` matched by advice. Values only: safe anywhere.
    """

    role: ClassVar = "retry"

    attempts: int | None = count(3, optional=True)
    on: Any = checked(_to_on, TRANSIENT)
    wait: Any = checked(to_wait, Factory(RetryAfter))
    within: Seconds | None = seconds(None, optional=True)
    stop: Any = checked(_to_stop, None, optional=True)
    on_result: Callable[[Any], Any] | None = checked(to_plain_function, None, optional=True)
    adjust: Callable[..., Any] | None = checked(to_plain_function, None, optional=True)
    patience: Seconds | None = seconds(None, positive=False, optional=True)
    idempotent: bool = flag(True)
    again: bool = flag(False)

    def __repr__(self) -> str:
        return call_repr(self)

    @property
    def rests(self) -> bool:
        """A healthy call needs nothing of it, unless its result is to be looked at."""
        return self.on_result is None and not isinstance(self.on, retry_base)

    def bind(self, call: Call, runtime: Runtime) -> Call:
        looks = not self.rests

        async def retried(*args: Any, **kwargs: Any) -> Any:
            record = current()
            resumed = record.resumed
            began = runtime.now() if resumed is None else resumed.started
            with record.progress(self, lambda: _Run(began, args, kwargs)) as run:
                while True:
                    try:
                        result = await call(*run.args, **run.kwargs)
                    except Exception as error:
                        run.made += 1
                        pause = self._after_error(record, run, runtime, error)
                        if pause is None:
                            raise
                    else:
                        if not looks:
                            return result
                        run.made += 1
                        pause = self._after_result(record, run, runtime, result)
                        if pause is None:
                            return result
                        del result
                    run.waited = pause
                    record.waiting(pause)
                    await runtime.sleep(pause)
                    record.turn()

        return retried

    def _after_error(
        self, record: Record, run: _Run, runtime: Runtime, error: Exception
    ) -> float | None:
        """Seconds to wait before the next attempt; None to let the error out."""
        if is_refusal(error) or not record.tries:
            return None  # refused, or the call was never made
        failure = record.failure(error)
        if failure.kind is Kind.REJECTED or failure.error is None:
            return None
        try:
            state = self._state(record, run, runtime)
            state.outcome.set_exception(failure.error)
            state.failure = failure
            if not self._wanted(record, run, failure, state):
                return None
            if self.attempts is not None and run.made >= self.attempts:
                if self.attempts > 1:
                    spend(failure.error, record)
                return None
            pause = self._pause(record, run, runtime, state, failure)
            if pause is not None:
                self._adjust(record, run)
                _trim(record, failure.error)
            return pause
        except Exception as problem:  # of a predicate, wait, stop or adjust: the call's own wins
            record.remark(f"Retry gave up: its option raised {type(problem).__name__}")
            return None

    def _after_result(
        self, record: Record, run: _Run, runtime: Runtime, result: Any
    ) -> float | None:
        """Seconds to wait because of a bad result; None to return it."""
        by_tenacity = isinstance(self.on, retry_base)
        try:
            state = self._state(record, run, runtime)
            state.outcome.set_result(result)
            if not (self.on_result is not None and self.on_result(result)) and not (
                by_tenacity and self.on(state)
            ):
                return None
            if not self.idempotent or (self.attempts is not None and run.made >= self.attempts):
                return None
            pause = self._pause(record, run, runtime, state, None)
            if pause is not None:
                self._adjust(record, run)
            return pause
        except Exception as problem:  # the call has succeeded; its bookkeeping must not undo that
            record.grumble("Retry", problem)
            return None

    def _wanted(self, record: Record, run: _Run, failure: Failure, state: Any) -> bool:
        assert failure.error is not None
        if not self.again and spent_inside(failure.error, record):
            return False
        if not self.idempotent and failure.sent is not False:
            return False
        if not self.on(state if isinstance(self.on, retry_base) else failure):
            return False
        limit = failure.retry_limit
        if limit is None or not (isinstance(self.on, Match) and self.on.by_advice(failure)):
            return True
        subject = failure.code or failure.kind
        run.limits[subject] = run.limits.get(subject, 0) + 1
        return run.limits[subject] <= limit

    def _pause(
        self, record: Record, run: _Run, runtime: Runtime, state: Any, failure: Failure | None
    ) -> float | None:
        """The wait, unless there is a reason not to begin it."""
        if record.opened:
            record.remark("no retry: a circuit on its way is open")
            return None
        pause = float(self.wait(state))
        if math.isnan(pause):
            raise ValueError  # of what an option raises, only the class is told
        pause = max(0.0, pause)
        if math.isinf(pause):
            record.remark("no retry: " + _too_long(record))
            return None
        state.upcoming_sleep = pause
        if self.stop is not None and self.stop(state):
            return None
        if (
            failure is not None
            and failure.advice is Advice.WAIT
            and pause > plain(self.patience or 0.0)
            and record.alternatives is not None
            and record.alternatives(failure)
        ):
            record.remark("did not wait: another model is free")
            return None
        now = runtime.now()
        room = record.room(now)
        if self.within is not None:
            room = min(room, run.started + plain(self.within) - now)
        if pause >= room:
            record.remark(
                f"no retry: a wait of {pause:.3g} s would not have fitted "
                f"into the {max(0.0, room):.3g} s left"
            )
            return None
        return pause

    def _state(self, record: Record, run: _Run, runtime: Runtime) -> Any:
        """What tenacity's objects are asked with, by our clock."""
        state: Any = RetryCallState(None, record.fn, run.args, run.kwargs)  # type: ignore[arg-type]
        state.start_time = run.started
        state.attempt_number = run.made
        state.outcome = Future(run.made)
        state.outcome_timestamp = runtime.now()
        state.upcoming_sleep = run.waited
        state.chance = runtime.random
        return state

    def _adjust(self, record: Record, run: _Run) -> None:
        if self.adjust is None:
            return
        given = self.adjust(record.seen(record.tries[-1]), run.args, run.kwargs)
        args, kwargs = given
        run.args, run.kwargs = tuple(args), dict(kwargs)


def _too_long(record: Record) -> str:
    last = record.tries[-1]
    asked = last.failure.retry_after if last.failure is not None else None
    if asked is None:
        return "the wait said to give up"
    at = f" (retry at {last.retry_at:%Y-%m-%d %H:%M:%S} UTC)" if last.retry_at else ""
    return f"the server asked for {asked:.6g} s, longer than the longest wait{at}"


def _trim(record: Record, error: Exception) -> None:
    """Keep the traceback of an exception object that is raised again and again from growing."""
    if len(record.tries) > 1:
        before = record.tries[-2].failure
        if before is not None and before.error is error:
            try:
                error.__traceback__ = None
            except Exception:
                return
