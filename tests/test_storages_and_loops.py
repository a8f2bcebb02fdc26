"""A storage and an event loop: the loop never stands still for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pybreaker
import pytest
import redis.asyncio
import trio

from redis_server import Server
from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience._runtimes import workers
from resilience.testing import disabled, virtual_time
from test_shared import Process, until

both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def run(loop: str, main: Callable[[], Any]) -> Any:
    """Run an async function in a loop of this kind."""
    return asyncio.run(main()) if loop == "asyncio" else trio.run(main)


class Noting(pybreaker.CircuitMemoryStorage):
    """A storage that notes which threads ask and tell it."""

    def __init__(self, state: str = "closed") -> None:
        self.threads: set[int] = set()
        super().__init__(state)
        self.threads.clear()

    def note(self) -> None:
        self.threads.add(threading.get_ident())

    @property
    def state(self) -> str:
        self.note()
        return str(super().state)

    @state.setter
    def state(self, value: str) -> None:
        self.note()
        pybreaker.CircuitMemoryStorage.state.fset(self, value)

    def increment_counter(self) -> None:
        self.note()
        super().increment_counter()


async def fine() -> str:
    """An async function."""
    return "ok"


async def broken() -> str:
    """One that fails."""
    raise ConnectionError


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own."""
    server = Server()
    yield server
    server.close()


def until_warned(breaker: CircuitBreaker, act: Callable[[], Any]) -> None:
    """Do it, and wait for the warning that it causes in another thread."""
    act()
    until(lambda: breaker._storages is not None and breaker._storages._warned)


# A function that is not known yet


@pytest.mark.real
@both_loops
def test_a_function_not_yet_known_is_tried_without_the_storage(loop: str) -> None:
    """It gives a coroutine: the storage is asked when that is awaited, off the loop."""
    storage = Noting()
    pipeline = Pipeline(CircuitBreaker(storage=storage))

    async def main() -> None:
        call = pipeline.call(lambda: fine())
        assert storage.threads == set()
        assert await call == "ok"
        assert len(storage.threads) == 1
        assert threading.get_ident() not in storage.threads

    run(loop, main)


@pytest.mark.real
@both_loops
def test_a_circuit_open_in_the_storage_refuses_it_when_it_is_awaited(loop: str) -> None:
    """The async call is admitted by what the others say."""
    pipeline = Pipeline(CircuitBreaker(storage=pybreaker.CircuitMemoryStorage("open")))

    async def main() -> None:
        with pytest.raises(CircuitOpenError):
            await pipeline.call(lambda: fine())

    run(loop, main)


@pytest.mark.real
@both_loops
def test_one_that_turns_out_to_be_sync_tells_the_storage_afterwards(loop: str) -> None:
    """Its failure is written, and what the others say is heard, in another thread."""
    storage = Noting()
    breaker = CircuitBreaker(storage=storage, failures=3)
    pipeline = Pipeline(breaker)

    def fail() -> None:
        raise ConnectionError

    async def main() -> None:
        pybreaker.CircuitMemoryStorage.increment_counter(storage)
        with pytest.raises(ConnectionError):
            pipeline.call(fail)

    run(loop, main)
    until(lambda: breaker._only.failures == 2)
    assert storage.counter == 2
    assert threading.get_ident() not in storage.threads


@pytest.mark.real
def test_one_known_to_be_sync_asks_the_storage_on_the_spot() -> None:
    """As it does without a loop: it waits for the service there, too."""
    storage = Noting()
    guarded = Pipeline(CircuitBreaker(storage=storage, refresh=0)).wrap(lambda: "ok")

    async def main() -> None:
        guarded()
        until(lambda: storage.threads)
        storage.threads.clear()
        guarded()

    asyncio.run(main())
    assert storage.threads == {threading.get_ident()}


@pytest.mark.real
def test_a_trial_that_turns_out_to_be_sync_closes_the_shared_circuit(server: Server) -> None:
    """Its place is asked for afterwards, and its verdict told."""
    one, two = (Process(server.url, failures=1, refresh=60.0) for _ in range(2))
    one.bad()
    two.refused()
    time.sleep(0.31)

    async def main() -> None:
        assert Pipeline(one.breaker).call(lambda: "fine") == "fine"

    asyncio.run(main())
    until(lambda: server.client().hget("app:circuit1:llm:~", "state") == "closed")


@pytest.mark.real
def test_a_storage_that_cannot_be_made_does_not_hold_up_the_loop() -> None:
    """It is tried in another thread, which says so; the call goes on by itself."""
    threads: list[int] = []

    def storage(key: str) -> Any:
        threads.append(threading.get_ident())
        raise OSError

    breaker = CircuitBreaker(key=lambda: "a", storage=storage)

    async def main() -> None:
        assert Pipeline(breaker).call(lambda: "ok") == "ok"

    with pytest.warns(RuntimeWarning, match="storage"):
        until_warned(breaker, lambda: asyncio.run(main()))
    assert threading.get_ident() not in threads


@pytest.mark.real
def test_where_no_thread_is_to_be_had_the_storage_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The call's own error comes out, and nothing else."""
    storage = Noting()
    monkeypatch.setattr(workers, "LIMIT", 0)
    workers._renew()

    def fail() -> None:
        raise ConnectionError

    async def main() -> None:
        with pytest.raises(ConnectionError):
            Pipeline(CircuitBreaker(storage=storage)).call(fail)

    asyncio.run(main())
    workers._renew()
    assert storage.threads == set()


@both_loops
def test_in_virtual_time_it_is_told_at_once(loop: str) -> None:
    """Nothing is slow there."""
    storage = Noting()

    def fail() -> None:
        raise ConnectionError

    async def main() -> None:
        with pytest.raises(ConnectionError):
            Pipeline(CircuitBreaker(storage=storage, failures=1)).call(fail)
        assert storage.state == "open"

    with virtual_time():
        run(loop, main)


@both_loops
def test_one_not_yet_known_does_not_wait_for_a_trials_verdict(loop: str) -> None:
    """The loop would stand still, and the trial with it: refused at once, as a block is."""
    breaker = CircuitBreaker(failures=1, reset_after=10, wait_for_trial=20)

    async def main() -> None:
        with pytest.raises(CircuitOpenError):
            Pipeline(breaker).call(lambda: fine())

    with virtual_time() as clock:
        breaker.open()
        clock.advance(10)
        held = breaker._only.admit(clock.now())
        begun = clock.now()
        run(loop, main)
        assert clock.now() == begun
        assert not held.settled


@pytest.mark.parametrize("where", ["in the loop", "before the loop"])
def test_a_listener_hears_of_a_handed_over_call_once(where: str) -> None:
    """`before_call` is told when the function is called, not again when its result is awaited."""
    heard: list[str] = []

    class Listener(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            heard.append("before")

        def success(self, cb: Any) -> None:
            heard.append("success")

    pipeline = Pipeline(CircuitBreaker(listeners=[Listener()]))

    async def main() -> None:
        await (pipeline.call(lambda: fine()) if begun is None else begun)

    begun = pipeline.call(lambda: fine()) if where == "before the loop" else None
    asyncio.run(main())
    assert heard == ["before", "success"]


# A block


@pytest.mark.real
@both_loops
@pytest.mark.parametrize("body", [fine, broken])
def test_a_block_leaves_the_storage_to_other_threads(loop: str, body: Any) -> None:
    """It is read before the block, in `async for`, and told after it, neither by the loop's."""
    storage = Noting()
    breaker = CircuitBreaker(storage=storage, failures=1)

    async def main() -> None:
        async for attempt in Pipeline(breaker).attempts():
            assert len(storage.threads) == 1
            with attempt:
                await body()

    if body is broken:
        with pytest.raises(ConnectionError):
            run(loop, main)
        until(lambda: pybreaker.CircuitMemoryStorage.state.fget(storage) == "open")
    else:
        run(loop, main)
    assert threading.get_ident() not in storage.threads


@pytest.mark.real
@both_loops
def test_a_block_hears_that_the_circuit_is_open(loop: str) -> None:
    """`with` refuses, by what was read just before it."""
    pipeline = Pipeline(CircuitBreaker(storage=pybreaker.CircuitMemoryStorage("open")))
    reached: list[Any] = []

    async def main() -> None:
        async for attempt in pipeline.attempts():
            reached.append(attempt)
            with attempt:
                raise AssertionError

    with pytest.raises(CircuitOpenError):
        run(loop, main)
    assert len(reached) == 1


@pytest.mark.real
@pytest.mark.parametrize("kind", ["url", "asyncio client"])
def test_a_block_hears_of_the_others_through_redis(server: Server, kind: str) -> None:
    """By whatever client, on the loop or off it."""
    client = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one = Process(server.url if kind == "url" else client, failures=1)
    two = Process(server.url, failures=1, reset_after=60)
    two.bad()

    async def main() -> None:
        try:
            async for attempt in Pipeline(one.breaker).attempts():
                with attempt:
                    raise AssertionError
        finally:
            await client.aclose()

    with pytest.raises(CircuitOpenError):
        asyncio.run(main())


@pytest.mark.parametrize("why", ["keyed", "disabled", "no storage"])
def test_before_a_block_nothing_may_be_there_to_ask(why: str) -> None:
    """Which circuit it is, only the block can tell; switched off, there is none."""
    asked: list[str] = []

    def storage(key: str) -> pybreaker.CircuitMemoryStorage:
        asked.append("made")
        return pybreaker.CircuitMemoryStorage("closed")

    noting = Noting()
    breaker = {
        "keyed": lambda: CircuitBreaker(key=lambda: "a", storage=storage),
        "disabled": lambda: CircuitBreaker(storage=noting),
        "no storage": lambda: CircuitBreaker(),
    }[why]()

    async def main() -> None:
        async for attempt in Pipeline(breaker).attempts():
            assert asked == []
            with attempt:
                await fine()

    with virtual_time():
        if why == "disabled":
            with disabled():
                asyncio.run(main())
        else:
            asyncio.run(main())
    assert noting.threads == set()
    assert asked == (["made"] if why == "keyed" else [])


@pytest.mark.real
def test_a_block_given_up_while_it_asks_leaves_nothing_behind() -> None:
    """Closed in another context than it was begun in, as a task's remains are."""
    breaker = CircuitBreaker(storage=Noting())

    async def main() -> None:
        attempts = Pipeline(breaker).attempts().__aiter__()
        step: Any = attempts.__anext__()
        copy_context().run(step.send, None)
        step.close()

    asyncio.run(main())
