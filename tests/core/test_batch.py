"""`batch.map`: one function for many items, in threads, asyncio and trio."""

from __future__ import annotations

import asyncio
import functools
import gc
import pickle
import sqlite3
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from queue import SimpleQueue
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import trio

import resilience
from conftest import Takes, World, async_worlds
from resilience import (
    BatchStoppedError,
    Bulkhead,
    ModelFallback,
    Pipeline,
    Retry,
    batch,
    deadline,
)
from resilience.failures import Advice, Failure, Kind, describe
from support.calling import run_in
from support.concurrency import run_apart
from support.functions import coloured
from support.polling import until

quietly = pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")


class QuotaError(Exception):
    """An account has no money left."""


@describe.register(QuotaError)
def _(error: QuotaError) -> Failure:
    return Failure(kind=Kind.QUOTA, advice=Advice.STOP, error=error)


def mapped(world: World, fn: Callable[..., Any], items: Any, **options: Any) -> Any:
    """`batch.map` in a world, to its end."""
    return world.run(batch.map, fn, items, **options)


def doubling(world: World) -> Callable[..., Any]:
    """A function that doubles; 7 fails, 13 has no money, and each takes a moment of its own."""

    def body(item: int) -> int:
        if item == 7:
            raise ValueError
        if item == 13:
            raise QuotaError
        return 2 * item

    async def abody(item: int) -> int:
        await world.clock.asleep(item % 3)
        return body(item)

    return abody if world.asynchronous else body


# Outcomes


def test_outcomes_are_in_order_whoever_comes_first(world: World) -> None:
    """An error is in its outcome; nothing is raised."""
    done = mapped(world, Pipeline(Retry(wait=0)).wrap(doubling(world)), range(10), concurrency=4)
    assert done.values == [0, 2, 4, 6, 8, 10, 12, None, 16, 18]
    assert done.failed == [7]
    assert type(done[7].error) is ValueError
    assert [each.value for each in done[2:4]] == [4, 6]
    assert len(done) == 10
    assert done.summary.failures == {Kind.UNKNOWN: 1}
    with pytest.raises(ValueError):  # noqa: PT011
        done.unwrap()
    assert mapped(world, doubling(world), [1, 2]).unwrap() == [2, 4]
    assert mapped(world, doubling(world), []).values == []


def test_all_kinds_of_functions(world: World) -> None:
    """Guarded, plain, methods, partials of them, callable objects: each by its own policies."""
    seen: list[Any] = []

    class Bot:
        @Pipeline(Retry(attempts=2, wait=0))
        def ask(self, item: int, *, more: int = 0) -> int:
            return self.answer(item, more)

        @Pipeline(Retry(attempts=2, wait=0))
        async def aask(self, item: int, *, more: int = 0) -> int:
            return self.answer(item, more)

        def answer(self, item: int, more: int) -> int:
            seen.append(item)
            if len(seen) % 2:
                raise ConnectionError
            return item + more

    bot = Bot()
    method = bot.aask if world.asynchronous else bot.ask
    for fn in [method, functools.partial(functools.partial(method, more=3), more=0)]:
        done = mapped(world, fn, [1, 2], concurrency=1)
        assert done.unwrap() == [1, 2]
        assert (done.summary.attempts, done.summary.retries) == (4, 2)
    unbound = functools.partial(type(bot).aask if world.asynchronous else type(bot).ask, bot)
    assert mapped(world, unbound, [1], concurrency=1).unwrap() == [1]
    plain = coloured(world, lambda item: item)
    called = SimpleNamespace(fn=plain)
    assert mapped(world, called.fn, [1]).summary.attempts == 1
    if world.asynchronous:
        assert mapped(world, lambda item: plain(item), [5], asynchronous=True).unwrap() == [5]
        done = mapped(world, Pipeline(asynchronous=True).wrap(lambda item: plain(item)), [5])
        assert done.unwrap() == [5]
    else:
        assert batch.map(str, [5]).unwrap() == ["5"]


@async_worlds
def test_an_async_function_that_does_not_look_it(world: World) -> None:
    """A TypeError says what to write; nothing is left unawaited."""
    plain = coloured(world, lambda item: item)
    for number in (1, 3):
        with pytest.raises(TypeError, match="asynchronous=True"):
            world.run(batch.map, lambda item: plain(item), [1, 2, 3], concurrency=number)
    gc.collect()


def test_a_future_is_refused_as_well() -> None:
    """An awaitable that nobody has to close."""
    with closing(asyncio.new_event_loop()) as loop:
        future = loop.create_future()
        with pytest.raises(TypeError, match="asynchronous=True"):
            batch.map(lambda item: future, [1], concurrency=1)


def test_the_summary_counts(world: World) -> None:
    """Attempts, retries, waits, models, what was degraded, kinds of failures, time."""
    fn = world.function(
        Takes(1, "ok"), ConnectionError, Takes(2, "ok"), ConnectionError, TimeoutError, "b"
    )
    calls = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=5))
    call = calls.wrap(coloured_model(world, fn))
    done = mapped(world, call, [1, 2, 3, 4], concurrency=1)
    summary = done.summary
    assert (summary.called, summary.succeeded, summary.failed) == (4, 4, 0)
    assert (summary.attempts, summary.retries) == (7, 3)
    assert (summary.waited, summary.elapsed) == (10, 13)
    assert summary.models == {"a": 3, "b": 1}
    assert summary.degraded == 1
    assert summary.not_called == 0
    text = str(summary)
    assert "4 in 13 s: 4 succeeded, 0 failed" in text
    assert "7, 3 of them retries" in text
    assert "waited    10 s" in text
    assert "stopped" not in text


def coloured_model(world: World, fn: Callable[..., Any]) -> Callable[..., Any]:
    if world.asynchronous:

        async def acall(item: int, *, model: str = "a") -> Any:
            return await fn(item)

        return acall

    def call(item: int, *, model: str = "a") -> Any:
        return fn(item)

    return call


def test_nothing_of_the_calls_is_in_its_reprs(world: World) -> None:
    """Neither items nor answers nor texts of errors."""

    def fail(item: str) -> str:
        raise ValueError("SECRET error")

    done = mapped(world, coloured(world, fail), ["SECRET prompt"])
    assert "SECRET" not in f"{done!r} {done.summary!r} {done.summary} {done[0]!r}"


@async_worlds
def test_waits_for_permits_count(world: World) -> None:
    """A call that queues is not under way."""
    fn = Pipeline(Bulkhead(1)).wrap(world.function(Takes(2, "ok")))
    done = mapped(world, fn, range(4), concurrency=4)
    assert (done.summary.waited, done.summary.elapsed) == (2 + 4 + 6, 8)


# Concurrency


@async_worlds
def test_so_many_at_once(world: World) -> None:
    """Never more, and never fewer while there are items."""
    inside = [0, 0]

    async def work(item: int) -> None:
        inside[0] += 1
        inside[1] = max(inside)
        await world.clock.asleep(1)
        inside[0] -= 1

    mapped(world, work, range(12), concurrency=4)
    assert inside == [0, 4]
    assert world.clock.now() == 1003


@pytest.mark.real
def test_so_many_threads_at_once() -> None:
    """As many calls meet as are let; none of the threads stays."""
    meeting = threading.Barrier(8)

    def work(item: int) -> int:
        meeting.wait(10)
        return threading.get_ident()

    before = threading.active_count()
    done = batch.map(work, range(16), concurrency=8)
    assert len(set(done.unwrap())) == 8
    for _ in range(100):
        if threading.active_count() <= before:
            break
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.fault(372)
def test_an_iterator_is_read_no_further_ahead(real_world: World) -> None:
    """Than there are calls at once, in the thread that called `map`."""
    read: list[int] = []
    ahead: list[int] = []
    here = threading.get_ident()

    def items() -> Iterator[int]:
        for each in range(50):
            assert threading.get_ident() == here
            read.append(each)
            yield each

    def look(progress: batch.Progress) -> None:
        assert threading.get_ident() == here
        ahead.append(len(read) - progress.done)

    fn = coloured(real_world, lambda item: item)
    done = mapped(real_world, fn, items(), concurrency=3, progress=look)
    assert done.unwrap() == list(range(50))
    assert max(ahead) <= 3


@pytest.mark.fault(399)
@pytest.mark.real
def test_outcomes_do_not_wait_for_an_iterator_that_takes_its_time() -> None:
    """What has ended is reported before the next item is read, and may stop the batch."""
    ended: SimpleQueue[int] = SimpleQueue()
    reported: list[int] = []

    def items() -> Iterator[int]:
        for each in range(8):
            yield each
            ended.get(timeout=10)
            time.sleep(0.05)  # its outcome is on its way
        raise AssertionError("all were read")

    def work(item: int) -> None:
        ended.put(item)
        if item == 3:
            raise QuotaError

    def look(progress: batch.Progress) -> None:
        reported.append(progress.index)

    done = batch.map(work, items(), concurrency=8, progress=look)
    assert done.summary.stopped is not None
    assert reported == list(range(len(reported)))
    assert done.summary.called == len(done) < 8


def first_of(row: Any) -> int:
    return int(row[0])


@pytest.mark.real
def test_rows_of_a_database_are_items() -> None:
    """Its cursor belongs to the thread that has made it."""
    with closing(sqlite3.connect(":memory:")) as base:
        rows = base.execute("select value from (select 1 as value union select 2)")
        assert batch.map(first_of, rows, concurrency=2).unwrap() == [1, 2]


@pytest.mark.fault(373)
@pytest.mark.real
def test_many_items_in_flat_memory(real_world: World) -> None:
    """Without outcomes to keep, ten thousand take no more than a hundred."""
    fn = Pipeline(Retry()).wrap(coloured(real_world, lambda item: "x" * 1000))
    held: list[int] = []
    seen: list[int] = []

    def look(progress: batch.Progress) -> None:
        seen.append(progress.index) if progress.index < 10 else None
        if progress.done in (200, 10_000):
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        done = mapped(real_world, fn, iter(range(10_000)), concurrency=8, keep=False, progress=look)
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 100_000
    assert len(done) == 0
    assert done.summary.succeeded == 10_000
    assert sorted(seen) == list(range(10))


def test_ten_thousand_in_order(real_world: World) -> None:
    """With their outcomes."""
    done = mapped(
        real_world, coloured(real_world, lambda item: item), range(10_000), concurrency=32
    )
    assert done.unwrap() == list(range(10_000))


@pytest.mark.real
def test_threads_have_the_callers_surroundings() -> None:
    """Its deadline, first of all."""
    with deadline(0.05):
        done = batch.map(lambda item: resilience.remaining(), [1, 2], concurrency=2)
    assert all(value is not None and value <= 0.05 for value in done.values)


# Stopping


@pytest.mark.fault(374)
@pytest.mark.parametrize("sized", [True, False])
def test_a_quota_stops_the_batch(world: World, sized: bool) -> None:
    """What is under way comes to its end; the rest is not called, and the outcomes say so."""
    called: list[int] = []
    fn = doubling(world)

    def counted(item: int) -> Any:
        called.append(item)
        return fn(item)

    call = Pipeline(asynchronous=world.asynchronous).wrap(counted)
    items: Any = range(100) if sized else iter(range(100))
    done = mapped(world, call, items, concurrency=4, asynchronous=world.asynchronous)
    assert done.summary.stopped.kind is Kind.QUOTA
    assert 13 in called
    assert len(called) <= 18
    assert done.values[:13] == [0, 2, 4, 6, 8, 10, 12, None, 16, 18, 20, 22, 24]
    if sized:
        assert len(done) == 100
        assert done.summary.not_called == 100 - len(called)
        error = done[99].error
        assert type(error) is BatchStoppedError
        assert not error.under_way
        assert type(error.__cause__) is QuotaError
        assert done.failed == [7, 13, *range(len(called), 100)]
        assert f"by quota; {100 - len(called)} not called" in str(done.summary)
        assert type(pickle.loads(pickle.dumps(error))) is BatchStoppedError
        assert str(error) == "the batch was stopped before this call was made"
    else:
        assert len(done) == len(called)
        assert done.summary.not_called is None
        assert "the rest not called" in str(done.summary)


def test_what_stops_is_an_option(world: World) -> None:
    """Any match; or nothing."""
    fn = doubling(world)
    done = mapped(world, fn, range(20), concurrency=1, stop_on=ValueError)
    assert (done.summary.called, done.summary.not_called) == (8, 12)
    done = mapped(world, fn, range(20), concurrency=1, stop_on=None)
    assert (done.summary.called, done.summary.failed, done.summary.stopped) == (20, 2, None)


@quietly
@pytest.mark.parametrize("bad", ["items", "progress", "exit"])
def test_what_ends_a_batch_comes_out_as_itself(world: World, bad: str) -> None:
    """An error of the iterator or of `progress`, or what is no Exception; the batch so far is
    reached by it, and it pickles."""
    error: BaseException = SystemExit(3) if bad == "exit" else LookupError("own")
    if bad == "exit" and world.asynchronous:
        return  # an event loop has ways of its own with it

    def items() -> Iterator[int]:
        yield from range(5)
        if bad == "items":
            raise error
        yield from range(5, 10)

    def progress(found: batch.Progress) -> None:
        if bad == "progress" and found.done == 5:
            raise error

    def work(item: int) -> int:
        if bad == "exit" and item == 5:
            raise error
        return item

    with pytest.raises(type(error)) as caught:
        mapped(world, coloured(world, work), items(), concurrency=1, progress=progress)
    assert caught.value is error
    done = batch.so_far(error)
    assert done is not None
    assert done.values[:5] == [0, 1, 2, 3, 4]
    assert done.summary.called == 5
    if bad == "exit":
        assert isinstance(done[5].error, BatchStoppedError)
        assert done[5].error.under_way
        assert str(done[5].error) == "the batch was stopped while this call was under way"
    assert batch.so_far(pickle.loads(pickle.dumps(error))) is None
    assert batch.so_far(ValueError()) is None


@pytest.mark.fault(375)
@pytest.mark.real
@pytest.mark.parametrize("end", ["answer", "exit"])
def test_what_another_thread_has_done_meanwhile_counts(end: str) -> None:
    """Where `progress` raises before it is reported; a call that was left by an exit has no
    outcome."""
    begun, reported = threading.Event(), threading.Event()
    loops: list[FrameType] = []

    def ask(item: int) -> int:
        if item == 0:
            begun.wait(10)
            return item
        begun.set()
        reported.wait(10)
        loops.append(_loop_of_this_thread())
        if end == "exit":
            raise SystemExit
        return item

    def progress(found: batch.Progress) -> None:
        reported.set()
        until(lambda: loops and "item" not in loops[0].f_locals)  # its outcome is given
        raise LookupError

    with pytest.raises(LookupError) as caught:
        batch.map(ask, range(2), concurrency=2, progress=progress)
    done = batch.so_far(caught.value)
    assert done is not None
    assert done.values == ([0, 1] if end == "answer" else [0, None])
    assert done.summary.called == (2 if end == "answer" else 1)


def _loop_of_this_thread() -> FrameType:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "_work":
        frame = frame.f_back
    assert frame is not None
    return frame


class ClosedError(Exception):
    """One that does not show its attributes."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            raise RuntimeError("no attributes here")
        return super().__getattribute__(name)


def test_an_error_that_hides_its_attributes_comes_out_as_itself(world: World) -> None:
    """With the batch so far."""
    error = ClosedError()

    def items() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(ClosedError) as caught:
        mapped(world, coloured(world, lambda item: item), items(), concurrency=1)
    assert caught.value is error
    done = batch.so_far(error)
    assert done is not None
    assert done.values == [1]


class FalsyError(Exception):
    """One that is false, as one with a length may be."""

    def __bool__(self) -> bool:
        return False


def test_a_cause_that_is_false_has_the_batch_all_the_same() -> None:
    """Of an error that was raised from it, while another was handled."""

    def items() -> Iterator[int]:
        yield 1
        raise FalsyError

    with pytest.raises(FalsyError) as caught:
        batch.map(str, items(), concurrency=1)
    try:
        try:
            raise KeyError
        except KeyError:
            raise RuntimeError from caught.value
    except RuntimeError as error:
        done = batch.so_far(error)
    assert done is not None
    assert done.values == ["1"]


@pytest.mark.fault(375)
@async_worlds
def test_a_cancellation_leaves_what_was_done(world: World) -> None:
    """Calls under way are cancelled with it; the exception has the outcomes so far."""
    ends: list[str] = []
    found: list[Any] = []

    async def work(item: int) -> int:
        try:
            await world.clock.asleep(item)
        except BaseException:
            ends.append("cancelled")
            raise
        return item

    async def main() -> None:
        try:
            await batch.map(work, range(20), concurrency=4)
        except BaseException as error:
            found.append(batch.so_far(error))
            raise

    async def cut() -> None:
        if world.name == "asyncio":
            task = asyncio.ensure_future(main())
            await world.clock.asleep(4.5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(main)
            await world.clock.asleep(4.5)
            nursery.cancel_scope.cancel()

    run_in(world.name, cut)
    assert ends == ["cancelled"] * 4
    (done,) = found
    assert done.values[:5] == [0, 1, 2, 3, 4]
    assert [type(each.error) for each in done[5:]] == [BatchStoppedError] * 15
    assert [each.error.under_way for each in done[5:]] == [True] * 4 + [False] * 11


@pytest.mark.fault(375)
@pytest.mark.real
@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize("way", ["threads", "asyncio", "trio", "trio, protected"])
def test_ctrl_c_leaves_what_was_done(way: str) -> None:
    """At once, as itself, with sync calls under way; and through `asyncio.run` or `trio.run`, which
    has it raised in its main task where it arrives in code that is protected from it."""
    code = f"""
import asyncio, os, signal, sys, threading, time, trio
from resilience import batch
way = {way!r}
def ask(item):
    if item == 3:
        time.sleep(0.3)  # the others are done
        os.kill(os.getpid(), signal.SIGINT)
    if item >= 3:
        time.sleep(60)
    return item
def press():
    os.kill(os.getpid(), signal.SIGINT)
if "protected" in way:
    press = trio.lowlevel.enable_ki_protection(press)
async def aask(item):
    if item == 3:
        press()
    if item >= 3:
        await (asyncio if way == "asyncio" else trio).sleep(60)
    return item
async def main():
    await batch.map(aask, range(10), concurrency=2)
begun = time.monotonic()
try:
    if way == "threads":
        batch.map(ask, range(10), concurrency=2)
    else:
        asyncio.run(main()) if way == "asyncio" else trio.run(main)
except KeyboardInterrupt as error:
    done = batch.so_far(error)
    print(*done.values[:3], len(done), time.monotonic() - begun < 5)
"""
    if way == "asyncio" and sys.version_info < (3, 11):
        pytest.skip("there Ctrl-C tears a loop apart")
    assert run_apart(code) == ["0", "1", "2", "10", "True"]


# Progress


def test_progress_gets_each_outcome(world: World) -> None:
    """With its item, and how far the batch is."""
    seen: list[batch.Progress] = []
    fn = coloured(world, lambda item: item * 2)
    mapped(world, fn, [3, 4], concurrency=1, progress=seen.append)
    assert [(each.done, each.total, each.index, each.item) for each in seen] == [
        (1, 2, 0, 3),
        (2, 2, 1, 4),
    ]
    assert [each.outcome.value for each in seen] == [6, 8]
    seen.clear()
    mapped(world, fn, iter([3]), progress=seen.append)
    assert seen[0].total is None


@async_worlds
def test_a_program_that_is_to_end_is_in_no_group(world: World) -> None:
    """Raised by a call, as by one that looks at its settings."""

    async def work(item: int) -> None:
        raise SystemExit(item)

    with pytest.raises(SystemExit) as caught:
        mapped(world, work, [3, 3], concurrency=2)
    assert batch.so_far(caught.value) is not None


def test_a_summary_has_plain_seconds(world: World) -> None:
    """Of an hour as of a moment: no exponent."""

    async def work(item: float) -> None:
        await world.clock.asleep(item)

    def plain(item: float) -> None:
        world.clock.sleep(item)

    for seconds, shown in ((3600.0, "3600 s"), (1e-6, "0 s")):
        done = mapped(world, work if world.asynchronous else plain, [seconds])
        assert f"calls     1 in {shown}:" in str(done.summary)


@pytest.mark.parametrize("which", ["tqdm", "rich", "neither"])
def test_a_bar_by_whatever_is_there(
    which: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """tqdm's, else rich's; with neither an error says so."""
    if which != "tqdm":
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    if which == "neither":
        monkeypatch.setitem(sys.modules, "rich.progress", None)
        with pytest.raises(ImportError, match="tqdm or rich"):
            batch.map(str, [1, 2], progress=True)
        return
    assert batch.map(str, [1, 2], progress=True).unwrap() == ["1", "2"]
    shown = "".join(capfd.readouterr())
    assert ("2/2" in shown) if which == "tqdm" else ("100%" in shown)


# Options


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"items": "prompt"}, TypeError, "items must be an iterable of items, got str"),
        ({"items": 3}, TypeError, "items must be an iterable"),
        ({"concurrency": 0}, ValueError, "concurrency must be 1 or more"),
        ({"concurrency": 1.5}, TypeError, "concurrency must be a whole number"),
        ({"progress": 3}, TypeError, "progress must be a function"),
        ({"stop_on": 3}, ValueError, "stop_on"),
        ({"keep": 1}, TypeError, "keep must be True or False"),
        ({"asynchronous": 1}, TypeError, "asynchronous must be True or False"),
        ({"fn": 3}, TypeError, "callable"),
    ],
)
def test_bad_options_are_refused(options: Any, error: type[Exception], said: str) -> None:
    """Before anything is called."""
    given: dict[str, Any] = {"fn": str, "items": [1], **options}
    with pytest.raises(error, match=said):
        batch.map(given.pop("fn"), given.pop("items"), **given)


def test_it_is_part_of_the_package() -> None:
    """Without an import of its own."""
    assert resilience.batch is batch
