"""The names of what integrations report, in one place.

Spans and OpenTelemetry's metrics have them as they are; Prometheus as `prometheus_name` makes them.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

__all__ = [
    "ATTEMPT",
    "ATTEMPTS",
    "ATTEMPT_DURATION",
    "BUCKETS",
    "CALL_DURATION",
    "CIRCUIT",
    "CIRCUIT_STATE",
    "COUNTERS",
    "DURATIONS",
    "ERROR_TYPE",
    "FAILURE",
    "FALLBACKS",
    "FUNCTION",
    "INPUT_TOKENS",
    "MODEL",
    "MODEL_SKIPPED",
    "OTHER",
    "OUTCOME",
    "OUTPUT_TOKENS",
    "PIPELINE",
    "REASON",
    "REJECTIONS",
    "RETRIES",
    "SERVED_BY",
    "STATE",
    "STATUS",
    "TO",
    "TOKENS",
    "TOKEN_TYPE",
    "WAIT",
    "Metric",
    "prometheus_label",
    "prometheus_name",
]

# Attributes of spans, and labels of metrics. `error.type` and `http.response.status_code` are those
# of OpenTelemetry's conventions.
PIPELINE: Final = "resilience.pipeline"
FUNCTION: Final = "resilience.function"
MODEL: Final = "resilience.model"
TO: Final = "resilience.to"
OUTCOME: Final = "resilience.outcome"
REASON: Final = "resilience.reason"
CIRCUIT: Final = "resilience.circuit"
STATE: Final = "resilience.state"
TOKEN_TYPE: Final = "resilience.token.type"
ERROR_TYPE: Final = "error.type"
STATUS: Final = "http.response.status_code"

# Attributes of spans alone.
ATTEMPT: Final = "resilience.attempt"
ATTEMPTS: Final = "resilience.attempts"
WAIT: Final = "resilience.wait"
FAILURE: Final = "resilience.failure"
SERVED_BY: Final = "resilience.served_by"
INPUT_TOKENS: Final = "resilience.tokens.input"
OUTPUT_TOKENS: Final = "resilience.tokens.output"

# A span's event.
MODEL_SKIPPED: Final = "resilience.model.skipped"

OTHER: Final = "other"
"""In place of a label's value that is one too many."""


@frozen(eq=False)
class Metric:
    """A figure: its name, its unit, what it is, and its labels."""

    name: str
    unit: str
    description: str
    labels: tuple[str, ...]


_CALL = (PIPELINE, FUNCTION)

CALL_DURATION: Final = Metric(
    "resilience.call.duration",
    "s",
    "How long guarded calls took, with all attempts and waits, by outcome.",
    (*_CALL, OUTCOME, ERROR_TYPE),
)
ATTEMPT_DURATION: Final = Metric(
    "resilience.attempt.duration",
    "s",
    "How long attempts took, by outcome.",
    (*_CALL, MODEL, OUTCOME, ERROR_TYPE, STATUS),
)
RETRIES: Final = Metric(
    "resilience.retries",
    "{retry}",
    "Attempts after one of the same model that had failed, by its error.",
    (*_CALL, MODEL, ERROR_TYPE),
)
FALLBACKS: Final = Metric(
    "resilience.fallbacks",
    "{fallback}",
    "Times that another model was called, or that a fallback's value was used.",
    (*_CALL, MODEL, TO),
)
REJECTIONS: Final = Metric(
    "resilience.rejections",
    "{rejection}",
    "Times that a policy let no call through, by reason.",
    (*_CALL, REASON),
)
TOKENS: Final = Metric(
    "resilience.tokens",
    "{token}",
    "Tokens that attempts used, as their results report them.",
    (*_CALL, MODEL, TOKEN_TYPE),
)
CIRCUIT_STATE: Final = Metric(
    "resilience.circuit.state",
    "{circuit}",
    "How many circuits are in a state.",
    (CIRCUIT, MODEL, STATE),
)

DURATIONS: Final = (CALL_DURATION, ATTEMPT_DURATION)
COUNTERS: Final = (RETRIES, FALLBACKS, REJECTIONS, TOKENS)

BUCKETS: Final = tuple(0.01 * 2**power for power in range(14))
"""Upper bounds in seconds, 0.01 to 81.92: those that OpenTelemetry's conventions have for GenAI."""


def prometheus_name(metric: Metric) -> str:
    """As Prometheus has it, without the suffix of counters."""
    unit = "_seconds" if metric.unit == "s" else ""
    return metric.name.replace(".", "_") + unit


def prometheus_label(name: str) -> str:
    """The name of a label as Prometheus has it."""
    return name.removeprefix("resilience.").replace(".", "_")
