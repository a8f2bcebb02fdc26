"""What follows from a reply for the circuit here: it is as the shared one is."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from resilience.circuit.circuit import Circuit
from resilience.circuit.states import CLOSED, HALF_OPEN, ISOLATED, OPEN

from .commands import Commands
from .script import NONE, Question, Reply
from .unpublished import Unpublished

__all__ = ["Follower"]

_LOOKING = ("look", "enter")  # in reply to which another generation is the others' doing


@define(eq=False)
class Follower:
    """Goes by the reply to the question that was asked last, whenever it comes in."""

    circuit: Circuit
    every: float
    unpublished: Unpublished
    commands: Commands
    lock: Any
    generation: str | None = field(default=None, init=False)
    """That of the last reply."""
    _answered: int = field(default=0, init=False)  # the latest question

    def skip(self, question: Question) -> None:
        """Make nothing of a reply, nor of those to earlier questions."""
        with self.lock:
            self._answered = max(self._answered, question.number)

    def follow(self, question: Question, reply: Reply, now: float) -> None:
        """Be as the shared circuit is, unless a later question was answered before."""
        circuit = self.circuit
        with self.lock:
            if question.number < self._answered:
                return
            known = self.generation
            self.generation, self._answered = reply.generation, question.number
        moved = known is not None and known != reply.generation
        if reply.state == ISOLATED:
            circuit._follow(ISOLATED, 0.0, now)
        elif reply.generation == NONE and circuit._isolated_here:
            # The server was flushed, and somebody here still holds it.
            self.unpublished.command = self.commands.numbered("isolate")
        elif self.unpublished.advisory:
            self._heed(reply, now)
        elif reply.state == HALF_OPEN:
            self._follow_trials(question, reply, now)
        elif circuit.state != reply.state or (moved and question.op in _LOOKING):
            cause = question.last[0] if reply.opened and question.last is not None else None
            circuit._follow(reply.state, reply.left, now, cause)
        if not self.unpublished.advisory:
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
