"""Resilience policies for calls that fail, first of all calls to LLM APIs."""

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
from .policy import Gate, Policy
from .sdks import reader_for as _reader_for
from .sdks.retries import RetryMultiplicationWarning, own_retries, retries_of
from .sdks.streams import register_stream

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

# A fork may come with the very first failure: the reader it needs is imported now, not then.
_reader_for(ConnectionError)
