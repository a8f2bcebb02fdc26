"""One policy per file: its options and its behaviour together."""

from .bad_result import BadResult
from .breaker import CircuitBreaker, Consecutive, FailureRate, SlowCalls
from .fallback import Fallback
from .models import Model, ModelFallback
from .retry import Retry
from .timeout import Timeout

__all__ = [
    "BadResult",
    "CircuitBreaker",
    "Consecutive",
    "FailureRate",
    "Fallback",
    "Model",
    "ModelFallback",
    "Retry",
    "SlowCalls",
    "Timeout",
]
