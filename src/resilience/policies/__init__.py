"""One policy per file: its options and its behaviour together."""

from .breaker import CircuitBreaker
from .fallback import Fallback
from .models import Model, ModelFallback
from .retry import Retry
from .timeout import Timeout

__all__ = ["CircuitBreaker", "Fallback", "Model", "ModelFallback", "Retry", "Timeout"]
