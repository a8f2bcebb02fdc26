"""What is done by hand to a shared circuit: what the others are to hear of it, and that it is at
once. Who does it may never make a call."""

from __future__ import annotations

import atexit
import os
import uuid
from collections.abc import Callable

from attrs import define, field, frozen

from resilience._runtimes import workers
from resilience._runtimes.loops import loop_runs_here
from resilience.policies._circuit import Circuit
from resilience.policies._states import Event

__all__ = ["Hand", "News", "at_once"]

_COMMANDS = {
    Event.OPENS: "open",
    Event.CLOSES: "close",
    Event.FREES: "release",
    Event.ISOLATES: "isolate",
}
"""How it is told; all else is only for here."""


@frozen(eq=False)
class News:
    """What is to be told; commands by hand are numbered, so that each is done once, in order."""

    op: str
    order: int = 0


@define(eq=False)
class Hand:
    """The commands of one process for one circuit. Not safe from other threads."""

    circuit: Circuit
    _me: str = field(factory=lambda: uuid.uuid4().hex, init=False)
    _order: int = field(default=0, init=False)  # of the last command
    _holds: bool = field(default=False, init=False)  # isolated here, as told to the others

    @property
    def name(self) -> str:
        """What tells this process from the others; a child of fork is another."""
        return f"{self._me}-{os.getpid()}"

    def command(self, event: str) -> News | None:
        """What the others are to hear of a command; None if nothing."""
        op = _COMMANDS.get(event)
        if op is None or self.circuit.shadowed:  # only for here; but it ends an isolation of ours
            op = "release" if self._holds else None
        if op is None or (op == "isolate") != self.circuit.held:
            return None  # or overtaken by a command that another thread tells
        self._holds = op == "isolate"
        return self.numbered(op)

    def numbered(self, op: str) -> News:
        """The next command."""
        self._order += 1
        return News(op, self._order)


def at_once(tell: Callable[[], None]) -> None:
    """Do it here and now; in an event loop, which is not to be blocked, in a worker thread. If
    there is none to be had, nothing is done."""
    if not loop_runs_here():
        tell()
        return
    try:
        job = workers.start(tell)
    except Exception:
        return
    _under_way.difference_update([each for each in list(_under_way) if each.wait(0)])
    _under_way.add(job)


_under_way: set[workers.Job] = set()  # what is being told of commands in event loops


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_under_way.clear)  # its threads are not there


@atexit.register
def _finish() -> None:
    """A program may end with such a command: it is told first, if the server answers in time."""
    for job in list(_under_way):
        job.wait(1.0)
