"""What has happened to a circuit here and is still to be published."""

from __future__ import annotations

import math
import os
import uuid
from collections import deque
from typing import Any

from attrs import define, field, frozen

from resilience.circuit.circuit import Circuit
from resilience.circuit.machine import Permit
from resilience.circuit.states import OPEN, Ending, Event
from resilience.failures import Failure

from .script import ANY, Question

__all__ = ["Command", "Unpublished"]


_PUBLISHED = {
    Event.OPENS: "open",
    Event.CLOSES: "close",
    Event.RELEASED: "release",
    Event.ISOLATES: "isolate",
}
"""Commands that hold for all; the others are only for this process."""


@frozen(eq=False)
class Command:
    """A manual command to be published.

    Numbered, so that it is carried out once and in order, however late a slow network delivers it.
    """

    op: str
    order: int


@define(eq=False)
class Unpublished:
    """Safe from any thread, and from a finalizer: nothing here waits."""

    circuit: Circuit
    advisory: bool
    lock: Any
    command: Command | None = field(default=None, init=False)
    """The last manual command."""
    tripped: str | None = field(default=None, init=False)
    """The generation of the circuit that has tripped here; `ANY` if it was not known then."""
    results: deque[tuple[str, str]] = field(factory=deque, init=False)
    """Of trials, each with its lease."""
    failures: int = field(default=0, init=False)
    """In a row."""
    last: tuple[BaseException, Failure] | None = field(default=None, init=False)
    """The last of them."""
    succeeded: float | None = field(default=None, init=False)
    """When a call last did."""

    _id: str = field(factory=lambda: uuid.uuid4().hex, init=False)
    _order: int = field(default=0, init=False)  # of the last command
    _isolates: bool = field(default=False, init=False)  # as published

    @property
    def process(self) -> str:
        """What distinguishes this process from the others; a child of fork is another."""
        return f"{self._id}-{os.getpid()}"

    @property
    def urgent(self) -> bool:
        """Whether there is anything beside failures, which are published together."""
        return bool(self.results or self.command is not None or self.tripped is not None)

    @property
    def counts_together(self) -> bool:
        """Whether failures in a row are counted over all processes."""
        return not self.advisory and self.circuit._owner.limits.failures < math.inf

    def record(self, permit: Permit, ending: Ending) -> None:
        """Record how a call has ended."""
        if permit.trial and permit.lease is not None:
            counts = self._record_result(permit, ending.failed, ending.now)
        else:
            counts = self._record_verdict(permit, ending)
        if counts and ending.cause is not None and ending.failure is not None:
            self.last = ending.cause, ending.failure

    def _record_result(self, permit: Permit, failed: bool | None, now: float) -> bool:
        """Of a trial with a slot. Whether a failure may open the shared circuit."""
        limits, took = self.circuit._owner.limits, now - permit.began
        lease, permit.lease = permit.lease, None
        if failed is None or took >= limits.trial_timeout:
            self.results.append(("leave", lease))
            return False
        bad = failed or took > limits.slow_after
        self.results.append(("failed" if bad else "passed", lease))
        return True

    def _record_verdict(self, permit: Permit, ending: Ending) -> bool:
        """Of any other call. Whether a failure may open the shared circuit."""
        if self.circuit._shadow:
            return False
        if ending.failed and permit.trial and self.circuit.state == OPEN and not self.advisory:
            self.tripped = ANY  # tried here, without the others
        counts = permit.state is self.circuit._state and self.counts_together
        with self.lock:
            if not ending.failed:
                self.succeeded = ending.now
                self.forget_failures()
            elif counts:
                self.failures += 1
        return counts

    def command_of(self, event: str) -> Command | None:
        """What to publish of a manual command; None if nothing."""
        op = _PUBLISHED.get(event)
        if op is None or self.circuit._shadow:
            # Only for this process; but it ends an isolation that it holds.
            op = "release" if self._isolates else None
        return None if op is None else self.numbered(op)

    def numbered(self, op: str) -> Command:
        """The next command."""
        with self.lock:
            self._order += 1
            self._isolates = op == "isolate"
            return Command(op, self._order)

    def leave_later(self, lease: str) -> None:
        """A slot that is to be given back, if the server has granted it or will."""
        self.results.append(("leave", lease))

    def forget_failures(self) -> None:
        """They are in a row with no later one."""
        with self.lock:
            self.failures, self.last = 0, None

    def published(self, question: Question, command: Command | None, tripped: str | None) -> None:
        """The server has replied to a question: what was published with it is done."""
        with self.lock:
            self.failures = max(0, self.failures - question.failures)
            if self.last is question.last and (question.failures or question.op == "failed"):
                self.last = None
            if command is not None:
                if self.command is command:
                    self.command = None
            elif tripped is not None and self.tripped is tripped:
                self.tripped = None
