"""Entries of the fault catalogue that no other file shows; docs/faults.md has the whole list."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
import tenacity

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    Retry,
    Timeout,
    WorkersBusyError,
)
from resilience._runtimes import workers
from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks.headers import pick
from resilience.waits import Decorrelated, Exponential, Fixed, FullJitter, Linear, RetryAfter


def caught(world: World, fn: Callable[..., Any], *args: Any) -> Exception:
    with pytest.raises(Exception) as found:  # noqa: PT011
        world.run(fn, *args)
    return found.value


@pytest.mark.parametrize(
    "wait",
    [
        *(Exponential(jitter=0), FullJitter(), Decorrelated(), Linear(), RetryAfter(), Fixed(1)),
        tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(2)),
        tenacity.wait_incrementing(1, 1, 5),
    ],
    ids=lambda wait: type(wait).__name__,
)
def test_fault_026_a_wait_is_never_used_up(world: World, wait: Any) -> None:
    """One wait object serves call after call, and far beyond the end of its sequence."""
    guarded = Pipeline(Retry(attempts=200, wait=wait)).wrap(world.function(ConnectionError))
    for _ in range(2):
        assert type(caught(world, guarded)) is ConnectionError
    waits = world.clock.sleeps
    assert len(waits) == 398
    assert all(0 <= seconds <= 1000 for seconds in waits)
    if not isinstance(wait, (FullJitter, Decorrelated, RetryAfter)):
        assert waits[:199] == waits[199:]


def test_fault_026_an_iterator_is_no_wait() -> None:
    """What can be used up is refused."""
    with pytest.raises(TypeError, match="wait"):
        Retry(wait=iter([1, 2, 3]))


def test_fault_036_a_suspended_machine_never_makes_a_wait_negative(world: World) -> None:
    """The wall clock has gone on for a day, the other has not: nothing leaves its bounds."""
    breaker = CircuitBreaker(failures=1, reset_after=10)
    fn = world.function(ConnectionError, "ok")

    assert type(caught(world, Pipeline(breaker).wrap(fn))) is ConnectionError
    world.clock.move_wall(86_400)
    refusal = caught(world, Pipeline(breaker).wrap(fn))
    assert isinstance(refusal, CircuitOpenError)
    assert refusal.retry_after == pytest.approx(10)
    world.clock.advance(10)
    assert world.run(Pipeline(breaker).wrap(fn)) == "ok"


def test_fault_038_events_of_one_tick_keep_their_order(world: World) -> None:
    """With equal times it is the order of events that counts."""
    breaker = CircuitBreaker(failures=2, reset_after=0.001)

    def late(*args: Any) -> None:
        breaker.open()
        breaker.close()
        raise ConnectionError

    steps = [ConnectionError, "ok", ConnectionError, late, ConnectionError, ConnectionError]
    guarded: Any = Pipeline(breaker).wrap(world.function(*steps))
    states = []
    for _ in steps:
        try:
            world.run(guarded)
        except ConnectionError:
            pass
        states.append((breaker.state, breaker._only.failures))
    assert states == [
        *(("closed", 1), ("closed", 0), ("closed", 1)),
        ("closed", 0),  # begun before it was opened and closed, in the same tick
        *(("closed", 1), ("open", 0)),
    ]
    assert isinstance(caught(world, guarded), CircuitOpenError)


class DatedError(Exception):
    """An error with a date to come back at."""

    def __init__(self, date: str) -> None:
        super().__init__()
        self.date = date


@describe.register(DatedError)
def _read(error: DatedError) -> Failure:
    wait = pick({"Retry-After": error.date}).wait
    return Failure(Kind.UNAVAILABLE, Advice.WAIT, retry_after=wait)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_fault_039_a_date_is_read_once(world: World, jump: float) -> None:
    """What the wall clock does after the date was read changes nothing."""
    errors: list[DatedError] = []

    def dated(*args: Any) -> None:
        errors.append(DatedError(formatdate(world.clock.wall() + 10, usegmt=True)))
        raise errors[-1]

    read: list[Failure] = []

    def on(failure: Failure) -> bool:
        read.append(failure)
        world.clock.move_wall(jump)
        return True

    guarded = Pipeline(Retry(wait=RetryAfter(spread=0), on=on)).wrap(world.function(dated, "ok"))
    assert world.run(guarded) == "ok"
    assert len(read) == 1
    assert world.clock.sleeps == [pytest.approx(10, abs=1.1)]


@pytest.mark.real
@pytest.mark.parametrize("extra", [0.6, -1.0])
def test_fault_040_a_sleep_that_errs(monkeypatch: pytest.MonkeyPatch, extra: float) -> None:
    """One that lasts too long adds no attempt after the deadline; one too short does no harm."""
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(max(0.0, seconds + extra)))
    made: list[float] = []
    begun = time.monotonic()

    def fail() -> None:
        made.append(time.monotonic() - begun)
        raise ConnectionError

    with pytest.raises((ConnectionError, DeadlineExceededError)):
        Pipeline(Timeout(0.5), Retry(attempts=4, wait=Fixed(0.1))).call(fail)
    assert len(made) == (1 if extra > 0 else 4)
    assert all(seconds < 0.5 for seconds in made)


class Stream:
    """Two items, then the line is cut."""

    def __init__(self) -> None:
        self.items = iter("ab")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for item in self.items:
            return item
        raise ConnectionError("cut")


def test_fault_086_a_stream_is_not_begun_again(world: World) -> None:
    """What fails while an open stream is read is the reader's; the call is not made again."""
    stream = Stream()
    breaker = CircuitBreaker(failures=1)
    got: Any = world.run(Pipeline(Retry(), breaker).wrap(world.function(stream)))
    assert got is stream
    with pytest.raises(ConnectionError, match="cut"):
        list(got)
    assert len(world.calls) == 1
    assert breaker.state == "closed"


def test_fault_090_one_shot_arguments(world: World) -> None:
    """Every attempt gets the very object; `adjust` can give a fresh one."""

    def read(body: Iterator[int]) -> list[int]:
        items = list(body)
        if len(world.calls) == 1:
            raise ConnectionError
        return items

    once = iter([1, 2])
    assert world.run(Pipeline(Retry()).wrap(world.function(read)), once) == []
    assert [args[0] is once for args, _ in world.calls] == [True, True]

    world.calls.clear()
    fresh = Retry(adjust=lambda attempt, args, kwargs: ((iter([1, 2]),), kwargs))
    assert world.run(Pipeline(fresh).wrap(world.function(read)), iter([1, 2])) == [1, 2]


def _factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **options)


LOOPS: dict[str, tuple[bool, Any]] = {"debug": (True, None), "factory": (False, _factory)}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = False, asyncio.eager_task_factory


@pytest.mark.real
@pytest.mark.parametrize(("debug", "factory"), LOOPS.values(), ids=LOOPS)
def test_fault_104_loops_of_another_kind(debug: bool, factory: Any) -> None:
    """Debug mode, a task factory of the user's own, tasks that begin at once."""
    made: list[int] = []

    async def flaky(number: int) -> int:
        made.append(number)
        if number % 2 and made.count(number) == 1:
            raise ConnectionError
        await asyncio.sleep(30 if number % 5 == 4 else 0)
        return number

    guarded = Pipeline(Retry(attempts=2, wait=0), CircuitBreaker(failures=99), Timeout(0.05)).wrap(
        flaky
    )

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_task_factory(factory)
        tasks = [asyncio.create_task(guarded(number)) for number in range(10)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main(), debug=debug)
    assert [each if isinstance(each, int) else type(each) for each in found] == [
        *(0, 1, 2, 3, DeadlineExceededError, 5, 6, 7, 8, DeadlineExceededError)
    ]


@pytest.mark.real
def test_fault_110_time_limits_nested_deeper_than_there_are_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five limits, one worker: an answer or a refusal; what is left behind ends unharmed."""
    monkeypatch.setattr(workers, "LIMIT", 1)
    workers._renew()
    ended: list[str] = []
    go = threading.Event()

    def slow() -> None:
        go.wait(5)
        ended.append("in order")

    def idle() -> None:
        """The worker is back a moment after its caller has the answer."""
        finish = time.monotonic() + 5
        while not workers._pool._idle and time.monotonic() < finish:
            time.sleep(0.001)

    try:
        inner = Pipeline(Timeout(8), Timeout(7)).wrap(lambda: "ok")
        limits = [Timeout(seconds) for seconds in (20, 10, 9, 30, 40)]
        assert Pipeline(*limits, Pipeline(*limits)).call(lambda: "ok") == "ok"
        idle()
        with pytest.raises(WorkersBusyError):  # a function guarded by itself takes a worker itself
            Pipeline(Timeout(90)).call(inner)
        idle()
        with pytest.raises(DeadlineExceededError):
            Pipeline(Timeout(5), Timeout(0.02)).call(slow)
        with pytest.raises(WorkersBusyError):
            Pipeline(Timeout(5)).call(inner)
        go.set()
        finish = time.monotonic() + 5
        while not ended and time.monotonic() < finish:
            time.sleep(0.001)
        assert ended == ["in order"]
    finally:
        go.set()
        workers._renew()


def test_fault_113_a_total_deadline_covers_it_all(world: World) -> None:
    """In random pipelines no attempt and no wait begins or ends after the total."""
    chance = random.Random(113)
    for _ in range(60):
        total = chance.uniform(0.1, 30)
        begun = world.clock.now()
        steps = [Takes(chance.uniform(0, 12), ConnectionError()) for _ in range(20)]
        pipeline = Pipeline(
            Timeout(total),
            Retry(attempts=20, wait=Fixed(chance.uniform(0, 5)), on=Exception),
            CircuitBreaker(failures=99),
            Timeout(chance.uniform(0.1, 10)),
        )
        started: list[float] = []
        fn = world.function(*steps)

        def noting(fn: Any = fn, started: list[float] = started, begun: float = begun) -> Any:
            started.append(world.clock.now() - begun)
            return fn()

        world.clock.sleeps.clear()
        error = caught(world, pipeline.wrap(noting))
        assert isinstance(error, (ConnectionError, DeadlineExceededError))
        assert all(at < total for at in started)
        if world.asynchronous:  # a virtual sync function cannot be left, only found to be late
            assert world.clock.now() - begun <= total + 1e-6


def test_fault_114_a_listener_that_raises(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The result is kept, and so is the error; the next listener hears all the same."""
    heard: list[str] = []

    def bad(event: Any) -> None:
        raise ConnectionError("of the listener")

    def good(event: Any) -> None:
        heard.append(type(event).__name__)

    pipeline = Pipeline(Retry(attempts=2, wait=0), listeners=[bad, good])
    assert world.run(pipeline.wrap(world.function(TimeoutError, "ok"))) == "ok"
    assert heard == ["AttemptEnded", "WaitBegan", "AttemptEnded", "CallEnded"]
    own = KeyError("own")
    assert caught(world, pipeline.wrap(world.function(own))) is own
    assert "a listener" in caplog.text


def test_fault_114_an_async_listener_is_refused() -> None:
    """Nobody would await it."""

    async def listen(event: Any) -> None:
        pass

    with pytest.raises(TypeError, match="listeners"):
        Pipeline(listeners=[listen])


@pytest.mark.parametrize(
    ("error", "calls"),
    [(ConnectionRefusedError(), 3), (ConnectionResetError(), 1), (TimeoutError(), 1)],
)
def test_fault_119_what_must_not_be_repeated(world: World, error: Exception, calls: int) -> None:
    """Only failures where surely nothing was executed are retried."""
    guarded = Pipeline(Retry(idempotent=False)).wrap(world.function(error))
    assert caught(world, guarded) is error
    assert len(world.calls) == calls


@pytest.mark.parametrize("listeners", [(), (lambda event: None,)], ids=["rest", "full"])
def test_fault_119_bookkeeping_never_undoes_a_success(world: World, listeners: Any) -> None:
    """Whatever a user's option does with the answer, the function is not run again."""

    def broken(*args: Any) -> bool:
        raise ConnectionError("of the option")

    pipeline = Pipeline(
        Retry(on_result=broken, idempotent=False),
        CircuitBreaker(on_result=broken),
        listeners=listeners,
    )
    assert world.run(pipeline.wrap(world.function("ok"))) == "ok"
    assert len(world.calls) == 1
