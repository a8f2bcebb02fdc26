"""The async SDKs in event loops of every kind, and many calls at once through one pipeline."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import trio

from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    history,
    served_by,
)
from resilience._core import functions
from resilience.testing.gateway import Drop, Gateway, Hang, Ok, Plan
from resilience.waits import Fixed
from test_wire import MESSAGES, SDKS, Sdk, text, took

pytestmark = pytest.mark.real

every_async_sdk = pytest.mark.parametrize("name", ["auriko-async", "openai-async"])
every_loop = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's first call is the first that the library sees of the SDK's function."""
    monkeypatch.setattr(functions, "_known", WeakKeyDictionary())
    monkeypatch.setattr(functions, "_methods", WeakKeyDictionary())


def full() -> Pipeline:
    """A pipeline that is never at rest, because there is always a timeout to arm."""
    return Pipeline(
        Timeout(5),
        ModelFallback("a", "b"),
        Retry(attempts=2, wait=Fixed(0.001)),
        CircuitBreaker(key="model", failures=3),
        Timeout(0.5),
    )


def resting() -> Pipeline:
    """A pipeline that calls directly while nothing is going on."""
    return Pipeline(
        ModelFallback("a", "b"),
        Retry(attempts=2, wait=Fixed(0.001)),
        CircuitBreaker(key="model", failures=3),
    )


every_pipeline = pytest.mark.parametrize("make", [full, resting])


def in_loop(loop: str, sdk: Sdk, gateway: Gateway, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run `use(client)` in a new event loop, with a client of its own."""

    async def main() -> Any:
        client = sdk.make(api_key="any", base_url=gateway.base_url, max_retries=0, timeout=5.0)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(main()) if loop == "asyncio" else trio.run(main)


# Found to be async by what comes back.


@every_pipeline
@every_loop
@every_async_sdk
def test_the_very_first_call(name: str, loop: str, make: Callable[[], Pipeline]) -> None:
    """The first call of a function nobody knows is guarded in full: retried and fallen back."""
    plan: dict[str, Plan] = {"a": ["upstream_error", "model_unavailable"], "b": [Drop(), Ok()]}
    with Gateway(plan) as gateway:

        async def use(client: Any) -> Any:
            create = client.chat.completions.create
            assert inspect.iscoroutinefunction(create) is (name == "auriko-async")
            answer = await make().call(create, model="a", messages=MESSAGES)
            return answer, served_by()

        answer, served = in_loop(loop, SDKS[name], gateway, use)
        assert gateway.hits == {"a": 2, "b": 2}
    assert (answer.model, served) == ("b", "b")


@every_loop
@every_async_sdk
def test_the_very_first_call_hangs(name: str, loop: str) -> None:
    """The first call's own time limit is kept: its request is cancelled, the next model asked."""
    pipeline = Pipeline(ModelFallback("a", "b"), Timeout(0.12))
    with Gateway({"a": Hang(), "b": Ok()}) as gateway:

        async def use(client: Any) -> Any:
            return await pipeline.call(client.chat.completions.create, model="a", messages=MESSAGES)

        with took(at_least=0.12, at_most=1):
            assert in_loop(loop, SDKS[name], gateway, use).model == "b"
        assert gateway.hits == {"a": 1, "b": 1}


@every_loop
@every_async_sdk
def test_each_attempt_is_one_request(name: str, loop: str) -> None:
    """A hand-over to async costs no request, and no attempt: they are told one to one."""
    pipeline = Pipeline(Timeout(5), Retry(wait=Fixed(0.001)))
    with Gateway("upstream_error") as gateway:

        async def use(client: Any) -> Any:
            create = client.chat.completions.create
            with pytest.raises(SDKS[name].errors.APIStatusError) as caught:
                await pipeline.call(create, model="a", messages=MESSAGES)
            return history(caught.value)

        attempts = in_loop(loop, SDKS[name], gateway, use)
        ids = [received.request_id for received in gateway.requests]
    assert [a.number for a in attempts] == [1, 2, 3]
    assert [a.failure and a.failure.request_id for a in attempts] == ids


@every_pipeline
@every_async_sdk
def test_called_before_there_is_a_loop(name: str, make: Callable[[], Pipeline]) -> None:
    """What `pipeline.call` gives where no loop runs is a coroutine, good for `asyncio.run`."""
    with Gateway(["upstream_error", Ok()]) as gateway:
        client = SDKS[name].make(api_key="any", base_url=gateway.base_url, max_retries=0)
        call: Any = make().call(client.chat.completions.create, model="a", messages=MESSAGES)
        assert inspect.iscoroutine(call)

        async def main() -> Any:
            try:
                return await call
            finally:
                await client.close()

        assert asyncio.run(main()).model == "a"
        assert gateway.hits == {"a": 2}


@pytest.mark.parametrize("end", ["closed", "cancelled"])
@every_pipeline
@every_async_sdk
def test_a_call_never_begun(name: str, make: Callable[[], Pipeline], end: str) -> None:
    """A call closed unawaited, or whose task is cancelled before its first step, has sent
    nothing and leaves no warning behind, as without a pipeline."""

    async def use(client: Any) -> None:
        call = make().call(client.chat.completions.create, model="a", messages=MESSAGES)
        if end == "closed":
            call.close()
            return
        task = asyncio.ensure_future(call)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Gateway() as gateway, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        in_loop("asyncio", SDKS[name], gateway, use)
        gc.collect()
        assert gateway.requests == []
    assert [str(warning.message) for warning in warned] == []


@every_loop
@every_async_sdk
def test_cancelled_from_outside(name: str, loop: str) -> None:
    """A cancellation is nobody's failure: not retried, not counted, the client stays usable."""
    breaker = CircuitBreaker(failures=1)
    pipeline = Pipeline(Retry(wait=Fixed(0.001)), breaker)
    with Gateway({"a": Hang(), "b": Ok()}) as gateway:

        async def use(client: Any) -> Any:
            create = client.chat.completions.create
            if loop == "trio":
                with trio.move_on_after(0.15):
                    await pipeline.call(create, model="a", messages=MESSAGES)
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(
                        pipeline.call(create, model="a", messages=MESSAGES), 0.15
                    )
            return await pipeline.call(create, model="b", messages=MESSAGES)

        assert in_loop(loop, SDKS[name], gateway, use).model == "b"
        assert gateway.hits == {"a": 1, "b": 1}
    assert breaker.state == "closed"


# One pipeline in many places.


@every_pipeline
@every_async_sdk
def test_one_pipeline_in_many_loops(name: str, make: Callable[[], Pipeline]) -> None:
    """Loops of either kind, one after the other, share a pipeline and its circuits."""
    pipeline = make()
    plan: dict[str, Plan] = {"a": ["upstream_error", Ok()], "b": Ok()}
    with Gateway(plan) as gateway:

        async def use(client: Any) -> Any:
            return await pipeline.call(client.chat.completions.create, model="a", messages=MESSAGES)

        for loop in ("asyncio", "asyncio", "trio", "asyncio"):
            gateway.reset()
            assert in_loop(loop, SDKS[name], gateway, use).model == "a"
            assert gateway.hits == {"a": 2}


@every_async_sdk
def test_a_circuit_opened_in_one_loop_is_open_in_the_next(name: str) -> None:
    """State does not live in a loop."""
    pipeline = Pipeline(ModelFallback("a", "b"), CircuitBreaker(key="model", failures=1))
    with Gateway({"a": "upstream_error", "b": Ok()}) as gateway:

        async def use(client: Any) -> Any:
            return await pipeline.call(client.chat.completions.create, model="a", messages=MESSAGES)

        for loop in ("asyncio", "trio", "asyncio"):
            assert in_loop(loop, SDKS[name], gateway, use).model == "b"
        assert gateway.hits == {"a": 1, "b": 3}


def test_one_pipeline_for_sync_and_async() -> None:
    """The same object guards a sync and an async client, in turn."""
    pipeline = full()
    with Gateway(["upstream_error", Ok()]) as gateway:

        async def use(client: Any) -> Any:
            return await pipeline.call(client.chat.completions.create, model="a", messages=MESSAGES)

        for name in ("openai", "openai-async", "auriko", "auriko-async", "openai"):
            gateway.reset()
            if SDKS[name].asynchronous:
                assert in_loop("asyncio", SDKS[name], gateway, use).model == "a"
            else:
                with SDKS[name].open(gateway) as connection:
                    assert connection.ask(pipeline, "a").model == "a"
            assert gateway.hits == {"a": 2}


@every_pipeline
@every_async_sdk
def test_a_sync_client_in_a_loop(name: str, make: Callable[[], Pipeline]) -> None:
    """A sync client called in async code is still retried, and gives a plain answer."""
    sync = name.removesuffix("-async")
    with Gateway(["upstream_error", Ok()]) as gateway, SDKS[sync].open(gateway) as connection:

        async def main() -> Any:
            return connection.ask(make(), "a")

        assert asyncio.run(main()).model == "a"
        assert gateway.hits == {"a": 2}


TASKS = 20
MODELS = [f"m{number}" for number in range(TASKS)]
HELLOS = [f"Hello from {model}." for model in MODELS]
every_limit = pytest.mark.parametrize("limits", [(), (Timeout(5),)], ids=["rest", "full"])


@every_limit
@every_loop
@every_async_sdk
def test_twenty_tasks_at_once(name: str, loop: str, limits: Any) -> None:
    """Concurrent calls through one pipeline get their own answers, retries and models."""
    pipeline = Pipeline(Retry(wait=Fixed(0.01)), CircuitBreaker(key="model"), *limits)
    found: dict[str, str] = {}
    with Gateway({"*": ["upstream_error", Ok()]}) as gateway:

        async def use(client: Any) -> None:
            create = pipeline.wrap(client.chat.completions.create)

            async def ask(model: str) -> None:
                found[model] = text(await create(model=model, messages=MESSAGES))

            if loop == "asyncio":
                await asyncio.gather(*map(ask, MODELS))
            else:
                async with trio.open_nursery() as nursery:
                    for model in MODELS:
                        nursery.start_soon(ask, model)

        in_loop(loop, SDKS[name], gateway, use)
        assert gateway.hits == dict.fromkeys(MODELS, 2)
    assert [found[model] for model in MODELS] == HELLOS


@every_async_sdk
def test_twenty_tasks_break_one_circuit(name: str) -> None:
    """Twenty calls at once that fail open the circuit once; nobody is asked afterwards."""
    breaker = CircuitBreaker(failures=5)
    pipeline = Pipeline(breaker)
    with Gateway("upstream_error") as gateway:

        async def use(client: Any) -> list[Any]:
            create = client.chat.completions.create
            calls = [pipeline.call(create, model="a", messages=MESSAGES) for _ in range(TASKS)]
            errors: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
            before = len(gateway.requests)
            outcome = await pipeline.outcome(create, model="a", messages=MESSAGES)
            assert type(outcome.error).__name__ == "CircuitOpenError"
            assert len(gateway.requests) == before
            return errors

        errors = in_loop("asyncio", SDKS[name], gateway, use)
    kinds = {type(error).__name__ for error in errors}
    assert kinds <= {"APIStatusError", "InternalServerError", "CircuitOpenError"}
    assert breaker.state == "open"


@every_limit
@pytest.mark.parametrize("name", ["auriko", "openai"])
def test_twenty_threads_at_once(name: str, limits: Any) -> None:
    """The same for a sync client used from many threads."""
    pipeline = Pipeline(Retry(wait=Fixed(0.01)), CircuitBreaker(key="model"), *limits)
    with (
        Gateway({"*": ["upstream_error", Ok()]}) as gateway,
        SDKS[name].open(gateway) as connection,
        ThreadPoolExecutor(TASKS) as pool,
    ):
        found = list(pool.map(lambda model: connection.ask(pipeline, model), MODELS))
        assert gateway.hits == dict.fromkeys(MODELS, 2)
    assert list(map(text, found)) == HELLOS


@every_async_sdk
def test_tasks_with_deadlines_of_their_own(name: str) -> None:
    """One task's time limit touches no other: hung calls end, the others are answered."""
    pipeline = Pipeline(Timeout(0.25))
    with Gateway({"hung": Hang(), "*": Ok(delay=0.05)}) as gateway:

        async def use(client: Any) -> list[Any]:
            create = client.chat.completions.create
            models = ["hung", "well"] * 5
            calls = [pipeline.call(create, model=model, messages=MESSAGES) for model in models]
            return list(await asyncio.gather(*calls, return_exceptions=True))

        results = in_loop("asyncio", SDKS[name], gateway, use)
    assert [type(result) for result in results[::2]] == [DeadlineExceededError] * 5
    assert [text(result) for result in results[1::2]] == ["Hello from well."] * 5
