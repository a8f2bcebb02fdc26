"""Spans and metrics by OpenTelemetry: the real SDK, which keeps them in memory."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest
import trio
from opentelemetry import context, trace
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracerProvider,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
)

from conftest import World, async_worlds
from resilience import (
    BadResult,
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    current_attempt,
    resilient,
)
from resilience.failures import Advice, Failure, Kind
from resilience.integrations import opentelemetry
from resilience.testing import virtual_time
from resilience.testing.gateway import CutStream, Error, Gateway, Ok
from support.calling import error_of
from support.telemetry import Telemetry, telemetry
from support.twice import Twice


@pytest.fixture
def told() -> Iterator[Telemetry]:
    """What is reported while the test runs."""
    with telemetry() as kept:
        yield kept


def current() -> Any:
    """The current span, as it is reported once it has ended."""
    return trace.get_current_span()


def facts(span: Any) -> dict[str, Any]:
    """The attributes of a span."""
    return dict(span.attributes or {})


class StatusError(Exception):
    """An error of a server, with its status."""

    def __init__(self, status_code: int) -> None:
        super().__init__("a secret in a text")
        self.status_code = status_code


# Spans


def test_a_call_is_one_span_and_each_attempt_a_child(world: World, told: Telemetry) -> None:
    """With what is known of each; a failed attempt that is retried does not fail the call."""
    pipeline = Pipeline(
        ModelFallback("a", "b"), Retry(attempts=2, wait=2, on=StatusError), name="chat"
    )
    steps = StatusError(502), StatusError(500), "ok"
    world.run(pipeline.wrap(world.function(*steps)))

    call, *attempts = told.spans
    assert [span.kind for span in told.spans] == [SpanKind.INTERNAL] * 4
    assert [span.parent.span_id for span in attempts if span.parent] == [call.context.span_id] * 3
    assert call.attributes is not None
    function = call.attributes["resilience.function"]
    assert call.name == f"call {function}"
    assert {span.name for span in attempts} == {f"attempt {function}"}
    assert dict(call.attributes) == {
        "resilience.pipeline": "chat",
        "resilience.function": function,
        "resilience.outcome": "degraded",
        "resilience.attempts": 3,
        "resilience.served_by": "b",
    }
    assert call.status.status_code is StatusCode.UNSET
    failed = {"error.type": "StatusError"}
    assert [dict(span.attributes or {}) for span in attempts] == [
        {
            "resilience.attempt": 1,
            "resilience.model": "a",
            "resilience.wait": 0.0,
            "http.response.status_code": 502,
            "resilience.failure": "server",
            **failed,
        },
        {
            "resilience.attempt": 2,
            "resilience.model": "a",
            "resilience.wait": 2.0,
            "http.response.status_code": 500,
            "resilience.failure": "server",
            **failed,
        },
        {"resilience.attempt": 3, "resilience.model": "b", "resilience.wait": 0.0},
    ]
    assert [span.status.status_code for span in attempts] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]


def test_a_call_that_fails_is_an_error(world: World, told: Telemetry) -> None:
    """By its class and its status; no text."""
    error_of(world, Pipeline(Retry(attempts=2, wait=1)).wrap(world.function(StatusError(503))))

    call = told.spans[0]
    assert call.attributes is not None
    assert call.attributes["resilience.outcome"] == "failed"
    assert call.attributes["error.type"] == "StatusError"
    assert call.attributes["http.response.status_code"] == 503
    assert call.status.status_code is StatusCode.ERROR
    assert {span.status.description for span in told.spans} == {None}
    assert [span.events for span in told.spans] == [()] * 3


def test_a_rejected_call_has_no_attempts(world: World, told: Telemetry) -> None:
    """Its span says by what; a model that is skipped for it is an event of the span."""
    fn = world.function(ConnectionError(), "ok")
    breaker = CircuitBreaker(failures=1, key="model")
    pipeline = Pipeline(ModelFallback("a", "b"), breaker)
    world.run(pipeline.call, fn)
    told.exporter.clear()
    error_of(world, Pipeline(breaker).wrap(world.function("ok")), model="a")
    world.run(pipeline.call, fn)

    rejected, skipped, attempt = told.spans
    assert dict(rejected.attributes or {}) | {"resilience.function": ""} == {
        "resilience.function": "",
        "resilience.outcome": "rejected",
        "resilience.attempts": 0,
        "error.type": "CircuitOpenError",
    }
    assert rejected.status.status_code is StatusCode.ERROR
    assert [(event.name, dict(event.attributes or {})) for event in skipped.events] == [
        (
            "resilience.model.skipped",
            {"resilience.model": "a", "resilience.to": "b", "error.type": "CircuitOpenError"},
        )
    ]
    assert (attempt.attributes or {})["resilience.model"] == "b"


def test_a_bad_result_has_the_kind_of_its_failure(world: World, told: Telemetry) -> None:
    """It has no exception of the user's."""
    limited = Failure(Kind.RATE_LIMIT, Advice.STOP, status=429)
    pipeline = Pipeline(BadResult(lambda result: limited, finally_="raise"))
    error_of(world, pipeline.wrap(world.function("bad")))
    attempt = told.spans[1]
    assert (attempt.attributes or {})["resilience.failure"] == "rate_limit"
    assert (attempt.attributes or {})["http.response.status_code"] == 429


def test_a_model_that_only_the_arguments_name_is_known(world: World, told: Telemetry) -> None:
    """At the end of the attempt, if not at its beginning."""
    world.run(Pipeline(Retry()).call, world.function("ok"), model="a")
    assert (told.spans[1].attributes or {})["resilience.model"] == "a"


@pytest.mark.fault(352)
@pytest.mark.parametrize("name", ["\ud800", "m" * 1_000_000], ids=["surrogate", "long"])
def test_any_name_can_be_exported(world: World, told: Telemetry, name: str) -> None:
    """Cut and escaped: one span does not cost its batch."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit(name).open()
    pipeline = Pipeline(ModelFallback(name, f"b{name}"), breaker, name=name)
    world.run(pipeline.wrap(world.function("ok")))
    metrics = "call.duration", "attempt.duration", "fallbacks", "circuit.state"
    points = [point for each in metrics for point in told.points(f"resilience.{each}")]
    found = [value for span in told.spans for value in facts(span).values()]
    found += [value for point in points for _, value in point]
    assert len(points) > 4
    for value in found:
        assert len(str(value).encode()) <= 200


# The current span


def asked(world: World, told: Telemetry, fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a span of the program's own, which is the current one again afterwards."""

    def request() -> Any:
        with told.tracer.start_as_current_span("request") as span:
            try:
                return fn(*args)
            finally:
                assert current() is span

    async def arequest() -> Any:
        with told.tracer.start_as_current_span("request") as span:
            try:
                return await fn(*args)
            finally:
                assert current() is span

    return world.run(arequest if world.asynchronous else request)


@pytest.mark.fault(350)
def test_an_attempts_span_is_current_while_the_function_runs(world: World, told: Telemetry) -> None:
    """What the function reports is part of its attempt."""

    def fails() -> None:
        with told.tracer.start_as_current_span("POST"):
            raise ConnectionError

    def answers() -> str:
        with told.tracer.start_as_current_span("POST"):
            return "ok"

    asked(world, told, Pipeline(Retry(wait=1)).wrap(world.function(fails, answers)))
    _, call, first, *_ = (span.name for span in told.spans)
    assert told.tree() == ["request", [call, [first, ["POST"], first, ["POST"]]]]


def test_what_a_function_leaves_current_is_so_no_longer(world: World, told: Telemetry) -> None:
    """The context is as it was, after an error too."""

    def leaks() -> None:
        context.attach(trace.set_span_in_context(told.tracer.start_span("its own")))
        raise KeyError

    with pytest.raises(KeyError):
        asked(world, told, Pipeline(Retry()).wrap(world.function(leaks)))


@pytest.mark.real
@pytest.mark.fault(350)
def test_a_worker_threads_function_is_in_its_attempt(told: Telemetry) -> None:
    """A sync call with a time limit runs the function in another thread."""

    def ask() -> int:
        with told.tracer.start_as_current_span("POST"):
            return threading.get_ident()

    assert Pipeline(Timeout(5)).call(ask) != threading.get_ident()
    assert told.tree() == [told.spans[0].name, [told.spans[1].name, ["POST"]]]


@pytest.mark.real
def test_a_function_that_is_left_behind_does_not_hold_up_its_span(told: Telemetry) -> None:
    """The attempt has ended with its time; what goes on is still part of it."""
    go, done = threading.Event(), threading.Event()

    def hangs() -> None:
        go.wait(10)
        with told.tracer.start_as_current_span("late"):
            pass
        done.set()

    with pytest.raises(TimeoutError):
        Pipeline(Timeout(0.05)).call(hangs)
    assert [facts(span)["error.type"] for span in told.spans] == ["DeadlineExceededError"] * 2
    go.set()
    assert done.wait(10)
    assert told.tree() == [told.spans[0].name, [told.spans[1].name, ["late"]]]


@pytest.mark.real
@pytest.mark.fault(350)
def test_attempts_at_the_same_time_have_a_span_each(real_world: World, told: Telemetry) -> None:
    """Though both are under way at once."""
    both = threading.Barrier(2)

    def ask() -> None:
        both.wait(10)
        with told.tracer.start_as_current_span(model_here()):
            both.wait(10)

    async def aask() -> None:
        with told.tracer.start_as_current_span(model_here()):
            for _ in range(3):
                await (asyncio.sleep(0) if real_world.name == "asyncio" else trio.sleep(0))

    def model_here() -> str:
        attempt = current_attempt()
        assert attempt is not None
        return f"POST {attempt.model}"

    asked(real_world, told, Pipeline(Twice()).wrap(aask if real_world.asynchronous else ask))
    models = {span.context.span_id: facts(span)["resilience.model"] for span in told.named("att")}
    posts = told.named("POST")
    assert sorted(models.values()) == ["one", "two"]
    assert sorted(span.name for span in posts) == ["POST one", "POST two"]
    for span in posts:
        assert span.parent is not None
        assert span.name == f"POST {models[span.parent.span_id]}"


def test_nested_calls_are_in_the_attempt_that_makes_them(world: World, told: Telemetry) -> None:
    """Each guarded call has a span of its own."""
    inner = resilient(Retry())(world.function("ok"))

    def outer() -> Any:
        return inner()

    async def aouter() -> Any:
        return await inner()

    world.run(Pipeline(Retry()).wrap(aouter if world.asynchronous else outer))
    first, second = (told.spans[at].name.partition(" ")[2] for at in (0, 2))
    assert told.tree() == [
        f"call {first}",
        [f"attempt {first}", [f"call {second}", [f"attempt {second}"]]],
    ]


@async_worlds
@pytest.mark.fault(350)
def test_a_cancelled_call_ends_its_spans_and_restores_the_current_one(
    world: World, told: Telemetry
) -> None:
    """It is no error; the attempt was interrupted."""
    after: list[Any] = []

    async def hangs() -> None:
        await (asyncio.Event().wait() if world.name == "asyncio" else trio.sleep_forever())

    async def main() -> None:
        with told.tracer.start_as_current_span("request") as span:
            with trio.CancelScope() as scope:
                scope.cancel()
                await Pipeline(Retry()).call(hangs)
            after.append(current() is span)

    async def amain() -> None:
        async def request() -> None:
            with told.tracer.start_as_current_span("request") as span:
                try:
                    await Pipeline(Retry()).call(hangs)
                finally:
                    after.append(current() is span)

        task = asyncio.ensure_future(request())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    world.run(amain if world.name == "asyncio" else main)
    assert after == [True]
    call, attempt = told.named("call")[0], told.named("attempt")[0]
    assert facts(call)["resilience.outcome"] == "cancelled"
    assert facts(attempt)["resilience.outcome"] == "interrupted"
    assert {call.status.status_code, attempt.status.status_code} == {StatusCode.UNSET}


@pytest.mark.fault(350)
def test_a_coroutine_closed_elsewhere_leaves_the_current_span_there(
    told: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A garbage collector may close it anywhere. Nothing is logged of it."""

    class Trap:
        def __await__(self) -> Any:
            yield

    async def waits() -> None:
        await Trap()

    begun = Pipeline(Retry()).wrap(waits)()
    contextvars.copy_context().run(begun.send, None)
    with told.tracer.start_as_current_span("elsewhere") as span:
        begun.close()
        assert current() is span
    assert caplog.records == []
    assert [s.name.partition(" ")[0] for s in told.spans] == ["call", "attempt", "elsewhere"]


def test_a_block_of_code_is_in_its_attempt(told: Telemetry) -> None:
    """And the rest of the loop is not."""
    with virtual_time(), told.tracer.start_as_current_span("request") as request:
        for attempt in Pipeline(Retry(wait=1)).attempts():
            assert current() is request
            with attempt, told.tracer.start_as_current_span("POST"):
                if attempt.number == 1:
                    raise ConnectionError
            assert current() is request
    _, call, first, *_ = (span.name for span in told.spans)
    assert told.tree() == ["request", [call, [first, ["POST"], first, ["POST"]]]]


@async_worlds
def test_a_call_that_turns_out_to_be_async_is_one_call(world: World, told: Telemetry) -> None:
    """What is awaited is in its attempt, like what was called."""

    async def answer() -> None:
        with told.tracer.start_as_current_span("POST"):
            pass

    asked(world, told, Pipeline(Retry(), Timeout(5)).wrap(lambda: answer()))
    _, call, attempt, _ = (span.name for span in told.spans)
    assert told.tree() == ["request", [call, [attempt, ["POST"]]]]


# Streams


@pytest.mark.fault(350)
def test_a_generator_runs_in_its_attempt_to_the_end(world: World, told: Telemetry) -> None:
    """The span of a stream ends with it; its consumer is never in it."""

    def count() -> Iterator[int]:
        for number in range(3):
            with told.tracer.start_as_current_span(f"step {number}"):
                pass
            yield number

    async def acount() -> AsyncIterator[int]:
        for number in count():
            yield number

    def consume() -> None:
        here = current()
        for number in Pipeline(Retry()).wrap(count)():
            assert current() is here
            assert (number, told.named("attempt")) == (number, [])

    async def aconsume() -> None:
        here = current()
        async for number in Pipeline(Retry()).wrap(acount)():
            assert current() is here
            assert (number, told.named("attempt")) == (number, [])

    asked(world, told, aconsume if world.asynchronous else consume)
    _, call, attempt, *_ = (span.name for span in told.spans)
    assert told.tree() == ["request", [call, [attempt, ["step 0", "step 1", "step 2"]]]]


def test_a_stream_that_is_left_early_was_interrupted(told: Telemetry) -> None:
    """That is no error, neither of the attempt nor of the call."""

    def count() -> Iterator[int]:
        yield from range(3)

    for _ in Pipeline(Retry()).wrap(count)():
        break
    gc.collect()
    call, attempt = told.spans
    assert facts(call)["resilience.outcome"] == "ok"
    assert facts(attempt)["resilience.outcome"] == "interrupted"
    assert {call.status.status_code, attempt.status.status_code} == {StatusCode.UNSET}


# Where a call is in a trace, and whether it is reported


def test_a_parent_elsewhere_is_the_calls_parent(told: Telemetry) -> None:
    """A trace goes on that began in another process."""
    remote = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
    try:
        Pipeline(Retry()).call(lambda: "ok")
    finally:
        context.detach(token)
    assert told.spans[0].parent == remote
    assert {span.context.trace_id for span in told.spans} == {1}


def test_a_trace_that_is_not_sampled_stays_so() -> None:
    """What is inside the call knows it as well."""
    kept = Telemetry(sampler=ParentBased(ALWAYS_OFF))
    stop = kept.install()
    try:
        with kept.tracer.start_as_current_span("request") as request:
            inside = Pipeline(Retry()).call(current)
    finally:
        stop()
    assert kept.spans == []
    assert inside.get_span_context().trace_id == request.get_span_context().trace_id
    assert not inside.get_span_context().trace_flags.sampled


def test_without_an_sdk_nothing_comes_of_it(world: World) -> None:
    """The API alone makes no spans."""
    stop = opentelemetry.install(
        tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider()
    )
    try:
        found = world.run(Pipeline(Retry(wait=1)).wrap(world.function(ConnectionError, current)))
    finally:
        stop()
    assert not found.get_span_context().is_valid


# What cannot disturb a call


class Hook(SpanProcessor):
    """Calls a function whenever a span begins, or ends: "start call", "end attempt" and so on."""

    def __init__(self, call: Callable[[str], object]) -> None:
        self.call = call

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.call(f"start {span.name.partition(' ')[0]}")

    def on_end(self, span: Any) -> None:
        self.call(f"end {span.name.partition(' ')[0]}")


@pytest.mark.fault(353)
@pytest.mark.parametrize(
    ("at", "event"),
    [
        ("start call", "CallStarted"),
        ("start attempt", "AttemptStarted"),
        ("end attempt", "AttemptEnded"),
        ("end call", "CallEnded"),
    ],
)
def test_a_processor_that_raises_does_not_touch_the_call(
    world: World, told: Telemetry, at: str, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in one warning, by its class."""

    def raises(now: str) -> None:
        if now == at:
            raise KeyError("a secret in a text")

    told.tracing.add_span_processor(Hook(raises))
    result = {"usage": {"prompt_tokens": 3}}
    fn = Pipeline(Retry(wait=1)).wrap(world.function(ConnectionError, result))
    assert world.run(fn) == result
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"OpenTelemetry raised KeyError at {event}"
    ]


@pytest.mark.fault(353)
@pytest.mark.parametrize("suppressed", [True, False], ids=["exporter", "processor"])
def test_calls_that_an_exporter_makes_are_not_reported(told: Telemetry, suppressed: bool) -> None:
    """They would make spans to export, which would make calls, and so on."""
    send = Pipeline(Retry(), name="sending").wrap(lambda: "sent")
    sent: list[str] = []

    class Exporter(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            sent.append(send())
            return SpanExportResult.SUCCESS

    def calls(at: str) -> None:
        sent.append(send())

    told.tracing.add_span_processor(SimpleSpanProcessor(Exporter()) if suppressed else Hook(calls))
    Pipeline(Retry()).call(lambda: "ok")
    assert len(told.spans) == 2
    assert len(sent) == (2 if suppressed else 4)


@pytest.mark.real
@pytest.mark.fault(353)
def test_calls_that_an_exporter_makes_in_its_own_thread_are_not_reported() -> None:
    """OpenTelemetry says of them that they are not to be."""
    kept = Telemetry()
    send = Pipeline(Retry(), name="sending").wrap(lambda: "sent")

    class Exporter(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            assert send() == "sent"
            return SpanExportResult.SUCCESS

    kept.tracing.add_span_processor(BatchSpanProcessor(Exporter()))
    stop = kept.install()
    try:
        Pipeline(Retry()).call(lambda: "ok")
        assert kept.tracing.force_flush()
    finally:
        stop()
        kept.tracing.shutdown()
    assert len(kept.spans) == 2


@pytest.mark.fault(353)
def test_a_stream_that_is_collected_while_a_span_is_reported_ends(told: Telemetry) -> None:
    """A finalizer publishes its end in the midst of another's: that waits, and is not lost."""

    def count() -> Iterator[int]:
        yield from range(3)

    streams = [Pipeline(Retry(), name="stream").wrap(count)()]
    assert next(streams[0]) == 0
    told.tracing.add_span_processor(Hook(lambda at: streams.clear()))
    Pipeline(Retry(), name="plain").call(lambda: "ok")
    assert [facts(s).get("resilience.pipeline") for s in told.named("call")] == ["stream", "plain"]
    assert len(told.named("attempt")) == 2


@pytest.mark.real
@pytest.mark.fault(353)
def test_sixteen_threads_lose_no_span(told: Telemetry) -> None:
    """Each attempt is a child of its own call."""

    def run(_: int) -> None:
        answers = iter([ConnectionError(), "ok"])

        def ask() -> Any:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        assert Pipeline(Retry(wait=0)).call(ask) == "ok"

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(400)))
    calls = {span.context.span_id for span in told.named("call")}
    parents = [span.parent.span_id for span in told.named("attempt") if span.parent is not None]
    assert len(calls) == 400
    assert sorted(parents) == sorted([*calls, *calls])
    assert sum(told.points("resilience.retries").values()) == 400


# Metrics


def labels(**given: Any) -> tuple[tuple[str, Any], ...]:
    """As `Telemetry.points` has them."""
    conventions = {"error_type": "error.type", "status": "http.response.status_code"}
    found = {conventions.get(name, f"resilience.{name}"): given[name] for name in given}
    return tuple(sorted(found.items()))


def test_calls_and_attempts_are_measured(world: World, told: Telemetry) -> None:
    """By outcome, error and status; retries, moves to another model and rejections are counted."""
    breaker = CircuitBreaker(name="llm", failures=2, key="model")
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=1), breaker, name="chat")
    fn = pipeline.wrap(world.function(StatusError(502), StatusError(500), "ok"))
    world.run(fn)
    function = facts(told.spans[0])["resilience.function"]
    here = {"pipeline": "chat", "function": function}
    failed = {**here, "model": "a", "error_type": "StatusError"}

    assert told.points("resilience.call.duration") == {labels(**here, outcome="degraded"): 1}
    assert told.points("resilience.attempt.duration") == {
        labels(**failed, outcome="failed", status=502): 1,
        labels(**failed, outcome="failed", status=500): 1,
        labels(**here, model="b", outcome="ok"): 1,
    }
    assert told.points("resilience.retries") == {labels(**failed): 1}
    assert told.points("resilience.fallbacks") == {labels(**here, model="a", to="b"): 1}

    world.run(fn)  # whose first model's circuit is open
    assert told.points("resilience.rejections") == {labels(**here, reason="circuit_open"): 1}
    assert told.points("resilience.fallbacks") == {labels(**here, model="a", to="b"): 2}


def test_how_calls_end(world: World, told: Telemetry) -> None:
    """Well, with a fallback's value, with an error, rejected."""
    breaker = CircuitBreaker(failures=1)
    world.run(Pipeline(name="well").call, world.function("ok"))
    world.run(Pipeline(Fallback("else"), name="else").call, world.function(KeyError))
    error_of(world, Pipeline(breaker, name="ill").wrap(world.function(ConnectionError)))
    error_of(world, Pipeline(breaker, name="rejected").wrap(world.function("ok")))

    found = {
        dict(point)["resilience.pipeline"]: (
            dict(point)["resilience.outcome"],
            dict(point).get("error.type"),
        )
        for point in told.points("resilience.call.duration")
    }
    assert found == {
        "well": ("ok", None),
        "else": ("degraded", None),
        "ill": ("failed", "ConnectionError"),
        "rejected": ("rejected", "CircuitOpenError"),
    }
    (fallback,) = told.points("resilience.fallbacks")
    assert dict(fallback)["resilience.pipeline"] == "else"


def test_the_state_of_circuits_is_observed(told: Telemetry) -> None:
    """How many of a name and a model are in each state; asked when the figures are read."""
    llm = CircuitBreaker(name="of this test", key="model")
    llm.circuit("a").open()
    llm.circuit("b")
    users = CircuitBreaker(name="users of this test", key="user")
    for user in ("canary-1", "canary-2", "canary-3"):
        users.circuit(user).open()
    shadow = CircuitBreaker(name="shadow of this test")
    shadow.shadow()
    assert shadow.state == "closed"

    def states(circuit: str, model: str | None) -> dict[str, int]:
        return {
            point["resilience.state"]: number
            for point, number in (
                (dict(point), n) for point, n in told.points("resilience.circuit.state").items()
            )
            if point.get("resilience.circuit") == circuit and point.get("resilience.model") == model
        }

    assert states("of this test", "a") == {"closed": 0, "half-open": 0, "open": 1}
    assert states("of this test", "b") == {"closed": 1, "half-open": 0, "open": 0}
    assert states("users of this test", None) == {"closed": 0, "half-open": 0, "open": 3}
    assert states("shadow of this test", None) == {}
    llm.circuit("a").isolate()
    assert states("of this test", "a") == {"closed": 0, "half-open": 0, "open": 0, "isolated": 1}
    assert "canary" not in told.everything()


@pytest.mark.fault(352)
def test_labels_have_a_bounded_number_of_values(world: World) -> None:
    """Models come from arguments, which may be anybody's."""

    def all_of(fn: Callable[..., Any], models: int) -> Any:
        for number in range(models):
            fn(model=f"model-{number}")

    async def aall_of(fn: Callable[..., Any], models: int) -> Any:
        for number in range(models):
            await fn(model=f"model-{number}")

    with telemetry(limit=3) as kept:
        fn = Pipeline(name="chat").wrap(world.function("ok"))
        world.run(aall_of if world.asynchronous else all_of, fn, 1100)
        models = [dict(p)["resilience.model"] for p in kept.points("resilience.attempt.duration")]
    assert sorted(models) == ["model-0", "model-1", "model-2", "other"]
    assert len({facts(span)["resilience.model"] for span in kept.named("attempt")}) == 1100


@pytest.mark.real
def test_a_call_whose_work_is_yet_to_begin_is_not_counted(told: Telemetry) -> None:
    """An SDK's context manager is a call of its own when it is entered."""
    with Gateway(Ok("Hello!")) as gateway, client_of(gateway) as client:
        stream = Pipeline(Retry(), name="chat").call(
            client.chat.completions.stream,
            model="a",
            messages=MESSAGES,
        )
        with stream as events:
            list(events)
    assert len(told.spans) == 2
    assert list(told.points("resilience.call.duration").values()) == [1]
    assert list(told.points("resilience.attempt.duration").values()) == [1]


# Beside other instrumentations, and real clients

MESSAGES: Any = [{"role": "user", "content": "canary-prompt"}]


def client_of(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.base_url, api_key="canary-key", max_retries=0)


@pytest.fixture
def instrumented(told: Telemetry) -> Iterator[Telemetry]:
    """With OpenTelemetry's own instrumentations of openai and httpx."""
    instrumentors = OpenAIInstrumentor(), HTTPX2ClientInstrumentor()
    for each in instrumentors:
        each.instrument(tracer_provider=told.tracing, meter_provider=told.metering)
    yield told
    for each in instrumentors:
        each.uninstrument()


@pytest.mark.real
@pytest.mark.fault(350)
@pytest.mark.parametrize("policies", [(), (Timeout(9),)], ids=["here", "in a worker thread"])
def test_clients_spans_are_children_of_the_attempts(
    instrumented: Telemetry, policies: tuple[Any, ...]
) -> None:
    """A `chat` span of the GenAI instrumentation's for each request; none is ours."""
    plan: Any = {"a": "internal_error", "b": Ok("Hello!")}
    with Gateway(plan) as gateway, client_of(gateway) as client:
        create = Pipeline(
            ModelFallback("a", "b"), Retry(attempts=2, wait=0), *policies, name="chat"
        ).wrap(client.chat.completions.create)
        create(model="a", messages=MESSAGES)

    def attempt(model: str) -> list[Any]:
        return ["attempt Completions.create", [f"chat {model}", ["POST"]]]

    assert instrumented.tree() == [
        "call Completions.create",
        [*attempt("a"), *attempt("a"), *attempt("b")],
    ]
    call, *_ = instrumented.spans
    assert call.status.status_code is StatusCode.UNSET


@pytest.mark.real
@pytest.mark.fault(350)
def test_the_same_in_an_event_loop_and_with_streams(instrumented: Telemetry) -> None:
    """Two calls at once, each stream's spans in its own attempt."""

    async def ask(client: openai.AsyncOpenAI, name: str) -> None:
        with instrumented.tracer.start_as_current_span(f"request {name}"):
            create = Pipeline(Retry(wait=0), name=name).wrap(client.chat.completions.create)
            stream = await create(model=name, messages=MESSAGES, stream=True)
            here = current()
            async for _ in stream:
                assert current() is here

    async def main() -> None:
        plan = {"*": ["service_unavailable", Ok("Hello!")]}
        with Gateway(plan) as gateway:
            async with openai.AsyncOpenAI(
                base_url=gateway.base_url, api_key="canary-key", max_retries=0
            ) as client:
                await asyncio.gather(ask(client, "a"), ask(client, "b"))

    asyncio.run(main())
    tree = instrumented.tree()
    for name in ("a", "b"):
        ((call, attempts),) = [
            tuple(tree[at + 1]) for at, each in enumerate(tree) if each == f"request {name}"
        ]
        assert call.startswith("call ")
        assert attempts[::2] == ["attempt AsyncCompletions.create"] * 2
        assert attempts[1::2] == [[f"chat {name}", ["POST"]]] * 2


@pytest.mark.real
def test_tokens_are_told_where_the_result_has_them(told: Telemetry) -> None:
    """On the attempt's span, and counted; of a stream, when it has ended."""
    with Gateway(Ok("Hello!")) as gateway, client_of(gateway) as client:
        host = gateway.base_url.removesuffix("/v1")
        other = anthropic.Anthropic(base_url=host, api_key="any", max_retries=0)
        pipeline = Pipeline(Retry(), name="chat")
        pipeline.call(client.chat.completions.create, model="a", messages=MESSAGES)
        list(
            pipeline.call(client.chat.completions.create, model="a", messages=MESSAGES, stream=True)
        )
        pipeline.call(other.messages.create, model="a", messages=MESSAGES, max_tokens=9)
        list(
            pipeline.call(
                other.messages.create, model="a", messages=MESSAGES, max_tokens=9, stream=True
            )
        )
        other.close()
    asked_and_said = [
        (facts(span)["resilience.tokens.input"], facts(span)["resilience.tokens.output"])
        for span in told.named("attempt")
    ]
    assert len(asked_and_said) == 4
    assert all(tokens > 0 for pair in asked_and_said for tokens in pair)
    counted = {dict(p)["resilience.token.type"]: 0 for p in told.points("resilience.tokens")}
    for point, number in told.points("resilience.tokens").items():
        counted[dict(point)["resilience.token.type"]] += number
    assert counted == {
        "input": sum(pair[0] for pair in asked_and_said),
        "output": sum(pair[1] for pair in asked_and_said),
    }


@pytest.mark.real
@pytest.mark.fault(351)
def test_no_secret_is_reported(told: Telemetry) -> None:
    """Prompts, keys, headers, answers, texts of exceptions, values of circuits' keys."""
    refusal = Error("canary-code", status=400, headers={"x-canary": "canary-header"})
    broken = ["service_unavailable", CutStream(text="canary answer in several pieces")]
    plan: Any = {"a": refusal, "b": broken, "c": Ok("canary-answer")}
    with Gateway(plan) as gateway, client_of(gateway) as client:
        pipeline = Pipeline(
            Fallback("canary-fallback"), Retry(wait=0), CircuitBreaker(failures=1, key="user")
        )
        options: Any = {"messages": MESSAGES, "extra_headers": {"x-canary": "canary-header"}}
        for model in ("a", "b", "c"):
            for stream in (False, True):
                found = pipeline.call(
                    client.chat.completions.create,
                    model=model,
                    user="canary-user",
                    stream=stream,
                    **options,
                )
                with contextlib.suppress(Exception):
                    list(found)

        def raises() -> None:
            raise KeyError("canary-text")

        with contextlib.suppress(KeyError):
            Pipeline(Retry()).call(raises)
    assert len(told.spans) > 10
    assert "canary" not in told.everything()


# Installing it


def test_a_second_time_changes_nothing(told: Telemetry) -> None:
    """For the same providers: a call is one call. Whoever ends it, it has ended."""
    stop = told.install()
    assert told.install() is stop
    Pipeline(Retry()).call(lambda: "ok")
    assert len(told.spans) == 2
    stop()
    stop()
    Pipeline(Retry()).call(lambda: "ok")
    assert len(told.spans) == 2
    told.install()
    Pipeline(Retry()).call(lambda: "ok")
    assert len(told.spans) == 4
    told.install()()


def test_two_providers_get_the_same(told: Telemetry) -> None:
    """Each has spans of its own; the current one is that of the one installed last."""
    with telemetry() as other:
        inside = Pipeline(Retry()).call(current)
    assert current() is trace.INVALID_SPAN
    assert [span.name for span in told.spans] == [span.name for span in other.spans]
    assert inside.context == other.named("attempt")[0].context


def test_stopping_leaves_the_pipelines_at_rest(told: Telemetry) -> None:
    """And the figures of circuits are asked for no longer."""
    fn: Any = Pipeline(Retry()).wrap(lambda: "ok")
    assert fn.__resilience__.idle.period is None
    breaker = CircuitBreaker(name="mine")
    breaker.open()
    assert told.points("resilience.circuit.state")
    told.install()()
    assert fn.__resilience__.idle.period is not None
    assert not told.points("resilience.circuit.state")


def test_a_call_under_way_when_it_begins_is_left_out() -> None:
    """Its attempts belong to nothing."""
    kept = Telemetry()

    def fails_first() -> str:
        if not stops:
            stops.append(kept.install())
            raise ConnectionError
        return "ok"

    stops: list[Callable[[], None]] = []
    with virtual_time():
        Pipeline(Retry(wait=1)).call(fails_first)
    stops[0]()
    assert kept.spans == []


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"limit": 0}, ValueError, "limit"),
        ({"limit": "many"}, TypeError, "limit"),
        ({"tracer_provider": "mine"}, TypeError, "tracer_provider"),
        ({"meter_provider": 3}, TypeError, "meter_provider"),
        ({"tracer_providr": None}, TypeError, "tracer_provider"),
    ],
)
def test_a_wrong_option_is_refused(options: Any, error: type[Exception], word: str) -> None:
    """By name."""
    with pytest.raises(error, match=word):
        opentelemetry.install(**options)


@pytest.mark.fault(354)
def test_another_limit_for_the_same_providers_is_refused(told: Telemetry) -> None:
    """It would be an option that does nothing."""
    with pytest.raises(ValueError, match="limit must be 100"):
        told.install(limit=5)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module itself can be imported."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"resilience-policies\[opentelemetry\]"):
        opentelemetry.install()


@pytest.mark.real
def test_importing_them_imports_no_package() -> None:
    """They are imported by `install()`."""
    code = """
import sys
from resilience.integrations import opentelemetry, prometheus
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {each.split(".")[0] for each in done.stdout.split()}
    assert not imported & {"opentelemetry", "prometheus_client"}


def test_the_global_providers_are_used_by_default() -> None:
    """Which may be configured later; without that nothing comes of it."""
    stop = opentelemetry.install()
    try:
        assert opentelemetry.install() is stop
        assert Pipeline(Retry()).call(lambda: "ok") == "ok"
    finally:
        stop()
