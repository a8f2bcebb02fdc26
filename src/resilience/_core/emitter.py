"""Publishes what happens in a pipeline's calls to those who listen to it, or to all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

from resilience.events import (
    HEALTHY,
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    Event,
    TokensUsed,
)

from .attempt import Attempt
from .call import attempt_of
from .listening import Enter, Subscription, anybody, deliverers, entering, follow
from .locks import new_lock
from .logs import log
from .options import title

__all__ = ["Emitter", "Emitters"]

_new = object.__new__


class _Listened(dict[type[Event], tuple[Callable[[Any], object], ...]]):
    """Whom to give the events of a class, first the log if it has lines of them; looked up once
    for each class."""

    def __init__(self, own: tuple[Subscription, ...]) -> None:
        self._own = own

    def __missing__(self, kind: type[Event]) -> tuple[Callable[[Any], object], ...]:
        found = deliverers(kind, self._own)
        if log.levels[kind] is not None:
            found = (log.deliver, *found)
        self[kind] = found
        return found


class Emitter:
    """What one pipeline publishes by. An event is made only where somebody listens to its class, or
    where the log writes lines of its level."""

    __slots__ = (
        "__weakref__",
        "_attempt_ended",
        "_attempt_started",
        "_call_ended",
        "_call_started",
        "_own",
        "enters",
        "functions",
        "healthy",
        "idle",
        "listened",
        "name",
    )

    def __init__(self, name: str | None, own: Sequence[Subscription]) -> None:
        self.name = name
        self.idle: Any = None
        """Knows whether the pipeline is at rest."""
        self.healthy = False
        """Whether somebody listens to what a healthy call emits."""
        self.functions: tuple[str, ...] = ()
        """Names of those that the pipeline was put around, two at most."""
        self._own = tuple(own)
        self.enters: tuple[Enter, ...] = ()
        """What sets context variables for the function of an attempt."""
        follow(self)

    def guards(self, fn: Callable[..., Any]) -> None:
        """The pipeline is put around a function."""
        name = title(fn)
        if len(self.functions) < 2 and name not in self.functions:
            self.functions = (*self.functions, name)

    def refresh(self) -> None:
        self.listened = listened = _Listened(self._own)
        self._call_started = listened[CallStarted]
        self._attempt_started = listened[AttemptStarted]
        self._attempt_ended = listened[AttemptEnded]
        self._call_ended = listened[CallEnded]
        self.healthy = any(listened[kind] for kind in HEALTHY)
        self.enters = entering(self._own)

    def refreshed(self) -> None:
        if self.idle is not None:
            self.idle.update()

    def listeners(self, kind: type[Event]) -> tuple[Callable[[Any], object], ...]:
        """Whom to give an event of this class now."""
        listened = self.listened[kind]
        if listened and listened[0] is log.deliver:
            level = log.levels[kind]  # as in `log.writes`, without a call
            if level is None or not log.enabled(level):
                return listened[1:]
        return listened

    def publish(self, kind: type[Event], journal: Any, **facts: Any) -> None:
        """Make an event of a call, and give it to whoever listens."""
        listened = self.listeners(kind)
        if listened:
            event = kind(
                pipeline=self.name,
                function=journal.guard.title or _title(journal.guard),
                call=journal.serial,
                **facts,
            )
            for deliver in listened:
                deliver(event)

    # What a healthy call emits: made as `kind(...)` would, at half the cost

    def call_started(self, journal: Any) -> None:
        listened = self._call_started
        if listened:
            guard = journal.guard
            event = _new(CallStarted)
            facts = event.__dict__
            facts["pipeline"] = self.name
            facts["function"] = guard.title or _title(guard)
            facts["call"] = journal.serial
            for deliver in listened:
                deliver(event)

    def attempt_started(self, call: Any) -> None:
        """Once for each attempt, which may be begun again where a call turns out to be async."""
        journal = call.journal
        listened = self._attempt_started
        if journal.withdrawn:
            journal.withdrawn = False
        elif listened:
            branch, guard = call.branch, journal.guard
            event = _new(AttemptStarted)
            facts = event.__dict__
            facts["pipeline"] = self.name
            facts["function"] = guard.title or _title(guard)
            facts["call"] = journal.serial
            facts["number"] = branch.number
            facts["model"] = call.model
            facts["waited"] = branch.waited
            for deliver in listened:
                deliver(event)

    def attempt_ended(self, journal: Any, attempt: Attempt, *, interrupted: bool = False) -> None:
        listened = self._attempt_ended
        if listened:
            guard = journal.guard
            event = _new(AttemptEnded)
            facts = event.__dict__
            facts["pipeline"] = self.name
            facts["function"] = guard.title or _title(guard)
            facts["call"] = journal.serial
            facts["attempt"] = attempt
            facts["interrupted"] = interrupted
            for deliver in listened:
                deliver(event)

    def not_begun_again(self, journal: Any) -> None:
        """The call ends, and an attempt that was begun and withdrawn with it."""
        begun = Attempt(number=journal.numbers + 1, duration=0.0)
        self.attempt_ended(journal, begun, interrupted=True)

    def call_ended(self, journal: Any, elapsed: float, error: BaseException | None) -> None:
        listened = self._call_ended
        if listened:
            guard = journal.guard
            event = _new(CallEnded)
            facts = event.__dict__
            facts["pipeline"] = self.name
            facts["function"] = guard.title or _title(guard)
            facts["call"] = journal.serial
            facts["attempts"] = tuple(journal.attempts)
            facts["elapsed"] = elapsed
            facts["served_by"] = journal.answerer if error is None else None
            facts["degraded"] = journal.degraded
            facts["error"] = error
            for deliver in listened:
                deliver(event)

    def enter(self, serial: int, number: int) -> Callable[[], object]:
        """Set context variables for the function of an attempt; what is returned restores them."""
        restores = [back for enter in self.enters if (back := enter(serial, number)) is not None]
        return partial(_restore, restores)

    def tokens_used(self, call: Any, read: Callable[[Any], Any], answer: Any) -> None:
        """How many tokens an attempt used, if `read` finds that in its answer."""
        if self.listened[TokensUsed] and (found := read(answer)) is not None:
            attempt = attempt_of(call)
            facts = {"number": attempt.number, "model": attempt.model}
            self.publish(TokensUsed, call.journal, **facts, input=found[0], output=found[1])


def _restore(restores: list[Callable[[], object]]) -> None:
    while restores:
        restores.pop()()


def _title(guard: Any) -> str:
    """The name of a guarded function."""
    found: str = title(guard.fn)
    guard.title = found
    return found


class Emitters:
    """Those of the pipelines that a policy is in. What it publishes outside of calls goes once to
    each listener of theirs, and of all pipelines."""

    __slots__ = ("__weakref__", "_all", "_lock", "heard")

    def __init__(self) -> None:
        self._all: WeakSet[Emitter] = WeakSet()
        self._lock = new_lock()
        self.heard = False
        """False where nobody listens to anything, and the log is off."""
        follow(self)

    def add(self, emitter: Emitter) -> None:
        """Publish by this one as well, for as long as it lives."""
        with self._lock:
            self._all.add(emitter)
        follow(self)

    def refresh(self) -> None:
        with self._lock:
            own = any(emitter._own for emitter in self._all)
        self.heard = log.speaks or own or anybody()

    def refreshed(self) -> None:
        """Nothing else goes by it."""

    def emit(self, kind: type[Event], **facts: Any) -> None:
        """Make an event, and give it to whoever listens. Where the policy is in one pipeline, it
        has that one's name, and that of its function, if it has one."""
        with self._lock:
            emitters = list(self._all)
        own = [each for emitter in emitters for each in emitter._own]
        listened = deliverers(kind, own)
        if log.writes(kind):
            listened = (log.deliver, *listened)
        if listened:
            name = function = None
            if len(emitters) == 1:
                name, functions = emitters[0].name, emitters[0].functions
                function = functions[0] if len(functions) == 1 else None
            event = kind(pipeline=name, function=function, call=None, **facts)
            for deliver in listened:
                deliver(event)
