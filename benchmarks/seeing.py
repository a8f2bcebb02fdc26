"""What it costs to be seen: a healthy sync call over the full path, with each integration.

    python benchmarks/seeing.py [--check]

Figures are microseconds of CPU time a call, beyond what the call costs over the full path with
nobody listening; all in one run, the best of several rounds. OpenTelemetry's SDK has an in-memory
exporter and a metric reader. "By hand" is the same two spans and two durations, with the same
attributes, made with the SDK alone. With --check, exit status 1 if a figure is over its limit.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import prometheus_client
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilience import CircuitBreaker, ModelFallback, Pipeline, Retry, listen, recording
from resilience.integrations import _names as names
from resilience.integrations import opentelemetry, prometheus
from resilience.policy import Inner, Policy, Runtime

CALLS = 2_000
ROUNDS = 9

BEYOND_BY_HAND = 30.0
"""Microseconds."""
WITHOUT_SDK = 30.0
PROMETHEUS = 15.0


class Busy(Policy):
    """Does nothing, and is never at rest: the call takes the full path."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner


def answer(question: str, *, model: str) -> str:
    return "Hello!"


robust = Pipeline(
    ModelFallback("gpt-4o", "claude-sonnet-4-6"),
    Retry(),
    CircuitBreaker(key="model"),
    Busy(),
    name="chat",
)
ask: Any = robust.wrap(answer)


class Sdk:
    """OpenTelemetry's SDK, which keeps what it gets in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = TracerProvider()
        self.tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.metering = MeterProvider([InMemoryMetricReader()])


@contextmanager
def nobody() -> Iterator[Callable[[], object]]:
    yield lambda: ask("Who are you?")


@contextmanager
def recorded() -> Iterator[Callable[[], object]]:
    with recording():
        yield lambda: ask("Who are you?")


@contextmanager
def listened() -> Iterator[Callable[[], object]]:
    stop = listen(lambda event: None)
    try:
        yield lambda: ask("Who are you?")
    finally:
        stop()


@contextmanager
def sdk() -> Iterator[Callable[[], object]]:
    kept = Sdk()
    stop = opentelemetry.install(tracer_provider=kept.tracing, meter_provider=kept.metering)
    try:
        yield lambda: ask("Who are you?")
    finally:
        stop()


@contextmanager
def api_alone() -> Iterator[Callable[[], object]]:
    from opentelemetry.metrics import NoOpMeterProvider

    stop = opentelemetry.install(
        tracer_provider=trace.NoOpTracerProvider(), meter_provider=NoOpMeterProvider()
    )
    try:
        yield lambda: ask("Who are you?")
    finally:
        stop()


@contextmanager
def scraped() -> Iterator[Callable[[], object]]:
    stop = prometheus.install(registry=prometheus_client.CollectorRegistry())
    try:
        yield lambda: ask("Who are you?")
    finally:
        stop()


@contextmanager
def by_hand() -> Iterator[Callable[[], object]]:
    """The spans and durations of a healthy call, made with the SDK, and the call."""
    kept = Sdk()
    tracer, meter = kept.tracing.get_tracer("hand"), kept.metering.get_meter("hand")
    whole, each = (meter.create_histogram(name) for name in ("call", "attempt"))
    call = {names.PIPELINE: "chat", names.FUNCTION: "answer"}
    ended = {names.OUTCOME: "ok", names.ATTEMPTS: 1, names.SERVED_BY: "gpt-4o"}
    attempt = {names.ATTEMPT: 1, names.WAIT: 0.0, names.MODEL: "gpt-4o"}

    def made() -> None:
        outer = tracer.start_span("call answer", attributes=call)
        around = trace.set_span_in_context(outer)
        inner = tracer.start_span("attempt answer", around, attributes=attempt)
        token = context.attach(trace.set_span_in_context(inner))
        ask("Who are you?")
        each.record(0.1, {**call, names.MODEL: "gpt-4o", names.OUTCOME: "ok"})
        inner.end()
        context.detach(token)
        whole.record(0.1, {**call, names.OUTCOME: "ok"})
        outer.set_attributes(ended)
        outer.end()

    yield made


WAYS = {
    "nobody": nobody,
    "a recording of everything": recorded,
    "a function that listens to it": listened,
    "OpenTelemetry, SDK": sdk,
    "by hand, SDK": by_hand,
    "OpenTelemetry, API alone": api_alone,
    "Prometheus": scraped,
}


def measured() -> dict[str, float]:
    """Microseconds a call, for each way."""
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            with way() as call:
                for _ in range(50):
                    call()
                gc.collect()
                began = time.process_time()
                for _ in range(CALLS):
                    call()
                best[name] = min(best[name], (time.process_time() - began) / CALLS * 1e6)
    return best


def main() -> int:
    found = measured()
    base = found.pop("nobody")
    beyond = {name: taken - base for name, taken in found.items()}
    beyond["OpenTelemetry, beyond by hand"] = found["OpenTelemetry, SDK"] - found["by hand, SDK"]
    limits = {
        "OpenTelemetry, beyond by hand": BEYOND_BY_HAND,
        "OpenTelemetry, API alone": WITHOUT_SDK,
        "Prometheus": PROMETHEUS,
    }
    failed = False
    print(f"{'the call itself':32s} {base:8.2f} us")
    for name, taken in beyond.items():
        most = limits.get(name)
        over = most is not None and taken > most
        failed = failed or over
        limit = "" if most is None else f"   limit {most:g}"
        print(f"{name:32s} {taken:8.2f} us{limit}{'  OVER' if over else ''}")
    return 1 if failed and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
