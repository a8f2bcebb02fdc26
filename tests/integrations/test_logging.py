"""What the `resilience` logger says by itself, and how that is configured."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import auriko
import openai
import pytest
from starlette.exceptions import HTTPException

from conftest import Takes, World
from resilience import (
    Attempt,
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Streaming,
    StreamInterruptedError,
    Timeout,
    resilient,
)
from resilience._core import logs
from resilience._core.logs import FACTS, Line, Log
from resilience._core.wording import seconds_text
from resilience.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitExceededError,
    RejectedError,
    SpendLimitExceededError,
    WorkersBusyError,
)
from resilience.events import (
    CallDelayed,
    CallFailed,
    CallRecovered,
    CallRejected,
    CircuitChanged,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    FellBack,
    GaveUp,
    HoldBegan,
    ModelLeft,
    ModelSkipped,
    StreamInterrupted,
    StreamRestarted,
    WaitBegan,
    WorkerAbandoned,
    recording,
)
from resilience.failures import Advice, Failure, Kind
from resilience.integrations.logging import configure
from resilience.testing import script, virtual_time
from resilience.testing.gateway import Error, Gateway
from support.calling import error_of
from support.streams import Source

DEBUG, INFO, WARNING = logging.DEBUG, logging.INFO, logging.WARNING


class Busy(RejectedError):
    """A policy's own rejection."""


class ServiceError(Exception):
    """As an SDK's, with a status."""

    def __init__(self, status_code: int) -> None:
        super().__init__("a secret")
        self.status_code = status_code


@pytest.fixture(autouse=True)
def _anew(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Everything is said, as by default, whatever the test before has had said."""
    logs.log._recent.clear()
    with caplog.at_level(DEBUG, "resilience"):
        yield
    configure()


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text of each line."""
    return [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "resilience"]


def has(lines: list[tuple[int, str]], *wanted: tuple[int, str]) -> None:
    """The lines are these, each with a word of its own."""
    assert [level for level, _ in lines] == [level for level, _ in wanted]
    for (_, text), (_, word) in zip(lines, wanted, strict=True):
        assert word in text


# What is said, and how loudly


def test_a_retry_and_a_recovery_are_information(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A line for each retry, of one call, too; one for the recovery."""
    fn = world.function(ConnectionError, ServiceError(503), "ok")
    assert world.run(Pipeline(Retry(wait=0.3), name="chat").wrap(fn)) == "ok"
    has(said(caplog), (INFO, "attempt 1"), (INFO, "attempt 2"), (INFO, "recovered at attempt 3"))
    first, second, last = caplog.records
    assert all(text.startswith("chat: ") for _, text in said(caplog))
    assert (first.attempt, first.wait, first.error_type) == (1, 0.3, "ConnectionError")  # type: ignore[attr-defined]
    assert (second.attempt, second.status_code) == (2, 503)  # type: ignore[attr-defined]
    assert (last.attempt, last.error_type, last.pipeline) == (3, None, "chat")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "policies", "word"),
    [
        (lambda: ServiceError(503), lambda: [Retry(attempts=2, wait=1)], "2 attempts"),
        (lambda: ServiceError(400), lambda: [Retry()], "not retried"),
        (lambda: ServiceError(400), lambda: [Retry(), CircuitBreaker()], "400"),
        (lambda: ServiceError(503), lambda: [Timeout(9), Retry(wait=20)], "would not have fitted"),
        (
            lambda: ServiceError(503),
            lambda: [Retry(), CircuitBreaker(failures=1, name="x")],
            "circuit is open",
        ),
        (lambda: ServiceError(503), lambda: [Retry(idempotent=False)], "may have been executed"),
        (lambda: KeyError("own"), lambda: [CircuitBreaker()], "KeyError"),
        (lambda: Takes(9), lambda: [Timeout(2)], "timeout after 2 s"),
        (
            lambda: ServiceError(503),
            lambda: [ModelFallback("a", "b"), Retry(attempts=1)],
            "b failed with 503",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
def test_a_call_that_is_given_up_is_one_warning(
    world: World, error: Any, policies: Any, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the failure, and with the reason why there was no other attempt."""
    error_of(world, Pipeline(*policies()).wrap(world.function(error())))
    lines = [text for level, text in said(caplog) if level == WARNING and "gave up" in text]
    assert len(lines) == 1
    assert word in lines[0]


@pytest.mark.fault(347)
def test_control_flow_is_no_failure(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A web framework's answer that is raised is not what somebody on call wants to know."""
    with recording(CallFailed) as events:
        error_of(world, resilient(Retry())(world.function(HTTPException(404))))
    assert said(caplog) == events == []


def test_a_circuits_life(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Opened: a warning; half open and closed: information; rejected calls: for debugging."""
    breaker = CircuitBreaker(failures=1, reset_after=5, name="api", key="model")
    fn = Pipeline(breaker, name="chat").wrap(world.function(ServiceError(503), "ok"))
    for _ in range(2):
        error_of(world, fn, model="gpt-4o")
    world.clock.advance(5)
    world.run(fn, model="gpt-4o")
    lines = said(caplog)
    has(
        lines,
        (WARNING, "opened for 5 s after 503"),
        (WARNING, "gave up"),
        (DEBUG, "rejected"),
        (INFO, "half open"),
        (INFO, "closed; it rejected 1 call"),
    )
    opened, _, rejected, half, closed = caplog.records
    assert {r.circuit for r in (opened, rejected, half, closed)} == {"api"}  # type: ignore[attr-defined]
    assert {r.model for r in (opened, half, closed)} == {"gpt-4o"}  # type: ignore[attr-defined]
    assert (opened.wait, opened.status_code) == (5, 503)  # type: ignore[attr-defined]
    assert (rejected.error_type, rejected.wait) == ("CircuitOpenError", 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["logging", "configure"])
def test_rejections_may_be_wanted_later(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Pipelines are often made before logging is set up: nobody listens to rejections then, which
    are to cost next to nothing."""
    with caplog.at_level(INFO, "resilience"):
        fn = Pipeline(CircuitBreaker(failures=1), name="chat").wrap(script(ConnectionError))
        if how == "configure":
            configure(levels={CallRejected: WARNING})
        else:
            caplog.set_level(DEBUG, "resilience")
        with virtual_time() as clock:
            for _ in range(2):
                with pytest.raises(Exception):  # noqa: B017, PT011
                    fn()
                clock.advance(2)
    has(said(caplog)[2:], (DEBUG if how == "logging" else WARNING, "rejected: circuit is open"))


def test_manual_commands(caplog: pytest.LogCaptureFixture) -> None:
    """What they do to calls; of one in shadow, that it does nothing."""
    breaker = CircuitBreaker(failures=1, name="api")
    fn = Pipeline(breaker).wrap(script(ConnectionError))
    breaker.isolate().release()
    breaker.disable()
    breaker.shadow()
    with pytest.raises(ConnectionError):
        fn()
    has(
        said(caplog),
        (WARNING, "isolated"),
        (INFO, "closed"),
        (INFO, "disabled"),
        (WARNING, "in shadow"),
        (WARNING, "gave up"),
    )


def test_a_circuit_without_a_name_has_its_functions(caplog: pytest.LogCaptureFixture) -> None:
    """Where it serves one only: `@resilient` alone is to say what has gone down."""

    def unnamed() -> None: ...

    one, two = CircuitBreaker(), CircuitBreaker()
    serving = Pipeline(one).wrap(unnamed)
    pipeline = Pipeline(two)
    pipeline.wrap(unnamed)
    pipeline.wrap(print)
    one.open()
    two.open()
    assert [r.function for r in caplog.records] == [unnamed.__qualname__, None]  # type: ignore[attr-defined]
    assert f"{serving.__qualname__}: circuit opened" in said(caplog)[0][1]
    assert said(caplog)[1][1].startswith("circuit opened")


def test_a_change_of_model_is_information(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Which one was left or skipped, for which other one, and why."""
    pipeline = Pipeline(
        ModelFallback("a", "b"), CircuitBreaker(failures=1, key="model"), name="chat"
    )
    fn = pipeline.wrap(world.function(ServiceError(503), "ok"))
    world.run(fn)
    world.run(fn)
    lines = [line for line in said(caplog) if "; trying b" in line[1]]
    has(lines, (INFO, "a failed with 503"), (INFO, "skipped a: circuit is open"))
    assert [r.model for r in caplog.records if "; trying b" in r.getMessage()] == ["a", "a"]  # type: ignore[attr-defined]


def test_a_fallback_is_a_warning_but_in_place_of_a_rejection(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure comes out nowhere else; of rejections, an outage has thousands."""
    pipeline = Pipeline(Fallback("else"), CircuitBreaker(failures=1))
    fn = pipeline.wrap(world.function(ServiceError(503)))
    world.run(fn)
    world.run(fn)
    has(
        [line for line in said(caplog) if "fallback" in line[1]],
        (WARNING, "503"),
        (DEBUG, "circuit is open"),
    )


def test_a_cut_stream_is_one_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The call's failure is the same fact; that it goes on is information."""
    source = Source(world, ["a", ConnectionError()], ["b"])
    got = world.run(consume(world), Pipeline(Streaming(on_interrupted="restart")), source)
    assert len(got) == 3
    has(said(caplog), (WARNING, "cut after 1 item: connection error"), (INFO, "restarting"))
    caplog.clear()
    source = Source(world, ["a", "b", ConnectionError()])
    world.clock.advance(1)
    with recording(CallFailed) as events, pytest.raises(StreamInterruptedError) as caught:
        world.run(consume(world), Pipeline(Streaming(), name="chat"), source)
    assert [event.failure.error for event in events] == [caught.value]  # what comes out
    has(said(caplog), (WARNING, "chat: stream cut after 2 items: connection error (ConnectionE"))


def test_a_call_that_reads_a_cut_stream_has_a_line_of_its_own(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """One that fails because a stream further in did."""
    source = Source(world, ["a", ConnectionError()])
    read, inner = consume(world), Pipeline(Streaming(), name="inner")

    def outer() -> Any:
        return read(inner, source)

    async def aouter() -> Any:
        return await read(inner, source)

    error_of(
        world,
        Pipeline(CircuitBreaker(), name="outer").wrap(aouter if world.asynchronous else outer),
    )
    has(said(caplog), (WARNING, "inner: stream cut"), (WARNING, "outer: gave up"))


def test_a_block_of_code_has_the_name_of_its_pipeline(caplog: pytest.LogCaptureFixture) -> None:
    """Or, without one, says that it is a block."""

    def block(name: str | None) -> None:
        for attempt in Pipeline(Retry(), name=name).attempts():
            with attempt:
                raise KeyError

    for name in ("import", None):
        with virtual_time(), pytest.raises(KeyError):
            block(name)
    assert [text.partition(":")[0] for _, text in said(caplog)] == ["import", "block"]


def consume(world: World) -> Callable[..., Any]:
    """Reads all of a guarded source's stream."""

    def sync(pipeline: Pipeline, source: Source) -> list[Any]:
        return list(pipeline.wrap(source.function)())

    async def asynchronous(pipeline: Pipeline, source: Source) -> list[Any]:
        return [item async for item in await pipeline.wrap(source.function)()]

    return asynchronous if world.asynchronous else sync


@pytest.mark.real
def test_a_thread_that_is_left_behind_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It stays busy, and there are only so many."""
    done = threading.Event()
    fn = Pipeline(Timeout(0.02), name="slow").wrap(lambda: done.wait(5))
    with pytest.raises(TimeoutError):
        fn()
    done.set()
    has(said(caplog), (WARNING, "worker thread is busy"), (WARNING, "gave up"))


def test_every_record_has_every_attribute(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """None where there is none, so that any formatter may name them: also in what is said of the
    program rather than of a call."""

    def bad(event: Any) -> None:
        raise ConnectionError

    breaker = CircuitBreaker(failures=1, reset_after=5)
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(wait=1), breaker, listeners=[bad])
    world.run(pipeline.wrap(world.function(ServiceError(503), "ok")))
    assert "waiting for b: circuit is open" in caplog.text
    assert len(caplog.records) > 5
    for record in caplog.records:
        assert set(FACTS) <= record.__dict__.keys()
    listener = next(r for r in caplog.records if "listener" in r.getMessage())
    assert {getattr(listener, name) for name in FACTS} == {None}


@pytest.mark.fault(394)
def test_a_program_that_gives_all_its_records_such_attributes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A factory of records that sets the id of the request being served is common: no line is lost,
    and what it sets stays where a line has nothing to say."""
    make = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.request_id = "of the program"
        record.model = "of the program"
        return record

    logging.setLogRecordFactory(factory)
    try:
        with virtual_time(), pytest.raises(ServiceError):
            Pipeline(Retry(attempts=1)).call(script(ServiceError(503)), model="gpt-4o")
    finally:
        logging.setLogRecordFactory(make)
    (record,) = caplog.records
    assert record.model == "gpt-4o"  # type: ignore[attr-defined]
    assert record.request_id == "of the program"  # type: ignore[attr-defined]


@pytest.mark.real
def test_a_record_of_a_failing_call_is_the_seeds(caplog: pytest.LogCaptureFixture) -> None:
    """Auriko's guide logs error_type, status_code, request_id and model by hand, at each call. The
    real SDKs, over a socket: the fields are the same, and nothing was set up."""
    answer = Error("invalid_request", headers={"x-request-id": "req_of_the_server"})
    with Gateway({"*": answer}) as gateway:
        options: dict[str, Any] = {"api_key": "any", "base_url": gateway.base_url}
        clients: list[Any] = [
            openai.OpenAI(**options, max_retries=0),
            auriko.Client(**options, max_retries=0),
        ]
        for client in clients:

            def ask(client: Any = client) -> Any:
                return client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": "Hello!"}]
                )

            logs.log._recent.clear()
            caplog.clear()
            guarded = Pipeline(Retry()).wrap(client.chat.completions.create)
            with pytest.raises(Exception) as caught:  # noqa: PT011
                guarded(model="gpt-4o", messages=[{"role": "user", "content": "Hello!"}])
            by_hand = _by_hand(ask)
            client.close()

            (record,) = [r for r in caplog.records if r.name == "resilience"]
            assert record.levelno == WARNING
            assert {name: getattr(record, name) for name in by_hand} == by_hand
            assert all(str(value) in record.getMessage() for value in by_hand.values())
            assert by_hand["error_type"] == type(caught.value).__name__


def _by_hand(ask: Callable[[], Any]) -> dict[str, Any]:
    """What the guide's code has in `extra=`."""
    try:
        ask()
    except (openai.APIStatusError, auriko.AurikoAPIError) as e:
        headers: Any = (
            e.response.headers if isinstance(e, openai.APIStatusError) else e.response_headers
        )
        return {
            "error_type": type(e).__name__,
            "status_code": e.status_code,
            "request_id": headers.get("x-request-id")
            if isinstance(e, openai.APIStatusError)
            else headers.request_id,
            "model": "gpt-4o",
        }
    raise AssertionError


@pytest.mark.real
def test_a_program_without_any_set_up_sees_it_on_stderr() -> None:
    """One line, of one failing call, with the same facts in its text."""
    code = """
import sys
import openai
from resilience import Retry, resilient

client = openai.OpenAI(base_url=sys.argv[1], api_key="any", max_retries=0)

@resilient(Retry(attempts=2, wait=0.01))
def ask(question, *, model="gpt-4o"):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model=model, messages=messages)

try:
    ask("Hello!")
except openai.InternalServerError as error:
    assert error.response.headers["x-request-id"] == "req_00000002"
"""
    with Gateway("service_unavailable") as gateway:
        program = [sys.executable, "-c", code, gateway.base_url]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("ask: gave up after 2 attempts in ")
    assert line.endswith(
        "gpt-4o failed with 503 service_unavailable (InternalServerError, request req_00000002)"
    )


@pytest.mark.real
def test_a_healthy_call_is_at_rest() -> None:
    """The log listens to nothing that it emits."""
    fn = Pipeline(Retry(), CircuitBreaker()).wrap(lambda: "ok")
    assert fn() == "ok"
    assert fn.__resilience__.idle.period is not None  # type: ignore[attr-defined]


# How often


@pytest.mark.fault(348)
def test_an_outage_is_one_warning_for_each_opening(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Of thousands of calls; what was rejected is for debugging, once a second."""
    breaker = CircuitBreaker(failures=5, reset_after=10)
    fn = Pipeline(breaker, name="chat").wrap(world.function(ServiceError(503)))

    async def outage() -> None:
        for _ in range(3000):
            await call()

    async def call() -> None:
        try:
            await fn()
        except Exception:
            world.clock.advance(0.01)

    with recording(CircuitOpened, CallRejected) as events:
        if world.asynchronous:
            world.run(outage)
        else:
            for _ in range(3000):
                error_of(world, fn)
                world.clock.advance(0.01)
    openings = [each for each in events if type(each) is CircuitOpened]
    lines = said(caplog)
    assert len([line for line in lines if "opened for" in line[1]]) == len(openings) == 3
    loud = [text for level, text in lines if level >= INFO]
    assert len([text for text in loud if "gave up" in text]) == 3  # a trial each, and the first
    assert not [text for text in loud if "rejected:" in text]
    assert len(events) - len(openings) > 2900
    assert len([text for level, text in lines if level == DEBUG]) <= 31


class Clocked:
    """A log of its own, what it says, and its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = Log()
        self.lines: list[Line] = []
        self.at = 100.0
        self.log.send_to(self.lines.append)
        monkeypatch.setattr(logs, "now", lambda: self.at)

    @property
    def told(self) -> int:
        """How many events the lines stand for."""
        return sum(
            1 + int(line.text.partition(" more like this")[0].rpartition("(")[2] or 0)
            if "more like this" in line.text
            else 1
            for line in self.lines
        )


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Clocked:
    return Clocked(monkeypatch)


def failed(name: str | None = "chat", status: int = 503, code: str | None = None) -> CallFailed:
    """A call that was given up."""
    failure = Failure(Kind.SERVER, Advice.RETRY, status=status, code=code)
    return CallFailed(name, "fn", 1, failure, (), 0.5, None)


@pytest.mark.fault(348)
def test_the_same_line_is_said_once_a_second(clocked: Clocked) -> None:
    """Then with the number of those that were held back, and in which time. Another name, and
    another failure, have lines of their own."""
    for _ in range(10):
        clocked.log.write(failed())
        clocked.at += 0.05
    clocked.log.write(failed("other"))
    clocked.log.write(failed(status=401))
    assert [line.facts["pipeline"] for line in clocked.lines] == ["chat", "other", "chat"]
    clocked.at = 101.0
    clocked.log.write(failed())
    assert clocked.lines[-1].text.endswith("(9 more like this in the last 1 s)")
    clocked.at = 8_000.0
    clocked.log.write(failed())
    assert "more like this" not in clocked.lines[-1].text


GONE = Failure(Kind.SERVER, Advice.RETRY)
NO_CALL = None, None, None


@pytest.mark.fault(348)
@pytest.mark.parametrize(
    "event",
    [
        lambda name: CircuitOpened(*NO_CALL, name, None, None, "closed", "open", False, 5, GONE),
        lambda name: CircuitOpened(*NO_CALL, "c", name, name, "closed", "open", False, 5, GONE),
        lambda name: HoldBegan(*NO_CALL, name, None, None, 5, GONE),
        lambda name: HoldBegan(*NO_CALL, "h", name, name, 5, GONE),
        lambda name: CallDelayed("chat", "fn", 1, name, None, 5),
        lambda name: ModelLeft("chat", "fn", 1, name, "b", GONE),
        lambda name: ModelLeft("chat", "fn", 1, "a", name, GONE),
    ],
    ids=["circuit", "its model", "hold", "its model", "policy", "model", "next model"],
)
def test_each_has_lines_of_its_own(clocked: Clocked, event: Callable[[str], Event]) -> None:
    """Circuits, holds, policies and models by their names, in one and the same second."""
    for name in ("x", "y", "x"):
        clocked.log.write(event(name))
    assert len(clocked.lines) == 2


@pytest.mark.fault(348)
def test_a_count_is_kept_until_it_is_said(clocked: Clocked) -> None:
    """However late that is; the line tells since when."""
    for _ in range(3):
        clocked.log.write(failed())
    clocked.at += 7_200
    clocked.log.write(failed())
    assert clocked.lines[-1].text.endswith("(2 more like this in the last 120 min)")


@pytest.mark.fault(348)
def test_a_clock_that_goes_back_silences_nothing(clocked: Clocked) -> None:
    """The line is said."""
    clocked.log.write(failed())
    clocked.at -= 50
    clocked.log.write(failed())
    assert len(clocked.lines) == 2


def test_each_virtual_time_is_a_world_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """What one test has had said keeps nothing back in the next, nor in real time."""
    fn = Pipeline(Retry(attempts=1)).wrap(script(ConnectionError))
    for _ in range(2):
        with virtual_time(), pytest.raises(ConnectionError):
            fn()
    with pytest.raises(ConnectionError):
        fn()
    assert len(said(caplog)) == 3


@pytest.mark.fault(348)
def test_names_without_end(clocked: Clocked) -> None:
    """Of names that somebody else chooses a thousand are remembered; those beyond share a line a
    second, and every event is accounted for."""
    for _ in range(2):
        for number in range(3_000):
            clocked.log.write(failed(f"name {number}"))
    (said,) = clocked.log._recent.values()
    assert len(said) <= 1_001
    assert len(clocked.lines) == 1_001
    clocked.at += 1
    for number in range(1_001):
        clocked.log.write(failed(f"name {number}"))
    assert clocked.told == 6_000 + 1_001
    clocked.at += 1
    clocked.log.write(failed("another"))
    (said,) = clocked.log._recent.values()
    assert len(said) == 1  # what is over is forgotten


@pytest.mark.fault(348)
def test_many_threads(clocked: Clocked) -> None:
    """Nothing is said twice within a second, nothing is lost."""

    def failing() -> None:
        for _ in range(500):
            clocked.log.write(failed())

    threads = [threading.Thread(target=failing) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clocked.lines) == 1
    clocked.at += 1
    clocked.log.write(failed())
    assert clocked.told == 8_001


# What cannot be said


@pytest.mark.fault(345)
@pytest.mark.parametrize(
    "odd", ["x\nWARNING forged", "x\r\x1b[2Jforged", "x\u202eforged", "\ud800"]
)
def test_a_line_is_one_line(odd: str, clocked: Clocked) -> None:
    """Whatever a server has for a code, or a caller for a model."""
    failure = Failure(Kind.SERVER, Advice.STOP, code=odd, request_id=odd)
    clocked.log.write(CallFailed(odd, odd, 1, failure, (Attempt(1, model=odd),), 0.5, odd))
    (line,) = clocked.lines
    assert line.text.isprintable()
    escaped = odd.encode("unicode_escape").decode()
    assert line.text.count(escaped) == 5
    for name in ("code", "request_id", "model", "pipeline", "function"):
        assert line.facts[name] == escaped


@pytest.mark.fault(345)
def test_a_line_is_not_endless(clocked: Clocked) -> None:
    """A name or a code of a megabyte is cut."""
    clocked.log.write(failed("n" * 1_000_000, code="c" * 1_000_000))
    assert len(clocked.lines[0].text) < 1_000
    assert len(clocked.lines[0].facts["code"]) < 300


@pytest.fixture
def handler(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[Callable[[Any], Any]], None]]:
    """Has the `resilience` logger handle its records by a function."""
    made: list[logging.Handler] = []

    def install(fn: Callable[[Any], Any]) -> None:
        added = logging.Handler()
        added.emit = fn  # type: ignore[method-assign, assignment]
        made.append(added)
        logging.getLogger("resilience").addHandler(added)

    yield install
    for each in made:
        logging.getLogger("resilience").removeHandler(each)


@pytest.mark.fault(346)
def test_a_handler_that_raises(world: World, handler: Callable[..., None]) -> None:
    """The call goes on as without it; so it does where the log tells of a user's option."""

    def broken(record: logging.LogRecord) -> None:
        seen.append(record.getMessage())
        raise ConnectionError("of the handler")

    seen: list[str] = []
    handler(broken)
    fn = world.function(ConnectionError, "ok")
    breaker = CircuitBreaker(key=lambda: 1 / 0)
    assert world.run(Pipeline(Retry(wait=1), breaker).wrap(fn)) == "ok"
    own = ServiceError(400)
    assert error_of(world, Pipeline(Retry()).wrap(world.function(own))) is own
    assert len(seen) >= 4


@pytest.mark.fault(346)
def test_a_handler_that_makes_guarded_calls(handler: Callable[..., None]) -> None:
    """What it sends the lines with may fail, too, which is not sent again."""

    def send(record: logging.LogRecord) -> None:
        sent.append(record.getMessage())
        with pytest.raises(ConnectionError):
            guarded()

    sent: list[str] = []
    handler(send)
    guarded = Pipeline(Retry(attempts=1), name="shipper").wrap(script(ConnectionError))
    with virtual_time(), pytest.raises(KeyError):
        Pipeline(Retry(), name="chat").wrap(script(KeyError))()
    assert len(sent) == 1


BUSY = Failure(
    Kind.OVERLOADED,
    Advice.WAIT,
    status=529,
    code="busy",
    retry_after=4.0,
    request_id="r-1",
    error=ServiceError(529),
)
BUSY_TEXT = "529 busy (ServiceError, request r-1, retry after 4 s)"
BUSY_FACTS: dict[str, Any] = {
    "error_type": "ServiceError",
    "status_code": 529,
    "code": "busy",
    "request_id": "r-1",
    "wait": 4.0,
}
WHO = ("chat", "fn", 1)
TRIED = Attempt(2, model="m", failure=BUSY)
CIRCUIT = (*WHO, "api", None, "m")


@pytest.mark.parametrize(
    ("event", "text", "facts"),
    [
        (
            WaitBegan(*WHO, TRIED, 1.5),
            f"attempt 2 (m) failed with {BUSY_TEXT}; retrying in 1.5 s",
            BUSY_FACTS | {"attempt": 2, "model": "m", "wait": 1.5},
        ),
        (WaitBegan(*WHO, None, 1.5), "rejected; retrying in 1.5 s", {"wait": 1.5}),
        (
            CallFailed(*WHO, BUSY, (TRIED,), 0.5, "no time left"),
            f"gave up after 2 attempts in 500 ms: m failed with {BUSY_TEXT}; no time left",
            BUSY_FACTS | {"attempt": 2, "model": "m"},
        ),
        (
            CallFailed(*WHO, BUSY, (), 0.5, "overloaded is not retried"),
            f"gave up after no attempt in 500 ms: {BUSY_TEXT}; not retried",
            BUSY_FACTS,
        ),
        (
            CallRecovered(*WHO, (TRIED,), 2.5, "n"),
            "recovered at attempt 3 (n) after 2.5 s",
            {"attempt": 3, "model": "n"},
        ),
        (
            CallRecovered(*WHO, (TRIED, Attempt(3)), 2.5, None),
            "recovered at attempt 3 after 2.5 s",
            {"attempt": 3},
        ),
        (
            ModelLeft(*WHO, "m", "n", BUSY),
            f"m failed with {BUSY_TEXT}; trying n",
            BUSY_FACTS | {"model": "m"},
        ),
        (
            ModelSkipped(*WHO, "m", "n", CircuitOpenError(2.0, name="api")),
            "skipped m: circuit 'api' is open, retry after 2 s; trying n",
            {"error_type": "CircuitOpenError", "circuit": "api", "model": "m", "wait": 2.0},
        ),
        (
            ModelSkipped(*WHO, "m", "m", CircuitOpenError(2.0)),
            "waiting for m: circuit is open, retry after 2 s",
            {"error_type": "CircuitOpenError", "model": "m", "wait": 2.0},
        ),
        (FellBack(*WHO, BUSY), f"used the fallback: {BUSY_TEXT}", BUSY_FACTS),
        (
            FellBack(*WHO, Failure(Kind.REJECTED, Advice.RETRY, error=Busy(3.0))),
            "used the fallback: Busy, retry after 3 s",
            {"error_type": "Busy", "wait": 3.0},
        ),
        (
            HoldBegan(*WHO, "api", None, "m", 9.0, BUSY),
            f"hold 'api' (m) for 9 s after {BUSY_TEXT}",
            BUSY_FACTS | {"model": "m", "wait": 9.0},
        ),
        (
            HoldBegan(*WHO, None, None, None, 9.0, None),
            "hold for 9 s, begun by another process",
            {"wait": 9.0},
        ),
        (
            CallDelayed(*WHO, "RateLimit", "m", 2.0),
            "waiting 2 s for its turn in RateLimit",
            {"model": "m", "wait": 2.0},
        ),
        (CallDelayed(*WHO, "Bulkhead", None, None), "waiting for its turn in Bulkhead", {}),
        (
            StreamInterrupted(*WHO, "m", 1, BUSY),
            f"stream (m) cut after 1 item: {BUSY_TEXT}",
            BUSY_FACTS | {"model": "m"},
        ),
        (StreamRestarted(*WHO, 2), "restarting a stream that was cut after 2 items", {}),
        (
            WorkerAbandoned(*WHO),
            "ran past its time limit; its worker thread is busy until it returns",
            {},
        ),
        (
            CircuitOpened(*CIRCUIT, "closed", "open", False, 60.0, BUSY),
            f"circuit 'api' (m) opened for 60 s after {BUSY_TEXT}",
            BUSY_FACTS | {"circuit": "api", "model": "m", "wait": 60.0},
        ),
        (
            CircuitOpened(*CIRCUIT, "closed", "open", True, 60.0, None),
            "circuit 'api' (m) in shadow (it rejects nothing) opened for 60 s",
            {"circuit": "api", "model": "m", "wait": 60.0},
        ),
        (
            CircuitHalfOpened(*CIRCUIT, "open", "half-open", False),
            "circuit 'api' (m) half open, letting trials through",
            {"circuit": "api", "model": "m"},
        ),
        (
            CircuitClosed(*CIRCUIT, "half-open", "closed", False, 3),
            "circuit 'api' (m) closed; it rejected 3 calls",
            {"circuit": "api", "model": "m"},
        ),
        (
            CircuitChanged(*CIRCUIT, "closed", "isolated", False),
            "circuit 'api' (m) isolated: it rejects every call until it is released",
            {"circuit": "api", "model": "m"},
        ),
        (
            CircuitChanged(*CIRCUIT, "closed", "disabled", False),
            "circuit 'api' (m) disabled: it lets every call through",
            {"circuit": "api", "model": "m"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else "",
)
def test_what_a_line_says(event: Any, text: str, facts: dict[str, Any], clocked: Clocked) -> None:
    """In its text, and for a program in its facts."""
    clocked.log.write(event)
    (line,) = clocked.lines
    assert line.text == f"chat: {text}"
    told = {name: value for name, value in line.facts.items() if value is not None}
    assert told == {"pipeline": "chat", "function": "fn"} | facts


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Failure(Kind.SERVER, Advice.RETRY), "server error"),
        (Failure(Kind.UNKNOWN, Advice.RETRY), "unknown error"),
        (Failure(Kind.UNKNOWN, Advice.RETRY, error=KeyError()), "KeyError"),
        (
            Failure(Kind.TIMEOUT, Advice.RETRY, error=DeadlineExceededError(30)),
            "timeout after 30 s (DeadlineExceededError)",
        ),
        (
            Failure(Kind.SERVER, Advice.RETRY, error=StreamInterruptedError()),
            "server error (it ended early)",
        ),
    ],
)
def test_how_a_failure_is_said(failure: Failure, text: str, clocked: Clocked) -> None:
    """By its status and code, else by its kind."""
    clocked.log.write(CallFailed(None, None, 1, failure, (), 0.5, "1 attempt made"))
    assert clocked.lines[0].text == f"gave up after no attempt in 500 ms: {text}"


# Configured


def test_texts_only_when_asked_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An exception's text may quote a prompt or a key."""
    fn = Pipeline(Retry(), name="chat").wrap(world.function(ServiceError(400)))
    error_of(world, fn)
    configure(texts=True)
    world.clock.advance(1)
    error_of(world, fn)
    assert ["secret" in text for _, text in said(caplog)] == [False, True]


def test_a_text_that_cannot_be_read(clocked: Clocked) -> None:
    """It raises: the line says so; it is long: it is cut."""

    class Unreadable(Exception):
        def __str__(self) -> str:
            raise ValueError

    clocked.log.texts = True
    for error in (Unreadable(), Exception("x" * 1_000_000)):
        failure = Failure(Kind.UNKNOWN, Advice.STOP, error=error)
        clocked.log.write(CallFailed("chat", "fn", 1, failure, (), 0.5, None))
    assert clocked.lines[0].text.endswith(": Unreadable - its text cannot be read")
    assert len(clocked.lines[1].text) < 1_000


def test_levels(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Another one for some classes of events, or no line."""
    configure(levels={CallFailed: logging.ERROR, WaitBegan: None})
    fn = Pipeline(Retry(attempts=2, wait=1)).wrap(world.function(ServiceError(503)))
    error_of(world, fn)
    has(said(caplog), (logging.ERROR, "gave up"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CircuitOpenError(2.0, name="api"), "circuit 'api' is open, retry after 2 s"),
        (
            BulkheadFullError(name="db", limit=5, waiting=3),
            "bulkhead 'db' is full (5 under way, 3 waiting)",
        ),
        (RateLimitExceededError(9.0), "rate limit exceeded, retry after 9 s"),
        (
            SpendLimitExceededError(name="day", limit=5.0, spent=4.5, most=0.75),
            "spend limit 'day' of 5 reached (4.5 spent or reserved, 0.75 asked for)",
        ),
        (WorkersBusyError(workers=64), "all 64 worker threads are busy"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_why_a_call_was_rejected(error: RejectedError, text: str) -> None:
    """Each limit says which it is and how much is taken of it."""
    log, lines = Log(), list[Line]()
    log.send_to(lines.append)
    log.write(CallRejected("chat", "fn", 1, error))
    assert [(line.level, line.text) for line in lines] == [(DEBUG, f"chat: rejected: {text}")]


def test_a_log_writes_to_the_logger_unless_it_is_told_otherwise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The logger's own level is not the function's that gets the lines instead."""
    log, lines = Log(), list[Line]()
    rejected = CallRejected("chat", "fn", 1, RateLimitExceededError(9.0))
    failure = Failure(Kind.SERVER, Advice.RETRY, error=ServiceError(500))
    with caplog.at_level(WARNING, "resilience"):
        log.deliver(CallFailed("chat", "fn", 1, failure, (), 0.5, None))
        has(said(caplog), (WARNING, "chat: gave up"))
        assert "secret" not in caplog.text
        log.send_to(lines.append)
        log.deliver(rejected)
        assert [line.level for line in lines] == [DEBUG]
        log.send_to(None)
        log.deliver(CallRejected("another", "fn", 2, rejected.error))
        assert not log.writes(CallRejected)
    assert (len(lines), len(said(caplog))) == (1, 1)


def test_an_event_of_ones_own_kind(caplog: pytest.LogCaptureFixture) -> None:
    """A subclass of an event is said as that event is."""

    class Mine(CallRejected):
        pass

    log, lines = Log(), list[Line]()
    log.send_to(lines.append)
    log.write(Mine("chat", "fn", 1, Busy(3.0)))
    assert [(line.level, line.text) for line in lines] == [
        (DEBUG, "chat: rejected: Busy, retry after 3 s")
    ]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"texts": 1}, TypeError),
        ({"levels": [CallFailed]}, TypeError),
        ({"levels": {GaveUp: WARNING}}, ValueError),
        ({"levels": {Event: WARNING}}, ValueError),
        ({"levels": {CallFailed: "ERROR"}}, ValueError),
        ({"levels": {CallFailed: True}}, ValueError),
        ({"levels": {CallFailed: 35}}, ValueError),
        ({"level": 3}, TypeError),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """By name; nothing has changed."""
    with pytest.raises(error, match=r"texts|levels"):
        configure(**options)
    assert {kind: logs.log.levels[kind] for kind in logs.LEVELS} == logs.LEVELS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (0.9996, "1 s"),
        (2.5, "2.5 s"),
        (9.96, "10 s"),
        (59.6, "60 s"),
        (660, "11 min"),
        (36_000, "10 h"),
        (7_200_000, "2000 h"),
    ],
)
def test_times_are_said_shortly(seconds: float, text: str) -> None:
    """Two digits or three, and a unit that fits."""
    assert seconds_text(seconds) == text
