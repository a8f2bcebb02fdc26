"""What has happened to a circuit here and is still to be published."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from attrs import define, field

from resilience.circuit.circuit import Circuit
from resilience.circuit.permit import Permit
from resilience.circuit.states import OPEN
from resilience.failures import Failure

from .commands import Command
from .script import ANY, Question

__all__ = ["Unpublished"]


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

    @property
    def urgent(self) -> bool:
        """Whether there is anything beside failures, which are published together."""
        return bool(self.results or self.command is not None or self.tripped is not None)

    @property
    def counts_together(self) -> bool:
        """Whether failures in a row are counted over all processes."""
        return not self.advisory and self.circuit._owner.limits.failures < math.inf

    def record(
        self,
        permit: Permit,
        failed: bool | None,
        now: float,
        cause: BaseException | None,
        failure: Failure | None,
    ) -> None:
        """Record how a call has ended."""
        if permit.trial and permit.lease is not None:
            counts = self._record_result(permit, failed, now)
        else:
            counts = failed is not None and self._record_verdict(permit, failed, now)
        if counts and failed and cause is not None and failure is not None:
            self.last = cause, failure

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

    def _record_verdict(self, permit: Permit, failed: bool, now: float) -> bool:
        """Of any other call. Whether a failure may open the shared circuit."""
        if self.circuit._shadow:
            return False
        if failed and permit.trial and self.circuit.state == OPEN and not self.advisory:
            self.tripped = ANY  # tried here, without the others
        counts = permit.state is self.circuit._state and self.counts_together
        with self.lock:
            if not failed:
                self.succeeded = now
                self.forget_failures()
            elif counts:
                self.failures += 1
        return counts

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
