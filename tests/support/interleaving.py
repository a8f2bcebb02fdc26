"""Real threads, in every order in which they can take turns at what they share.

What threads share is watched: before each read or write of an attribute of a watched object or
class, each use of a watched container and each entry into a lock, the thread may be stopped and
another one may go on. What lies between two such points touches nothing shared, so it does not
matter when it is run. Nothing is left to the operating system or to chance: exactly one thread runs
at a time, and an order is the list of whose turn it was.

`every_order` tries every kind of order once: two are of a kind if they differ only in accesses that
do not concern each other (dynamic partial order reduction with source sets and sleep sets, after
Abdulla, Aronis, Jonsson and Sagonas, 2014). `orders` tries literally all of them, or those that
stop a running thread a few times.

frontrun 0.7 offers the same and was tried first. Where two threads meet only in a lock, it tries
them one after the other, and never the other one first.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import pytest
from attrs import define, field, frozen

__all__ = ["Baton", "Broken", "Lock", "NoLock", "Stuck", "WatchedDict", "WatchedList"]
__all__ += ["WatchedOrder", "WatchedSet", "every_order", "orders", "watch", "watch_slots"]

MOST = 20_000
"""Orders, beyond which a search is too long to be a test."""


@frozen
class Access:
    """What a thread is about to do."""

    place: tuple[int, str]  # the number of a watched object, and what of it
    write: bool
    lock: Lock | None = field(default=None, eq=False)

    def concerns(self, other: Access) -> bool:
        """Whether it makes a difference which of the two comes first."""
        return self.place == other.place and (self.write or other.write)

    def __str__(self) -> str:
        verb = "enters" if self.lock is not None else "writes" if self.write else "reads"
        return f"{verb} {self.place[1]} of {self.place[0]}"


class Broken(AssertionError):
    """An order in which the threads break what they should keep."""


class Stuck(Broken):
    """An order in which the threads wait for one another."""


class Gone(BaseException):
    """Ends a thread of a run that has come to nothing."""


# What is watched

_run: Run | None = None
_numbers = count()  # things are made in the same order in every run, and so get the same numbers
_things: dict[int, int] = {}
_kept: list[object] = []  # what was numbered when it was met: no other may have its id meanwhile
_classes: dict[tuple[type, frozenset[str]], type] = {}


def _point(place: tuple[int, str], write: bool, lock: Lock | None = None) -> None:
    me = None if _run is None else _run.me()
    if _run is not None and me is not None:
        _run.point(me, Access(place, write, lock))


class Lock:
    """A reentrant lock; a thread that would have to wait for it is not let run."""

    def __init__(self) -> None:
        self.place = (next(_numbers), "lock")
        self.owner: int | None = None
        self.depth = 0

    def __enter__(self) -> None:
        me = None if _run is None else _run.me()
        if me is not None and self.owner != me:
            _point(self.place, True, self)
        self.depth += 1

    def __exit__(self, *exc: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.owner = None
            if _run is not None:
                _run.search.left(self.place)

    def _is_owned(self) -> bool:
        me = None if _run is None else _run.me()
        return self.depth > 0 and self.owner == me


class NoLock:
    """Lets everybody in."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass

    def _is_owned(self) -> bool:
        return False


class Baton:
    """A lock that another thread releases. Waited for with a timeout, its time is over at once; who
    asks again after that waits for a thread that is to release it and has not got that far.

    For `orders`: a wait cannot be had before its release, which `every_order` would try.
    """

    def __init__(self) -> None:
        self.place = (next(_numbers), "baton")
        self.owner: int | None = None
        self.late = False

    def acquire(self, timeout: float = -1.0) -> bool:
        _point(self.place, True)
        if self.owner is None:
            self.owner = 0
        elif timeout >= 0 and not self.late:
            self.late = True
            return False
        else:
            _point(self.place, True, self)  # type: ignore[arg-type]
        self.late = False
        return True

    def release(self) -> None:
        _point(self.place, True)
        self.owner = None
        if _run is not None:
            _run.search.left(self.place)


def watch(thing: Any, *, but: Iterable[str] = ()) -> Any:
    """Watch an object's attributes, `but` those that are not written any more."""
    cls = type(thing)
    slots = (name for each in cls.__mro__ for name in getattr(each, "__slots__", ()))
    names = frozenset({*slots, *getattr(thing, "__dict__", ())} - {"__weakref__", *but})
    if (cls, names) not in _classes:
        _classes[cls, names] = _watching(cls, names)
    _things[id(thing)] = next(_numbers)
    thing.__class__ = _classes[cls, names]
    return thing


def _watching(cls: Any, names: frozenset[str]) -> type:
    def read(self: Any, name: str) -> Any:
        if name in names:
            _point((_things[id(self)], name), False)
        return cls.__getattribute__(self, name)

    def write(self: Any, name: str, value: Any) -> None:
        if name in names:
            _point((_things[id(self)], name), True)
        cls.__setattr__(self, name, value)

    body = {"__slots__": (), "__getattribute__": read, "__setattr__": write}
    return type(cls.__name__, (cls,), body)


class _Slot:
    """Stands for an attribute of a class with slots, each use of which is a point."""

    def __init__(self, plain: Any, name: str) -> None:
        self.plain = plain
        self.name = name

    def _place(self, thing: object) -> tuple[int, str]:
        number = _things.get(id(thing))
        if number is None:
            number = _things[id(thing)] = next(_numbers)
            _kept.append(thing)
        return number, self.name

    def __get__(self, thing: Any, cls: type) -> Any:
        if _run is not None and _run.me() is not None:
            _point(self._place(thing), False)
        return self.plain.__get__(thing, cls)

    def __set__(self, thing: Any, value: Any) -> None:
        if _run is not None and _run.me() is not None:
            _point(self._place(thing), True)
        self.plain.__set__(thing, value)


def watch_slots(patch: pytest.MonkeyPatch, cls: Any, *names: str) -> None:
    """Watch attributes of all objects of a class with slots, those not yet made included."""
    for name in names:
        owner = next(each for each in cls.__mro__ if name in vars(each))
        if type(vars(owner)[name]) is not _Slot:
            patch.setattr(owner, name, _Slot(vars(owner)[name], name))


def _container(kind: Any, reads: str, writes: str) -> Any:
    """A container of that kind, each use of which is a point."""

    def init(self: Any, *args: Any) -> None:
        kind.__init__(self, *args)
        self.place = (next(_numbers), kind.__name__)

    def use(name: str, write: bool) -> Any:
        plain = getattr(kind, name)

        def used(self: Any, *args: Any, **kwargs: Any) -> Any:
            _point(self.place, write)
            return plain(self, *args, **kwargs)

        return used

    body = {name: use(name, False) for name in reads.split()}
    body |= {name: use(name, True) for name in writes.split()}
    return type(kind.__name__, (kind,), {**body, "__init__": init, "__hash__": object.__hash__})


WatchedList = _container(
    list, "__len__ __iter__ __contains__ __getitem__", "append pop remove clear"
)
WatchedDict = _container(
    dict,
    "__len__ __iter__ __contains__ __getitem__ get items values",
    "__setitem__ __delitem__ setdefault pop clear",
)
WatchedSet = _container(set, "__len__ __contains__", "add discard")
WatchedOrder = _container(
    OrderedDict, "__len__ __contains__", "__setitem__ __delitem__ pop popitem"
)


# A run


class Run:
    """The threads of one order, from their start to their end."""

    def __init__(self, bodies: Sequence[Callable[[], Any]], search: Search) -> None:
        self.search = search
        self._bodies = bodies
        self._at: dict[int, Access] = {}
        self._problem: BaseException | None = None
        self._starting = True
        self._gone = False
        self._numbers: dict[int, int] = {}
        self._turns = [threading.Lock() for _ in bodies]
        self._main = threading.Lock()
        for lock in (*self._turns, self._main):
            lock.acquire()

    def me(self) -> int | None:
        """The number of the thread that asks; None if it is none of this run."""
        return self._numbers.get(threading.get_ident())

    def go(self) -> None:
        """Run all threads to their ends. Raises what one of them raises, or `Broken`."""
        global _run
        threads = [
            threading.Thread(target=self._body, args=(number,), daemon=True)
            for number in range(len(self._bodies))
        ]
        _run = self
        try:
            for thread in threads:  # each up to its first access
                thread.start()
                self._wait()
            self._starting = False
            self._next(None)
            self._wait()
            for thread in threads:
                thread.join(20)
        finally:
            _run = None
        if self._problem is not None:
            raise self._problem

    def _wait(self) -> None:
        if not self._main.acquire(timeout=20):
            raise Broken("a thread waits for something that is not watched")

    def _body(self, me: int) -> None:
        self._numbers[threading.get_ident()] = me
        try:
            self._bodies[me]()
        except Gone:
            return
        except BaseException as problem:
            self._problem = self._problem or problem
        if self._starting:
            self._main.release()
        else:
            self._next(None)

    def point(self, me: int, access: Access) -> None:
        """Stop before an access, until it is this thread's turn."""
        self._at[me] = access
        if self._starting:
            self._main.release()
        elif self._next(me) == me:
            return
        self._turns[me].acquire()
        if self._gone:
            raise Gone

    def _next(self, current: int | None) -> int | None:
        """Whose turn it is now; that thread is let run, unless it is the one that asks."""
        if not self._at:
            self._main.release()
            return None
        free = sorted(me for me, at in self._at.items() if at.lock is None or at.lock.owner is None)
        try:
            if not free:
                raise Stuck("the threads wait for one another")
            chosen = self.search.choose(current, free, self._at)
        except Broken as problem:
            self._problem = self._problem or problem
            self._gone = True
            for lock in (*self._turns, self._main):
                lock.release()
            return None
        access = self._at.pop(chosen)
        if access.lock is not None:
            access.lock.owner = chosen
        if chosen != current:
            self._turns[chosen].release()
        return chosen


# The search


@define(eq=False)
class Step:
    """A turn in an order, and what else is to be tried in its place."""

    current: int | None
    free: list[int]
    at: dict[int, Access]
    chosen: int
    todo: set[int]
    asleep: set[int]
    stopped: int
    done: set[int] = field(factory=set)

    @property
    def stops(self) -> int:
        """How often a thread that could go on was stopped, this turn included."""
        return self.stopped + (self.current in self.free and self.chosen != self.current)


class Search:
    """Goes through the tree of orders, depth first; `stops` is None where kinds are looked for."""

    def __init__(self, stops: float | None) -> None:
        self._stops = stops
        self._steps: list[Step] = []
        self.begin()

    def begin(self) -> None:
        """Start an order: as the last one up to where `advance` has changed it."""
        self.known = False  # whether this order has turned out to be of a kind that was tried
        self.turns: list[tuple[int, Access]] = []
        self._left: dict[tuple[int, str], int] = {}
        self._after: dict[int, int] = {}  # of an entry into a lock: the turn it was left after

    def left(self, place: tuple[int, str]) -> None:
        """A lock is free again."""
        self._left[place] = len(self.turns) - 1

    def choose(self, current: int | None, free: list[int], at: dict[int, Access]) -> int:
        """Whose turn it is: `current` asks, those in `free` can go on, all are `at` a point."""
        depth = len(self.turns)
        if depth < len(self._steps):
            step = self._steps[depth]
            if step.at != at:
                raise Broken(f"not the same again: {step.at} was {at}")
            chosen = step.chosen
        else:
            chosen = self._fresh(current, free, dict(at))
        access = at[chosen]
        if access.lock is not None and access.place in self._left:
            self._after[depth] = self._left[access.place]
        self.turns.append((chosen, access))
        return chosen

    def _fresh(self, current: int | None, free: list[int], at: dict[int, Access]) -> int:
        before = self._steps[-1] if self._steps else None
        asleep: set[int] = set()
        if before is not None and self._stops is None:
            by_now = before.at[before.chosen]
            quiet = before.asleep | before.done
            asleep = {each for each in quiet if not before.at[each].concerns(by_now)}
        awake = [each for each in free if each not in asleep]
        chosen = current if current in awake else (awake or free)[0]
        assert chosen is not None
        self.known = self.known or not awake
        if not self.known:
            stopped = before.stops if before is not None else 0
            todo = {chosen}
            if self._stops is not None and not (current in free and stopped >= self._stops):
                todo = set(free)
            self._steps.append(Step(current, free, at, chosen, todo, asleep, stopped))
        return chosen

    def advance(self) -> bool:
        """Go on to the next order, if there is one."""
        if self._stops is None:
            self._reverse()
        while self._steps:
            step = self._steps[-1]
            step.done.add(step.chosen)
            left = step.todo - step.done - step.asleep
            if left:
                step.chosen = min(left)
                return True
            self._steps.pop()
        return False

    def _reverse(self) -> None:
        """Of two accesses that concern each other, have the later one tried before the other.

        What happened before a turn is told by its clock: of each thread, the turns up to where.
        """
        clocks: list[dict[int, int]] = []
        latest: dict[int, int] = {}
        places: dict[tuple[int, str], list[int]] = defaultdict(list)
        for now, (thread, access) in enumerate(self.turns[: len(self._steps)]):
            clock = dict(clocks[latest[thread]]) if thread in latest else {}
            rivals = self._rivals(now, places[access.place])
            places[access.place].append(now)
            races = [then for then in rivals if clock.get(self.turns[then][0], 0) <= then]
            known = rivals if access.lock is None else [self._after[now]] if rivals else []
            for then in known:
                for other, turn in clocks[then].items():
                    clock[other] = max(clock.get(other, 0), turn)
            clock[thread] = now + 1
            latest[thread] = now
            clocks.append(clock)
            for then in races:
                self._swap(then, now, clocks)

    def _rivals(self, now: int, before: list[int]) -> list[int]:
        """The last turn of each other thread that concerns this one, of those at its place."""
        thread, access = self.turns[now]
        found: dict[int, int] = {}
        for then in reversed(before):
            other, earlier = self.turns[then]
            if other != thread and other not in found and earlier.concerns(access):
                found[other] = then
        return list(found.values())

    def _swap(self, then: int, now: int, clocks: list[dict[int, int]]) -> None:
        """Have one of the threads tried at `then` with which a way to `now` without it begins."""
        first = self.turns[then][0]
        way = [turn for turn in range(then + 1, now) if clocks[turn].get(first, 0) <= then]
        starts: set[int] = set()
        for at, turn in enumerate([*way, now]):
            clock = clocks[turn]
            if all(clock.get(self.turns[earlier][0], 0) <= earlier for earlier in way[:at]):
                starts.add(self.turns[turn][0])
        step = self._steps[then]
        if not starts & step.todo:
            step.todo.add(min(starts))

    def __str__(self) -> str:
        return "".join(f"\n    {thread} {access}" for thread, access in self.turns)


Holds = Callable[[Any], bool]
Body = Callable[[Any], Any]


def every_order(make: Callable[[], Any], *threads: Body, holds: Holds) -> int:
    """How many kinds of orders there are, all of them tried. Raises `Broken` for a bad one.

    For each, `make` makes what the threads share, each thread is called with that, and so is
    `holds`, which tells in the end whether all is well.
    """
    return _search(Search(None), make, threads, holds)


def orders(
    make: Callable[[], Any], *threads: Body, holds: Holds, stops: float = float("inf")
) -> int:
    """The same for all orders in which a thread that could go on is stopped `stops` times."""
    return _search(Search(stops), make, threads, holds)


def _search(
    search: Search, make: Callable[[], Any], threads: tuple[Body, ...], holds: Holds
) -> int:
    with _one_core():
        return _tried(search, make, threads, holds)


@contextmanager
def _one_core() -> Iterator[None]:
    """Only one thread runs at a time: each takes over sooner on the same core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _tried(search: Search, make: Callable[[], Any], threads: tuple[Body, ...], holds: Holds) -> int:
    global _numbers
    kinds = 0
    for tried in count():
        if tried == MOST:
            raise Broken(f"more than {MOST} orders")
        _numbers = count()
        _things.clear()
        _kept.clear()
        scene = make()
        search.begin()
        bodies = [partial(thread, scene) for thread in threads]
        try:
            Run(bodies, search).go()
            well = holds(scene)
        except Stuck as problem:
            raise Stuck(f"{problem}, after{search}") from None
        except Exception as problem:
            raise Broken(f"{type(problem).__name__}: {problem}, after{search}") from problem
        if not well:
            raise Broken(f"broken by{search}")
        kinds += not search.known
        if not search.advance():
            return kinds
    raise AssertionError
