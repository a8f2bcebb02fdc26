"""One policy per file: its options and its behaviour together. Imported where first needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resilience.circuit.trip import Consecutive, FailureRate, SlowCalls

    from .bad_result import BadResult
    from .breaker import CircuitBreaker
    from .bulkhead import Bulkhead
    from .fallback import Fallback
    from .hold import Hold
    from .idempotency import IdempotencyKey
    from .models import Model, ModelFallback
    from .rate_limit import RateLimit
    from .retry import Retry
    from .retry_budget import RetryBudget
    from .single_flight import SingleFlight
    from .spend_limit import SpendLimit
    from .streaming import Streaming
    from .timeout import Timeout
else:  # or a type checker would believe in any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"resilience.{_HOMES[name]}"), name)
        globals()[name] = found
        return found


__all__ = [
    "BadResult",
    "Bulkhead",
    "CircuitBreaker",
    "Consecutive",
    "FailureRate",
    "Fallback",
    "Hold",
    "IdempotencyKey",
    "Model",
    "ModelFallback",
    "RateLimit",
    "Retry",
    "RetryBudget",
    "SingleFlight",
    "SlowCalls",
    "SpendLimit",
    "Streaming",
    "Timeout",
]

_HOMES = {
    "BadResult": "policies.bad_result",
    "Bulkhead": "policies.bulkhead",
    "CircuitBreaker": "policies.breaker",
    "Consecutive": "circuit.trip",
    "FailureRate": "circuit.trip",
    "Fallback": "policies.fallback",
    "Hold": "policies.hold",
    "IdempotencyKey": "policies.idempotency",
    "Model": "policies.models",
    "ModelFallback": "policies.models",
    "RateLimit": "policies.rate_limit",
    "Retry": "policies.retry",
    "RetryBudget": "policies.retry_budget",
    "SingleFlight": "policies.single_flight",
    "SlowCalls": "circuit.trip",
    "SpendLimit": "policies.spend_limit",
    "Streaming": "policies.streaming",
    "Timeout": "policies.timeout",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
