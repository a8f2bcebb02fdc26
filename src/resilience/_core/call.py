"""A call on its way inward, and the journal of what has happened in it.

A `Call` is passed from policy to policy. Whoever changes something passes on a changed copy, so two
attempts may be under way at once. What belongs to one line of attempts is in its `Branch`; the
`Journal` is the first branch, and holds what belongs to the user's call as a whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from attrs import evolve

from resilience.errors import DeadlineExceededError, RejectedError
from resilience.events import Event, TimedOut
from resilience.failures import Failure, describe

from .anatomy import cause_of
from .arguments import NO_SLOT, Slot, slot_of
from .attempt import Attempt
from .clock import moment
from .context import Ambient, Surroundings, World, record_served
from .deadline import Deadline, live, nearest
from .in_hand import InHand
from .locks import new_lock
from .results import Unguardable
from .signals import Carried, Expired, Report

__all__ = ["Branch", "Budget", "Call", "Journal", "attempt_of"]

T = TypeVar("T")

Budget: TypeAlias = "Callable[[Call], Callable[[], object] | None]"
"""Asked for one more attempt in a call: what gives it back, or None if there is none left."""

_KEPT = 1000
"""Attempts kept of one call, half of them the first ones: a Retry may be endless."""
_REPORTS = 64
"""Reports kept in one branch: a function may guard calls for as long as the program runs."""

_new = object.__new__
_MODEL = ("model", True)
_numbering = new_lock()
_remembering = new_lock()
_next_serial = itertools.count(1).__next__
serials = 0
"""The number of the latest call on the full path; calls at rest read it before they begin."""


class Branch:
    """One line of attempts, one after the other: what is in hand, and what is under way."""

    __slots__ = ("in_hand", "number", "parent", "reports", "started", "waited", "waiting")

    number: int
    """Of the attempt under way, or of the last one; 0 while there was none."""
    started: float
    """When it began."""
    waited: float
    """Seconds waited just before it."""
    waiting: float
    """Seconds waited since."""

    def __init__(self, parent: Branch | None) -> None:
        self.parent = parent
        self.in_hand: InHand | None = None
        self.reports: tuple[Report, ...] = ()
        self.waited = self.waiting = 0.0
        self.number = 0

    def report(self, report: Report) -> None:
        """Have policies further out know what was done about an error, in this branch and those
        that it comes from."""
        branch: Branch | None = self
        while branch is not None:
            branch.reports = (*branch.reports[1 - _REPORTS :], report)
            branch = branch.parent


class Journal(Branch):
    """One call of the user's: its attempts, and what policies note of it. Never shared by two."""

    # Set one by one on 3.11, a slot costs less than a default that is read from the class; what is
    # rare has such a default all the same.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "attempts",
        "began",
        "born_in",
        "guard",
        "keeps",
        "numbers",
        "outer",
        "result",
        "serial",
        "served",
    )

    born_in: Deadline | None
    """The deadline that the call was made under."""
    began: float | None
    """When the call began, by its runtime; None until somebody wants to know."""
    result: Any
    """Of the chain."""
    served: str | None
    """The model that has answered, as a chain says."""
    interrupted: tuple[Attempt, ...] = ()
    """Attempts that something unwound."""
    remarks: tuple[str, ...] = ()
    rejection: str | None = None
    degraded = False
    key: str | None = None
    """The idempotency key of the call, one for all its attempts."""
    memo: dict[object, Any] | None = None
    reason: str | None = None
    """Why a policy made no further attempt."""
    fell_back = False
    withdrawn = False
    """Whether an attempt was begun that is to be begun again."""
    extras: tuple[_Extra, ...] = ()
    """What budgets have given for further attempts."""

    def __init__(self, guard: Any, outer: Ambient | None, in_hand: InHand | None = None) -> None:
        global serials
        self.parent = None
        self.in_hand = in_hand
        self.reports = ()
        self.waited = self.waiting = 0.0
        self.number = self.numbers = 0
        self.began = self.served = None
        self.guard = guard
        self.outer = outer
        """What was around the call when it began."""
        if outer is None:
            self.born_in = None
        else:
            self.born_in = live(outer.deadline)
            if (around := outer.attempt) is not None and around.budgets:
                around.journal.guard.nests()
        self.keeps = guard.emit.healthy
        """Whether attempts that go well are recorded, too."""
        self.attempts: Sequence[Attempt] = ()
        self.serial = serials = _next_serial()

    def begin(self, runtime: Any) -> None:
        """Note when the call began: at the latest before it waits for anything."""
        if self.began is None:
            in_hand = self.in_hand
            self.began = runtime.now() if in_hand is None else in_hand.started or runtime.now()

    def start(self, runtime: Any) -> None:
        """The same for a call that is to be told of, unless it has gone over to async mode."""
        if self.began is None:
            in_hand = self.in_hand
            self.began = runtime.now() if in_hand is None else in_hand.started or runtime.now()
            self.guard.emit.call_started(self)

    def remember(self, owner: object, make: Callable[..., T], *args: Any) -> T:
        """A fact of this call that a policy makes once; it outlives a hand-over to async mode."""
        with _remembering:  # two branches may come to it at the same time
            if self.memo is None:
                self.memo = {}
            memo = self.memo
        if owner not in memo:
            memo.setdefault(owner, make(*args))
        found: T = memo[owner]
        return found

    def remark(self, text: str) -> None:
        """Something to be told in the note on the error."""
        self.remarks = (*self.remarks, text)

    def next_number(self) -> int:
        """The number of the next attempt, where several may begin at once."""
        with _numbering:
            self.numbers += 1
            return self.numbers

    def add(self, attempt: Attempt) -> None:
        """Record an attempt: one that has ended, or is settled later (its duration is None)."""
        attempts = self.attempts
        if type(attempts) is not list:
            self.attempts = [attempt]
        else:
            attempts.append(attempt)
            if len(attempts) > _KEPT:
                del attempts[_KEPT // 2]
        if self.keeps and attempt.duration is not None:
            self.guard.emit.attempt_ended(self, attempt)

    def adopt(self, attempts: Sequence[Attempt], later: float) -> dict[int, int]:
        """Record attempts that another call has made for this one as well, which began so much
        later. What numbers they have here, by those they had there. Nothing is published."""
        numbers, kept = {}, list(self.attempts)
        for attempt in attempts:
            numbers[attempt.number] = number = self.next_number()
            kept.append(evolve(attempt, number=number, started=attempt.started - later))
        self.remember(Journal.adopt, set[int]).update(numbers.values())
        if len(kept) > _KEPT:
            del kept[_KEPT // 2 : -(_KEPT // 2)]
        self.attempts = kept
        return numbers

    def adopted(self, number: int) -> bool:
        """Whether another call has made the attempt of that number."""
        memo = self.memo
        return memo is not None and number in memo.get(Journal.adopt, ())

    def own(self, error: Exception) -> Exception:
        """The call's own last error in place of a rejection, if the call was made at all."""
        if issubclass(type(error), RejectedError):
            in_hand = self.in_hand
            if in_hand is not None and in_hand.error is not None:  # no policy has called inward
                return in_hand.error
            for attempt in reversed(self.attempts):
                own = None if attempt.failure is None else attempt.failure.error
                if own is not None:
                    self.rejection = str(error)
                    return Carried(own) if issubclass(type(own), StopIteration) else own
        return error

    def answered_by(self, model: str | None, *, degraded: bool = False) -> None:
        """Note the model that has answered, or that none has; `degraded`: not the first choice."""
        self.served = model
        if degraded:
            self.degraded = True
        record_served(model)

    @property
    def answerer(self) -> str | None:
        """The model that has answered: as a chain says, or by the last attempt."""
        if self.served is not None or self.degraded or not self.attempts:
            return self.served
        return self.attempts[-1].model

    def take_result(self) -> Any:
        """The result, which is nobody else's: a frame that held it, and that an error's traceback
        holds, would keep it alive."""
        try:
            return self.result
        finally:
            self.result = None

    def close(self) -> None:
        """Let go of errors, whose tracebacks lead back here, and of the call that this one is in:
        a task may start its own successor for ever. Budgets get back what was not used."""
        extras, self.extras = self.extras, ()
        for extra in extras:
            if not extra.used:
                extra.give_back()
        self.attempts = self.reports = self.interrupted = ()
        self.memo = None
        if self.outer is not None:
            self.outer = Surroundings(self.outer)
            self.outer.attempt = None


class _Extra(NamedTuple):
    """What budgets have given for one more attempt in a branch, after attempt `number`."""

    branch: Branch
    number: int
    returns: tuple[Callable[[], object], ...]

    @property
    def used(self) -> bool:
        """Whether that attempt was made."""
        return self.branch.number != self.number

    def give_back(self) -> None:
        for give_back in self.returns:
            give_back()


class Call:
    """What is to be called, with what, for which model, until when.

    - `fn`, `args`, `kwargs`: what the innermost step calls.
    - `model`: whose turn it is, at which `place` of a chain; None without one.
    - `deadline`: the innermost one.
    - `alternatives`: what a chain of models offers, a function that gives the seconds until another
      model is available that may do what this one did not (0: now, infinite: never).
    - `terms`: on what terms a stream is read, as `Streaming` says.
    - `judge`: a function of the attempt's result that gives the error to raise instead, or None.
    - `budgets`: what policies further out have put around the extra attempts of this call, or None.
    - `journal`, `branch`: the record of this call, and of this line of attempts.
    """

    __slots__ = (
        "alternatives",
        "args",
        "branch",
        "budgets",
        "deadline",
        "fn",
        "journal",
        "judge",
        "kwargs",
        "model",
        "place",
        "terms",
    )

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    model: str | None
    place: Any
    deadline: Deadline | None
    alternatives: Callable[[Failure], float] | None
    judge: Callable[[Any], Exception | None] | None
    terms: Any
    budgets: tuple[Budget, ...] | None
    journal: Journal
    branch: Branch

    # A changed copy

    def replace(self, **changes: Any) -> Call:
        """A copy with other values of some of: `fn`, `args`, `kwargs`, `model`, `deadline`,
        `alternatives`, `judge`, `terms`, `budgets`."""
        copy = self.until(self.deadline)
        for name, value in changes.items():
            setattr(copy, name, value)
        return copy

    def until(self, deadline: Deadline | None) -> Call:
        """A copy with another deadline."""
        copy = _new(Call)
        copy.journal = self.journal
        copy.branch = self.branch
        copy.fn = self.fn
        copy.args = self.args
        copy.kwargs = self.kwargs
        copy.model = self.model
        copy.deadline = deadline
        copy.alternatives = self.alternatives
        copy.judge = self.judge
        copy.terms = self.terms
        copy.budgets = self.budgets
        copy.place = self.place
        return copy

    def branches(self, number: int) -> list[Call]:
        """Copies for attempts that are made at the same time, each with a branch of its own.

        An outcome in hand goes to the first alone.
        """
        copies = [self.replace(branch=Branch(self.branch)) for _ in range(number)]
        copies[0].branch.in_hand, self.branch.in_hand = self.branch.in_hand, None
        return copies

    # Asking

    def slot(self, name: str, *, reading: bool = False) -> Slot:
        """The place of an argument of the function, to read its value or to put another in.

        TypeError if there is none, as of `slot_of`.
        """
        guard = self.journal.guard
        if self.fn is not guard.fn:
            return slot_of(self.fn, name, reading=reading)
        found: Slot | None = guard.slots.get((name, reading))
        if found is None:
            found = guard.slots[name, reading] = slot_of(self.fn, name, reading=reading)
        return found

    def refuses(self, asking: object = None) -> bool:
        """Whether a policy of the pipeline would reject such a call now: one further in than the
        policy that is asking, as those further out have let it in already."""
        return bool(self.journal.guard.pipeline.refuses(self, inside=asking))

    def free_in(self) -> float:
        """Seconds until all policies of the pipeline would let such a call begin."""
        return float(self.journal.guard.pipeline.free_in(self))

    def afford(self) -> bool:
        """Ask all `all_budgets()` for one more attempt than the caller asked for, before the wait
        for it: a retry, a call of another model. If one has none left, do not make it. What they
        gave goes back to them if the call ends without that attempt, as when it is cancelled."""
        if self.budgets is None and self.journal.outer is None:
            return True
        journal, branch = self.journal, self.branch
        if any(extra.branch is branch and not extra.used for extra in journal.extras):
            return True  # the last one was not made: its call was rejected
        extra = _Extra(branch, branch.number, ())
        for budget in self.all_budgets():
            give_back = budget(self)
            if give_back is None:
                extra.give_back()
                return False
            extra = extra._replace(returns=(*extra.returns, give_back))
        if extra.returns:
            unused = (each for each in journal.extras if not each.used)
            journal.extras = (*unused, extra)
        return True

    def all_budgets(self) -> Iterator[Budget]:
        """The budgets around this call, and around those in whose attempts it was made."""
        call: Call | None = self
        while call is not None:
            yield from call.budgets or ()
            outer = call.journal.outer
            call = None if outer is None else outer.attempt

    def room(self, now: float) -> float:
        """Seconds left until the nearest deadline."""
        found = nearest(self.deadline)
        return math.inf if found is None else found.end - now

    def failure(self, error: Exception) -> Failure:
        """What an error means, read once for each attempt."""
        own = error.error if type(error) is Carried else error
        attempts = self.journal.attempts
        if attempts:
            for attempt in reversed(attempts) if self.branch.parent is not None else attempts[-1:]:
                failure = attempt.failure
                if failure is not None and failure.error is own:
                    return failure
        return describe(own)

    def last_attempt(self) -> Attempt:
        """The latest attempt that has ended."""
        return self.journal.attempts[-1] if self.journal.attempts else Attempt()

    def matches(
        self, match: Callable[[Failure], object], failure: Failure, asking: object = None
    ) -> bool:
        """Ask the `on` of a policy, the one that is `asking`. If it raises, the note on the call's
        error says so, and the answer is no."""
        if type(failure.error) is Unguardable:
            return False  # a mistake in the program, not a failure of the call
        try:
            return bool(match(failure))
        except Exception as problem:
            whose = "on=" if asking is None else f"{type(asking).__name__}(on=)"
            self.journal.remark(f"{whose} raised {type(problem).__name__}")
            return False

    def is_inside(self, journal: Journal) -> bool:
        """Whether this call is that one, or was made in an attempt of it."""
        own: Journal | None = self.journal
        while own is not None:
            if own is journal:
                return True
            outer = own.outer
            attempt = None if outer is None else outer.attempt
            own = None if attempt is None else attempt.journal
        return False

    def withdraw(self) -> None:
        """The attempt has not happened, or not yet."""
        with _numbering:
            if self.branch.number == self.journal.numbers:  # else another one has begun since
                self.journal.numbers -= 1
                self.journal.withdrawn = True
        self.branch.number = 0
        self.branch.waiting = self.branch.waited

    async def within(self, deadline: Deadline, seconds: float, inner: Any) -> Any:
        """Go inward under a deadline that nobody enforces by cancelling: waits and attempts look at
        it. What it unwinds comes out as its error."""
        try:
            return await inner(self.until(deadline))
        except Expired as expired:
            if expired.deadline is not deadline:
                raise
        finally:
            deadline.ended = True
        raise self.expired(seconds)

    def expired(self, seconds: float) -> DeadlineExceededError:
        """The error of a deadline that has passed; the attempts that it unwound are recorded."""
        error = DeadlineExceededError(seconds)
        journal = self.journal
        self.emit(TimedOut, seconds=seconds)
        attempts, journal.interrupted = journal.interrupted, ()
        for attempt in attempts:
            journal.add(evolve(attempt, failure=describe(error)))
        return error

    def emit(self, kind: type[Event], **facts: Any) -> None:
        """Publish what happens, as an event of this class, which is made only if somebody listens
        to it: with these facts, the pipeline's name and the call's number."""
        emit = self.journal.guard.emit
        if emit.listened[kind]:
            emit.publish(kind, self.journal, **facts)

    # Reports

    def report(
        self,
        error: Exception,
        *,
        exhausted: bool = False,
        circuits: tuple[object, ...] = (),
        wait: float | None = None,
        latest: float = math.inf,
    ) -> None:
        """Have policies further out know that retries of this error are exhausted, that circuits
        have counted it, or that another attempt may be made in `wait` seconds, by the runtime's
        clock until `latest`."""
        self.branch.report(Report(self.branch.number, error, exhausted, circuits, wait, latest))

    def reported(self, since: int, error: Exception) -> list[Report]:
        """What was reported about an error, or the one it was raised from, in attempts after
        number `since`."""
        found: list[Report] = []
        own = error.error if type(error) is Carried else error
        for report in self.branch.reports:
            if report.number > since and (report.error is own or report.error is cause_of(own)):
                found.append(report)
        return found

    # Being what user code finds around it

    @property
    def attempt(self) -> Call:
        """This call."""
        return self

    @property
    def world(self) -> World | None:
        """What replaces the real clocks, chance and runtimes; None in real life."""
        outer = self.journal.outer
        return None if outer is None else outer.world

    @property
    def disabled(self) -> bool:
        """Whether policies are switched off."""
        outer = self.journal.outer
        return outer is not None and outer.disabled


def _named_model(call: Call) -> str | None:
    """The model that the call names itself, or that its function has for a default."""
    named = call.kwargs.get("model")
    guard = call.journal.guard
    if named is None and call.fn is guard.fn:
        slot = guard.slots.get(_MODEL)
        if slot is None:
            try:
                slot = call.slot("model", reading=True)
            except TypeError:
                slot = guard.slots[_MODEL] = NO_SLOT
        named = slot.read(call.args, call.kwargs)
    return named if isinstance(named, str) else None


def attempt_of(
    call: Call, duration: float | None = None, failure: Failure | None = None
) -> Attempt:
    """The attempt under way in a call, or just ended, as data."""
    branch = call.branch
    journal = call.journal
    model = call.model
    if model is None and ("model" in call.kwargs or journal.guard.slots.get(_MODEL) is not NO_SLOT):
        model = _named_model(call)
    wait = None if failure is None else failure.retry_after
    attempt = _new(Attempt)  # as `Attempt(...)` would, at half the cost
    facts = attempt.__dict__
    facts["number"] = branch.number
    facts["started"] = branch.started - (journal.began or branch.started)
    facts["duration"] = duration
    facts["model"] = model
    facts["failure"] = failure
    facts["waited"] = branch.waited
    facts["retry_at"] = None if wait is None else moment(wait)
    facts["key"] = journal.key
    return attempt
