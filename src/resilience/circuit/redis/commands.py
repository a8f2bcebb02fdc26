"""Manual commands for a shared circuit, as one process numbers them."""

from __future__ import annotations

import os
import uuid
from typing import Any

from attrs import define, field, frozen

from resilience.circuit.states import Event

__all__ = ["Command", "Commands"]

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
class Commands:
    """The commands of one process for one circuit. Safe from any thread."""

    lock: Any
    _id: str = field(factory=lambda: uuid.uuid4().hex, init=False)
    _order: int = field(default=0, init=False)  # of the last command
    _isolates: bool = field(default=False, init=False)  # as published

    @property
    def process(self) -> str:
        """What distinguishes this process from the others; a child of fork is another."""
        return f"{self._id}-{os.getpid()}"

    def command(self, event: str, *, shadow: bool) -> Command | None:
        """What to publish of a manual command; None if nothing."""
        op = _PUBLISHED.get(event)
        if op is None or shadow:  # only for this process; but it ends an isolation that it holds
            op = "release" if self._isolates else None
        return None if op is None else self.numbered(op)

    def numbered(self, op: str) -> Command:
        """The next command."""
        with self.lock:
            self._order += 1
            self._isolates = op == "isolate"
            return Command(op, self._order)
