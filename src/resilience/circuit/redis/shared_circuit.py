"""One circuit as it is in Redis: what is published of ours, and what is learnt of the others'.

While the server can be reached, a circuit that is open or half open there is so here too, and
trials need a slot that the server has granted: a lease, which runs out if its process dies. While
it cannot, the circuit uses local state. Once it can again:

- manual commands (`close()`, `isolate()`) given meanwhile are published, and hold for all;
- a circuit that opened here meanwhile opens the shared one, if that is closed;
- in all else the shared one is right.
"""

from __future__ import annotations

import uuid
from functools import partial

from attrs import define, field

from resilience._core.clock import now as clock_now
from resilience._core.outside import drive, loop_runs_here, sync_runtime
from resilience.circuit.machine import Holder, Permit
from resilience.circuit.opening import Opening, open_time
from resilience.circuit.states import (
    CLOSED,
    HALF_OPEN,
    ISOLATED,
    MANUAL,
    OPEN,
    Change,
    Ending,
    Event,
)
from resilience.circuit.storage import SharedState, warn
from resilience.policy import Runtime

from .clients import Server
from .script import ANY, FOREIGN, NONE, Question, Reply
from .unpublished import Command, Unpublished

__all__ = ["SharedCircuit"]

_TOGETHER = 0.05  # of the time between two looks: failures more frequent are published together
_LOOKING = ("look", "enter")  # in reply to which another generation is the others' doing
_OPENING = ("trip", "advise", "open", "failed")  # what may open, beside a look with failures


@define(eq=False)
class SharedCircuit(SharedState):
    """Made for a circuit where it is first called. Safe from any thread.

    One thread at a time publishes or looks; trials ask for slots, and commands are published,
    beside it.
    """

    server: Server
    key: str
    lease: float
    advisory: bool
    _unpublished: Unpublished = field(init=False)
    _questions: int = field(default=0, init=False)  # asked so far; the latest one answered
    _answered: int = field(default=0, init=False)
    _generation: str | None = field(default=None, init=False)  # that of the last reply
    _foreign: bool = field(default=False, init=False)  # the key is somebody else's

    def __attrs_post_init__(self) -> None:
        self._unpublished = Unpublished(self.circuit, self.advisory, self._lock)
        super().__attrs_post_init__()

    # For the policy

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

    def record(self, permit: Permit, ending: Ending) -> bool:
        """Record how a call has ended; whether there is something to publish."""
        if ending.failed is None and not (permit.trial and permit.lease is not None):
            return False
        self._unpublished.record(permit, ending)
        return (self._is_urgent or self._unpublished.failures > 0) and self._may_begin(ending.now)

    @property
    def reachable(self) -> bool:
        return not self.server.lost

    def on_change(self, change: Change) -> None:
        """Publish a manual command; remember that a rule has tripped.

        Results of trials are published with their leases; what the others have done is no news.
        """
        if change.event == Event.TRIPS and not self.circuit._shadow:
            known = not self.server.lost and not self._foreign
            self._unpublished.tripped = (self._generation or NONE) if known else ANY
        elif change.event in MANUAL:
            command = self._unpublished.command_of(change.event)
            if command is not None:
                self._unpublished.command, self._unpublished.tripped = command, None
                self._publish_command(command)

    # Publishing

    @property
    def unpublished(self) -> bool:
        return self._unpublished.urgent or self._unpublished.failures > 0

    @property
    def _is_urgent(self) -> bool:
        return self._unpublished.urgent and not self._foreign

    def _is_due(self, now: float) -> bool:
        """Whether to ask now: there is news, or it is time to look."""
        if self.server.left_alone(now):
            return False
        every = self.every * _TOGETHER if self._unpublished.failures else self.every
        return self._is_urgent or self._asked is None or now - self._asked >= every

    async def _publish_next(self, runtime: Runtime, holder: Holder) -> bool:
        unpublished = self._unpublished
        command, tripped = unpublished.command, unpublished.tripped
        if not self._is_urgent:
            return await self._ask(runtime, self._question("look", runtime.now())) is not None
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
        return reply is not None

    async def _publish_result(self, runtime: Runtime, result: str, lease: str) -> bool:
        """The result of a trial. It is taken out when the server has replied: if this is cancelled,
        it is published again."""
        reply = await self._ask(runtime, self._question(result, runtime.now(), lease=lease))
        self._unpublished.results.popleft()
        if reply is None:
            self._unpublished.leave_later(lease)  # by then its result is out of date
        return reply is not None

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
        reply: Reply | None = await self.server.ask(
            runtime, self.key, question.arguments, anyway=outside
        )
        if reply is None or self._is_foreign(reply):
            return None
        if reply.mended:
            warn(f"what Redis held of {self.circuit!r} made no sense; the circuit is closed again")
        unpublished = self._unpublished
        unpublished.published(question, command, tripped)
        if outside:
            with self._lock:  # and nothing of earlier replies, should they come now
                self._answered = max(self._answered, question.number)
            self._asked = None
        elif unpublished.command is None and unpublished.tripped is None:
            self._follow(question, reply, runtime.now())
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
            generation or self._generation or NONE,
            limits.trials,
            limits.successes,
            int(limits.failures) if unpublished.counts_together else 0,
            _micro(self._open_time(op, failures)),
            _micro(self.lease),
            lease or self._unpublished.process,
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

    # Being as the shared circuit is

    def _follow(self, question: Question, reply: Reply, now: float) -> None:
        """Be as the shared circuit is, unless a later question was answered before."""
        circuit = self.circuit
        with self._lock:
            if question.number < self._answered:
                return
            known = self._generation
            self._generation, self._answered = reply.generation, question.number
        moved = known is not None and known != reply.generation
        if reply.state == ISOLATED:
            circuit._follow(ISOLATED, 0.0, now)
        elif reply.generation == NONE and circuit._isolated_here:
            # The server was flushed, and somebody here still holds it.
            self._unpublished.command = self._unpublished.numbered("isolate")
        elif self.advisory:
            self._heed(reply, now)
        elif reply.state == HALF_OPEN:
            self._follow_trials(question, reply, now)
        elif circuit.state != reply.state or (moved and question.op in _LOOKING):
            cause = question.last[0] if reply.opened and question.last is not None else None
            circuit._follow(reply.state, reply.left, now, cause)
        if not self.advisory:
            circuit._recount(reply.openings)

    def _follow_trials(self, question: Question, reply: Reply, now: float) -> None:
        """Half open: a trial of ours goes on as it is; without one, we are open until we ask."""
        if question.op == "enter":
            if not reply.granted:
                self.circuit._follow(OPEN, self.every, now)
        elif self.circuit.state != HALF_OPEN:
            self.circuit._follow(OPEN, 0.0 if reply.granted else self.every, now)

    def _heed(self, reply: Reply, now: float) -> None:
        """Advice: a closed circuit opens for as long as the others are open, and then tries for
        itself."""
        if self.circuit.state == ISOLATED:
            self.circuit._follow(CLOSED, 0.0, now)
        if self.circuit.state == CLOSED and reply.state == OPEN and reply.left > 0:
            self.circuit._follow(OPEN, reply.left, now)


def _micro(seconds: float) -> int:
    return int(min(max(0.0, seconds), 30 * 86400.0) * 1e6)
