"""One circuit as it is in Redis: what is published of ours, and what is learnt of the others'.

While the server can be reached, a circuit that is open or half open there is so here too, and
trials need a slot that the server has granted: a lease, which runs out if its process dies. While
it cannot, the circuit uses local state. Once it can again:

- manual commands (`close()`, `isolate()`) given meanwhile are published, and hold for all;
- a circuit that opened here meanwhile opens the shared one, if that is closed;
- in all else the shared one is right.
"""

from __future__ import annotations

import atexit
import os
import uuid
from functools import partial
from typing import Any
from weakref import WeakSet

from attrs import define, field

from resilience._core.clock import now as clock_now
from resilience._core.locks import new_lock
from resilience._core.outside import drive, loop_runs_here, sync_runtime
from resilience.circuit.circuit import Circuit
from resilience.circuit.opening import Opening, open_time
from resilience.circuit.permit import Permit
from resilience.circuit.states import CLOSED, MANUAL, OPEN, Change, Event
from resilience.failures import Failure
from resilience.policy import Runtime

from .availability import Availability, warn
from .commands import Command, Commands
from .following import Follower
from .script import ANY, FOREIGN, NONE, Question, Reply
from .unpublished import Unpublished

__all__ = ["SharedCircuit"]

_TOGETHER = 0.05  # of the time between two looks: failures more frequent are published together
_OPENING = ("trip", "advise", "open", "failed")  # what may open, beside a look with failures
_AT_EXIT = 1.0  # seconds for which the end of a program waits for what is still to be published


@define(eq=False)
class SharedCircuit:
    """Made for a circuit where it is first called. Safe from any thread.

    One thread at a time publishes or looks; trials ask for slots, and commands are published,
    beside it.
    """

    server: Availability
    circuit: Circuit
    key: str
    every: float
    lease: float
    advisory: bool
    _lock: Any = field(factory=new_lock, init=False)
    _unpublished: Unpublished = field(init=False)
    _commands: Commands = field(init=False)
    _follower: Follower = field(init=False)
    _questions: int = field(default=0, init=False)  # asked so far
    _asked: float | None = field(default=None, init=False)  # when the last was
    _foreign: bool = field(default=False, init=False)  # the key is somebody else's
    # The process whose thread publishes: a child of fork has no thread of its parent's to wait for.
    _publisher: int | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        circuit, lock = self.circuit, self._lock
        self._unpublished = Unpublished(circuit, self.advisory, lock)
        self._commands = Commands(lock)
        self._follower = Follower(circuit, self.every, self._unpublished, self._commands, lock)
        _all.add(self)

    # For the policy

    async def refresh(self, runtime: Runtime) -> None:
        """Publish what has been recorded; or look at what the others have done, if that is due."""
        while self._begin(runtime.now()):
            try:
                reply = await self._publish_next(runtime)
            finally:
                self._publisher = None
            if reply is None or not (self._unpublished.urgent or self._unpublished.failures):
                return

    async def publish(self, runtime: Runtime) -> None:
        """The same."""
        await self.refresh(runtime)

    async def claim(self, runtime: Runtime, permit: Permit) -> bool:
        """Whether a trial may be made here: the server has granted it a slot, or is not asked."""
        alone = self._foreign or self.server.left_alone(runtime.now())
        if alone or self.advisory or self.circuit._shadow:
            return True
        lease = uuid.uuid4().hex
        try:
            question = self._question("enter", runtime.now(), lease=lease)
            reply = await self._ask(runtime, question)
        except BaseException:
            # Cancelled. The slot is given back now, and once more with the next question: this one
            # may still be on its way.
            runtime.background(partial(self._leave, lease))
            self._unpublished.leave_later(lease)
            raise
        if reply is None:
            self._unpublished.leave_later(lease)  # a server that hangs may grant it when it goes on
            return True
        if reply.granted:
            permit.lease = lease
        return reply.granted or reply.state == CLOSED

    def record(
        self,
        permit: Permit,
        failed: bool | None,
        now: float,
        cause: BaseException | None,
        failure: Failure | None,
    ) -> bool:
        """Record how a call has ended; whether there is something to publish."""
        self._unpublished.record(permit, failed, now, cause, failure)
        return (self._is_urgent or self._unpublished.failures > 0) and self._is_due(now)

    def note(self, change: Change) -> None:
        """Publish a manual command; remember that a rule has tripped.

        Results of trials are published with their leases; what the others have done is no news.
        """
        if change.event == Event.TRIPS and not self.circuit._shadow:
            known = not self.server.lost and not self._foreign
            self._unpublished.tripped = (self._follower.generation or NONE) if known else ANY
        elif change.event in MANUAL:
            command = self._commands.command(change.event, shadow=self.circuit._shadow)
            if command is not None:
                self._unpublished.command, self._unpublished.tripped = command, None
                self._publish_command(command)

    # Publishing

    @property
    def _is_urgent(self) -> bool:
        return self._unpublished.urgent and not self._foreign

    def _is_due(self, now: float) -> bool:
        """Whether to ask now: nobody is at it, and there is news or it is time to look."""
        if self._publisher is not None and self._publisher == os.getpid():
            return False
        if self.server.left_alone(now):
            return False
        every = self.every * _TOGETHER if self._unpublished.failures else self.every
        return self._is_urgent or self._asked is None or now - self._asked >= every

    def _begin(self, now: float) -> bool:
        with self._lock:
            if not self._is_due(now):
                return False
            self._publisher = os.getpid()
            return True

    async def _publish_next(self, runtime: Runtime) -> Reply | None:
        unpublished = self._unpublished
        command, tripped = unpublished.command, unpublished.tripped
        if not self._is_urgent:
            return await self._ask(runtime, self._question("look", runtime.now()))
        if unpublished.results:
            return await self._publish_result(runtime, *unpublished.results[0])
        if command is not None:
            question = self._question(command.op, runtime.now(), order=command.order)
        else:
            op = "advise" if self.advisory else "trip"
            question = self._question(op, runtime.now(), generation=tripped)
        reply = await self._ask(runtime, question, command=command, tripped=tripped)
        if reply is None and unpublished.tripped is not None:
            unpublished.tripped = ANY  # published later, it counts whatever the others have done
        return reply

    async def _publish_result(self, runtime: Runtime, result: str, lease: str) -> Reply | None:
        """The result of a trial. It is taken out when the server has replied: if this is cancelled,
        it is published again."""
        reply = await self._ask(runtime, self._question(result, runtime.now(), lease=lease))
        self._unpublished.results.popleft()
        if reply is None:
            self._unpublished.leave_later(lease)  # by then its result is out of date
        return reply

    async def _leave(self, lease: str, runtime: Runtime) -> None:
        await self._ask(runtime, self._question("leave", runtime.now(), lease=lease))

    def _publish_command(self, command: Command) -> None:
        """Now: whoever gives it may never make a call. In an event loop, by a worker thread."""
        runtime = sync_runtime()
        if loop_runs_here():
            runtime.background(partial(self._ask_command, command))
        else:
            drive(self._ask_command(command, runtime))

    async def _ask_command(self, command: Command, runtime: Runtime) -> None:
        question = self._question(command.op, runtime.now(), order=command.order)
        if await self._ask(runtime, question, command=command, outside=True) is None:
            warn(
                f"{command.op}() for {self.circuit!r} is not published yet; it will be with the "
                f"next call here"
            )

    async def finish(self, runtime: Runtime, end: float) -> None:
        """Publish what is left at the end of the program, or let whoever is at it do so."""
        while self._publisher == os.getpid() and runtime.now() < end:
            await runtime.waiter().wait(0.005, None)
        if self._unpublished.urgent or self._unpublished.failures:
            self._asked = None
            await self.refresh(runtime)

    # Asking

    async def _ask(
        self,
        runtime: Runtime,
        question: Question,
        *,
        command: Command | None = None,
        tripped: str | None = None,
        outside: bool = False,
    ) -> Reply | None:
        """Ask, and follow the reply; `command` and `tripped` are published with it. Outside any
        call, ask even a server that is left alone, and leave it to the next call to follow: what
        has been commanded here since is not published yet."""
        self._asked = runtime.now()
        reply = await self.server.ask(runtime, self.key, question.arguments, anyway=outside)
        if reply is None or self._is_foreign(reply):
            return None
        if reply.mended:
            warn(f"what Redis held of {self.circuit!r} made no sense; the circuit is closed again")
        unpublished = self._unpublished
        unpublished.published(question, command, tripped)
        if outside:
            self._follower.skip(question)
            self._asked = None
        elif unpublished.command is None and unpublished.tripped is None:
            self._follower.follow(question, reply, runtime.now())
        return reply

    def _is_foreign(self, reply: Reply) -> bool:
        known, self._foreign = self._foreign, reply.state == FOREIGN
        if self._foreign and not known:
            warn(
                f"what Redis holds under {self.key!r} is no circuit of this version; "
                f"{self.circuit!r} leaves it as it is, and uses local state"
            )
        return self._foreign

    def _question(
        self,
        op: str,
        now: float,
        *,
        lease: str | None = None,
        generation: str | None = None,
        order: int = 0,
    ) -> Question:
        limits, unpublished = self.circuit._owner.limits, self._unpublished
        with self._lock:
            self._questions = number = self._questions + 1
        failures, last = unpublished.failures if op == "look" else 0, unpublished.last
        succeeded = unpublished.succeeded
        arguments = (
            op,
            generation or self._follower.generation or NONE,
            limits.trials,
            limits.successes,
            int(limits.failures) if unpublished.counts_together else 0,
            _micro(self._open_time(op, failures)),
            _micro(self.lease),
            lease or self._commands.process,
            failures,
            -1 if succeeded is None else _micro(now - succeeded),
            limits.failable_trials,
            order,
        )
        return Question(op, number, arguments, failures, last)

    def _open_time(self, op: str, failures: int) -> float:
        """Seconds to stay open, if it may be now that the shared circuit opens."""
        if op not in _OPENING and not failures:
            return 0.0
        left = self.circuit.retry_after
        if left:
            return left  # it has opened here
        number = self.circuit._openings + (self.circuit.state != OPEN)  # this one included
        opening = Opening(number, clock_now(), *(self._unpublished.last or (None, None)))
        wait = open_time(self.circuit._owner.limits.reset_after, opening)
        return opening.ends(wait) - opening.now


def _micro(seconds: float) -> int:
    return int(min(max(0.0, seconds), 30 * 86400.0) * 1e6)


_all: WeakSet[SharedCircuit] = WeakSet()


@atexit.register
def _finish() -> None:
    """A program may end right after a failure or a command: it is published first."""
    runtime = sync_runtime()
    end = runtime.now() + _AT_EXIT
    for shared in list(_all):
        drive(shared.finish(runtime, end))
