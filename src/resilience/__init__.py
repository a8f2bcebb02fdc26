"""Resilience policies for calls that fail, first of all calls to LLM APIs."""

from typing import TYPE_CHECKING, Any

from . import policies as _policies
from ._core.attempt import Attempt
from ._core.guarded import Guarded, guarded
from ._core.history import history
from ._core.introspection import current_attempt, served_by
from ._core.order import PolicyOrderWarning
from ._core.outcome import Outcome
from ._core.pipeline import Pipeline
from ._core.time_left import deadline, remaining
from .decorator import resilient
from .errors import (
    BadResultError,
    CircuitOpenError,
    DeadlineExceededError,
    RejectedError,
    ResilienceError,
    StreamInterruptedError,
    WorkersBusyError,
)
from .policy import Gate, Policy
from .sdks.retries import RetryMultiplicationWarning, own_retries, retries_of
from .sdks.streams import register_stream

if TYPE_CHECKING:
    from .policies import (
        BadResult,
        CircuitBreaker,
        Consecutive,
        FailureRate,
        Fallback,
        IdempotencyKey,
        Model,
        ModelFallback,
        Retry,
        SingleFlight,
        SlowCalls,
        Streaming,
        Timeout,
    )

__all__ = [
    "Attempt",
    "BadResult",
    "BadResultError",
    "CircuitBreaker",
    "CircuitOpenError",
    "Consecutive",
    "DeadlineExceededError",
    "FailureRate",
    "Fallback",
    "Gate",
    "Guarded",
    "IdempotencyKey",
    "Model",
    "ModelFallback",
    "Outcome",
    "Pipeline",
    "Policy",
    "PolicyOrderWarning",
    "RejectedError",
    "ResilienceError",
    "Retry",
    "RetryMultiplicationWarning",
    "SingleFlight",
    "SlowCalls",
    "StreamInterruptedError",
    "Streaming",
    "Timeout",
    "WorkersBusyError",
    "current_attempt",
    "deadline",
    "guarded",
    "history",
    "own_retries",
    "register_stream",
    "remaining",
    "resilient",
    "retries_of",
    "served_by",
]

if not TYPE_CHECKING:  # or a type checker would believe in any name

    def __getattr__(name: str) -> Any:
        """A policy is imported where it is first needed."""
        if name not in _policies.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(_policies, name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
