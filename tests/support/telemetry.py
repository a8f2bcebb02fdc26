"""OpenTelemetry's SDK with exporters that keep what they get, and spans as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilience.integrations import opentelemetry

__all__ = ["Telemetry", "telemetry"]


class Telemetry:
    """What has been reported so far."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = TracerProvider(**options)
        self.tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._reader = InMemoryMetricReader()
        self.metering = MeterProvider([self._reader])
        self.tracer = self.tracing.get_tracer("the program")

    def install(self, **options: Any) -> Callable[[], None]:
        return opentelemetry.install(
            tracer_provider=self.tracing, meter_provider=self.metering, **options
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, by when they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        """Those whose names begin so."""
        return [span for span in self.spans if span.name.startswith(name)]

    def tree(self) -> list[Any]:
        """Names, each with those of its children: `["call f", ["attempt f", ["POST"]]]`."""
        spans = self.spans
        known = {span.context.span_id for span in spans}

        def under(parent: int | None) -> list[Any]:
            found: list[Any] = []
            for span in spans:
                above = span.parent.span_id if span.parent is not None else None
                if above not in known:
                    above = None
                if above == parent:
                    found.append(span.name)
                    children = under(span.context.span_id)
                    if children:
                        found.append(children)
            return found

        return under(None)

    def points(self, metric: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        """The points of a metric: its values, or how often something took its time, by labels."""
        found = {}
        data = self._reader.get_metrics_data()
        for each in data.resource_metrics if data is not None else ():
            for scope in each.scope_metrics:
                for one in scope.metrics:
                    if one.name == metric:
                        for point in one.data.data_points:
                            labels = tuple(sorted((point.attributes or {}).items()))
                            found[labels] = getattr(point, "value", getattr(point, "count", None))
        return found

    def everything(self) -> str:
        """All that was reported, as text."""
        data = self._reader.get_metrics_data()
        spans = [span.to_json() for span in self.spans]
        return "\n".join([*spans, data.to_json() if data is not None else ""])


@contextmanager
def telemetry(**options: Any) -> Iterator[Telemetry]:
    """Installed for the block."""
    kept = Telemetry()
    stop = kept.install(**options)
    try:
        yield kept
    finally:
        stop()
