"""A circuit in each of its states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience.testing import VirtualTime

from .circuits import Told, admit

Act = Callable[[Told, VirtualTime], None]


def closed(told: Told, clock: VirtualTime) -> None:
    """As it is made."""


def open_(told: Told, clock: VirtualTime) -> None:
    told.circuit.open()


def half_open(told: Told, clock: VirtualTime) -> None:
    told.circuit.open()
    clock.advance(10)
    admit(told.circuit).drop()


def full(told: Told, clock: VirtualTime) -> None:
    told.circuit.open()
    clock.advance(10)
    told.held = admit(told.circuit)


def isolated(told: Told, clock: VirtualTime) -> None:
    told.circuit.isolate()


def isolated_by_others(told: Told, clock: VirtualTime) -> None:
    told.circuit._follow("isolated", 0.0, clock.now())


def disabled(told: Told, clock: VirtualTime) -> None:
    told.circuit.disable()


def shadowed(told: Told, clock: VirtualTime) -> None:
    told.circuit.shadow()
    admit(told.circuit).fail()


def ramping(told: Told, clock: VirtualTime) -> None:
    half_open(told, clock)
    admit(told.circuit).succeed()


ACTS: list[Act] = [closed, open_, half_open, full, isolated, disabled, shadowed, ramping]


def made(act: Act, clock: VirtualTime, **limits: Any) -> Told:
    """A circuit that has come into this state, with nothing published yet."""
    told = Told(**{"ramp": 20.0, "trial_timeout": 4.0, **limits})
    act(told, clock)
    told.changes.clear()
    return told
