"""Keep within a rate limit: so many requests and so many tokens per time.

Inside `Retry`, so that each attempt counts, and inside `CircuitBreaker`, so that calls that are
rejected do not. For how many calls are under way at once there is `Bulkhead`; to stay away when a
server says so, `Hold`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable
from typing import Any, ClassVar
from weakref import WeakSet

from attrs import Factory, field, fields, frozen

from resilience._core.clock import moment, monotonic
from resilience._core.clock import now as clock_now
from resilience._core.estimate import estimate_tokens
from resilience._core.identity import Identity
from resilience._core.lanes import Lanes
from resilience._core.locks import new_lock
from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    count,
    flag,
    number,
    plain,
    seconds,
    suggesting,
    title,
    to_key,
    to_plain_function,
    to_text,
    warn_option_failed,
)
from resilience._core.pacing import Pace, Turn
from resilience.errors import RateLimitExceededError, RejectedError
from resilience.events import CallDelayed
from resilience.failures import limits_of
from resilience.policy import BUSY, Call, Effect, Gate, InHand, Runtime, Verdict, token_count

__all__ = ["RateLimit"]

_RESET_ROUNDING = 1.0
"""Seconds by which a server's reset may be rounded up."""


@suggesting
@frozen(eq=False, repr=False)
class RateLimit(Identity, Gate):
    """Lets `requests` calls and `tokens` tokens go in `per` seconds; the others wait in order.

    - `requests` (None), `tokens` (None): how many, evenly spread; one of them or both.
    - `per` (60): in so many seconds.
    - `burst` (0.05): the share of either that may go at once after a pause, from 0 to 1; one
      request in any case. In any time t, at most `requests * (t / per + burst)` calls begin. A call
      that takes more tokens than that goes as soon as none are used, and the next ones wait longer.
    - `estimate` (a fourth of the characters of the prompt, and `max_tokens` or 1,000): a function
      of the call's arguments that gives the tokens it will take. They count as used when the call
      begins; when its result says in its `usage` how many it took, that is put right, as of a
      stream at its end.
    - `patience` (600): seconds that a call waits at most; 0 to reject it at once, None for as long
      as it takes. One that would have to wait longer, or beyond its deadline, is rejected now.
    - `key` (None): an argument's name, or a function of the call's arguments: a limit for each
      value. A call whose key cannot be computed (the function raises, the value is not hashable) is
      let through, and the log says so. Keys that are no longer in use are forgotten.
    - `follow` (False): take over what the server's headers say, on errors, and on results that show
      their headers (raw responses, streams): `x-ratelimit-limit`, `-remaining` and `-reset` of
      requests and tokens, and Anthropic's. The limit itself, up or down, where it is one for `per`
      seconds; and that less is left of it than was thought, as others use it, too.
    - `storage` (None): a `resilience.shared.RedisLimit`, to share the limit between processes.
    - `name` (None): for people.

    A rejected call gets `RateLimitExceededError` with `retry_at`. A sync call on an event loop's
    own thread must not wait: it is let through or rejected at once. Whoever is cancelled or out of
    time leaves the queue. What was sent counts as used, however it ends; what was certainly not
    sent (a connection that was refused) does not.

    It pickles as its options: in another process it begins anew, unless it has a `storage`. Safe
    from any thread and any event loop.
    """

    role: ClassVar[str | None] = "rate_limit"

    requests: int | None = count(None, optional=True)
    tokens: int | None = count(None, optional=True)
    per: Seconds = seconds(60.0)
    burst: float = number(0.05, most=1.0)
    estimate: Callable[..., float] = checked(to_plain_function, estimate_tokens)
    patience: Seconds | None = seconds(600.0, positive=False, optional=True)
    key: str | Callable[..., Hashable] | None = checked(to_key, None, optional=True)
    follow: bool = flag(False)
    storage: Any = field(default=None)
    name: str | None = checked(to_text, None, optional=True)
    resting: bool = field(
        default=Factory(lambda self: self.storage is None, takes_self=True), init=False, repr=False
    )
    _lanes: Lanes[Any] = field(
        default=Factory(lambda self: Lanes(self.key, self._lane), takes_self=True),
        init=False,
        repr=False,
    )

    def __attrs_post_init__(self) -> None:
        if self.requests is None and self.tokens is None:
            raise ValueError("RateLimit needs requests or tokens, got neither")
        with _making:
            _known.add(self)

    def __repr__(self) -> str:
        return call_repr(self)

    def __reduce__(self) -> Any:
        return RateLimit, tuple(getattr(self, each.name) for each in fields(RateLimit) if each.init)

    @property
    def waiting(self) -> int:
        """How many calls wait, of all keys together."""
        return sum(pace.waiting for pace in self._lanes.all().values())

    def _lane(self, key: Hashable) -> Any:
        """What a value of the key is paced by."""
        pace = self._pace()
        if self.storage is None:
            return pace
        return self.storage.share(self.name, key, pace, id(self))

    def _pace(self) -> Pace:
        per, room = plain(self.per), self.burst * plain(self.per)
        each = 0.0 if self.requests is None else per / self.requests
        each_token = 0.0 if self.tokens is None else per / self.tokens
        return Pace(each, max(0.0, room - each), each_token, room)

    # At rest

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        lanes, counts, cost = self._lanes, self.tokens is not None, self._cost
        only: Any = lanes.only
        at = lanes.at
        read = None if only is not None else lanes.reader(fn)
        if only is not None and not counts:
            take = only.take_one

            def begin_one(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                return only if take(monotonic()) else BUSY

            return begin_one, self._end_one if self.follow else _end

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            now = monotonic()
            try:
                pace: Any = only if read is None else at(read(args, kwargs), now)
            except Exception:
                return BUSY  # to be said on the full path
            taken = cost(args, kwargs) if counts else 0.0
            return _Permit(pace, taken) if pace.take(taken, now) else BUSY

        def end(permit: _Permit, error: Verdict, result: Any) -> bool:
            if error is None:
                self._measured(permit, result)
            return True

        return begin, end

    def _end_one(self, pace: Pace, error: Verdict, result: Any) -> bool:
        if error is None:
            self._follow(pace, result, monotonic())
        return True

    # On the full path

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        self._lanes.check(fn)

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        now = runtime.now()
        pace = self._lanes.of(call, now)
        if pace is None:
            return _UNGUARDED
        cost = self._cost(call.args, call.kwargs)
        if call.branch.in_hand is not None or (self.storage is None and pace.take(cost, now)):
            return _Permit(pace, cost)  # an awaitable in hand: let through when it was asked for
        return None

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        cost = self._cost(call.args, call.kwargs)
        began = runtime.now()
        end = self._end(call, began)
        while True:
            now = runtime.now()
            pace = self._lanes.of(call, now)
            if pace is None:
                return _UNGUARDED
            expected = pace.expected(cost, now)
            if expected > max(now, end if runtime.may_wait else now):
                raise self._rejection(call, expected - now)
            if expected > now:
                call.emit(CallDelayed, policy="RateLimit", model=call.model, seconds=expected - now)
            came = await pace.wait(runtime, call, Turn(cost), end)
            now = runtime.now()
            if came and not pace.forgotten:
                call.branch.waiting += now - began
                return _Permit(pace, cost)
            if not came:
                raise self._rejection(call, pace.expected(cost, now) - now)

    def _end(self, call: Call, now: float) -> float:
        """When a call that comes now is to go at the latest."""
        patience = math.inf if self.patience is None else plain(self.patience)
        return now + min(patience, call.room(now))

    def _rejection(self, call: Call, wait: float) -> RateLimitExceededError:
        wait = max(0.0, wait)
        model = call.model
        if self.key == "model" and model is None:
            model = call.slot("model", reading=True).read(call.args, call.kwargs)
        return RateLimitExceededError(
            wait, moment(wait), name=self.name, model=model if isinstance(model, str) else None
        )

    def resume(self, permit: Any, call: Call, in_hand: InHand) -> Any:
        if permit is None:
            return _UNGUARDED
        return permit if type(permit) is _Permit else _Permit(permit, 0.0)

    def measure(self, permit: Any, call: Call, result: Any) -> None:
        if permit.pace is None:
            return
        if self.tokens is not None:
            permit.tokens = token_count(result)
        if self.follow:
            self._follow(permit.pace, result, clock_now())

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        pace = permit.pace
        if pace is None:
            return
        permit.put_right()
        if isinstance(error, Exception):
            failure = call.failure(error)
            unsent = failure.sent is False and failure.status is None
            if unsent or isinstance(failure.error, RejectedError):
                pace.give_back(permit.cost)
            if self.follow:
                self._follow(pace, failure.error, clock_now())

    def refuses(self, call: Call) -> bool:
        pace = self._lanes.found(call)
        if pace is None:
            return False
        now = clock_now()
        return bool(pace.expected(self._cost(call.args, call.kwargs), now) > self._end(call, now))

    def free_in(self, call: Call) -> float:
        pace = self._lanes.found(call)
        if pace is None:
            return 0.0
        now = clock_now()
        return float(pace.expected(self._cost(call.args, call.kwargs), now) - now)

    def _cost(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """The tokens that a call will take."""
        if self.tokens is None:
            return 0.0
        try:
            found = float(self.estimate(*args, **kwargs))
            if not 0.0 <= found < math.inf:
                raise ValueError
        except Exception as problem:
            warn_option_failed("estimate", problem)
            return float(estimate_tokens(*args, **kwargs))
        return found

    def _measured(self, permit: _Permit, result: Any) -> None:
        """A call at rest went well."""
        if self.tokens is not None:
            permit.tokens = token_count(result)
            permit.put_right()
        if self.follow:
            self._follow(permit.pace, result, monotonic())

    def _follow(self, pace: Any, thing: object, now: float) -> None:
        """Take over what the server says of its limits."""
        per = plain(self.per)
        for limit in limits_of(thing):
            own = self.tokens if limit.tokens else self.requests
            if own is None:
                continue
            rate: float | None = None
            if limit.drains and limit.limit is not None and limit.remaining < limit.limit:
                used = limit.limit - limit.remaining
                whole = max(0.0, limit.reset - _RESET_ROUNDING) * limit.limit / used
                if whole <= 1.5 * per:  # else it is one for a day, or the like
                    rate = limit.limit / per
            blocked = None if limit.drains or limit.remaining else now + limit.reset
            pace.follow(limit.tokens, rate, limit.remaining, blocked, self.burst * per, now)

    def effect(self) -> Effect:
        from resilience._core.schedule import in_words

        key = self.key if isinstance(self.key, str) else title(self.key)
        whose = "" if self.key is None else f" for each {key}"
        what = [
            f"{number:,} {name}"
            for name, number in (("requests", self.requests), ("tokens", self.tokens))
            if number is not None
        ]
        line = f"lets {' and '.join(what)} go in {plain(self.per):g} s{whose}"
        long = math.inf if self.patience is None else plain(self.patience)
        if long == 0:
            return Effect(line=f"{line}, and rejects the others")
        until = "" if long == math.inf else f", {in_words(long, math.inf)} at most"
        return Effect(line=f"{line}; the others wait in order{until}", waits=long)


class _Permit:
    """Of a call that was let through: what it was thought to take, and what says what it did."""

    __slots__ = ("cost", "pace", "tokens")

    def __init__(self, pace: Any, cost: float) -> None:
        self.pace = pace
        self.cost = cost
        self.tokens: Any = None

    def put_right(self) -> None:
        """Count what was used, rather than what was thought."""
        read, self.tokens = self.tokens, None
        used = None if read is None else read()
        if used is not None and None not in used:
            actual = float(sum(used))
            self.pace.correct(actual - self.cost)
            self.cost = actual


_UNGUARDED = _Permit(None, 0.0)
"""The permit of a call whose key cannot be computed."""
_known: WeakSet[RateLimit] = WeakSet()
_making = new_lock()


def rate_limits() -> list[RateLimit]:
    """All that exist in this process."""
    with _making:
        return list(_known)


def _end(pace: Pace, error: Verdict, result: Any) -> bool:
    return True


def _forked() -> None:
    for limit in rate_limits():
        for pace in limit._lanes.all().values():
            pace.forget_waiting()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
