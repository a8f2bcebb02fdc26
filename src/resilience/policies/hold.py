"""When a server tells one call to wait, have the others wait as well.

Inside `Retry` and `CircuitBreaker`. Where the limit is known beforehand, `RateLimit` keeps to
it, and no call has to be refused first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast
from weakref import ref

from attrs import Factory, field, frozen

from resilience._core.clock import chance, moment
from resilience._core.clock import now as clock_now
from resilience._core.identity import Restarting
from resilience._core.idles import Idles
from resilience._core.instances import Instances
from resilience._core.keyed import Keyed, check_key, key_title, model_in
from resilience._core.locks import new_lock
from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    number,
    plain,
    seconds,
    suggesting,
    to_key,
    to_shared,
    to_text,
)
from resilience._core.pacing import PacedQueue, Turn
from resilience.errors import RateLimitExceededError
from resilience.events import CallDelayed, HoldBegan
from resilience.failures import Advice, Failure, Kind, limits_of
from resilience.matching import Match, On, to_match
from resilience.policy import Call, Effect, Emitter, Emitters, Gate, Idle, InHand, Runtime, Verdict

__all__ = ["Hold"]

_WAIT = to_match("on", Advice.WAIT)
_LONGEST = 86400.0
"""Seconds of a hold at most: what a server asks for beyond that is a mistake."""
_SHORTEST = 1.0
"""Seconds: a shorter hold counts as one of this length when the waiting calls are released."""
_SLOWER = 0.8
"""The share of the rate at which the server accepted calls that they are slowed down to."""
_FASTER = 0.99
"""What the gap between calls shrinks to in the first second after a hold (or in the time of the
hold, if longer); by twice as much in the second, and so on."""


@suggesting
@frozen(eq=False, repr=False)
class Hold(Restarting, Gate):
    """When a call fails and its server says for how long to stay away, holds the others back.

    - `on` (advice WAIT): the failures that begin a hold, if they say for how long: by `Retry-After`
      and its like, or by the reset of a rate limit with nothing left (`x-ratelimit-remaining: 0`).
    - `key` (None): an argument's name, or a function of the call's arguments, such as the model,
      the host or the account: a hold for each value. A call whose key cannot be computed (the
      function raises, the value is not hashable) is never held, and the log says so.
    - `spread` (0.25): waiting calls start one after the other, over this share of the time of the
      hold (of a second, if it was shorter), which is added to it.
    - `patience` (60): seconds that a call waits at most; None to wait as long as it takes. A call
      that would wait longer, or beyond its deadline, is rejected now. In a chain of models, so is
      a call for which another model is free: the chain goes on with that at once.
    - `storage` (None): a `resilience.shared.RedisLimit`, to share holds between processes.
    - `name` (None): for people.

    If the server refuses released calls again, further ones start no faster than it accepted them,
    and then faster little by little, until no call has to wait for its turn. Whatever a server asks
    for, a hold lasts for a day at most.

    A rejected call gets `RateLimitExceededError` with `retry_at`, whose `__cause__` is the failure
    that began the hold. A sync call on an event loop's own thread must not wait: it is rejected
    during a hold. Calls that are under way when it begins are not affected.

    It pickles as its options: in another process it begins anew. Safe from any thread and any event
    loop.
    """

    role: ClassVar[str | None] = "hold"
    resting = True

    on: On = checked(to_match, _WAIT)
    key: str | Callable[..., Hashable] | None = checked(to_key, None, optional=True)
    spread: float = number(0.25, most=1.0)
    patience: Seconds | None = seconds(60.0, positive=False, optional=True)
    storage: Any = checked(to_shared, None, optional=True)
    name: str | None = checked(to_text, None, optional=True)
    _state: _State = field(
        default=Factory(lambda self: _State(self), takes_self=True), init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        holds.add(self)

    def __repr__(self) -> str:
        return call_repr(self)

    @property
    def waiting(self) -> int:
        """How many calls wait, of all keys together."""
        return sum(lane.waiting for lane in self._state.lanes.all().values())

    def held(self) -> dict[Hashable, float]:
        """For each value of the key that is held now, for how many seconds more; under None without
        a key."""
        now = clock_now()
        lanes = self._state.lanes.all().items()
        return {key: lane.until - now for key, lane in lanes if lane.until > now}

    # At rest

    def attach(self, emitter: Emitter) -> None:
        self._state.emitters.add(emitter)

    def watch(self, idle: Idle) -> None:
        self._state.idles.add(idle)

    def busy(self) -> bool:
        return self._state.busy()

    # On the full path

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        check_key(self.key, fn)

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        state = self._state
        if self.storage is not None:
            state.listen()
        now = runtime.now()
        if not state.any_held(now):
            return _FREE
        lane = state.lanes.found(call)
        if lane is None or not lane.held_for:
            return _FREE
        return lane.permit() if lane.passes(now) else None

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        began = runtime.now()
        lane = self._state.lanes.of(call, began)
        if lane is None:
            return _FREE
        end = self._end(call, began) if runtime.may_wait else began
        expected = lane.expected(began)
        late = expected > end
        if not late and lane.until > began and call.alternatives is not None:
            late = lane.failure is not None and _is_sooner(
                call.alternatives(lane.failure), expected - began
            )
        if late:
            raise self._rejection(lane, expected - began)
        call.emit(CallDelayed, policy="Hold", model=call.model, seconds=expected - began)
        if not await lane.wait(runtime, call, Turn(1.0), end):
            now = runtime.now()
            raise self._rejection(lane, lane.expected(now) - now)
        call.branch.waiting += runtime.now() - began
        return lane.permit()

    def _end(self, call: Call, now: float) -> float:
        """When a call that comes now must have started."""
        return now + min(plain(self.patience), call.room(now))

    def _rejection(self, lane: _Lane, wait: float) -> RateLimitExceededError:
        wait = max(0.0, wait)
        error = RateLimitExceededError(
            wait, moment(wait), name=self.name, model=model_in(self.key, lane.key)
        )
        error.__cause__ = None if lane.failure is None else lane.failure.error
        return error

    def resume(self, permit: Any, call: Call, in_hand: InHand) -> Any:
        return _FREE

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        lane = permit.lane
        if error is None:
            if lane is not None:
                lane.accepted(permit.since)
        elif isinstance(error, Exception):
            self._refused(permit, call, error)

    def _refused(self, permit: _Permit, call: Call, error: Exception) -> None:
        """Begin a hold, if the server asks for one."""
        failure = call.failure(error)
        if failure.kind is Kind.REJECTED or not call.matches(cast(Match, self.on), failure, self):
            return
        asked = asked_of(failure)
        if asked is None or asked <= 0:
            return
        now = clock_now()
        lane = self._state.lanes.of(call, now)
        if lane is not None:
            self._state.hold(lane, asked, now, permit.since, failure)

    def refuses(self, call: Call) -> bool:
        lane = self._state.lanes.found(call)
        if lane is None or not lane.held_for or _was_refused(call):
            return False
        now = clock_now()
        if lane.expected(now) > self._end(call, now):
            return True
        return lane.until > now and call.alternatives is not None

    def free_in(self, call: Call) -> float:
        lane = self._state.lanes.found(call)
        now = clock_now()
        return 0.0 if lane is None or not lane.held_for else lane.expected(now) - now

    def effect(self) -> Effect:
        whose = "" if self.key is None else f" of the same {key_title(self.key)}"
        long = plain(self.patience)
        until = "" if long == math.inf else f"; for {long:g} s at most, or is rejected"
        return Effect(
            line=f"waits while the server has told another call{whose} to stay away{until}",
            waits=long,
        )


def asked_of(failure: Failure) -> float | None:
    """For how many seconds a server asks to be left alone: what it says, or the time until the
    reset of a rate limit of which nothing is left."""
    if failure.retry_after is not None:
        return failure.retry_after
    if failure.reset_after is None or failure.error is None:
        return None
    resets = [limit.reset for limit in limits_of(failure.error) if not limit.remaining]
    return max(resets, default=None)


def _is_sooner(other: float, wait: float) -> bool:
    """Whether another model is worth going to: one that is free now, or a second sooner."""
    return other <= 0 or other + 1.0 < wait


def _was_refused(call: Call) -> bool:
    """Whether this call itself was told to wait, at this model: its own `Retry` sees to that."""
    if not call.journal.attempts:
        return False
    last = call.last_attempt()
    return last.model == call.model and last.failure is not None and bool(asked_of(last.failure))


class _Permit(NamedTuple):
    """Of a call that starts while its lane is paced: the lane, and the release it comes after."""

    lane: _Lane | None
    since: float


_FREE = _Permit(None, 0.0)


class _Lane(PacedQueue):
    """The calls for one value of the key.

    Held until `until`; from `start` on, a little later, waiting calls are released, evenly over the
    spread. When the server has refused some of them again, calls go `gap` seconds apart, until
    none has had to wait for a while.
    """

    __slots__ = (
        "accepts",
        "crowd",
        "failure",
        "gap",
        "held_for",
        "key",
        "last_wait",
        "next",
        "since",
        "spread",
        "start",
        "until",
    )

    held_for: float
    """Seconds of the hold; 0 if it is not held, nor paced."""
    failure: Failure | None
    """Why it is held."""
    gap: float
    """Seconds between calls; 0 as long as it is not known what the server takes."""
    crowd: int
    """How many calls were told to wait, and have not started since."""
    since: float
    """When the first call started after the hold; infinite before."""
    accepts: int
    """How many calls have succeeded since."""

    def __init__(self, key: Hashable, spread: float) -> None:
        super().__init__()
        self.key = key
        self.spread = spread
        self.failure = None
        self.until = self.start = self.next = self.last_wait = -math.inf
        self.since = math.inf
        self.gap = self.held_for = 0.0
        self.crowd = self.accepts = 0

    def permit(self) -> _Permit:
        return _Permit(self, self.since)

    def hold(self, asked: float, now: float, since: float, failure: Failure | None) -> bool:
        """Begin a hold, or extend one: whether it has begun. `since` is the release after which the
        refused call had started."""
        with self._lock:
            until = now + asked
            if now < self.until:
                self.crowd += 1
                if until > self.until:
                    self.start += until - self.until
                    self.until = until
                return False
            if since == self.since and self.accepts:  # released since the last hold, refused again
                self.gap = (until - since) / self.accepts / _SLOWER
            self.failure, self.held_for, self.crowd = failure, asked, 1
            self.until = self.last_wait = until
            self.start = until + self.spread * asked * chance()
            self.since, self.accepts = math.inf, 0
        return True

    def passes(self, now: float) -> bool:
        """Start at once, if nobody waits and it is not held."""
        with self._lock:
            if self._waiting or now < self.until or now < self.next:
                return False
            self._go(None, now)
        return True

    def ends(self, now: float) -> bool:
        """Whether it is over, as nobody has had to wait for a while."""
        with self._lock:
            quiet = now - self.last_wait > max(_SHORTEST, self.held_for)
            if self._waiting or not quiet:
                return False
            self.gap = self.held_for = 0.0
            self.since, self.failure = math.inf, None
        return True

    def expected(self, now: float) -> float:
        """When a call that comes now will start, if nothing else happens."""
        with self._lock:
            first = self.start if now < self.until or self._waiting else self.until
            if self._waiting and not self.gap:
                first += self.spread * max(_SHORTEST, self.held_for)
            return max(now, first, self.next) + len(self._waiting) * self.gap

    async def ready(self, turn: Turn, runtime: Runtime, call: Call, end: float) -> float:
        with self._lock:
            self.last_wait = max(self.last_wait, runtime.now())
            return max(self.start, self.next)

    def _go(self, turn: Turn | None, when: float) -> None:
        self.since = min(self.since, when)
        gap, unit = self.gap, max(_SHORTEST, self.held_for)
        if not gap:
            left = self.since + self.spread * unit - when
            gap = max(0.0, left) / max(1, self.crowd + len(self._waiting))
            self.crowd = max(0, self.crowd - 1)
        self.next = max(self.next, when) + gap
        self.gap *= _FASTER ** (self.gap / unit * (when - self.since) / unit)

    def accepted(self, since: float) -> None:
        """A call that started after this release has succeeded."""
        with self._lock:
            if since == self.since:
                self.accepts += 1


class _State:
    """What a hold knows in this process: its lanes, and which of them are held or paced."""

    def __init__(self, policy: Hold) -> None:
        self.name = policy.name
        spread = policy.spread
        self.lanes = Keyed("Hold", policy.key, lambda key: _Lane(key, spread), _may_go)
        self.emitters = Emitters()
        self._busy: dict[_Lane, None] = {}
        self.idles = Idles()
        self._lock = new_lock()
        self.shared: Any = None
        if policy.storage is not None:
            self.shared = policy.storage.share_hold(policy.name, partial(_received, ref(self)))

    def hold(
        self, lane: _Lane, asked: float, now: float, since: float, failure: Failure | None
    ) -> None:
        """Begin a hold and publish it, or make one longer; `failure` is None if another process has
        published it. `since` as for `_Lane.hold`."""
        asked = min(asked, _LONGEST)
        if not lane.hold(asked, now, since, failure):
            return
        self._update(lane)
        self.emitters.emit(
            HoldBegan,
            hold=self.name,
            key=lane.key,
            model=model_in(self.lanes.key, lane.key),
            seconds=asked,
            failure=failure,
        )
        if self.shared is not None and failure is not None:
            self.shared.publish(lane.key, asked)

    def receive(self, key: Hashable, seconds: float) -> None:
        """Begin a hold that another process has published."""
        now = clock_now()
        self.hold(self.lanes.only or self.lanes.at(key, now), seconds, now, 0.0, None)

    def listen(self) -> None:
        """Begin to receive the holds of other processes."""
        if self.shared.listen():
            self.idles.update()

    def any_held(self, now: float) -> bool:
        """Whether any lane is held or paced. One of them is ended if it is over, whatever is
        called: a lane without calls would keep the others from rest."""
        with self._lock:
            lane = next(iter(self._busy), None)
            if lane is None:
                return False
            self._busy.pop(lane, None)  # a signal handler's call may have ended it just now
            self._busy[lane] = None
        if lane.ends(now):
            self._update(lane)
        return True

    # At rest

    def busy(self) -> bool:
        """Whether calls must take the full path."""
        if self.shared is not None and not self.shared.listening:
            return True
        return bool(self._busy)

    def _update(self, lane: _Lane) -> None:
        """A lane is held, or no more."""
        with self._lock:
            if lane.held_for:
                self._busy[lane] = None
            else:
                self._busy.pop(lane, None)
        self.idles.update()


def _may_go(lane: _Lane, now: float, crowded: bool) -> bool:
    return not lane.waiting and not lane.held_for


def _received(state: ref[_State], key: Hashable, seconds: float) -> bool:
    """What `SharedHold` calls; whether the policy is still in use."""
    found = state()
    if found is not None and seconds > 0:
        found.receive(key, seconds)
    return found is not None


def _after_fork(hold: Hold) -> None:
    for lane in hold._state.lanes.all().values():
        lane.after_fork()
    hold._state.idles.update()


holds: Instances[Hold] = Instances(_after_fork)
