"""One policy per file: its options and its behaviour together."""

from .bad_result import BadResult
from .breaker import CircuitBreaker, Consecutive, FailureRate, SlowCalls
from .fallback import Fallback
from .idempotency import IdempotencyKey
from .models import Model, ModelFallback
from .retry import Retry
from .single_flight import SingleFlight
from .streaming import Streaming
from .timeout import Timeout

__all__ = [
    "BadResult",
    "CircuitBreaker",
    "Consecutive",
    "FailureRate",
    "Fallback",
    "IdempotencyKey",
    "Model",
    "ModelFallback",
    "Retry",
    "SingleFlight",
    "SlowCalls",
    "Streaming",
    "Timeout",
]
