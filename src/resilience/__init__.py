"""Resilience policies for calls that fail, first of all calls to LLM APIs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import policies
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
    BatchStoppedError,
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitExceededError,
    RejectedError,
    ResilienceError,
    SpendLimitExceededError,
    StreamInterruptedError,
    WorkersBusyError,
)
from .events import listen, recording
from .policy import Gate, Policy
from .sdks.retries import RetryMultiplicationWarning, own_retries, retries_of
from .sdks.streams import register_stream

if TYPE_CHECKING:
    from . import batch as batch
    from ._health import health
    from .policies import (
        BadResult,
        Bulkhead,
        CircuitBreaker,
        Consecutive,
        FailureRate,
        Fallback,
        Hold,
        IdempotencyKey,
        Model,
        ModelFallback,
        RateLimit,
        Retry,
        RetryBudget,
        SingleFlight,
        SlowCalls,
        SpendLimit,
        Streaming,
        Timeout,
    )
else:  # or a type checker would believe in any name

    def __getattr__(name: str) -> Any:
        """What few programs need is imported where it is first needed."""
        if name == "health":
            from ._health import health as found
        elif name == "batch":
            found = import_module("resilience.batch")
        elif name in policies.__all__:
            found = getattr(policies, name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found


__all__ = [
    "Attempt",
    "BadResult",
    "BadResultError",
    "BatchStoppedError",
    "Bulkhead",
    "BulkheadFullError",
    "CircuitBreaker",
    "CircuitOpenError",
    "Consecutive",
    "DeadlineExceededError",
    "FailureRate",
    "Fallback",
    "Gate",
    "Guarded",
    "Hold",
    "IdempotencyKey",
    "Model",
    "ModelFallback",
    "Outcome",
    "Pipeline",
    "Policy",
    "PolicyOrderWarning",
    "RateLimit",
    "RateLimitExceededError",
    "RejectedError",
    "ResilienceError",
    "Retry",
    "RetryBudget",
    "RetryMultiplicationWarning",
    "SingleFlight",
    "SlowCalls",
    "SpendLimit",
    "SpendLimitExceededError",
    "StreamInterruptedError",
    "Streaming",
    "Timeout",
    "WorkersBusyError",
    "current_attempt",
    "deadline",
    "guarded",
    "health",
    "history",
    "listen",
    "own_retries",
    "recording",
    "register_stream",
    "remaining",
    "resilient",
    "retries_of",
    "served_by",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
