"""A storage and an event loop: the loop never stands still for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pybreaker
import pytest
import redis.asyncio
import trio

from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience._runtimes import workers
from resilience.testing import disabled, virtual_time
from support import redis_server
from support.redis_server import Process, Server, open_time_over, until

both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])
real = pytest.mark.real

server = redis_server.own_server


def run(loop: str, main: Callable[[], Any]) -> Any:
    """Run an async function in a loop of this kind."""
    return asyncio.run(main()) if loop == "asyncio" else trio.run(main)


class Noting(pybreaker.CircuitMemoryStorage):
    """A storage that notes which threads read and write it."""

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


def fail() -> None:
    """A sync function that fails."""
    raise ConnectionError


def until_warned(breaker: CircuitBreaker, act: Callable[[], Any]) -> None:
    """Do it, and wait for the warning that it causes in another thread."""
    act()
    until(lambda: breaker._storages is not None and breaker._storages._warned)


# A function that is not known yet


@real
@both_loops
def test_a_function_not_yet_known_is_called_without_the_storage(loop: str) -> None:
    """It returns a coroutine: the storage is read when that is awaited, off the loop."""
    storage = Noting()
    pipeline = Pipeline(CircuitBreaker(storage=storage))

    async def main() -> None:
        call = pipeline.call(lambda: fine())
        assert storage.threads == set()
        assert await call == "ok"
        assert len(storage.threads) == 1
        assert threading.get_ident() not in storage.threads

    run(loop, main)


@real
@both_loops
def test_a_circuit_open_in_the_storage_rejects_it_when_it_is_awaited(loop: str) -> None:
    """The async call is admitted by what the others say."""
    pipeline = Pipeline(CircuitBreaker(storage=pybreaker.CircuitMemoryStorage("open")))

    async def main() -> None:
        with pytest.raises(CircuitOpenError):
            await pipeline.call(lambda: fine())

    run(loop, main)


@real
@both_loops
def test_one_that_turns_out_to_be_sync_leaves_the_storage_for_afterwards(loop: str) -> None:
    """Its failure is written, and what others have written is read, in another thread."""
    storage = Noting()
    breaker = CircuitBreaker(storage=storage, failures=3)
    pipeline = Pipeline(breaker)

    async def main() -> None:
        pybreaker.CircuitMemoryStorage.increment_counter(storage)
        with pytest.raises(ConnectionError):
            pipeline.call(fail)

    run(loop, main)
    until(lambda: breaker._only.failures == 2)
    assert storage.counter == 2
    assert threading.get_ident() not in storage.threads


@real
@both_loops
def test_one_known_to_be_sync_leaves_it_for_afterwards_too(loop: str) -> None:
    """It runs on the thread of the loop, where nothing waits for a storage."""
    storage = Noting()
    guarded = Pipeline(CircuitBreaker(storage=storage, refresh=0)).wrap(lambda: "ok")
    assert guarded() == "ok"  # outside a loop
    assert storage.threads == {threading.get_ident()}

    async def main() -> None:
        storage.threads.clear()
        assert guarded() == "ok"
        until(lambda: storage.threads)

    run(loop, main)
    assert threading.get_ident() not in storage.threads


@real
def test_a_storage_that_cannot_be_made_does_not_hold_up_the_loop() -> None:
    """It is tried in another thread, which says so; the call uses local state."""
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


@real
def test_where_no_thread_is_to_be_had_the_storage_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The call's own error comes out, and nothing else."""
    storage = Noting()
    monkeypatch.setattr(workers, "LIMIT", 0)
    workers._renew()

    async def main() -> None:
        with pytest.raises(ConnectionError):
            Pipeline(CircuitBreaker(storage=storage)).call(fail)

    asyncio.run(main())
    workers._renew()
    assert storage.threads == set()


@both_loops
def test_in_virtual_time_it_is_written_at_once(loop: str) -> None:
    """Nothing is slow there."""
    storage = Noting()

    async def main() -> None:
        with pytest.raises(ConnectionError):
            Pipeline(CircuitBreaker(storage=storage, failures=1)).call(fail)
        assert storage.state == "open"

    with virtual_time():
        run(loop, main)


@both_loops
def test_one_not_yet_known_does_not_wait_for_a_trials_verdict(loop: str) -> None:
    """The loop would stand still, and the trial with it: rejected at once, as a block is."""
    breaker = CircuitBreaker(failures=1, reset_after=10, wait_for_trial=20)

    async def main() -> None:
        begun, over = asyncio_or_trio_event(loop), asyncio_or_trio_event(loop)

        async def trial() -> str:
            begun.set()
            await over.wait()
            return "tried"

        async def others() -> None:
            await begun.wait()
            before = clock.now()
            with pytest.raises(CircuitOpenError):
                Pipeline(breaker).call(lambda: fine())
            assert clock.now() == before
            assert breaker.state == "half-open"
            over.set()

        await both(loop, lambda: Pipeline(breaker).call(trial), others)

    with virtual_time() as clock:
        breaker.open()
        clock.advance(10)
        run(loop, main)
    assert breaker.state == "closed"


def asyncio_or_trio_event(loop: str) -> Any:
    return asyncio.Event() if loop == "asyncio" else trio.Event()


async def both(loop: str, one: Callable[[], Any], other: Callable[[], Any]) -> None:
    """Two tasks at once."""
    if loop == "asyncio":
        await asyncio.gather(one(), other())
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(other)


@pytest.mark.parametrize("where", ["in the loop", "before the loop"])
def test_a_listener_is_told_of_a_handed_over_call_once(where: str) -> None:
    """`before_call` when the function is called, not again when its result is awaited."""
    events: list[str] = []

    class Listener(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            events.append("before")

        def success(self, cb: Any) -> None:
            events.append("success")

    pipeline = Pipeline(CircuitBreaker(listeners=[Listener()]))

    async def main() -> None:
        await (pipeline.call(lambda: fine()) if begun is None else begun)

    begun = pipeline.call(lambda: fine()) if where == "before the loop" else None
    asyncio.run(main())
    assert events == ["before", "success"]


# The same, with a circuit in Redis


@real
def test_a_trial_that_turns_out_to_be_sync_closes_the_shared_circuit(server: Server) -> None:
    """Its slot is asked for afterwards, and its result published."""
    one, two = (Process(server.url, failures=1, refresh=60.0) for _ in range(2))
    one.bad()
    two.rejected()
    open_time_over()

    async def main() -> None:
        assert Pipeline(one.breaker).call(lambda: "fine") == "fine"

    asyncio.run(main())
    until(lambda: server.field("state") == "closed")


@real
def test_a_trial_that_turns_out_to_be_sync_opens_it_again(server: Server) -> None:
    """For all, and it is one opening more."""
    one, two = (Process(server.url, failures=1, refresh=60.0) for _ in range(2))
    one.bad()
    open_time_over()

    async def main() -> None:
        with pytest.raises(ConnectionError):
            Pipeline(one.breaker).call(fail)

    asyncio.run(main())
    until(lambda: server.field("openings") == "2")
    two.rejected()


@real
def test_a_trial_for_which_there_is_no_slot_afterwards_changes_nothing(server: Server) -> None:
    """Another process tries, and decides."""
    one, two = (Process(server.url, failures=1) for _ in range(2))
    one.bad()
    open_time_over()

    async def main() -> None:
        assert Pipeline(one.breaker).call(lambda: "fine") == "fine"

    def trial() -> None:
        asyncio.run(main())
        one.published()
        assert server.field("state") == "half-open"
        assert one.state == "open"
        raise ConnectionError("still down")

    with pytest.raises(ConnectionError):
        two.guarded(trial)
    two.published()
    one.rejected()


@real
def test_after_a_call_that_could_not_wait_a_thread_looks(server: Server) -> None:
    """So that the next one knows that others have opened the circuit."""
    one, two = Process(server.url), Process(server.url)
    two.breaker.open()

    async def main() -> None:
        assert Pipeline(one.breaker).call(lambda: "fine") == "fine"
        while one.state == "closed":
            await asyncio.sleep(0.001)
        with pytest.raises(CircuitOpenError):
            Pipeline(one.breaker).call(lambda: "fine")

    asyncio.run(main())


# A block


@real
@both_loops
@pytest.mark.parametrize("body", [fine, broken])
def test_an_async_block_leaves_the_storage_to_other_threads(loop: str, body: Any) -> None:
    """It is read when the block is entered, and written after it, neither by the loop's."""
    storage = Noting()
    breaker = CircuitBreaker(storage=storage, failures=1)

    async def main() -> None:
        async for attempt in Pipeline(breaker).attempts():
            async with attempt:
                assert len(storage.threads) == 1
                await body()

    if body is broken:
        with pytest.raises(ConnectionError):
            run(loop, main)
        until(lambda: pybreaker.CircuitMemoryStorage.state.fget(storage) == "open")
    else:
        run(loop, main)
    assert threading.get_ident() not in storage.threads


@real
@both_loops
def test_an_async_block_knows_that_the_circuit_is_open(loop: str) -> None:
    """It is rejected by what it reads itself."""
    pipeline = Pipeline(CircuitBreaker(storage=pybreaker.CircuitMemoryStorage("open")))
    reached: list[Any] = []

    async def main() -> None:
        async for attempt in pipeline.attempts():
            reached.append(attempt)
            async with attempt:
                raise AssertionError

    with pytest.raises(CircuitOpenError):
        run(loop, main)
    assert len(reached) == 1


@real
@both_loops
def test_a_plain_block_cannot_wait_for_the_storage(loop: str) -> None:
    """`with` goes by what was read before; a thread writes and reads afterwards."""
    storage = Noting()
    breaker = CircuitBreaker(storage=storage, failures=1)

    async def main() -> None:
        async for attempt in Pipeline(breaker).attempts():
            with attempt:
                assert storage.threads == set()
                await broken()

    with pytest.raises(ConnectionError):
        run(loop, main)
    until(lambda: pybreaker.CircuitMemoryStorage.state.fget(storage) == "open")
    assert threading.get_ident() not in storage.threads


@real
@pytest.mark.parametrize("kind", ["url", "asyncio client"])
def test_an_async_block_knows_what_redis_knows(server: Server, kind: str) -> None:
    """By whatever client, off the loop."""
    client = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one = Process(server.url if kind == "url" else client, failures=1)
    two = Process(server.url, failures=1, reset_after=60)
    two.bad()

    async def main() -> None:
        try:
            async for attempt in Pipeline(one.breaker).attempts():
                async with attempt:
                    raise AssertionError
        finally:
            await client.aclose()

    with pytest.raises(CircuitOpenError):
        asyncio.run(main())


@pytest.mark.parametrize("why", ["keyed", "disabled", "no storage"])
def test_before_a_block_nothing_is_read(why: str) -> None:
    """Which circuit it is, only the block can tell; switched off, there is none."""
    made: list[str] = []

    def storage(key: str) -> pybreaker.CircuitMemoryStorage:
        made.append(key)
        return pybreaker.CircuitMemoryStorage("closed")

    noting = Noting()
    breaker = {
        "keyed": lambda: CircuitBreaker(key=lambda: "a", storage=storage),
        "disabled": lambda: CircuitBreaker(storage=noting),
        "no storage": lambda: CircuitBreaker(),
    }[why]()

    async def main() -> None:
        async for attempt in Pipeline(breaker).attempts():
            assert made == []
            async with attempt:
                await fine()

    with virtual_time():
        if why == "disabled":
            with disabled():
                asyncio.run(main())
        else:
            asyncio.run(main())
    assert noting.threads == set()
    assert made == (["a"] if why == "keyed" else [])


@real
def test_a_block_given_up_while_it_asks_leaves_nothing_behind() -> None:
    """Closed in another context than it was begun in, as a task's remains are."""
    breaker = CircuitBreaker(storage=Noting())

    async def main() -> None:
        attempt = await Pipeline(breaker).attempts().__aiter__().__anext__()
        step: Any = attempt.__aenter__()
        copy_context().run(step.send, None)
        step.close()

    asyncio.run(main())
    assert Pipeline(breaker).call(lambda: "ok") == "ok"
