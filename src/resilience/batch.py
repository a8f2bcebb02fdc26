"""Call one function with many items, several at once: outcomes in order, no exceptions.

    from resilience import batch

    done = batch.map(ask, prompts, concurrency=16)          # a sync function, in threads
    done = await batch.map(aask, prompts, concurrency=16)   # an async one, in tasks

    print(done.summary)                                     # attempts, retries, waits, models
    for prompt, outcome in zip(prompts, done): ...

`fn` is called with one item: a guarded function or method, a `functools.partial` of one, or any
other function. Its policies decide how long a call may wait and what it may cost.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence, Sized
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar, cast, overload

from attrs import frozen

from ._core.anatomy import facts_of as attributes_of
from ._core.clock import now
from ._core.context import get_ambient
from ._core.functions import facts_of
from ._core.guard import guard_of
from ._core.guarded import guarded
from ._core.options import to_count, to_flag, to_plain_function
from ._core.outcome import Outcome
from ._core.pipeline import Pipeline
from ._core.results import is_awaitable
from ._runtimes.running import in_trio
from .errors import BatchStoppedError
from .failures import Failure, Kind, describe
from .matching import to_match

__all__ = ["Batch", "Progress", "Summary", "map", "so_far"]

A = TypeVar("A")
R = TypeVar("R")

_STOP = (Kind.QUOTA, Kind.AUTH)
_KEY = "__resilience_batch__"
_END: Any = object()


@frozen(eq=False, repr=False)
class Progress:
    """What a `progress` function gets after each call: how many are `done` of `total` (None where
    the items cannot be counted), and the `index`, `item` and `outcome` of this one."""

    done: int
    total: int | None
    index: int
    item: Any
    outcome: Outcome[Any]


class Summary:
    """The figures of a batch, so far.

    - `called`, `succeeded`, `failed`; `not_called`: items whose call was not made, None where an
      iterator was not read to its end.
    - `attempts`, and `retries`: those after the first one of each call.
    - `waited`: seconds in which a call had no attempt under way, all calls together: before
      retries, for a permit, for a rate limit.
    - `degraded`: calls that something other than the first choice answered.
    - `models`: how many calls each model answered; `failures`: how many failed with each `Kind`.
    - `elapsed`: seconds from beginning to end.
    - `stopped`: the `Failure` that ended the batch early; None if none did.

    Printed, it is a table for people, without prompts, answers or texts of exceptions.
    """

    def __init__(self) -> None:
        self.called = self.succeeded = self.failed = 0
        self.not_called: int | None = 0
        self.attempts = self.retries = self.degraded = 0
        self.waited = self.elapsed = 0.0
        self.models: Counter[str] = Counter()
        self.failures: Counter[Kind] = Counter()
        self.stopped: Failure | None = None

    def _add(self, outcome: Outcome[Any], failure: Failure | None) -> None:
        self.called += 1
        attempts = outcome.attempts
        self.attempts += len(attempts)
        self.retries += max(0, len(attempts) - 1)
        under_way = sum(attempt.duration or 0.0 for attempt in attempts)
        self.waited += max(0.0, outcome.elapsed - under_way)
        self.degraded += outcome.degraded
        if outcome.served_by is not None:
            self.models[outcome.served_by] += 1
        if failure is None:
            self.succeeded += 1
        else:
            self.failed += 1
            self.failures[failure.kind] += 1

    def __str__(self) -> str:
        from ._core.schedule import seconds_text

        lines = [
            f"calls     {self.called} in {seconds_text(round(self.elapsed, 3))}: "
            f"{self.succeeded} succeeded, {self.failed} failed",
            f"attempts  {self.attempts}, {self.retries} of them retries",
            f"waited    {seconds_text(round(self.waited, 3))}",
        ]
        if self.models:
            lines.append("models    " + _counted(self.models))
        if self.failures:
            lines.append("failures  " + _counted(self.failures))
        if self.stopped is not None or self.not_called != 0:
            left = "the rest" if self.not_called is None else self.not_called
            why = "" if self.stopped is None else f"by {self.stopped.kind}; "
            lines.append(f"stopped   {why}{left} not called")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Summary: {self.called} calls, {self.succeeded} succeeded, {self.failed} failed>"


def _counted(found: Counter[Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.most_common())


class Batch(Sequence[Outcome[R]], Generic[R]):
    """The outcomes of a batch, in the order of its items, and their `summary`.

    A call that was not made, or was under way when the batch was stopped, has an outcome with a
    `BatchStoppedError`. With `keep=False` there are no outcomes, only the summary.
    """

    def __init__(self) -> None:
        self.summary = Summary()
        self._outcomes: list[Outcome[R]] = []

    @overload
    def __getitem__(self, index: int) -> Outcome[R]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome[R]]: ...
    def __getitem__(self, index: int | slice) -> Outcome[R] | Sequence[Outcome[R]]:
        return self._outcomes[index]

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def values(self) -> list[R | None]:
        """The value of each, in order; None for one that has failed."""
        return [outcome.value for outcome in self._outcomes]

    @property
    def failed(self) -> list[int]:
        """The indexes of those with an error, the ones not called included: what to do again."""
        return [index for index, each in enumerate(self._outcomes) if each.error is not None]

    def unwrap(self) -> list[R]:
        """The values, in order; or the first error of them is raised."""
        return [outcome.unwrap() for outcome in self._outcomes]

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} outcomes: {self.summary!r}>"


@overload
def map(  # type: ignore[overload-overlap]  # noqa: A001 - it is batch.map; the first is narrower
    fn: Callable[[A], Coroutine[Any, Any, R]],
    items: Iterable[A],
    *,
    concurrency: int = 8,
    progress: bool | Callable[[Progress], object] | None = None,
    stop_on: Any = _STOP,
    keep: bool = True,
    asynchronous: bool | None = None,
) -> Coroutine[Any, Any, Batch[R]]: ...
@overload
def map(  # noqa: A001 - it is batch.map
    fn: Callable[[A], R],
    items: Iterable[A],
    *,
    concurrency: int = 8,
    progress: bool | Callable[[Progress], object] | None = None,
    stop_on: Any = _STOP,
    keep: bool = True,
    asynchronous: bool | None = None,
) -> Batch[R]: ...
def map(  # noqa: A001 - it is batch.map
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    concurrency: int = 8,
    progress: bool | Callable[[Progress], object] | None = None,
    stop_on: Any = _STOP,
    keep: bool = True,
    asynchronous: bool | None = None,
) -> Any:
    """Call `fn` with each item, and return a `Batch`: the outcomes in order, and a summary. Of an
    async function, a coroutine of it.

    - `concurrency` (8): calls under way at once. An iterator of items is read no further ahead; it
      is read, and `progress` is called, in the calling thread or the event loop that awaits.
    - `progress` (None): a function of a `Progress`, called after each call; or True for a bar by
      tqdm or rich, whichever is installed. What it raises ends the batch and comes out.
    - `stop_on` (`[Kind.QUOTA, Kind.AUTH]`): failures after which no further call is made, as `on=`
      takes them; None for none. Calls under way come to their end. The outcomes of the others have
      a `BatchStoppedError`, as many as there are items if those have a length.
    - `keep` (True): False to forget outcomes once `progress` has got them; millions of items then
      take no more memory than `concurrency` of them.
    - `asynchronous` (None): whether `fn` is async, where that cannot be told from it, as of a
      lambda that calls an async function.

    No call raises; TypeError or ValueError for bad options. What ends a batch early (Ctrl-C, a
    cancellation, an error of the iterator or of `progress`) comes out as itself, and
    `so_far(error)` is the batch up to there. Async calls under way are cancelled then; sync ones go
    on in their threads until they return, which no exit of the program waits for.

    Each sync call has the context variables of the caller. Within `virtual_time()` sync calls are
    made one after the other. Safe from any thread and under asyncio and trio.
    """
    given: Any = items
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"items must be an iterable of items, got {type(given).__name__}")
    if asynchronous is None:
        asynchronous = _is_async(fn)
    to_flag("asynchronous", asynchronous)
    number = to_count("concurrency", concurrency)
    total = len(items) if isinstance(items, Sized) else None
    stops = None if stop_on is None else to_match("stop_on", stop_on)
    to_flag("keep", keep)
    run = _Run(
        _caller(fn, asynchronous), iter(items), total, stops, _to_hook(progress, total), keep
    )
    if asynchronous:
        return _in_tasks(run, number if total is None else min(number, total))
    here = get_ambient()
    with run:
        if number == 1 or (here is not None and here.world is not None):
            _in_order(run)
        else:
            _in_threads(run, number)
    return run.batch


def so_far(error: BaseException) -> Batch[Any] | None:
    """The batch that an exception has ended, up to there; None if it has ended none. Also of what
    was raised from that exception, as a TimeoutError or KeyboardInterrupt from a cancellation."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        mark = attributes_of(found).get(_KEY)
        if type(mark) is _Mark:
            return mark.batch
        cause = found.__cause__
        found = found.__context__ if cause is None else cause
    return None


class _Mark:
    """What an exception carries. The batch is not pickled with the exception."""

    def __init__(self, batch: Batch[Any] | None = None) -> None:
        self.batch = batch

    def __reduce__(self) -> Any:
        return _Mark, ()


def _is_async(fn: Any) -> bool:
    inner = fn.func if isinstance(fn, functools.partial) else fn
    guard = guard_of(getattr(inner, "__func__", inner))
    if guard is not None and guard.pipeline.asynchronous is not None:
        return bool(guard.pipeline.asynchronous)
    facts = facts_of(fn if guard is None else guard.fn)
    return facts.certain or facts.likely


def _caller(fn: Any, asynchronous: bool) -> Callable[[Any], Any]:
    """The function that returns the outcome for an item, or an awaitable of it."""
    inner: Any = fn
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(inner, functools.partial):
        inner, args, kwargs = inner.func, (*inner.args, *args), {**inner.keywords, **kwargs}
    if guard_of(getattr(inner, "__func__", inner)) is None:
        return functools.partial(Pipeline(asynchronous=asynchronous).outcome, fn)
    return functools.partial(guarded(inner).outcome, *args, **kwargs)


class _Run:
    """A batch under way: the items that are left, and the outcomes so far."""

    def __init__(
        self,
        call: Callable[[Any], Any],
        items: Iterator[Any],
        total: int | None,
        stops: Callable[[Failure], object] | None,
        hook: Any,
        keep: bool,
    ) -> None:
        self.call = call
        self.over = False
        self.batch: Batch[Any] = Batch()
        self._items = items
        self._total = total
        self._stops = stops
        self._hook = hook
        self._keep = keep
        self._next = 0
        self._read = False
        self._outcomes: dict[int, Outcome[Any]] = {}
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = now()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.over = True
        summary = self.batch.summary
        summary.elapsed = now() - self._began
        items = max(self._next, self._total or 0)
        if self._total is not None:
            summary.not_called = items - self._next
        elif not self._read:
            summary.not_called = None
        if self._keep:
            why = None if summary.stopped is None else summary.stopped.error
            cut, left = (_stopped(why, under_way=each) for each in (True, False))
            self.batch._outcomes = [
                self._outcomes.get(index) or (cut if index < self._next else left)
                for index in range(items)
            ]
        if error is not None:
            attributes_of(error)[_KEY] = _Mark(self.batch)
        if hasattr(self._hook, "close"):
            self._hook.close()

    def take(self) -> tuple[int, Any] | None:
        """The next item with its index; None if there is none, or the batch is to end."""
        if self.over or self.batch.summary.stopped is not None:
            return None
        item = next(self._items, _END)
        if item is _END:
            self._read = True
            return None
        self._next += 1
        return self._next - 1, item

    def record(self, index: int, item: Any, outcome: Outcome[Any]) -> None:
        """A call has ended: count it, and report it."""
        self.count(index, outcome)
        if self._hook is not None:
            done = self.batch.summary.called
            self._hook(Progress(done, self._total, index, item, outcome))

    def count(self, index: int, outcome: Outcome[Any]) -> None:
        """A call has ended."""
        error, summary = outcome.error, self.batch.summary
        failure = None if error is None else describe(error)
        if self._keep:
            self._outcomes[index] = outcome
        summary._add(outcome, failure)
        if failure is not None and self._stops is not None and self._stops(failure):
            summary.stopped = summary.stopped or failure


def _stopped(why: BaseException | None, *, under_way: bool) -> Outcome[Any]:
    error = BatchStoppedError(under_way)
    error.__cause__ = why
    return Outcome(error=error)


# How calls are made


def _in_order(run: _Run) -> None:
    while (job := run.take()) is not None:
        index, item = job
        run.record(index, item, _outcome_of(run.call, item))


def _in_threads(run: _Run, number: int) -> None:
    """In up to `number` threads, which get items from this one and return outcomes to it."""
    todo: SimpleQueue[Any] = SimpleQueue()
    done: SimpleQueue[Any] = SimpleQueue()
    work = functools.partial(_work, run, todo, done)
    threads: list[Thread] = []
    under_way = 0
    try:
        while True:
            # What has ended comes first: reading an item may take long, or not be wanted any more.
            if under_way < number and done.empty() and (job := run.take()) is not None:
                if under_way == len(threads):
                    threads.append(Thread(target=work, name="resilience-batch", daemon=True))
                    threads[-1].start()
                todo.put((copy_context(), *job))
                under_way += 1
                continue
            if not under_way:
                return
            index, item, outcome, error = done.get()
            under_way -= 1
            if error is not None:
                raise error
            run.record(index, item, outcome)
    finally:
        run.over = True
        for _ in threads:
            todo.put(None)
        while not done.empty():  # what had ended when Ctrl-C came
            index, _, outcome, error = done.get()
            if error is None:
                run.count(index, outcome)


def _work(run: _Run, todo: SimpleQueue[Any], done: SimpleQueue[Any]) -> None:
    """What each thread does."""
    while (job := todo.get()) is not None and not run.over:
        context, index, item = job
        try:
            outcome = context.run(_outcome_of, run.call, item)
        except BaseException as error:
            done.put((index, item, None, error))
        else:
            done.put((index, item, outcome, None))
        del job, context, item  # free them while this thread waits


async def _in_tasks(run: _Run, number: int) -> Batch[Any]:
    if in_trio():
        from ._runtimes.trio_ import together
    else:
        from ._runtimes.asyncio_ import together

    async def work() -> None:
        while (job := run.take()) is not None:
            index, item = job
            run.record(index, item, await run.call(item))

    with run:
        await together(work, number)
    return run.batch


def _outcome_of(call: Callable[[Any], Any], item: Any) -> Outcome[Any]:
    """The outcome of a sync call."""
    outcome = call(item)
    left = outcome if is_awaitable(outcome) else outcome.value
    if not is_awaitable(left):
        return cast("Outcome[Any]", outcome)
    if hasattr(left, "close"):
        left.close()
    raise TypeError("fn returned an awaitable: await batch.map(..., asynchronous=True)")


# Progress


def _to_hook(progress: Any, total: int | None) -> Any:
    if progress is None or progress is False:
        return None
    return _Bar(total) if progress is True else to_plain_function("progress", progress)


class _Bar:
    """A progress bar, by tqdm or rich."""

    def __init__(self, total: int | None) -> None:
        try:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]
        except ImportError:
            self.advance, self.close = _rich_bar(total)
        else:
            bar: Any = tqdm(total=total)
            self.advance, self.close = bar.update, bar.close

    def __call__(self, progress: Progress) -> None:
        self.advance(1)


def _rich_bar(total: int | None) -> tuple[Callable[[int], object], Callable[[], object]]:
    try:
        from rich.progress import Progress as Bar
    except ImportError:
        raise ImportError("progress=True needs tqdm or rich; or give a function") from None
    bar = Bar()
    task = bar.add_task("calls", total=total)
    bar.start()
    return functools.partial(bar.advance, task), bar.stop
