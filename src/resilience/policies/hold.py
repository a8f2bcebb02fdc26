"""Stay away together: when a server tells one call to wait, the others wait as well.

Inside `Retry` and `CircuitBreaker`. Where the limit is known beforehand, `RateLimit` keeps within
it, and no call has to be refused first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast
from weakref import WeakSet, ref

from attrs import Factory, field, fields, frozen

from resilience._core.clock import chance, moment
from resilience._core.clock import now as clock_now
from resilience._core.identity import Identity
from resilience._core.lanes import Lanes
from resilience._core.locks import new_lock
from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    number,
    plain,
    seconds,
    suggesting,
    title,
    to_key,
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
"""Seconds: a shorter hold is taken for as long, where those who waited are let go."""
_SLOWER = 0.8
"""By how much calls go slower than the server took them, once it is known how fast that was."""
_FASTER = 0.99
"""What the gap between two calls shrinks to in the first second after a hold (or in the time of the
hold, if longer); by twice as much in the second, and so on."""


@suggesting
@frozen(eq=False, repr=False)
class Hold(Identity, Gate):
    """When a call fails and its server says how long to stay away, hold the others back as well.

    - `on` (advice WAIT): which failures hold, if they tell for how long: by `Retry-After` and its
      like, or by a rate limit's reset where nothing remains (`x-ratelimit-remaining: 0`).
    - `key` (None): an argument's name, or a function of the call's arguments, such as the model,
      the host or the account: a hold for each value. A call whose key cannot be computed (the
      function raises, the value is not hashable) is let through, and the log says so.
    - `spread` (0.25): those who wait are let go one after the other, over this share of the time of
      the hold (of a second, if it was shorter), added to it.
    - `patience` (60): seconds that a call waits at most; None for as long as it takes. One that
      would have to wait longer, or beyond its deadline, is rejected now. In a chain of models, so
      is one for which another model is free: the chain goes on with that at once.
    - `storage` (None): a `resilience.shared.RedisLimit`, to hold the calls of other processes, too.
    - `name` (None): for people.

    If the server refuses again what is let go, the gaps between calls become as long as they were
    between those that it took, and shrink, slowly at first, until no call has to wait for its
    turn. Whatever a server asks for, a hold lasts for a day at most.

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
    storage: Any = field(default=None)
    name: str | None = checked(to_text, None, optional=True)
    _state: _State = field(
        default=Factory(lambda self: _State(self), takes_self=True), init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        with _making:
            _known.add(self)

    def __repr__(self) -> str:
        return call_repr(self)

    def __reduce__(self) -> Any:
        return Hold, tuple(getattr(self, each.name) for each in fields(Hold) if each.init)

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
        self._state.watch(idle)

    def busy(self) -> bool:
        return self._state.busy()

    # On the full path

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        self._state.lanes.check(fn)

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        state = self._state
        if self.storage is not None:
            state.listen()
        if not state.any_held:
            return _FREE
        now = runtime.now()
        state.look(now)
        lane = state.lanes.found(call)
        if lane is None or not lane.held_for:
            return _FREE
        return lane.permit() if lane.passes(now) else None

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        began = runtime.now()
        lane = self._state.lanes.of(call, began)
        if lane is None:
            return _FREE
        end = self._end(call, began)
        expected = lane.expected(began)
        late = expected > end or not runtime.may_wait
        if not late and lane.until > began and call.alternatives is not None:
            late = lane.failure is not None and call.alternatives(lane.failure) <= 0
        if late:
            raise self._rejection(lane, expected - began)
        call.emit(CallDelayed, policy="Hold", model=call.model, seconds=expected - began)
        if not await lane.wait(runtime, call, Turn(1.0), end):
            now = runtime.now()
            raise self._rejection(lane, lane.expected(now) - now)
        call.branch.waiting += runtime.now() - began
        return lane.permit()

    def _end(self, call: Call, now: float) -> float:
        """When a call that comes now is to go at the latest."""
        patience = math.inf if self.patience is None else plain(self.patience)
        return now + min(patience, call.room(now))

    def _rejection(self, lane: _Lane, wait: float) -> RateLimitExceededError:
        wait = max(0.0, wait)
        error = RateLimitExceededError(
            wait, moment(wait), name=self.name, model=self._state.model(lane.key)
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
        if lane is not None and lane.hold(min(asked, _LONGEST), now, permit.since, failure):
            self._state.began(lane, min(asked, _LONGEST), failure)

    def refuses(self, call: Call) -> bool:
        lane = self._state.lanes.found(call)
        if lane is None or not lane.held_for or _told(call):
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
        key = self.key if isinstance(self.key, str) else title(self.key)
        whose = "" if self.key is None else f" of the same {key}"
        long = math.inf if self.patience is None else plain(self.patience)
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


def _told(call: Call) -> bool:
    """Whether it is this call that was told, at this model: its own `Retry` knows what to do."""
    if not call.journal.attempts:
        return False
    last = call.last_attempt()
    return last.model == call.model and last.failure is not None and bool(asked_of(last.failure))


class _Permit(NamedTuple):
    """Of a call that goes while its lane is paced: in which one, and since which release."""

    lane: _Lane | None
    since: float


_FREE = _Permit(None, 0.0)


class _Lane(PacedQueue):
    """The calls for one value of the key.

    Held until `until`; from `start` on, a little later, those who wait are let go, `gap` seconds
    apart. A gap stays until no call has had to wait for a while.
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
        "state",
        "until",
    )

    held_for: float
    """Seconds of the hold; 0 if it is not held, nor paced."""
    failure: Failure | None
    """Why it is held."""
    crowd: int
    """How many were told, or waited, when it was released."""
    since: float
    """When the first call went after the hold; infinite before."""
    accepts: int
    """How many calls went well since."""

    def __init__(self, state: _State, key: Hashable, spread: float) -> None:
        super().__init__()
        self.state = ref(state)
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
        """Begin a hold, or make one longer: whether it has begun. `since` is the release that the
        call went after which was told."""
        with self._lock:
            until = now + asked
            if now < self.until:
                self.crowd += 1
                if until > self.until:
                    self.start += until - self.until
                    self.until = until
                return False
            if since == self.since:  # let go since the last hold, and refused again
                if self.accepts:
                    self.gap = (until - since) / self.accepts / _SLOWER
                else:
                    self.gap *= 2
            self.failure, self.held_for, self.crowd = failure, asked, 1
            self.until = self.last_wait = until
            self.start = until + self.spread * asked * chance()
            self.since, self.accepts = math.inf, 0
        self._tell()
        return True

    def passes(self, now: float) -> bool:
        """Go at once, if nobody waits and it is not held."""
        with self._lock:
            if self._waiting or now < self.until or now < self.next:
                return False
            self._go(None, now)
        return True

    def ends(self, now: float) -> None:
        """It is over, if nobody has had to wait for a while."""
        with self._lock:
            quiet = now - self.last_wait > max(_SHORTEST, self.held_for)
            if self._waiting or not quiet:
                return
            self.gap = self.held_for = 0.0
            self.since, self.failure = math.inf, None
        self._tell()

    def expected(self, now: float) -> float:
        """When a call that comes now will go, if all goes on as it is."""
        with self._lock:
            first = self.start if now < self.until or self._waiting else self.until
            return max(now, first, self.next) + len(self._waiting) * self.gap

    async def ready(self, turn: Turn, runtime: Runtime, call: Call, end: float) -> float:
        with self._lock:
            self.last_wait = max(self.last_wait, runtime.now())
            return max(self.start, self.next)

    def _go(self, turn: Turn | None, when: float) -> None:
        if self.since == math.inf and self.held_for:
            self.since = when
            crowd = self.crowd + len(self._waiting)
            self.gap = self.gap or self.spread * max(_SHORTEST, self.held_for) / max(1, crowd)
        self.next = max(self.next, when) + self.gap
        unit = max(_SHORTEST, self.held_for)
        self.gap *= _FASTER ** (self.gap / unit * (when - self.since) / unit if self.gap else 0.0)

    def accepted(self, since: float) -> None:
        """A call went well that was let go after this release."""
        with self._lock:
            if since == self.since:
                self.accepts += 1

    def unused(self, now: float) -> bool:
        return not self._waiting and not self.held_for

    def _tell(self) -> None:
        """Calls may be at rest again, or no more."""
        state = self.state()
        if state is not None:
            state.changed(self)


class _State:
    """What a hold knows in this process: its lanes, and which of them anything goes on in."""

    def __init__(self, policy: Hold) -> None:
        self.keyed_by_model = policy.key == "model"
        self.name = policy.name
        spread = policy.spread
        itself: ref[Any] = ref(self)

        def made(key: Hashable) -> _Lane:
            state = itself()
            assert state is not None
            return _Lane(state, key, spread)

        self.lanes: Lanes[_Lane] = Lanes(policy.key, made)
        self.emitters = Emitters()
        self._busy: dict[_Lane, None] = {}
        self._idles: tuple[ref[Any], ...] = ()
        self._lock = new_lock()
        self.shared: Any = None
        if policy.storage is not None:
            self.shared = policy.storage.share_hold(policy.name, partial(_heard, itself))

    def model(self, key: Hashable) -> str | None:
        """The key, if it is a model's name."""
        return key if self.keyed_by_model and isinstance(key, str) else None

    def began(self, lane: _Lane, asked: float, failure: Failure | None) -> None:
        """A hold has begun here: tell everybody."""
        self.emitters.emit(
            HoldBegan,
            hold=self.name,
            key=lane.key,
            model=self.model(lane.key),
            seconds=asked,
            failure=failure,
        )
        if self.shared is not None and failure is not None:
            self.shared.publish(lane.key, asked)

    def heard(self, key: Hashable, seconds: float) -> None:
        """Another process was told."""
        now = clock_now()
        lane = self.lanes.at(key, now)
        if lane.hold(min(seconds, _LONGEST), now, 0.0, None):
            self.began(lane, seconds, None)

    def listen(self) -> None:
        """Begin to hear of the holds of other processes."""
        if not self.shared.listening:
            self.shared.listen()
            self.update()

    @property
    def any_held(self) -> bool:
        """Whether anything goes on in any lane."""
        return bool(self._busy)

    def look(self, now: float) -> None:
        """Whether what goes on in one of the lanes is over, whoever calls: a lane that nobody calls
        any more would keep the others from rest."""
        with self._lock:
            lane = next(iter(self._busy), None)
            if lane is None:
                return
            del self._busy[lane]
            self._busy[lane] = None
        lane.ends(now)

    # At rest

    def watch(self, idle: Idle) -> None:
        with self._lock:
            alive = [each for each in self._idles if each() is not None]
            self._idles = (*alive, ref(idle))

    def busy(self) -> bool:
        """Whether calls must take the full path."""
        if self.shared is not None and not self.shared.listening:
            return True
        return bool(self._busy)

    def changed(self, lane: _Lane) -> None:
        """A lane is held, or no more."""
        with self._lock:
            if lane.held_for:
                self._busy[lane] = None
            else:
                self._busy.pop(lane, None)
        self.update()

    def update(self) -> None:
        for reference in self._idles:
            idle = reference()
            if idle is not None:
                idle.update()


def _heard(state: ref[Any], key: Hashable, seconds: float) -> bool:
    """Another process was told; whether anybody here still wants to know."""
    found = state()
    if found is not None and seconds > 0:
        found.heard(key, seconds)
    return found is not None


_known: WeakSet[Hold] = WeakSet()
_making = new_lock()


def holds() -> list[Hold]:
    """All that exist in this process."""
    with _making:
        return list(_known)


def _forked() -> None:
    for hold in holds():
        for lane in hold._state.lanes.all().values():
            lane.forget_waiting()
        if hold._state.shared is not None:
            hold._state.shared.forked()
        hold._state.update()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
