"""Limit how many calls are under way at once, and let the others wait in order.

Inside `Retry`, so that no call holds a permit while it waits to retry. For a service, a GPU or a
process that can serve only so many at the same time; for calls per minute there is `RateLimit`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, NamedTuple
from weakref import ref

from attrs import Factory, field, frozen

from resilience._core.identity import Restarting
from resilience._core.instances import Instances
from resilience._core.keyed import check_key, key_of, key_reader, key_title, model_in
from resilience._core.locks import new_lock
from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    count,
    plain,
    seconds,
    suggesting,
    to_key,
    to_text,
    warn_option_failed,
)
from resilience.errors import BulkheadFullError
from resilience.events import CallDelayed
from resilience.policy import BUSY, Call, Effect, Gate, Runtime, Verdict, Waiter

__all__ = ["Bulkhead", "Load"]


class Load(NamedTuple):
    """How many more calls a bulkhead lets in now, and how many wait for that."""

    free: int
    waiting: int


@suggesting
@frozen(eq=False, repr=False)
class Bulkhead(Restarting, Gate):
    """Lets `limit` calls in at once. `queue` more wait in order, `patience` seconds at most; the
    others are rejected.

    - `limit`: calls under way at the same time, over all threads, event loops and pipelines that
      have this object. A stream is under way until its end. A call inside another one needs a
      permit of its own.
    - `queue` (100): calls that may wait, first come, first served; 0 for none, None for any number.
    - `patience` (30): seconds that a call waits at most; None to wait as long as it takes. A
      deadline ends the wait, too.
    - `key` (None): an argument's name, or a function of the call's arguments: a limit and a queue
      for each value. A call whose key cannot be computed (the function raises, the value is not
      hashable) is let in, and the log says so. Nothing is kept of a key without calls.
    - `name` (None): for people.

    A rejected call gets `BulkheadFullError`, without `retry_at`, as nobody knows when a call ends.
    A sync call on an event loop's own thread must not wait: it is let in or rejected at once.
    A call that is cancelled, interrupted or out of time leaves the queue, and no permit is lost.

    It pickles as its options: in another process, a forked one included, it begins anew. Safe from
    any thread and any event loop.
    """

    role: ClassVar[str | None] = "bulkhead"

    limit: int = count()
    queue: int | None = count(100, least=0, optional=True)
    patience: Seconds | None = seconds(30.0, positive=False, optional=True)
    key: str | Callable[..., Hashable] | None = checked(to_key, None, optional=True)
    name: str | None = checked(to_text, None, optional=True)
    _rooms: _Rooms = field(
        default=Factory(lambda self: _Rooms(self.limit, self.queue), takes_self=True),
        init=False,
        repr=False,
    )
    resting = True

    def __attrs_post_init__(self) -> None:
        bulkheads.add(self)

    def __repr__(self) -> str:
        return call_repr(self, ("limit",))

    @property
    def free(self) -> int:
        """How many more calls are let in now. TypeError with a key: see `rooms()`."""
        return self._only.free

    @property
    def waiting(self) -> int:
        """How many calls wait. TypeError with a key: see `rooms()`."""
        return self._only.waiting

    def rooms(self) -> dict[Hashable, Load]:
        """For each value of the key with calls under way, how many more are let in, and how many
        wait; under None without a key."""
        return self._rooms.loads()

    @property
    def _only(self) -> Load:
        if self.key is not None:
            raise TypeError("this bulkhead is keyed: use rooms(), which has each value's calls")
        return self.rooms().get(None, Load(self.limit, 0))

    # At rest

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        key, rooms = self.key, self._rooms
        if key is None:
            return rooms.at(None).begin, _end
        read = key_reader(key, fn)

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return rooms.take(read(args, kwargs))

        return begin, _end

    # On the full path

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        check_key(self.key, fn)

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        try:
            permit = self._rooms.take(key_of(self.key, call))
        except Exception as problem:
            warn_option_failed("Bulkhead(key=)", problem)
            return _UNGUARDED
        return None if permit is BUSY else permit

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        try:
            key = key_of(self.key, call)
            room = self._rooms.at(key)
        except Exception as problem:
            warn_option_failed("Bulkhead(key=)", problem)
            return _UNGUARDED
        began = runtime.now()
        permit = await self._rooms.wait(key, room, runtime, call, plain(self.patience))
        if permit is not None:
            return permit
        load = self.rooms().get(key, Load(self.limit, 0))
        raise BulkheadFullError(
            name=self.name,
            key=key,
            model=model_in(self.key, key),
            limit=self.limit,
            waiting=load.waiting,
            waited=runtime.now() - began,
        )

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        permit.give_back()

    def refuses(self, call: Call) -> bool:
        try:
            return self._rooms.full(key_of(self.key, call))
        except Exception:
            return False  # the call goes through, and there the log says why

    def effect(self) -> Effect:
        from resilience._core.schedule import seconds_text

        calls = f"{self.limit} call{'s' if self.limit > 1 else ''}"
        whose = "" if self.key is None else f" for each {key_title(self.key)}"
        long = plain(self.patience)
        line = f"lets {calls} in at once{whose}"
        if self.queue == 0 or long == 0:
            return Effect(line=f"{line}, and rejects the others")
        queue = "the others" if self.queue is None else f"{self.queue} more"
        until = "" if long == math.inf else f", {seconds_text(long)} at most"
        others = "" if self.queue is None else "; the rest are rejected"
        return Effect(line=f"{line}; {queue} wait in order{until}{others}", waits=long)


class _Permit:
    """What a call inside holds; the room keeps a weak `reference` to it."""

    __slots__ = ("__weakref__", "reference", "room")

    room: _Room
    reference: ref[_Permit] | None

    def give_back(self) -> None:
        """Leave the room. May be called again."""
        reference = self.reference
        if reference is not None:
            self.room.leave(reference)
            self.reference = None  # at the very end: until then, its death is noticed


class _Room:
    """The calls of one value of the key: those inside, and those that wait, first come first.

    Ctrl-C, a signal handler or a finalizer may come between any two steps: a permit moves in or out
    by a single step, and the others can be repeated. If Ctrl-C keeps a permit from being given
    back, the callback of its weak reference does that once nobody holds it any more.

    Permits are taken under the lock, and given back without it: a call that leaves is out first,
    and then looks at the queue; a call that waits is in the queue first, and then looks for a free
    permit.
    """

    __slots__ = ("inside", "leave", "limit", "lock", "waiting")

    def __init__(self, limit: int, lock: Any) -> None:
        self.limit = limit
        self.lock = lock
        self.inside: set[ref[_Permit]] = set()
        self.waiting: OrderedDict[_Permit, Waiter] = OrderedDict()
        self.leave: Callable[[ref[_Permit]], None] = self._leave  # made once, not for each call

    def begin(self, args: Any = (), kwargs: Any = None) -> Any:
        """A permit, or `BUSY` if none is free, or others wait for it; as a call at rest begins."""
        permit = _Permit()
        permit.room = self
        permit.reference = reference = ref(permit, self.leave)
        inside = self.inside
        with self.lock:
            inside.add(reference)  # first, so that whoever comes in between sees it
            if len(inside) <= self.limit and not self.waiting:
                return permit
            inside.discard(reference)
        del reference  # first the references, so that nobody notices its death
        permit.reference = None
        return BUSY

    def _leave(self, reference: ref[_Permit]) -> None:
        """Free the permit of this reference, and let the next call in."""
        try:
            self.inside.discard(reference)
        except TypeError:  # it died before its reference was ever hashed: it never was inside
            return
        if self.waiting:
            with self.lock:
                self.let_in()

    def leave_queue(self, permit: _Permit) -> None:
        """Leave the queue: from now on it is not let in."""
        with self.lock:
            self.waiting.pop(permit, None)

    def let_in(self) -> None:
        """Give free permits to those that wait. A call that wakes without one waits on."""
        while self.waiting and len(self.inside) < self.limit:
            permit = next(iter(self.waiting))
            self.waiting[permit].set()
            assert permit.reference is not None
            self.inside.add(permit.reference)
            self.waiting.pop(permit, None)


class _Rooms:
    """Those of one bulkhead, by the value of the key. One without calls may be forgotten at any
    time."""

    __slots__ = ("_all", "_limit", "_lock", "_queue")

    def __init__(self, limit: int, queue: int | None) -> None:
        self._limit = limit
        self._queue = math.inf if queue is None else queue
        self._lock = new_lock()
        self._all: OrderedDict[Hashable, _Room] = OrderedDict()

    def at(self, key: Hashable) -> _Room:
        """The room for a value of the key. If it is new, two old ones are looked at, and forgotten
        if they are empty."""
        room = self._all.get(key)
        if room is not None:
            return room
        with self._lock:
            for _ in range(2 if len(self._all) > _KEPT else 0):
                other, old = self._all.popitem(last=False)
                if old.inside or old.waiting:
                    self._all[other] = old
            return self._all.setdefault(key, _Room(self._limit, self._lock))

    def take(self, key: Hashable) -> Any:
        """A permit, or `BUSY`."""
        while True:
            room = self._all.get(key) or self.at(key)
            permit = room.begin()
            if self._all.get(key) is room:
                return permit
            del permit  # the room has just been forgotten

    async def wait(
        self, key: Hashable, room: _Room, runtime: Runtime, call: Call, patience: float
    ) -> _Permit | None:
        """A permit, once it is this call's turn; None if the queue is full, or patience ends."""
        permit = _Permit()
        permit.reference = None
        end = runtime.now() + patience
        try:
            while True:
                with self._lock:
                    if permit.reference is None:
                        permit.room = room = self.at(key)  # that one may have been forgotten
                        if self._is_full(room):
                            return None
                        permit.reference = ref(permit, room.leave)
                    if permit.reference in room.inside:
                        return permit
                    room.waiting[permit] = waiter = runtime.waiter()
                    self._all[key] = room  # a signal handler's call may have let go of it just now
                    room.let_in()
                    if permit.reference in room.inside:
                        return permit
                call.emit(CallDelayed, policy="Bulkhead", model=call.model, seconds=None)
                if not await waiter.wait(end - runtime.now(), call):
                    room.leave_queue(permit)
                    if permit.reference in room.inside:
                        return permit
                    permit.reference = None
                    return None
        except BaseException:
            room.leave_queue(permit)
            permit.give_back()
            raise

    def full(self, key: Hashable) -> bool:
        """Whether a call would be rejected now."""
        room = self._all.get(key)
        return room is not None and self._is_full(room)

    def _is_full(self, room: _Room) -> bool:
        return len(room.inside) >= self._limit and len(room.waiting) >= self._queue

    def loads(self) -> dict[Hashable, Load]:
        """Of each room with calls."""
        with self._lock:
            return {
                key: Load(max(0, self._limit - len(room.inside)), len(room.waiting))
                for key, room in self._all.items()
                if room.inside or room.waiting
            }

    def after_fork(self) -> None:
        """No call is under way in the child."""
        for room in self._all.values():
            room.inside.clear()
            room.waiting.clear()


_KEPT = 256
"""Rooms of one bulkhead that are kept although nobody is in them."""
_UNGUARDED = _Permit()
"""The permit of a call whose key cannot be computed."""
_UNGUARDED.reference = None


def _end(permit: _Permit, error: Verdict, result: Any) -> bool:
    """As `give_back`, without its calls: this is done at the end of each call at rest."""
    room = permit.room
    room.inside.discard(permit.reference)
    if room.waiting:
        permit.give_back()
    permit.reference = None
    return True


def _after_fork(bulkhead: Bulkhead) -> None:
    bulkhead._rooms.after_fork()


bulkheads: Instances[Bulkhead] = Instances(_after_fork)
