"""Keep within a rate limit: so many requests and so many tokens per time.

Inside `Retry`, so that each attempt counts, and inside `CircuitBreaker`, so that rejected calls do
not. To limit concurrent calls there is `Bulkhead`; to stay away when a server says so, `Hold`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, ClassVar

from attrs import Factory, field, frozen

from resilience._core.clock import moment, monotonic
from resilience._core.clock import now as clock_now
from resilience._core.estimate import estimate_tokens, tokens_in
from resilience._core.identity import Restarting
from resilience._core.instances import Instances
from resilience._core.keyed import Keyed, check_key, key_reader, key_title
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
    to_key,
    to_plain_function,
    to_shared,
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
class RateLimit(Restarting, Gate):
    """Limits calls to `requests` and `tokens` in `per` seconds; the others wait in order.

    - `requests` (None), `tokens` (None): how many, evenly spread; one of them or both.
    - `per` (60): seconds.
    - `burst` (0.05): the share of either that may start at once after a pause, from 0 to 1; one
      request in any case. In any time t, at most `requests * (t / per + burst)` calls start. A call
      of more tokens than that starts once all that were used have drained; the next ones wait
      longer.
    - `estimate` (a fourth of the characters of the prompt, and `max_tokens` or 1,000): a function
      of the call's arguments that gives the tokens it will use. They count from its start. When its
      result says in its `usage` how many it used (a stream at its end), that count replaces the
      estimate.
    - `patience` (600): seconds that a call waits at most; 0 to reject it at once, None to wait as
      long as it takes. A call that would wait longer, or beyond its deadline, is rejected now.
    - `key` (None): an argument's name, or a function of the call's arguments: a limit for each
      value. A call whose key cannot be computed (the function raises, the value is not hashable) is
      not limited, and the log says so. Unused keys are forgotten.
    - `follow` (False): adopt what the server's headers say, on errors, and on results that show
      their headers (raw responses, streams): `x-ratelimit-limit`, `-remaining` and `-reset` of
      requests and tokens, and Anthropic's. The limit itself, up or down, where it is one for `per`
      seconds; and that less of it is left than this process has counted, as others use it, too.
    - `storage` (None): a `resilience.shared.RedisLimit`, to share the limit between processes.
    - `name` (None): for people.

    A rejected call gets `RateLimitExceededError` with `retry_at`. A sync call on an event loop's
    own thread must not wait: it starts or is rejected at once. A call that is cancelled or out of
    time leaves the queue. A request that was sent counts, however it ends; one that was certainly
    not sent (a refused connection) does not.

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
    storage: Any = checked(to_shared, None, optional=True)
    name: str | None = checked(to_text, None, optional=True)
    resting: bool = field(
        default=Factory(lambda self: self.storage is None, takes_self=True), init=False, repr=False
    )
    _paces: Keyed[Any] = field(
        default=Factory(
            lambda self: Keyed("RateLimit", self.key, self._pace, _may_go), takes_self=True
        ),
        init=False,
        repr=False,
    )
    _cost: Callable[[Any, Any], float] = field(
        default=Factory(lambda self: _cost_by(self), takes_self=True), init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        if self.requests is None and self.tokens is None:
            raise ValueError("RateLimit needs requests or tokens, got neither")
        rate_limits.add(self)

    def __repr__(self) -> str:
        return call_repr(self)

    @property
    def waiting(self) -> int:
        """How many calls wait, of all keys together."""
        return sum(pace.waiting for pace in self._paces.all().values())

    def _pace(self, key: Hashable) -> Any:
        """A new `Pace` for a value of the key, or a shared one."""
        per, room = plain(self.per), self.burst * plain(self.per)
        each = 0.0 if self.requests is None else per / self.requests
        each_token = 0.0 if self.tokens is None else per / self.tokens
        pace = Pace(each, max(0.0, room - each), each_token, room)
        return pace if self.storage is None else self.storage.share(self.name, key, pace, id(self))

    # At rest

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        paces, cost = self._paces, self._cost
        counts, follow = self.tokens is not None, self.follow
        only: Any = paces.only
        at = paces.at
        read = None if only is not None else key_reader(self.key, fn)

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            now = monotonic()
            pace: Any = only if read is None else at(read(args, kwargs), now)
            taken = cost(args, kwargs) if counts else 0.0
            return (pace, taken) if pace.take(taken, now) else BUSY

        def end(held: tuple[Pace, float], error: Verdict, result: Any) -> bool:
            if counts and error is None:
                _correct(*held, token_count(result)())
            if follow and error is None:
                self._follow(held[0], result, monotonic())
            return True

        return begin, end

    # On the full path

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        check_key(self.key, fn)

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        now = runtime.now()
        pace = self._paces.of(call, now)
        if pace is None:
            return _UNGUARDED
        cost = self._cost(call.args, call.kwargs)
        if call.branch.in_hand is not None or (self.storage is None and pace.take(cost, now)):
            return _Permit(pace, cost)  # an awaitable in hand was admitted when it was made
        return None

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        cost = self._cost(call.args, call.kwargs)
        began = runtime.now()
        end = self._end(call, began) if runtime.may_wait else began
        while True:
            now = runtime.now()
            pace = self._paces.of(call, now)
            if pace is None:
                return _UNGUARDED
            expected = pace.expected(cost, now)
            if expected > max(now, end):
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
            self._paces.drop(pace)  # Ctrl-C may have come before it was forgotten

    def _end(self, call: Call, now: float) -> float:
        """When a call that comes now must have started."""
        return now + min(plain(self.patience), call.room(now))

    def _rejection(self, call: Call, wait: float) -> RateLimitExceededError:
        wait = max(0.0, wait)
        model = call.model
        if self.key == "model" and model is None:
            model = call.slot("model", reading=True).read(call.args, call.kwargs)
        return RateLimitExceededError(
            wait, moment(wait), name=self.name, model=model if isinstance(model, str) else None
        )

    def resume(self, permit: Any, call: Call, in_hand: InHand) -> Any:
        return _Permit(*permit)

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
        if error is None and permit.tokens is not None:  # else a stream has not said it all
            permit.cost = _correct(pace, permit.cost, permit.tokens())
        if isinstance(error, Exception):
            failure = call.failure(error)
            unsent = failure.sent is False and failure.status is None
            if unsent or isinstance(failure.error, RejectedError):
                pace.give_back(permit.cost)
            if self.follow:
                self._follow(pace, failure.error, clock_now())

    def refuses(self, call: Call) -> bool:
        pace = self._paces.found(call)
        if pace is None:
            return False
        now = clock_now()
        return bool(pace.expected(self._cost(call.args, call.kwargs), now) > self._end(call, now))

    def free_in(self, call: Call) -> float:
        pace = self._paces.found(call)
        if pace is None:
            return 0.0
        now = clock_now()
        return float(pace.expected(self._cost(call.args, call.kwargs), now) - now)

    def _follow(self, pace: Any, thing: object, now: float) -> None:
        """Adopt what the server says of its limits."""
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
        from resilience._core.schedule import seconds_text

        whose = "" if self.key is None else f" for each {key_title(self.key)}"
        what = [
            f"{number:,} {name}"
            for name, number in (("requests", self.requests), ("tokens", self.tokens))
            if number is not None
        ]
        line = f"starts at most {' and '.join(what)} in {plain(self.per):g} s{whose}"
        long = plain(self.patience)
        if long == 0:
            return Effect(line=f"{line}, and rejects the others")
        until = "" if long == math.inf else f", {seconds_text(long)} at most"
        return Effect(line=f"{line}; the others wait in order{until}", waits=long)


class _Permit:
    """Of a call that has started: its estimate, and what tells the tokens that it used."""

    __slots__ = ("cost", "pace", "tokens")

    def __init__(self, pace: Any, cost: float) -> None:
        self.pace = pace
        self.cost = cost
        self.tokens: Any = None


def _cost_by(limit: RateLimit) -> Callable[[Any, Any], float]:
    """The function of a call's `args` and `kwargs` that estimates its tokens."""
    if limit.tokens is None:
        return lambda args, kwargs: 0.0
    estimate = limit.estimate
    return tokens_in if estimate is estimate_tokens else partial(_estimated, estimate)


def _estimated(estimate: Callable[..., float], args: Any, kwargs: Any) -> float:
    try:
        found = float(estimate(*args, **kwargs))
        if not 0.0 <= found < math.inf:
            raise ValueError
    except Exception as problem:
        warn_option_failed("RateLimit(estimate=)", problem)
        return tokens_in(args, kwargs)
    return found


def _correct(pace: Any, estimated: float, used: tuple[int | None, int | None] | None) -> float:
    """Count the tokens that a call has used, rather than its estimate, and return what counts."""
    if used is None:
        return estimated
    prompt, answer = used
    if prompt is None:
        return estimated
    actual = prompt + (answer or 0)  # an embedding has no answer
    pace.correct(actual - estimated)
    return actual


_UNGUARDED = _Permit(None, 0.0)
"""The permit of a call whose key cannot be computed."""


def _may_go(pace: Any, now: float, crowded: bool) -> bool:
    return bool(pace.unused(now))


def _after_fork(limit: RateLimit) -> None:
    for pace in limit._paces.all().values():
        pace.after_fork()


rate_limits: Instances[RateLimit] = Instances(_after_fork)
