"""One frozen record for each thing that happens in a call or to a circuit, and how to listen.

    stop = listen(print)                       # to every pipeline of the process
    stop()                                     # no longer

    with recording() as events:                # for a block: a list
        ask("...")

    Pipeline(..., listeners=[print])           # to one pipeline

Of each call, in this order: `CallStarted`, `AttemptStarted`, `AttemptEnded`, perhaps `WaitBegan`
and the next attempt, and so on, `CallEnded`; also when the call is cancelled. What policies do
comes in between. A call whose result is a stream ends with the stream. One whose result has not
begun yet (a context manager of an SDK) ends at once, and entering that is a call of its own.

A listener is a function of one event. It runs in the thread or task of the call, outside of every
lock, and before the call goes on: it must be quick. Whatever it does, the call's result or error
is the same; a listener that raises or is slow is named in the log, once. It does not get the events
of calls that it makes itself.

No event holds the call's arguments or its result; a `repr` shows of an error its class alone. A
pipeline is no longer at rest while anybody listens to what a healthy call emits: `CallStarted`,
`AttemptStarted`, `TokensUsed`, `AttemptEnded` or `CallEnded`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

from attrs import field, fields, frozen

from ._core.attempt import Attempt
from ._core.failure import Failure
from ._core.listening import Subscription, add
from ._core.options import to_plain_function
from .errors import RejectedError

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "BudgetSpent",
    "CallDelayed",
    "CallEnded",
    "CallFailed",
    "CallRecovered",
    "CallRejected",
    "CallStarted",
    "CircuitChanged",
    "CircuitClosed",
    "CircuitHalfOpened",
    "CircuitOpened",
    "Event",
    "FellBack",
    "GaveUp",
    "HoldBegan",
    "Listener",
    "ModelLeft",
    "ModelSkipped",
    "StreamEnded",
    "StreamInterrupted",
    "StreamRestarted",
    "StreamStarted",
    "TimedOut",
    "TokensUsed",
    "WaitBegan",
    "WorkerAbandoned",
    "listen",
    "recording",
]

# Without `eq` and `repr`, which `Event` has for all of them, a class costs a fourth at import;
# without slots, a value is made in half the time. One that adds nothing needs no decorator.


@frozen(slots=False, eq=False, repr=False)
class Event:
    """What all events have. The base of a policy's own events, which `Call.emit` publishes.

    `pipeline` is its name, if it has one; `function` that of the guarded function; `call` the
    number of the call, which no other call of this process has. Changes of a circuit belong to no
    call, and have the function only where the circuit serves no other.
    """

    pipeline: str | None
    function: str | None
    call: int | None

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), self.call))

    def __repr__(self) -> str:
        # An error's text, or the value of a circuit's key, may be a secret.
        facts = ((each.name, getattr(self, each.name)) for each in fields(type(self)) if each.repr)
        shown = (f"{name}={_shown(value)}" for name, value in facts if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(value: object) -> str:
    if isinstance(value, tuple):  # of attempts
        return f"<{len(value)}>"
    return f"<{type(value).__qualname__}>" if isinstance(value, BaseException) else repr(value)


# The course of a call


class CallStarted(Event):
    """A call has begun."""


@frozen(slots=False, eq=False, repr=False)
class AttemptStarted(Event):
    """The function is about to be called; for the `number`th time in this call, for this model,
    after so many seconds of waiting."""

    number: int
    model: str | None
    waited: float


@frozen(slots=False, eq=False, repr=False)
class AttemptEnded(Event):
    """An attempt has succeeded, failed, been cut by a time limit, or been `interrupted`: cancelled
    from outside, or its stream abandoned. That of a stream ends with the stream."""

    attempt: Attempt
    interrupted: bool = False


@frozen(slots=False, eq=False, repr=False)
class TokensUsed(Event):
    """How many tokens an attempt took, as its result says: the prompt's, those read from a cache
    included, and the answer's, its reasoning included; None for what it does not say. Right before
    the attempt ends. For results of openai, auriko, anthropic, groq, google-genai, mistralai,
    cohere, ollama, together and LiteLLM, for their streams, and for a dict with a "usage"."""

    number: int
    model: str | None
    input: int | None
    output: int | None


@frozen(slots=False, eq=False, repr=False)
class WaitBegan(Event):
    """`seconds` will be waited before the next attempt, after the attempt given (the last one of
    the model that is waited for, if it had one): None where there was none, as after a rejection.
    """

    attempt: Attempt | None
    seconds: float


@frozen(slots=False, eq=False, repr=False)
class CallEnded(Event):
    """The call is over: with a value (`error` is None), with the error that comes out, or with the
    cancellation that does."""

    attempts: tuple[Attempt, ...]
    elapsed: float
    served_by: str | None
    degraded: bool
    error: BaseException | None


@frozen(slots=False, eq=False, repr=False)
class CallFailed(Event):
    """The call is given up: its error comes out, and `failure` says what it means. `reason` is why
    there was no other attempt, where a policy gave one. Not for a call that was rejected before
    any attempt: that is `CallRejected`; nor for what is no failure, as a framework's control
    flow."""

    failure: Failure
    attempts: tuple[Attempt, ...]
    elapsed: float
    reason: str | None


@frozen(slots=False, eq=False, repr=False)
class CallRecovered(Event):
    """The call succeeded after attempts that had failed."""

    attempts: tuple[Attempt, ...]
    elapsed: float
    served_by: str | None


# What policies do


@frozen(slots=False, eq=False, repr=False)
class GaveUp(Event):
    """A `Retry` makes no further attempt, for this `reason`; another model or a fallback may still
    help. `attempt` is the last one, or None where none was made."""

    attempt: Attempt | None
    reason: str


@frozen(slots=False, eq=False, repr=False)
class CallRejected(Event):
    """A policy (an open circuit, workers that are all busy) has let no call through."""

    error: RejectedError


@frozen(slots=False, eq=False, repr=False)
class BudgetSpent(Event):
    """A `RetryBudget`, whose name is `budget`, has no extra call left: a retry, or a call of
    another model, is not made."""

    budget: str | None
    model: str | None


@frozen(slots=False, eq=False, repr=False)
class CallDelayed(Event):
    """A policy, "RateLimit", "Hold" or "Bulkhead", has an attempt wait for its turn, for `seconds`
    as far as it knows now; None where it cannot know, as a bulkhead."""

    policy: str
    model: str | None
    seconds: float | None


@frozen(slots=False, eq=False, repr=False)
class HoldBegan(Event):
    """A server has told a call to stay away for `seconds`, by `failure`: a `Hold` keeps the others
    with the same value of its key away, too. `hold` is its name; `key` the value of its key,
    `model` the same where the key is the argument "model". `failure` is None where another process
    was told."""

    hold: str | None
    key: object = field(repr=False)
    model: str | None
    seconds: float
    failure: Failure | None


@frozen(slots=False, eq=False, repr=False)
class ModelLeft(Event):
    """A chain goes on from `model` to the model `to` because of a failure."""

    model: str
    to: str
    failure: Failure


@frozen(slots=False, eq=False, repr=False)
class ModelSkipped(Event):
    """A chain passes over `model`, whose calls are rejected now, and goes on to the model `to`."""

    model: str
    to: str
    error: RejectedError


@frozen(slots=False, eq=False, repr=False)
class FellBack(Event):
    """A `Fallback` gives its value in place of a failure."""

    failure: Failure


@frozen(slots=False, eq=False, repr=False)
class TimedOut(Event):
    """A time limit of so many seconds has passed."""

    seconds: float


class WorkerAbandoned(Event):
    """A sync function went on after its time limit: its thread is left behind until it returns."""


# Streams


@frozen(slots=False, eq=False, repr=False)
class StreamStarted(Event):
    """The first content of a stream is there, `seconds` after its attempt began."""

    model: str | None
    seconds: float


@frozen(slots=False, eq=False, repr=False)
class StreamEnded(Event):
    """A stream is complete, after so many items; `seconds` after its attempt began."""

    model: str | None
    items: int
    seconds: float


@frozen(slots=False, eq=False, repr=False)
class StreamInterrupted(Event):
    """A stream broke off after so many items."""

    model: str | None
    items: int
    failure: Failure


@frozen(slots=False, eq=False, repr=False)
class StreamRestarted(Event):
    """A stream that broke off after so many items goes on with another call, which its consumer
    does not see. `call` is the one that broke off, and has ended."""

    items: int


# Circuits


@frozen(slots=False, eq=False, repr=False)
class CircuitChanged(Event):
    """A circuit has changed its state, from `old` to `new`: "closed", "open", "half-open",
    "isolated" or "disabled". `circuit` is the breaker's name, `key` the value of its key, `model`
    the same where the key is the argument "model". In `shadow` it only reports what it would do."""

    circuit: str | None
    key: object = field(repr=False)
    model: str | None
    old: str
    new: str
    shadow: bool


@frozen(slots=False, eq=False, repr=False)
class CircuitOpened(CircuitChanged):
    """Calls are rejected from now on: for `seconds`, because of `failure`; or until somebody says
    otherwise, where it is isolated."""

    seconds: float | None
    failure: Failure | None


class CircuitHalfOpened(CircuitChanged):
    """A few trials are let through."""


@frozen(slots=False, eq=False, repr=False)
class CircuitClosed(CircuitChanged):
    """Calls go through again; `rejected` is how many did not, since it was last closed."""

    rejected: int


HEALTHY = (CallStarted, AttemptStarted, AttemptEnded, CallEnded, TokensUsed)
"""What a healthy call emits."""

Listener: TypeAlias = "Callable[[Any], object]"


def listen(callback: Listener, *kinds: type[Event]) -> Subscription:
    """Have `callback` called with every event of these classes, or of all, of every pipeline.

    Give only the classes that are wanted: see this module for what ends being at rest. Returns a
    function that ends it. TypeError for an async callback, or for what is no class of events. From
    any thread; calls under way may still deliver an event.
    """
    return add(subscription_of("callback", callback, kinds))


@contextmanager
def recording(*kinds: type[Event]) -> Generator[list[Any]]:
    """A list of every event of these classes, or of all, while the block lasts: in whatever thread
    or task it happens, in the order of delivery."""
    events: list[Any] = []
    stop = add(Subscription(events.append, _kinds(kinds), trusted=True))
    try:
        yield events
    finally:
        stop()


def subscription_of(name: str, callback: Any, kinds: tuple[Any, ...] = ()) -> Subscription:
    """A checked subscription, which is not added yet."""
    return Subscription(to_plain_function(name, callback), _kinds(kinds))


def _kinds(kinds: tuple[Any, ...]) -> tuple[type[Event], ...]:
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            raise TypeError(f"kinds must be classes of events, got {kind!r}")
    return kinds or (Event,)
