"""What our circuits publish: events, and pybreaker's listeners.

pybreaker itself is imported only when one is given; see `pybreaker`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from resilience._core.options import warn
from resilience.events import (
    CircuitChanged,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
)
from resilience.policy import Emitters

from .circuit import Circuit
from .states import CLOSED, DISABLED, HALF_OPEN, OPEN, Change, Event

__all__ = ["Listeners", "emit", "to_listeners"]


def to_listeners(name: str, value: Any) -> tuple[Any, ...]:
    """A tuple of pybreaker listeners."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of pybreaker listeners, got {value!r}")
    listeners = tuple(value)
    if listeners:
        from pybreaker import CircuitBreakerListener

        for listener in listeners:
            if not isinstance(listener, CircuitBreakerListener):
                raise TypeError(f"{name} must be pybreaker listeners, got {listener!r}")
    return listeners


def emit(emitters: Emitters, circuit: Circuit, change: Change) -> None:
    """Publish a change as an event."""
    facts: dict[str, Any] = {
        "circuit": circuit.name,
        "key": circuit.key,
        "model": circuit._model,
        "old": change.old,
        "new": change.new,
        "shadow": circuit._shadow,
    }
    if change.new == HALF_OPEN:
        emitters.emit(CircuitHalfOpened, **facts)
    elif change.new == CLOSED:
        emitters.emit(CircuitClosed, **facts, rejected=change.rejected)
    elif change.new == DISABLED:
        emitters.emit(CircuitChanged, **facts)
    else:
        failed = change.event in (Event.TRIPS, Event.FAILED)
        left = circuit.retry_after if change.new == OPEN else None
        emitters.emit(
            CircuitOpened,
            **facts,
            seconds=None if left is None else round(left, 3),
            failure=circuit._last_failure if failed else None,
        )


class _Named(NamedTuple):
    """A state as pybreaker's listeners expect it: something with a name."""

    name: str


class _Breaker:
    """A circuit as pybreaker's listeners expect it."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit

    @property
    def name(self) -> str | None:
        return self.circuit.name

    @property
    def key(self) -> Any:
        return self.circuit.key

    @property
    def current_state(self) -> str:
        return self.circuit.state

    @property
    def fail_counter(self) -> int:
        return self.circuit.failures

    @property
    def fail_max(self) -> int:
        """Failures in a row that open it; 0 where they are not counted so."""
        failures = self.circuit._owner.limits.failures
        return int(failures) if math.isfinite(failures) else 0

    @property
    def reset_timeout(self) -> float:
        return self.circuit._open_time()


class Listeners:
    """Tells pybreaker listeners; what they raise is logged and goes no further."""

    def __init__(self, listeners: tuple[Any, ...]) -> None:
        from pybreaker import CircuitBreakerListener as Base

        self._all = listeners
        self.healthy = any(
            getattr(type(each), event) is not getattr(Base, event)
            for each in listeners
            for event in ("before_call", "success")
        )
        """Whether one of them hears of healthy calls."""

    @classmethod
    def of(cls, listeners: tuple[Any, ...]) -> Listeners | None:
        """None where there are none, so that pybreaker is not imported for nothing."""
        return cls(listeners) if listeners else None

    def before_call(
        self, circuit: Circuit, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._each(lambda each: each.before_call(_Breaker(circuit), fn, *args, **kwargs))

    def failure(self, circuit: Circuit, error: BaseException) -> None:
        self._each(lambda each: each.failure(_Breaker(circuit), error))

    def success(self, circuit: Circuit) -> None:
        self._each(lambda each: each.success(_Breaker(circuit)))

    def state_change(self, circuit: Circuit, change: Change) -> None:
        old, new = _Named(change.old), _Named(change.new)
        self._each(lambda each: each.state_change(_Breaker(circuit), old, new))

    def _each(self, notify: Callable[[Any], None]) -> None:
        for each in self._all:
            try:
                notify(each)
            except Exception as problem:
                name = type(problem).__name__
                warn("a pybreaker listener raised %s", name, level=logging.ERROR)
