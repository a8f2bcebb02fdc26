"""Spans and metrics of guarded calls, by OpenTelemetry's API.

    from resilience.integrations import opentelemetry

    stop = opentelemetry.install()

A call is one INTERNAL span, and each of its attempts a child of it. An attempt's span is the
current one while the function runs, so that the spans of clients (of HTTP, of GenAI
instrumentations) are children of the attempt that made them. A failed attempt that is followed by
another leaves the call's span as it is. `_names.py` has all names.

No attribute, name or status has arguments, results, texts of exceptions or header values.

It needs the extra `resilience-policies[opentelemetry]`, which is the API alone: without an SDK
that is configured nothing is exported, but pipelines are no longer at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from resilience._core.failure import Failure
from resilience._core.listening import ByClass, Subscription, add
from resilience._core.options import suggesting, to_count, warn
from resilience.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallFailed,
    CallStarted,
    ModelSkipped,
    TokensUsed,
)

from . import _names as names
from ._figures import (
    Bounded,
    Figures,
    Installed,
    Values,
    circuits,
    clean,
    error_type,
    not_installed,
    outcome_of_call,
    type_name,
)

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["install"]

_KEPT = 1000
"""How many sets of labels are kept for each metric."""

_installed = Installed()


@suggesting
def install(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    limit: int = 100,
) -> Callable[[], None]:
    """Report the calls of all pipelines of this process; returns a function that ends it.

    - `tracer_provider`, `meter_provider` (None): OpenTelemetry's providers; by default the global
      ones, which may be configured later. A `NoOpMeterProvider()` leaves out the metrics, a
      `NoOpTracerProvider()` the spans.
    - `limit` (100): values that each label of a metric has at most; what comes beyond that is
      "other".

    A second time for the same providers changes nothing and returns the same function; ValueError
    with another limit. ImportError without opentelemetry-api, TypeError or ValueError for a wrong
    option. From any thread. Calls under way when it begins or ends may be left out.
    """
    try:
        from opentelemetry import metrics, trace
    except ModuleNotFoundError as missing:
        raise not_installed("opentelemetry", "opentelemetry-api") from missing
    to_count("limit", limit)
    tracing = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    metering = metrics.get_meter_provider() if meter_provider is None else meter_provider
    _check("tracer_provider", tracing, trace.TracerProvider)
    _check("meter_provider", metering, metrics.MeterProvider)
    return _installed.once(
        (tracing, metering), {"limit": limit}, partial(_install, tracing, metering, limit)
    )


def _check(name: str, given: Any, kind: type) -> None:
    if not isinstance(given, kind):
        raise TypeError(f"{name} must be an opentelemetry {kind.__name__}, got {given!r}")


def _install(tracing: TracerProvider, metering: MeterProvider, limit: int) -> Callable[[], None]:
    reporter = _Reporter(tracing, metering, limit)
    kinds = tuple(reporter.handlers)
    subscription = add(Subscription(reporter, kinds, trusted=True, enter=reporter.enter))

    def end() -> None:
        subscription()
        reporter.stopped = True  # no instrument can be taken back

    return end


class _Call:
    """The spans of a call under way."""

    __slots__ = ("attempts", "context", "span")

    def __init__(self, span: Span, context: Context) -> None:
        self.span = span
        self.context = context
        """Where its attempts' spans are children of its own."""
        self.attempts: dict[int, tuple[Span, str | None]] = {}
        """By number, with the model that it was begun with."""


class _Reporter:
    """Makes spans and metrics of events.

    In each thread it handles one event at a time. A finalizer may publish the end of an abandoned
    stream at any moment, when an SDK holds a lock of its own for another event: that end waits.
    Calls that an exporter makes are left out.
    """

    def __init__(self, tracing: TracerProvider, metering: MeterProvider, limit: int) -> None:
        from opentelemetry import context, metrics, trace

        self._attach, self._get_value = context.attach, context.get_value
        self._suppressed = context._SUPPRESS_INSTRUMENTATION_KEY
        self._in_context = trace.set_span_in_context
        self._start = tracing.get_tracer("resilience").start_span
        self._kind = trace.SpanKind.INTERNAL
        self._error = trace.Status(trace.StatusCode.ERROR)
        self._observation = metrics.Observation
        self._bounded = Bounded(limit)
        self._calls: dict[int | None, _Call] = {}
        self._waiting: dict[int, list[Any]] = {}
        """By thread that is handling an event: those that wait for it to be done."""
        self._complained = False
        self.stopped = False
        self._measure(metering)
        self._figures = Figures(self._add)
        self.handlers: ByClass[Callable[[Any], object]] = ByClass(
            {
                **self._figures.handlers,
                CallStarted: self._call_started,
                AttemptStarted: self._attempt_started,
                TokensUsed: self._tokens_used,
                AttemptEnded: self._attempt_ended,
                ModelSkipped: self._model_skipped,
                CallFailed: self._call_failed,
                CallEnded: self._call_ended,
            }
        )

    def __call__(self, event: Any) -> None:
        begins = type(event) is CallStarted
        if not begins and event.call not in self._calls:
            return
        thread = get_ident()
        if thread in self._waiting:
            if not begins:
                self._waiting[thread].append(event)
            return
        self._waiting[thread] = waiting = [event]
        try:
            for each in waiting:  # others may come while one is handled
                self._handle(each)
        finally:
            del self._waiting[thread]

    def _handle(self, event: Any) -> None:
        try:
            self.handlers[type(event)](event)
        except Exception as problem:  # of a sampler or a processor
            self._complain(problem, event)

    def _complain(self, problem: Exception, event: object) -> None:
        if not self._complained:
            self._complained = True
            at = type(event).__name__
            warn("OpenTelemetry raised %s at %s", type(problem).__name__, at)

    # Spans

    def _call_started(self, event: CallStarted) -> None:
        if self._get_value(self._suppressed):
            return  # an exporter's own call
        function = clean(str(event.function))
        facts: dict[str, Any] = {names.FUNCTION: function}
        if event.pipeline is not None:
            facts[names.PIPELINE] = clean(event.pipeline)
        span = self._start(f"call {function}", kind=self._kind, attributes=facts)
        self._calls[event.call] = _Call(span, self._in_context(span))

    def _attempt_started(self, event: AttemptStarted) -> None:
        self._figures.attempt_started(event)
        call = self._calls[event.call]
        facts: dict[str, Any] = {names.ATTEMPT: event.number, names.WAIT: event.waited}
        if event.model is not None:
            facts[names.MODEL] = clean(event.model)
        name = f"attempt {clean(str(event.function))}"
        span = self._start(name, call.context, self._kind, facts)
        call.attempts[event.number] = span, event.model

    def enter(self, serial: int, number: int) -> Callable[[], object] | None:
        """Make an attempt's span the current one; what is returned restores the one before."""
        call = self._calls.get(serial)
        begun = None if call is None else call.attempts.get(number)
        if begun is None:
            return None
        return partial(_restore, self._attach(self._in_context(begun[0])))

    def _tokens_used(self, event: TokensUsed) -> None:
        self._figures.tokens_used(event)
        begun = self._calls[event.call].attempts.get(event.number)
        if begun is not None:
            for name, tokens in (
                (names.INPUT_TOKENS, event.input),
                (names.OUTPUT_TOKENS, event.output),
            ):
                if tokens is not None:
                    begun[0].set_attribute(name, tokens)

    def _attempt_ended(self, event: AttemptEnded) -> None:
        self._figures.attempt_ended(event)
        if event.interrupted:
            return  # it ends with its call, if it has begun at all
        attempt = event.attempt
        begun = self._calls[event.call].attempts.pop(attempt.number, None)
        if begun is None:
            return
        span, model = begun
        if attempt.model is not None and model is None:  # it was not known yet
            span.set_attribute(names.MODEL, clean(attempt.model))
        if attempt.failure is not None:
            span.set_attribute(names.ERROR_TYPE, error_type(attempt.failure))
            self._describe(span, attempt.failure)
            span.set_status(self._error)
        span.end()

    def _describe(self, span: Span, failure: Failure) -> None:
        span.set_attribute(names.FAILURE, failure.kind.value)
        if failure.status is not None:
            span.set_attribute(names.STATUS, failure.status)

    def _model_skipped(self, event: ModelSkipped) -> None:
        self._figures.moved_on(event)
        facts = {names.MODEL: clean(event.model), names.TO: clean(event.to)}
        facts[names.ERROR_TYPE] = type_name(event.error)
        self._calls[event.call].span.add_event(names.MODEL_SKIPPED, facts)

    def _call_failed(self, event: CallFailed) -> None:
        self._describe(self._calls[event.call].span, event.failure)

    def _call_ended(self, event: CallEnded) -> None:
        self._figures.call_ended(event)
        call, error = self._calls.pop(event.call), event.error
        if error is None and not event.attempts and call.attempts:
            return  # what it returned is yet to begin, as a call of its own: this one is dropped
        for attempt, _ in call.attempts.values():
            attempt.set_attribute(names.OUTCOME, "interrupted")
            attempt.end()
        span = call.span
        facts: dict[str, Any] = {
            names.OUTCOME: outcome_of_call(event),
            names.ATTEMPTS: len(event.attempts),
        }
        if event.served_by is not None:
            facts[names.SERVED_BY] = clean(event.served_by)
        if error is not None:
            facts[names.ERROR_TYPE] = type_name(error)
            if isinstance(error, Exception):
                span.set_status(self._error)
        span.set_attributes(facts)
        span.end()

    # Metrics

    def _measure(self, metering: MeterProvider) -> None:
        meter = metering.get_meter("resilience")
        self._instruments: dict[names.Metric, Callable[..., object]] = {}
        self._labels: dict[names.Metric, dict[Values, Any]] = {}
        """What has been made of values, of so many as there may be of a label."""
        for metric in (*names.DURATIONS, *names.COUNTERS):
            self._labels[metric] = {}
        for metric in names.DURATIONS:
            self._instruments[metric] = meter.create_histogram(
                metric.name,
                metric.unit,
                metric.description,
                explicit_bucket_boundaries_advisory=names.BUCKETS,
            ).record
        for metric in names.COUNTERS:
            counter = meter.create_counter(metric.name, metric.unit, metric.description)
            self._instruments[metric] = counter.add
        state = names.CIRCUIT_STATE
        meter.create_observable_gauge(state.name, [self._observe], state.unit, state.description)

    def _add(self, metric: names.Metric, values: Values, amount: float) -> None:
        known = self._labels[metric]
        labels = known.get(values)
        if labels is None:
            labels = self._bounded.labels(metric, values)
            if len(known) < _KEPT:
                known[values] = labels
        self._instruments[metric](amount, labels)

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:
        if self.stopped:
            return ()
        return [self._observation(count, labels) for labels, count in circuits(self._bounded)]


def _restore(token: Token[Any]) -> None:
    try:
        token.var.reset(token)
    except ValueError:
        pass  # an abandoned coroutine is being closed in another context: that one is as it was
