"""Resilience policies for calls that fail, first of all calls to LLM APIs."""

from ._core.attempt import Attempt
from ._core.guarded import Guarded
from ._core.history import history
from ._core.order import PolicyOrderWarning
from ._core.outcome import Outcome
from ._core.pipeline import Pipeline
from ._core.served import current_attempt, served_by
from .decorator import resilient
from .errors import (
    CircuitOpenError,
    DeadlineExceededError,
    RejectedError,
    ResilienceError,
    WorkersBusyError,
)
from .policies import (
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
from .sdks import reader_for as _reader_for

__all__ = [
    "Attempt",
    "CircuitBreaker",
    "CircuitOpenError",
    "Consecutive",
    "DeadlineExceededError",
    "FailureRate",
    "Fallback",
    "Guarded",
    "Model",
    "ModelFallback",
    "Outcome",
    "Pipeline",
    "PolicyOrderWarning",
    "RejectedError",
    "ResilienceError",
    "Retry",
    "SlowCalls",
    "Timeout",
    "WorkersBusyError",
    "current_attempt",
    "history",
    "resilient",
    "served_by",
]

# A fork may come with the very first failure: the reader it needs is imported now, not then.
_reader_for(ConnectionError)
