"""Run and print; the exit status is 0 only if what was promised held."""

from __future__ import annotations

from . import run
from .phase import Limits, Verdict
from .scenario import Scenario
from .screen import Screen

__all__ = ["live", "play"]


def play(scenario: Scenario, build: run.Build = run.standard) -> int:
    """The scripted minute, or another; 0 if every promise was held, else 1."""
    screen = Screen()
    seconds = sum(phase.seconds for phase in scenario.phases)
    screen.heading(f"{seconds:.2g} bad seconds of a local gateway.", scenario.limits)
    phases = run.run(scenario, screen.watch, build)
    screen.table(phases)
    verdicts = [
        (seen.phase.name, promise(seen)) for seen in phases for promise in seen.phase.promises
    ]
    answered = sum(seen.served() for seen in phases)
    bare = sum(call.bare is None for seen in phases for call in seen.calls)
    more = Verdict(answered > bare, "more calls are answered than bare", f"{answered} to {bare}")
    verdicts.append(("in all", more))
    screen.verdicts(verdicts)
    return 0 if all(verdict.held for _, verdict in verdicts) else 1


def live(calls: int, base_url: str | None = None) -> int:
    """Calls to the real service; 0 if every one was answered, else 1."""
    screen = Screen()
    screen.heading(f"{calls} calls to the real service.", Limits())
    outcomes = run.live(calls, screen.watch, base_url)
    answered = sum(outcome.error is None for outcome in outcomes)
    screen.say(f"\n{answered} of {calls} calls answered.", "bold")
    return 0 if answered == calls else 1
