"""Resilience policies for calls that fail, first of all calls to LLM APIs."""

from ._core.attempt import Attempt
from ._core.guarded import Guarded, guarded
from ._core.history import history
from ._core.introspection import current_attempt, served_by
from ._core.order import PolicyOrderWarning
from ._core.outcome import Outcome
from ._core.pipeline import Pipeline
from .decorator import resilient
from .errors import (
    BadResultError,
    CircuitOpenError,
    DeadlineExceededError,
    RejectedError,
    ResilienceError,
    WorkersBusyError,
)
from .policies import (
    BadResult,
    CircuitBreaker,
    Consecutive,
    FailureRate,
    Fallback,
    Model,
    ModelFallback,
    Retry,
    SlowCalls,
    Timeout,
)
from .policy import Gate, Policy
from .sdks import reader_for as _reader_for

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
    "Model",
    "ModelFallback",
    "Outcome",
    "Pipeline",
    "Policy",
    "PolicyOrderWarning",
    "RejectedError",
    "ResilienceError",
    "Retry",
    "SlowCalls",
    "Timeout",
    "WorkersBusyError",
    "current_attempt",
    "guarded",
    "history",
    "resilient",
    "served_by",
]

# A fork may come with the very first failure: the reader it needs is imported now, not then.
_reader_for(ConnectionError)
