"""What nobody may see: canaries in all that a caller or a server controls, and a search in all that
the library emits."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import auriko
import openai
import pytest

from conftest import Takes, World
from resilience import (
    BadResult,
    CircuitBreaker,
    FailureRate,
    Fallback,
    IdempotencyKey,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    Retry,
    SingleFlight,
    Streaming,
    Timeout,
    current_attempt,
    guarded,
    health,
    history,
)
from resilience._core import logs
from resilience.errors import ResilienceError
from resilience.events import CallEnded, recording
from resilience.failures import Kind, describe, describe_result
from resilience.testing import virtual_time
from resilience.testing.gateway import CutStream, Drop, Error, Gateway, Ok
from support.streams import Source

BIRD = "tweet-a7f3"
NOTE = "resilience: "


class Sung(Exception):
    """An error that has one in its text, its arguments, its attributes and its note."""

    def __init__(self, status_code: int | None = 503) -> None:
        super().__init__(f"{BIRD}-text")
        self.body = {"error": {"message": f"{BIRD}-message", "param": f"{BIRD}-param"}}
        self.headers = {"x-secret": f"{BIRD}-header"}
        self.message = f"{BIRD}-attribute"
        self.__notes__ = [f"{BIRD}-note"]
        if status_code is not None:
            self.status_code = status_code


class Down(Sung, ConnectionError):
    """One that the library knows."""


def sings(*args: Any, **kwargs: Any) -> Any:
    """An option that raises."""
    raise Sung(None)


def tenant(*args: Any, **kwargs: Any) -> str:
    """A key that is a secret."""
    return f"{BIRD}-tenant"


RESULT = {"choices": f"{BIRD}-result", f"{BIRD}-name": [f"{BIRD}-item"]}


# Everything that is emitted


class Ear:
    """All texts that the library lets out."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def hears(self, *values: object) -> None:
        """How each is printed, and how its text reads."""
        for value in values:
            if isinstance(value, ResilienceError) or not isinstance(value, BaseException):
                self.texts += [repr(value), str(value)]

    def of_error(self, error: BaseException | None) -> None:
        """What of an error is ours: the notes, all of an error of ours; and what it means."""
        if not isinstance(error, Exception):
            return
        notes = getattr(error, "__notes__", [])
        self.texts += [note for note in notes if note.startswith(NOTE)]
        self.hears(error, *history(error))
        self.hears(describe(error), *(attempt.failure for attempt in history(error)))
        if isinstance(error, ResilienceError):
            self.texts += traceback.format_exception_only(error)
            self.of_error(error.__cause__)

    def of_outcome(self, outcome: Any) -> None:
        """As text and as pictures."""
        self.hears(outcome, *outcome.attempts, *(a.failure for a in outcome.attempts))
        self.texts += [outcome.timeline(), outcome.to_html(), outcome._repr_svg_()]
        self.of_error(outcome.error)

    def of_pipeline(self, pipeline: Pipeline, fn: Callable[..., Any]) -> None:
        """Its policies, what it explains, its circuits, and the handle of a guarded function."""
        wrapped = pipeline.wrap(fn)
        for explanation in (pipeline.explain(), guarded(wrapped).explain()):
            self.texts += [str(explanation), repr(explanation), explanation._repr_html_()]
            self.texts.append(explanation.mermaid())
            self.hears(*attrs.asdict(explanation, recurse=False).values())
        self.hears(pipeline, *pipeline.policies, guarded(wrapped), health())
        self.hears(*(policy.effect() for policy in pipeline.policies))
        for policy in pipeline.policies:
            if isinstance(policy, CircuitBreaker):
                for circuit in policy.circuits().values():
                    self.hears(circuit, circuit.snapshot(), circuit.isolate())
                    circuit.close()

    @property
    def leaks(self) -> list[str]:
        """Texts with a canary in them."""
        return [text for text in self.texts if BIRD in text]


@contextmanager
def listening() -> Iterator[Ear]:
    """For a block; logs, events and warnings come by themselves."""
    ear, records = Ear(), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("resilience")
    logs.log._recent.clear()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned, recording() as events:
            warnings.simplefilter("always")
            yield ear
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    for record in records:
        ear.texts += [record.getMessage(), repr(record.__dict__)]
    for warning in warned:
        if "resilience" in type(warning.message).__module__:
            ear.texts.append(str(warning.message))
    for event in events:
        ear.texts += [repr(event), str(event)]
        failed = getattr(event, "failure", None) or getattr(event, "error", None)
        ear.hears(failed, getattr(event, "attempt", None), *getattr(event, "attempts", ()))
    assert any(type(event) is CallEnded for event in events)


@pytest.mark.fault(116)
@pytest.mark.parametrize("kind", ["log", "extra", "event", "note", "warning", "repr", "error"])
def test_the_search_finds_a_canary(kind: str) -> None:
    """Wherever one is let out: else the tests below would prove nothing."""

    @attrs.frozen
    class Singing(CallEnded):
        song: str = ""

    with listening() as ear:
        pipeline = Pipeline(Retry())
        pipeline.call(lambda: None)
        if kind == "log":
            logging.getLogger("resilience").warning("%s", BIRD)
        elif kind == "extra":
            logging.getLogger("resilience").debug("x", extra={"model": BIRD})
        elif kind == "event":
            event = Singing(None, None, 1, (), 0.0, None, False, None, BIRD)
            for deliver in pipeline._emit.listeners(CallEnded):
                deliver(event)
        elif kind == "note":
            error = KeyError()
            error.__notes__ = [NOTE + BIRD]
            ear.of_error(error)
        elif kind == "warning":
            warnings.warn_explicit(_Ours(BIRD), None, "x", 1)
        elif kind == "repr":
            ear.hears(Outcome(served_by=BIRD))
        else:
            ear.of_error(_Refused())
    assert ear.leaks


class _Ours(UserWarning):
    __module__ = "resilience"


class _Refused(ResilienceError):
    def __str__(self) -> str:
        return BIRD


# Plain functions

SCENES: dict[str, Callable[[], tuple[list[Any], list[Any]]]] = {
    "retried": lambda: ([Retry(wait=1)], [Down(), Sung(429), RESULT]),
    "given up": lambda: ([Retry(attempts=2, wait=1)], [Sung()]),
    "not retried": lambda: ([Retry(), CircuitBreaker()], [Sung(400)]),
    "unknown": lambda: ([Retry(), CircuitBreaker()], [Sung(None)]),
    "not repeated": lambda: ([Retry(idempotent=False)], [Sung()]),
    "a chain": lambda: (
        [
            ModelFallback(
                "a", Model("b", user=f"{BIRD}-user", extra_body={"deep": {"x": f"{BIRD}-deep"}})
            ),
            Retry(attempts=2, wait=1),
            CircuitBreaker(failures=2, key="model"),
        ],
        [Sung()],
    ),
    "a chain's first": lambda: ([ModelFallback("a", "b", raise_first=True)], [Sung()]),
    "a chain of tenants": lambda: (
        [ModelFallback("a", "b"), Retry(wait=1), CircuitBreaker(failures=1, key=tenant)],
        [Sung()],
    ),
    "a tenant": lambda: (
        [Retry(attempts=3, wait=1), CircuitBreaker(failures=2, key="tenant", name="api")],
        [Sung()],
    ),
    "rates": lambda: (
        [CircuitBreaker(trip=FailureRate(0.5, calls=2, minimum=1), key=tenant)],
        [Sung()],
    ),
    "a rejection that is waited for": lambda: (
        [
            Timeout(60),
            Retry(on=[Kind.REJECTED, 503], wait=1),
            CircuitBreaker(failures=1, key=tenant),
        ],
        [Sung()],
    ),
    "a fallback": lambda: ([Fallback(RESULT), Retry(attempts=2, wait=1)], [Sung()]),
    "a text": lambda: ([Fallback(f"{BIRD}-instead"), CircuitBreaker(failures=1)], [Sung()]),
    "a fallback's function": lambda: (
        [Fallback(call=lambda *args, **kwargs: RESULT), Retry(wait=1)],
        [Sung()],
    ),
    "a fallback that fails": lambda: ([Fallback(call=sings), Retry(wait=1)], [Sung()]),
    "bad results": lambda: ([Retry(wait=1), BadResult(lambda result: True)], [RESULT]),
    "bad results raised": lambda: (
        [Retry(wait=1), BadResult(lambda result: True, finally_="raise")],
        [RESULT],
    ),
    "a time limit": lambda: (
        [
            Timeout(20),
            Retry(attempts=2, wait=1),
            CircuitBreaker(failures=1, key=tenant),
            Timeout(2),
        ],
        [Takes(9, RESULT)],
    ),
    "a total": lambda: ([Timeout(5), Retry(wait=1)], [Takes(2, Sung())]),
    "one flight": lambda: ([SingleFlight(), Retry(wait=1)], [Sung(), RESULT]),
    "one flight by a key": lambda: ([SingleFlight(key=tenant), Retry(wait=1)], [Sung()]),
    "a key that raises": lambda: (
        [SingleFlight(key=sings), Retry(wait=1), CircuitBreaker(key=sings)],
        [Sung(), RESULT],
    ),
    "an option that raises": lambda: (
        [ModelFallback("a", "b", on=sings), Retry(on=sings), CircuitBreaker(on=sings)],
        [Sung()],
    ),
    "a wait that raises": lambda: (
        [Retry(wait=sings, adjust=sings), CircuitBreaker(failures=1, reset_after=sings)],
        [Sung()],
    ),
    "more that raises": lambda: (
        [Retry(wait=1, idempotent=sings, stop=sings), BadResult(sings)],
        [Sung(), RESULT],
    ),
    "an adjustment that raises": lambda: ([Retry(wait=1, adjust=sings)], [Sung()]),
    "a time limit that raises": lambda: ([Retry(wait=1), Timeout(sings)], [RESULT]),
}


@pytest.mark.fault(116, 349)
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_calls_of_plain_functions(world: World, scene: Callable[[], Any]) -> None:
    """By every policy, well or badly, at rest and on the full path, twice and then with the circuit
    as it is by then."""

    def bad(event: Any) -> None:
        raise Sung

    with listening() as ear:
        for listeners in ([], [bad]):
            policies, steps = scene()
            fn = world.function(*steps)
            pipeline = Pipeline(*policies, listeners=listeners)
            named = pipeline.wrap(_with_arguments(world, fn))
            for _ in range(3):
                _call(world, ear, pipeline, named)
            ear.of_pipeline(pipeline, _with_arguments(world, fn))
    assert ear.leaks == []


def _with_arguments(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function with arguments of all sorts."""

    def chat(
        prompt: str, *, tenant: str, model: str = "a", user: Any = None, extra_body: Any = None
    ) -> Any:
        current_attempt()
        return fn(prompt)

    async def achat(
        prompt: str, *, tenant: str, model: str = "a", user: Any = None, extra_body: Any = None
    ) -> Any:
        return await fn(prompt)

    return achat if world.asynchronous else chat


def _call(world: World, ear: Ear, pipeline: Pipeline, fn: Callable[..., Any]) -> None:
    arguments = {"tenant": f"{BIRD}-tenant", "extra_body": {"x": f"{BIRD}-body"}}
    prompt = f"{BIRD}-prompt"
    try:
        world.run(fn, prompt, **arguments)
    except Exception as error:
        ear.of_error(error)
    ear.of_outcome(world.run(guarded(fn).outcome, prompt, **arguments))


@pytest.mark.fault(116)
def test_blocks(world: World) -> None:
    """Of code, in place of a function."""
    pipeline = Pipeline(Retry(attempts=2, wait=1), CircuitBreaker(failures=1, key="tenant"))

    def run() -> None:
        for attempt in pipeline.attempts(tenant=f"{BIRD}-tenant"):
            with attempt:
                ear.hears(attempt)
                raise Sung

    async def arun() -> None:
        async for attempt in pipeline.attempts(tenant=f"{BIRD}-tenant"):
            async with attempt:
                raise Sung

    with listening() as ear:
        for _ in range(2):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                world.run(arun if world.asynchronous else run)
            ear.of_error(caught.value)
    assert ear.leaks == []


STREAMS: dict[str, tuple[Callable[[], list[Any]], list[list[Any]]]] = {
    "whole": (lambda: [Streaming(deliver="whole"), Retry(wait=1)], [[f"{BIRD}-a", Sung()]]),
    "cut": (lambda: [Retry(), Streaming()], [[f"{BIRD}-a", f"{BIRD}-b", Sung()]]),
    "restarted": (
        lambda: [Retry(), Streaming(on_interrupted="restart")],
        [[f"{BIRD}-a", Down()], [f"{BIRD}-b"]],
    ),
    "continued": (
        lambda: [Streaming(on_interrupted=sings), CircuitBreaker(failures=1, key=tenant)],
        [[f"{BIRD}-a", Down()]],
    ),
    "a check that raises": (lambda: [Streaming(first_content=sings)], [[f"{BIRD}-a", Down()]]),
    "late": (lambda: [Retry(wait=1), Streaming(first=2)], [[Takes(9, f"{BIRD}-a")]]),
    "silent": (lambda: [Streaming(idle=2)], [[f"{BIRD}-a", Takes(9, f"{BIRD}-b")]]),
    "well": (lambda: [Retry(wait=1)], [[Sung()], [f"{BIRD}-a"]]),
}


@pytest.mark.fault(116)
@pytest.mark.parametrize(("policies", "scripts"), STREAMS.values(), ids=STREAMS)
def test_streams(world: World, policies: Callable[[], Any], scripts: list[list[Any]]) -> None:
    """What was received, and what has broken them off."""

    def read(fn: Callable[..., Any]) -> None:
        stream = fn(f"{BIRD}-prompt")
        ear.hears(*(each for each in stream if not isinstance(each, str)))

    async def aread(fn: Callable[..., Any]) -> None:
        stream = await fn(f"{BIRD}-prompt")
        async for each in stream:
            if not isinstance(each, str):
                ear.hears(each)

    with listening() as ear:
        pipeline = Pipeline(*policies())
        source = Source(world, *scripts)
        for _ in range(2):
            try:
                world.run(aread if world.asynchronous else read, pipeline.wrap(source.function))
            except Exception as error:
                ear.of_error(error)
        ear.of_pipeline(pipeline, source.function)
    assert ear.leaks == []


# Clients of SDKs

HEADERS = {"x-secret": f"{BIRD}-header", "set-cookie": f"session={BIRD}-cookie"}
PLANS: dict[str, Any] = {
    "down": Error("service_unavailable", headers=HEADERS),
    "limited": Error("rate_limit_exceeded", retry_after=0.01, headers=HEADERS),
    "refused": Error("invalid_request", headers=HEADERS, param=f"{BIRD}-param"),
    "no key": Error("invalid_api_key", headers=HEADERS),
    "gone": Drop(),
    "cut": CutStream(after=2, text=f"{BIRD} {BIRD} {BIRD}"),
    "fine": Ok(f"{BIRD}-answer {BIRD}-more"),
}


def _policies(*, headers: bool = True) -> list[Any]:
    return [
        Fallback(RESULT, on=Kind.AUTH),
        SingleFlight(),
        IdempotencyKey(argument="extra_headers" if headers else None),
        ModelFallback("down", Model("limited", user=f"{BIRD}-user"), rounds=1),
        Retry(attempts=2, wait=0.001, within=5),
        CircuitBreaker(failures=2, key=lambda *args, **kwargs: kwargs["user"]),
        BadResult(lambda result: describe_result(result) is not None),
        Streaming(first=5),
    ]


@pytest.fixture  # for each test: between two, its thread may sleep
def gateway() -> Iterator[Gateway]:
    with Gateway(PLANS) as made:
        yield made


@pytest.mark.fault(116)
@pytest.mark.real
@pytest.mark.parametrize("stream", [False, True], ids=["answer", "stream"])
@pytest.mark.parametrize("model", PLANS)
@pytest.mark.parametrize("sdk", [openai.OpenAI, auriko.Client], ids=["openai", "auriko"])
def test_a_client(gateway: Gateway, sdk: Any, model: str, stream: bool) -> None:
    """Keys, prompts, headers there and back, answers: of each kind of error, in a chain that ends
    with a circuit."""
    with sdk(base_url=gateway.base_url, api_key=f"{BIRD}-key", max_retries=0) as client:
        headers = sdk is openai.OpenAI  # auriko's takes none
        pipeline = Pipeline(*_policies(headers=headers))
        request = _request(model, stream=stream, headers=headers)
        create = pipeline.wrap(client.chat.completions.create)
        copy = pipeline.wrap_client(client).chat.completions.create
        with listening() as ear:
            for fn in (create, create, copy):
                try:
                    result = fn(**request)
                    if stream and not isinstance(result, dict):
                        ear.hears(*(each for each in result if type(each).__module__[:4] == "resi"))
                        ear.of_outcome(result.outcome)
                except Exception as error:
                    ear.of_error(error)
            request["stream"] = False
            ear.of_outcome(guarded(create).outcome(**request))
            ear.of_pipeline(pipeline, client.chat.completions.create)
        assert ear.leaks == []


@pytest.mark.fault(116)
@pytest.mark.real
@pytest.mark.parametrize("model", PLANS)
def test_an_async_client(gateway: Gateway, model: str) -> None:
    """The same in an event loop, several at the same time."""

    async def main(ear: Ear) -> None:
        options: dict[str, Any] = {"api_key": f"{BIRD}-key", "max_retries": 0}
        async with openai.AsyncOpenAI(base_url=gateway.base_url, **options) as client:
            create = Pipeline(*_policies()).wrap(client.chat.completions.create)
            calls = (create(**_request(model)) for _ in range(3))
            for each in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(each, Exception):
                    ear.of_error(each)
            ear.of_outcome(await guarded(create).outcome(**_request(model)))

    with listening() as ear:
        asyncio.run(main(ear))
    assert ear.leaks == []


def _request(model: str, *, stream: bool = False, headers: bool = True) -> dict[str, Any]:
    request = {
        "model": model,
        "messages": [{"role": "user", "content": f"{BIRD}-prompt"}],
        "user": f"{BIRD}-user",
        "stream": stream,
        "extra_body": {"metadata": f"{BIRD}-body"},
    }
    if headers:
        request["extra_headers"] = {
            "x-mine": f"{BIRD}-sent",
            "Idempotency-Key": f"{BIRD}-once",
        }
    return request


@pytest.mark.fault(116)
@pytest.mark.real
def test_threads_with_a_time_limit() -> None:
    """Workers that are left behind, or all busy."""
    done = threading.Event()

    def hangs(prompt: str) -> str:
        done.wait(5)
        return f"{BIRD}-answer"

    with listening() as ear:
        pipeline = Pipeline(Retry(attempts=2, wait=0.001), Timeout(0.02))
        ear.of_outcome(pipeline.outcome(hangs, f"{BIRD}-prompt"))
        ear.of_pipeline(pipeline, hangs)
        ear.hears(*(thread for thread in threading.enumerate()))
    done.set()
    assert ear.leaks == []


@pytest.mark.fault(116)
def test_what_is_refused() -> None:
    """Wrong arguments of a guarded function are an error of the program: its text has none."""

    def ask(*, model: str, headers: Any = None) -> str:
        return model

    with listening() as ear, virtual_time():
        pipeline = Pipeline(IdempotencyKey(argument="headers"), Retry())
        pipeline.call(ask, model="a")
        with pytest.raises(TypeError) as caught:
            pipeline.call(ask, model="a", headers=f"{BIRD}-headers")
        ear.texts.append(str(caught.value))
    assert ear.leaks == []
