"""Run and print: a line per attempt while it runs, then a table, the promises, and the report.

The exit status is 0 only if what was promised held.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from resilience.events import AttemptEnded, CallEnded, Event
from resilience.failures import Advice

from . import report, run
from .phase import Asked, Call, Limits, Seen, Verdict
from .scenario import Scenario

__all__ = ["live", "play"]

_COLUMNS = "{:>5}  {:15} {:>5} {:17} {:19} {:>5} {:>6}"


def play(scenario: Scenario, build: run.Build = run.standard, report_to: Path | None = None) -> int:
    """The scripted minute, or another, and its report; 0 if every promise was held, else 1."""
    screen = _Screen()
    seconds = sum(phase.seconds for phase in scenario.phases)
    screen.heading(f"{seconds:.2g} bad seconds of a local gateway.", scenario.limits)
    with _no_log():
        played = run.run(scenario, screen.watch, build)
    phases = played.phases()
    screen.table(phases, played.bare.calls)
    verdicts = [
        (seen.phase.name, promise(seen)) for seen in phases for promise in seen.phase.promises
    ]
    answered = sum(seen.served() for seen in phases)
    bare = sum(call.outcome.error is None for call in played.bare.calls)
    more = Verdict(answered > bare, "more calls are answered than bare", f"{answered} to {bare}")
    verdicts.append(("in all", more))
    screen.verdicts(verdicts)
    if report_to is not None:
        report_to.write_text(report.page(played), encoding="utf-8")
        screen.say(f"\nreport: {report_to}")
    return 0 if all(verdict.held for _, verdict in verdicts) else 1


def live(calls: int, base_url: str | None = None) -> int:
    """Calls to the real service; 0 if every one was answered, else 1."""
    screen = _Screen()
    screen.heading(f"{calls} calls to the real service.", Limits())
    with _no_log():
        outcomes = run.live(calls, screen.watch, base_url)
    answered = sum(outcome.error is None for outcome in outcomes)
    screen.say(f"\n{answered} of {calls} calls answered.", "bold")
    return 0 if answered == calls else 1


@contextmanager
def _no_log() -> Generator[None, None, None]:
    """Every attempt has its line here: spare the terminal the library's own warnings as well."""
    log, nowhere = logging.getLogger("resilience"), logging.NullHandler()
    log.addHandler(nowhere)
    try:
        yield
    finally:
        log.removeHandler(nowhere)


class _Screen:
    """Prints with colours to a terminal, without to a file or a pipe. Safe from any thread."""

    def __init__(self) -> None:
        self._console = Console()

    def say(self, text: str, style: str | None = None) -> None:
        self._console.print(
            text.rstrip(" "), style=style, markup=False, highlight=False, soft_wrap=True
        )

    def heading(self, what: str, limits: Limits) -> None:
        """What is about to happen, to what pipeline, and the names of the lines' columns."""
        self.say(
            f"{what}\n{' > '.join(limits.models)}, {limits.attempts} attempts each;\n"
            f"time limits: {limits.total:.2g} s in all, {limits.attempt:.2g} s an attempt; "
            f"circuits: {limits.failures} failures, {limits.reset_after:.2g} s.\n"
        )
        names = ("time", "phase", "call", "model", "result", "took", "waited")
        self.say(_COLUMNS.format(*names), "bold")

    def watch(self, asked: Asked, now: float, event: Event) -> None:
        """A line for each attempt, and for a call that was rejected without one."""
        if isinstance(event, AttemptEnded):
            attempt, failure = event.attempt, event.attempt.failure
            call = f"{asked.number}.{attempt.number}"
            result = "ok" if failure is None else failure.code or failure.kind.value
            final = failure is not None and failure.advice is Advice.STOP
            style = "green" if failure is None else "red" if final else "yellow"
            took, waited = f"{attempt.duration or 0.0:.2f}", _seconds(attempt.waited)
            cells = (call, attempt.model or "", result, took, waited)
        elif isinstance(event, CallEnded) and not event.attempts:
            style = "magenta"
            cells = (f"{asked.number}  ", "", type(event.error).__name__, "", "")
        else:
            return
        self.say(_COLUMNS.format(f"{now:.2f}", asked.phase, *cells), style)

    def table(self, phases: Sequence[Seen], bare: Sequence[Call]) -> None:
        """The calls of each phase and of all, and how many of the bare client's were answered."""
        self.say("")
        table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
        for name in ("phase", "asked", "answered", "by", "attempts", "longest wait", "bare client"):
            text = name in ("phase", "by")
            head = name.replace(" ", "\n")
            table.add_column(head, justify="left" if text else "right", no_wrap=True)
        for seen in phases:
            name = seen.phase.name
            same = [call for call in bare if call.asked.phase == name]
            table.add_row(name, *_figures(seen.calls, same))
        table.add_section()
        calls = [call for seen in phases for call in seen.calls]
        table.add_row("in all", *_figures(calls, bare), style="bold")
        self._console.print(table)
        failed = [call.outcome.error for call in bare if call.outcome.error is not None]
        errors = Counter(type(error).__name__ for error in failed)
        self.say(f"\nThe bare client's errors: {_counted(errors, ', ') or 'none'}.\n")

    def verdicts(self, verdicts: Sequence[tuple[str, Verdict]]) -> None:
        """Each promise, held or broken."""
        table = Table.grid(padding=(0, 1, 0, 0))
        for phase, (held, claim, figures) in verdicts:
            word = "[green]held[/]" if held else "[bold red]broken[/]"
            table.add_row(word, phase, f"{claim}: [dim]{figures}[/]")
        self._console.print(table)


def _figures(calls: Sequence[Call], bare: Sequence[Call]) -> list[str]:
    served = [call.outcome.served_by or "?" for call in calls if call.outcome.error is None]
    attempts = [attempt for call in calls for attempt in call.outcome.attempts]
    return [
        str(len(calls)),
        str(len(served)),
        _counted(Counter(served), "\n"),
        str(len(attempts)),
        _seconds(max((attempt.waited for attempt in attempts), default=0.0)),
        str(sum(call.outcome.error is None for call in bare)),
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds else ""


def _counted(things: Counter[str], joint: str) -> str:
    return joint.join(f"{count} {thing}" for thing, count in things.most_common())
