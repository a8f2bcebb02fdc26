"""The contract of a policy, on one page: write your own against this, as ours are.

    class Stamp(Policy):
        def bind(self, inner, runtime):
            async def stamp(call):
                return await inner(call.replace(kwargs={**call.kwargs, "sent": runtime.now()}))

            return stamp

A policy is a value with one method, `bind`, which returns an `async def` around `inner`. What flows
inward is a `Call`; whoever changes something passes on a changed copy. A `Gate` is a policy that
admits calls and receives how they ended. `docs/your-own-policy.md` has complete examples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Protocol, TypeAlias

from ._core.call import Branch, Budget, Call, Journal
from ._core.completion import Completion, PendingResult, Verdict
from ._core.context import record_served
from ._core.effect import Effect
from ._core.emitter import Emitter, Emitters
from ._core.in_hand import InHand
from ._core.results import PLAIN, completion_of
from ._core.runtime import Inner, Runtime, Waiter
from ._core.semaphore import Semaphore
from ._core.signals import BUSY, NO_VERDICT, Report
from ._core.usage import token_count
from .errors import RejectedError
from .events import CallRejected

__all__ = [
    "BUSY",
    "NO_VERDICT",
    "Arguments",
    "Branch",
    "Budget",
    "Call",
    "Completion",
    "Effect",
    "Emitter",
    "Emitters",
    "Gate",
    "Idle",
    "InHand",
    "Inner",
    "Journal",
    "PendingResult",
    "Policy",
    "Report",
    "Runtime",
    "Semaphore",
    "Verdict",
    "Waiter",
    "record_served",
    "token_count",
]

Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"


class Idle(Protocol):
    """Whether nothing is going on in a pipeline, so that its calls may run directly."""

    def suspend(self) -> None:
        """Say that something may be going on; before it is."""

    def update(self) -> None:
        """Ask all policies again whether they are busy; after anything that changes that."""


class Policy(ABC):
    """What a pipeline is made of. `bind` is all that is needed; the other hooks have defaults.

    Hooks are called from any thread. Only what `bind` returns may wait, and only by `runtime`.
    """

    __slots__ = ()

    resting: bool = False
    """Whether it has nothing to do for a healthy call while it is not `busy`, so that the call may
    run directly (but for what `rewrite_first` and `at_rest` do). It sees a failed one."""

    role: ClassVar[str | None] = None
    """What other policies' places in the pipeline are compared with; ours have one each."""

    @abstractmethod
    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        """Return an `async def` of one `Call` around `inner`, named after the policy."""

    def check(self, fn: Callable[..., Any]) -> None:  # noqa: B027
        """Raise TypeError for a function that it cannot guard."""

    def check_block(self, *, asynchronous: bool) -> None:  # noqa: B027
        """Raise TypeError if it cannot guard a block of code (`Pipeline.attempts()`)."""

    def rewrite_first(self, fn: Callable[..., Any]) -> Callable[..., Arguments] | None:
        """For a function: what turns the `args` and `kwargs` of a call at rest into those of its
        first attempt; None to leave them."""
        return None

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        """For a function: what is called when a call at rest begins and ends; None for nothing.

        `begin(args, kwargs)` returns what it holds for the call, or `BUSY` if that must take the
        full path. `end(held, error, result)` gives it back: after a success (error None), where it
        returns False if the call is to go on in the full path instead, with what it holds; and
        after a call with no verdict (error `NO_VERDICT`). Neither waits.
        """
        return None

    def attach(self, emitter: Emitter) -> None:  # noqa: B027
        """Keep `emitter`, weakly, to publish what happens outside of calls."""

    def watch(self, idle: Idle) -> None:  # noqa: B027
        """Keep `idle`, weakly, to notify it of changes of `busy`."""

    def busy(self) -> bool:
        """Whether something is going on, so that no call may be at rest."""
        return False

    def refuses(self, call: Call) -> bool:
        """Whether such a call would be rejected now; one that would have to wait is not."""
        return False

    def free_in(self, call: Call) -> float:
        """Seconds until such a call may begin: 0 for now."""
        return 0.0

    def effect(self) -> Effect:
        """What it does to a call, for `Pipeline.explain()`. By default it is assumed to call inward
        once, to add no wait and to change no failure; its line is its docstring's first."""
        said = (type(self).__doc__ or "does not say what it does").strip()
        return Effect(line=said.partition("\n")[0], assumed=True)


class Gate(Policy):
    """Admits calls, and receives how each attempt ended: a breaker, a bulkhead, a limiter.

    A permit is anything but None. `leave` is called once for each, whatever happens.
    """

    __slots__ = ()

    @abstractmethod
    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        """A permit, without waiting; None if there is none now. May raise a `RejectedError`."""

    async def enter(self, call: Call, runtime: Runtime) -> Any:
        """A permit, after waiting for it; or raise a `RejectedError`."""
        raise RejectedError

    @abstractmethod
    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        """Give the permit back: when the attempt is settled, from any thread or finalizer. `error`
        is None for well, or `NO_VERDICT`. Never waits."""

    def measure(self, permit: Any, call: Call, result: Any) -> None:
        """The result that an attempt has given, before `leave`; of a stream, right when it has
        begun: keep nothing of it but what `token_count` gives."""

    def effect(self) -> Effect:
        """As of any policy; but one that waits in `enter` may wait without a limit."""
        waits = 0.0 if type(self).enter is Gate.enter else math.inf
        return Effect(line=super().effect().line, waits=waits, assumed=True)

    def resume(self, permit: Any, call: Call, in_hand: InHand) -> Any:
        """The permit of an attempt that was made at rest; `permit` is what `begin` held, if
        anything."""
        return permit

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        try_enter, leave = self.try_enter, self.leave
        measures = type(self).measure is not Gate.measure

        async def gate(call: Call) -> Any:
            in_hand = call.branch.in_hand
            if in_hand is not None and in_hand.ready is None:
                held = in_hand.held.pop(self) if in_hand.held else None
                permit = self.resume(held, call, in_hand)
            else:
                try:
                    permit = try_enter(call, runtime)
                    if permit is None:
                        call.journal.begin(runtime)
                        permit = await self.enter(call, runtime)
                except RejectedError as error:
                    if call.journal.guard.emit.listeners(CallRejected):
                        call.emit(CallRejected, error=error)
                    raise
            try:
                result = await inner(call)
            except Exception as error:
                leave(permit, call, error)
                raise
            except BaseException:
                leave(permit, call, NO_VERDICT)
                raise
            pending = None if type(result) in PLAIN else completion_of(result)
            if measures:
                self.measure(permit, call, result)
            if pending is None:
                leave(permit, call, None)
            else:
                pending.then(partial(leave, permit, call))
            return result

        return gate
