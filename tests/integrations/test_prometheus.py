"""Figures for Prometheus, scraped over HTTP from prometheus_client's own server."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from conftest import Takes, World
from resilience import CircuitBreaker, Fallback, ModelFallback, Pipeline, Retry
from resilience.errors import RejectedError
from resilience.events import CallRejected
from resilience.integrations import prometheus
from resilience.policy import Call, Inner, Policy, Runtime
from support.calling import error_of


class Scraped:
    """A registry whose `/metrics` is served on this machine."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.server, self._thread = start_http_server(0, "127.0.0.1", self.registry)
        self.url = f"http://127.0.0.1:{self.server.server_port}/metrics"

    def text(self) -> str:
        """What Prometheus would get."""
        with urlopen(self.url, timeout=10) as answer:
            found: str = answer.read().decode()
        return found

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The values of a sample, by labels that are not empty."""
        return {
            tuple(sorted((label, value) for label, value in sample.labels.items() if value)): (
                sample.value
            )
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
            if sample.name == name
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def scraped() -> Iterator[Scraped]:
    """With what is counted while the test runs."""
    server = Scraped()
    stop = prometheus.install(registry=server.registry)
    yield server
    stop()
    server.close()


def labels(**given: Any) -> tuple[tuple[str, str], ...]:
    """As `Scraped.samples` has them."""
    return tuple(sorted((name, str(value)) for name, value in given.items()))


class StatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__("canary-text")
        self.status_code = status_code


pytestmark = pytest.mark.real


def test_calls_and_attempts_are_measured(world: World, scraped: Scraped) -> None:
    """By outcome, error and status; retries, fallbacks and rejections are counted."""
    breaker = CircuitBreaker(name="llm", failures=2, key="model")
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=1), breaker, name="chat")
    steps = Takes(0.5, StatusError(502)), Takes(0.5, StatusError(500)), {"usage": USAGE}
    fn = pipeline.wrap(world.function(*steps))
    world.run(fn)
    world.run(fn)  # the circuit of the first model is open

    function = next(iter(dict(each)["function"] for each in scraped.samples(CALLS)))
    here = {"pipeline": "chat", "function": function}
    failed = {**here, "model": "a", "error_type": "StatusError"}
    assert scraped.samples(CALLS) == {labels(**here, outcome="degraded"): 2}
    assert scraped.samples("resilience_call_duration_seconds_sum") == {
        labels(**here, outcome="degraded"): 2.0
    }
    assert scraped.samples(ATTEMPTS) == {
        labels(**failed, outcome="failed", http_response_status_code=502): 1,
        labels(**failed, outcome="failed", http_response_status_code=500): 1,
        labels(**here, model="b", outcome="ok"): 2,
    }
    assert scraped.samples("resilience_retries_total") == {labels(**failed): 1}
    assert scraped.samples("resilience_fallbacks_total") == {labels(**here, model="a", to="b"): 2}
    assert scraped.samples("resilience_rejections_total") == {
        labels(**here, reason="circuit_open"): 1
    }
    assert scraped.samples("resilience_tokens_total") == {
        labels(**here, model="b", token_type="input"): 6,
        labels(**here, model="b", token_type="output"): 8,
    }


CALLS = "resilience_call_duration_seconds_count"
ATTEMPTS = "resilience_attempt_duration_seconds_count"
USAGE = {"prompt_tokens": 3, "completion_tokens": 4}


def test_how_long_is_told_by_buckets(world: World) -> None:
    """Each counts what took no longer than its bound."""
    server = Scraped()
    stop = prometheus.install(registry=server.registry, buckets=[1, 2.5])
    try:
        pipeline = Pipeline(Retry(), name="chat")
        for seconds in (1, 2, 3):
            world.run(pipeline.call, world.function(Takes(seconds, "ok")))
        found = server.samples("resilience_call_duration_seconds_bucket")
    finally:
        stop()
        server.close()
    assert [(dict(each)["le"], count) for each, count in found.items()] == [
        ("1.0", 1),
        ("2.5", 2),
        ("+Inf", 3),
    ]


def test_how_calls_end(world: World, scraped: Scraped) -> None:
    """With a fallback's value, with an error, rejected."""
    breaker = CircuitBreaker(failures=1)
    world.run(Pipeline(Fallback("else"), name="else").call, world.function(KeyError))
    error_of(world, Pipeline(breaker, name="ill").wrap(world.function(ConnectionError)))
    error_of(world, Pipeline(breaker, name="rejected").wrap(world.function("ok")))

    found = {
        dict(each)["pipeline"]: (dict(each)["outcome"], dict(each).get("error_type"))
        for each in scraped.samples(CALLS)
    }
    assert found == {
        "else": ("degraded", None),
        "ill": ("failed", "ConnectionError"),
        "rejected": ("rejected", "CircuitOpenError"),
    }
    (fallback,) = scraped.samples("resilience_fallbacks_total")
    assert dict(fallback)["pipeline"] == "else"


def test_the_state_of_circuits_is_a_gauge(scraped: Scraped) -> None:
    """How many of a name and a model are in each state at the moment of the scrape."""
    breaker = CircuitBreaker(name="scraped", key="model")
    breaker.circuit("a").open()
    breaker.circuit("b")
    users = CircuitBreaker(name="users", key="user")
    users.circuit("canary-user").open()

    def states(circuit: str) -> dict[tuple[str | None, str], float]:
        return {
            (point.get("model"), point["state"]): number
            for point, number in (
                (dict(each), n) for each, n in scraped.samples("resilience_circuit_state").items()
            )
            if point.get("circuit") == circuit and number
        }

    assert states("scraped") == {("a", "open"): 1, ("b", "closed"): 1}
    assert states("users") == {(None, "open"): 1}
    breaker.circuit("a").close()
    assert states("scraped") == {("a", "closed"): 1, ("b", "closed"): 1}
    assert "canary" not in scraped.text()


@pytest.mark.fault(352)
def test_labels_have_a_bounded_number_of_values(world: World) -> None:
    """What is one too many is counted as "other": none is lost."""
    server = Scraped()
    stop = prometheus.install(registry=server.registry, limit=3)
    try:
        fn = Pipeline(name="chat").wrap(world.function("ok"))
        for number in range(10):
            world.run(fn, model=f"model-{number}")
        for number in range(10):
            CircuitBreaker(name=f"circuit-{number}", key="model").circuit(f"c-{number}").open()
        found = {dict(each)["model"]: n for each, n in server.samples(ATTEMPTS).items()}
        text = server.text()
    finally:
        stop()
        server.close()
    assert found == {"model-0": 1, "model-1": 1, "model-2": 1, "other": 7}
    assert len({line for line in text.splitlines() if line.startswith("resilience_circuit")}) < 50


@pytest.mark.fault(352)
@pytest.mark.parametrize(
    "model", ["\ud800", "m" * 1_000_000, 'm"\n}'], ids=["surrogate", "long", "quotes"]
)
def test_any_model_is_a_label(world: World, scraped: Scraped, model: str) -> None:
    """Cut and escaped: no name keeps the others from being scraped."""
    world.run(Pipeline(Retry(), name="chat").wrap(world.function("ok")), model=model)
    ((point, count),) = scraped.samples(ATTEMPTS).items()
    assert count == 1
    assert len(dict(point)["model"]) <= 200


@pytest.mark.fault(351)
def test_no_secret_is_a_label(world: World, scraped: Scraped) -> None:
    """Arguments, results, texts of exceptions, a label's text that would end its line."""
    fn = Pipeline(Retry(wait=1), name='a "name"\nof two lines').wrap(
        world.function(StatusError(500), "canary-result")
    )
    world.run(fn, "canary-prompt", key="canary-key", model='m"\n#')
    assert "canary" not in scraped.text()
    ((point, count),) = scraped.samples(CALLS).items()
    assert (dict(point)["pipeline"], count) == ('a "name"\nof two lines', 1)


@pytest.mark.fault(353)
def test_sixteen_threads_lose_no_call_while_it_is_scraped(scraped: Scraped) -> None:
    """And no scrape fails."""
    over = threading.Event()

    def scrape() -> int:
        scrapes = 0
        while not over.is_set():
            assert "resilience" in scraped.text()
            scrapes += 1
        return scrapes

    fn = Pipeline(Retry(), name="chat").wrap(lambda: "ok")
    with ThreadPoolExecutor(17) as pool:
        scrapes = pool.submit(scrape)
        for done in [pool.submit(lambda: [fn() for _ in range(200)]) for _ in range(16)]:
            done.result()
        over.set()
        assert scrapes.result() > 0
    assert list(scraped.samples(CALLS).values()) == [3200]


@pytest.mark.fault(353)
@pytest.mark.parametrize("most", [3, 1000], ids=["in a call", "in a scrape"])
def test_a_stream_that_is_collected_while_figures_are_put_together_is_counted(
    scraped: Scraped, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A finalizer publishes its end in the midst of that."""

    def count() -> Iterator[int]:
        yield from range(3)

    streams = [Pipeline(Retry(), name="stream").wrap(count)()]
    assert next(streams[0]) == 0

    class Name(str):
        """Is cut to its length while figures are put together."""

        __slots__ = ()

        def __getitem__(self, key: Any) -> str:
            streams.clear()
            return str.__getitem__(self, key)

    monkeypatch.setattr(prometheus, "_MOST", most)
    Pipeline(Retry(), name=Name("plain")).call(lambda: {"usage": USAGE})
    assert scraped.text()
    found = {dict(each)["pipeline"]: count for each, count in scraped.samples(CALLS).items()}
    assert streams == []
    assert found == {"stream": 1, "plain": 1}


def test_an_event_of_ones_own_kind(world: World, scraped: Scraped) -> None:
    """A subclass of an event is counted as that event is; the call goes on."""

    class Refused(CallRejected):
        pass

    class Refusing(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def refusing(call: Call) -> Any:
                call.emit(Refused, error=RejectedError())
                return await inner(call)

            return refusing

    assert world.run(Pipeline(Refusing()).wrap(world.function("ok"))) == "ok"
    (rejection,) = scraped.samples("resilience_rejections_total")
    assert dict(rejection)["reason"] == "rejected"


# Installing it


def test_a_second_time_changes_nothing(scraped: Scraped) -> None:
    """For the same registry: a call is counted once. After it has ended, it begins anew."""
    stop = prometheus.install(registry=scraped.registry)
    assert prometheus.install(registry=scraped.registry) is stop
    Pipeline(Retry(), name="chat").call(lambda: "ok")
    assert list(scraped.samples(CALLS).values()) == [1]
    stop()
    stop()
    assert "resilience" not in scraped.text()
    again = prometheus.install(registry=scraped.registry)
    assert "resilience" in scraped.text()
    assert scraped.samples(CALLS) == {}
    again()


def test_two_registries_get_the_same(scraped: Scraped) -> None:
    """Each counts every call."""
    other = CollectorRegistry()
    stop = prometheus.install(registry=other)
    Pipeline(Retry(), name="chat").call(lambda: "ok")
    assert list(scraped.samples(CALLS).values()) == [1]
    (family,) = (f for f in other.collect() if f.name == "resilience_call_duration_seconds")
    assert [s.value for s in family.samples if s.name.endswith("_count")] == [1]
    stop()


def test_the_default_registry() -> None:
    """Is prometheus_client's own."""
    stop = prometheus.install()
    try:
        assert prometheus.install(registry=REGISTRY) is stop
        assert "resilience_retries" in {family.name for family in REGISTRY.collect()}
    finally:
        stop()
    assert "resilience_retries" not in {family.name for family in REGISTRY.collect()}


def test_a_name_that_is_taken_is_an_error(scraped: Scraped) -> None:
    """Nothing is installed then."""
    other = CollectorRegistry()
    Counter("resilience_retries", "Somebody's own.", registry=other)
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus.install(registry=other)
    fn: Any = Pipeline(Retry()).wrap(lambda: "ok")
    prometheus.install(registry=scraped.registry)()
    assert fn.__resilience__.idle.period is not None


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"limit": 0}, ValueError, "limit"),
        ({"limit": True}, TypeError, "limit"),
        ({"registry": "mine"}, TypeError, "registry"),
        ({"buckets": 3}, TypeError, "buckets"),
        ({"buckets": "0.1"}, TypeError, "buckets"),
        ({"buckets": ["0.1"]}, TypeError, "buckets"),
        ({"buckets": []}, ValueError, "buckets"),
        ({"buckets": [1, 1]}, ValueError, "buckets"),
        ({"buckets": [0, 1]}, ValueError, "buckets"),
        ({"bucket": [1]}, TypeError, "buckets"),
    ],
)
def test_a_wrong_option_is_refused(options: Any, error: type[Exception], word: str) -> None:
    """By name."""
    with pytest.raises(error, match=word):
        prometheus.install(**options)


@pytest.mark.fault(354)
@pytest.mark.parametrize("options", [{"limit": 5}, {"buckets": [1]}])
def test_other_options_for_the_same_registry_are_refused(scraped: Scraped, options: Any) -> None:
    """They would do nothing."""
    with pytest.raises(ValueError, match=next(iter(options))):
        prometheus.install(registry=scraped.registry, **options)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module itself can be imported."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"resilience-policies\[prometheus\]"):
        prometheus.install()


def test_what_waits_to_be_put_together_is_bounded(scraped: Scraped) -> None:
    """Though nobody scrapes."""
    fn = Pipeline(Retry(), name="chat").wrap(lambda: "ok")
    for _ in range(100):
        fn()
    before = len(gc.get_objects())
    for _ in range(5000):
        fn()
    assert len(gc.get_objects()) - before < 4000
    assert list(scraped.samples(CALLS).values()) == [5100]
