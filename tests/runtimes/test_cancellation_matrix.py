"""Every policy, interrupted at every point and in every way: the interruption itself comes out.

No further attempt, permits back, nothing charged, no task left; warnings are errors.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field, frozen

from resilience import (
    BadResult,
    CircuitBreaker,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
)
from support.gates import Bulkhead

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning"),
]

RAISED = {"keyboard": KeyboardInterrupt, "exit": SystemExit, "generator": GeneratorExit}
SHAPES = ["retry", "breaker", "trial", "models", "fallback", "timeout", "bad result", "bulkhead"]
SHAPES += ["full", "full trial"]
SECOND = ["retry", "models", "full"]  # shapes that call again
RESTING = ["retry", "breaker", "models", "fallback", "bad result", "bulkhead"]
"""Shapes whose first attempt runs directly."""


def everything(failure: Any) -> bool:
    """As wide an `on=` as there is; interruptions are not to be had by it either."""
    return True


@frozen
class Case:
    """One cell of the matrix; `listened` if a listener keeps the pipeline from resting."""

    world: str
    shape: str
    point: str
    way: str
    listened: bool = False

    def __str__(self) -> str:
        return "-".join(
            [self.world, self.shape, self.point, self.way, *(["listened"] if self.listened else [])]
        ).replace(" ", "_")


def points(world: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Points, the ways that apply there, and the shapes that have such a point."""
    timed = [shape for shape in SHAPES if shape in ("timeout", "full", "full trial")]
    if world == "sync":
        yield "at once", [*RAISED], SHAPES
        yield "second attempt", [*RAISED], SECOND
        yield "during", [*RAISED, "policy deadline"], SHAPES  # by a signal, in the calling thread
        yield "wait", [*RAISED], ["retry", "full"]
        yield "worker completion", [*RAISED], timed
        return
    outside = ["cancel"]
    if world == "trio" or sys.version_info >= (3, 11):
        outside.append("deadline")
    yield "before", outside, SHAPES
    yield "during", [*outside, *RAISED, "policy deadline"], SHAPES
    yield "second attempt", [*outside, *RAISED], SECOND
    yield "wait", outside, ["retry", "full"]
    yield "completion", outside, SHAPES


CASES = [
    Case(world, shape, point, way, listened)
    for world in ("sync", "asyncio", "trio")
    for point, ways, shapes in points(world)
    for way in ways
    for shape in shapes
    for listened in ((False, True) if shape in RESTING else (False,))
]


def of(world: str) -> Any:
    """The cases of one world, each a test."""
    return pytest.mark.parametrize("case", [c for c in CASES if c.world == world], ids=str)


@define(eq=False)
class Site:
    """What a case is played on: a pipeline, its circuit, and what was seen."""

    case: Case
    breaker: CircuitBreaker = field(init=False)
    bulkhead: Bulkhead = field(factory=lambda: Bulkhead(1))
    pipeline: Pipeline = field(init=False)
    made: list[str] = field(factory=list)
    waiting: list[None] = field(factory=list)
    on_wait: Callable[[], object] = list
    error: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        shape = self.case.shape
        keyed = shape.startswith("full")
        self.breaker = CircuitBreaker(
            failures=5, reset_after=1e-6, on=everything, key="model" if keyed else None
        )
        retry = Retry(attempts=3, on=everything, wait=self._wait)
        models = ModelFallback("a", "b", on=everything)
        fallback = Fallback("else", on=everything)
        shapes: dict[str, list[Any]] = {
            "retry": [retry],
            "breaker": [self.breaker],
            "models": [models],
            "fallback": [fallback],
            "timeout": [Timeout(20)],
            "bad result": [BadResult(lambda result: False)],
            "bulkhead": [self.bulkhead],
            "full": [
                fallback,
                Timeout(90),
                models,
                retry,
                self.breaker,
                self.bulkhead,
                BadResult(lambda result: False),
                Timeout(20),
            ],
        }
        shapes |= {"trial": shapes["breaker"], "full trial": shapes["full"]}
        policies = shapes[shape]
        if self.case.way == "policy deadline":
            policies = [Pipeline(Timeout(0.06)), *policies]
        listeners = [lambda event: None] if self.case.listened else []
        self.pipeline = Pipeline(*policies, listeners=listeners)
        if self.trial:
            self.circuit.open()
            time.sleep(1e-5)  # its time is up

    @property
    def trial(self) -> bool:
        return self.case.shape.endswith("trial")

    @property
    def circuit(self) -> Any:
        """The circuit, that of the first model where there are several."""
        return self.breaker.circuit("a") if self.breaker.key else self.breaker._only

    def _wait(self, state: Any) -> float:
        self.waiting.append(None)
        self.on_wait()
        return 60.0 if self.case.point == "wait" else 0.0

    def begun(self, model: str) -> bool:
        """Note an attempt: is it the one that is to be interrupted? Else it is to fail."""
        self.made.append(model)
        return len(self.made) == self.charged + 1

    @property
    def charged(self) -> int:
        """How many attempts failed by themselves before the interruption."""
        return 1 if self.case.point in ("wait", "second attempt") else 0

    def interrupted(self, *, attempts: int, passed: bool = False) -> None:
        """Check what holds for every cell once the interruption is out.

        `passed`: the call was through in the moment before, and its success has counted.
        """
        models = ["a", "b"] if self.case.shape == "models" else ["a"] * 3
        assert self.made == models[:attempts]
        assert self.circuit.snapshot().trials == 0
        assert (self.bulkhead.slots.free, self.bulkhead.slots.waiting) == (1, 0)
        breaks = self.case.shape in ("breaker", "full")
        if not self.trial:
            assert self.circuit.state == "closed"
            charged = self.charged if breaks and not passed else 0
            assert self.circuit.failures == charged
        elif passed:
            assert self.circuit.state == "closed"
        else:
            assert self.circuit.state == ("half-open" if attempts else "open")
            trials: list[int] = []

            def trial(model: str = "a") -> None:
                trials.append(self.circuit.snapshot().trials)

            Pipeline(self.breaker).call(trial)
            assert trials == [1]  # the next trial is possible
            assert self.circuit.state == "closed"
        if self.breaker.key:
            other = self.breaker.circuit("b")
            assert (other.state, other.failures) == ("closed", 0)
        gc.collect(1)


# Sync: raised in the function, in a worker thread, or by a signal in the calling thread


class Signal:
    """A signal whose handler raises, as Ctrl-C's does."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self.fired = False
        self.sender = threading.Thread(target=self.send)

    def __enter__(self) -> Signal:
        self.before = signal.signal(signal.SIGUSR1, self.fire)
        return self

    def fire(self, number: int, frame: Any) -> None:
        if not self.fired:
            self.fired = True
            raise self.error("by signal")

    def soon(self) -> None:
        """Interrupt the main thread, which by then waits."""
        self.sender.start()

    def send(self) -> None:
        """Again and again: one that comes just before a wait begins does not end that wait."""
        main = threading.main_thread().ident
        assert main is not None
        while not self.fired:
            time.sleep(0.004)
            signal.pthread_kill(main, signal.SIGUSR1)

    def __exit__(self, *_: object) -> None:
        self.fired = True
        if self.sender.ident is not None:
            self.sender.join()
        signal.signal(signal.SIGUSR1, self.before)


@of("sync")
def test_sync_calls_are_interrupted(case: Case) -> None:
    """The very exception comes out, from the function, its worker thread, or a wait."""
    site = Site(case)
    wanted = RAISED.get(case.way, DeadlineExceededError)
    mine = wanted() if case.way in RAISED else None
    release, left = threading.Event(), threading.Event()

    with Signal(wanted) as interruption:
        if case.point == "wait":
            site.on_wait = interruption.soon

        def function(model: str = "a") -> str:
            if not site.begun(model):
                raise ConnectionError
            try:
                if case.point in ("at once", "second attempt"):
                    assert mine is not None
                    raise mine
                if case.point == "worker completion":
                    _thread.interrupt_main(signal.SIGUSR1)
                    return "through"
                if mine is not None:
                    interruption.soon()
                release.wait(5)
                return "late"
            finally:
                left.set()

        try:
            with pytest.raises(wanted) as caught:
                site.pipeline.wrap(function)()
        finally:
            release.set()
        assert case.point == "wait" or left.wait(5)
    if case.point in ("at once", "second attempt"):
        assert caught.value is mine
    site.interrupted(attempts=2 if case.point == "second attempt" else 1)


# Asynchronous worlds: what is interrupted, and by whom

Wake = Callable[[], None]
Stop = Callable[[], None]


def asynchronous(
    site: Site, event: Callable[[], Any], tell: Callable[[Wake], None]
) -> Callable[..., Awaitable[str]]:
    """The function under guard: it fails, raises what the case says, or waits to be interrupted."""
    way, point = site.case.way, site.case.point

    async def function(model: str = "a") -> str:
        if not site.begun(model):
            raise ConnectionError
        if way in RAISED:
            ready = event()
            ready.set()
            await ready.wait()
            site.error = RAISED[way]()
            raise site.error
        stuck = event()
        if point not in ("before", "wait"):
            tell(stuck.set)
        await stuck.wait()
        return "through"

    return function


@of("asyncio")
def test_asyncio_tasks_are_interrupted(case: Case) -> None:
    """CancelledError, the outer deadline or the very exception comes out; nothing is left."""
    site = Site(case)

    async def main() -> None:
        before = asyncio.all_tasks()
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Wake] = loop.create_future()
        guarded = site.pipeline.wrap(asynchronous(site, asyncio.Event, told.set_result))
        limits: list[Any] = []
        balance: list[int] = []

        async def job() -> Any:
            task: Any = asyncio.current_task()
            try:
                if case.way != "deadline":
                    return await guarded()
                limits.append(asyncio.timeout(0 if case.point == "before" else None))
                async with limits[0]:
                    return await guarded()
            except BaseException as error:
                ours = isinstance(error, DeadlineExceededError)
                outer = case.way == "deadline" and isinstance(error, TimeoutError) and not ours
                if error is site.error or (outer and limits[0].expired()):
                    return "interrupted"  # nor is the loop to see a KeyboardInterrupt: it would end
                raise
            finally:
                if hasattr(task, "cancelling"):
                    balance.append(task.cancelling())

        task = asyncio.create_task(job() if case.way != "cancel" else guarded())

        def interrupt() -> None:
            if case.way == "cancel":
                task.cancel()
            elif case.way == "deadline":
                limits[0].reschedule(loop.time() - 1)

        if case.point == "before":
            if case.way == "cancel":
                interrupt()
        elif case.point == "wait":
            while not site.waiting:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            interrupt()
        elif case.way in ("cancel", "deadline"):
            wake = await told
            await asyncio.sleep(0)
            interrupt()
            if case.point == "completion":
                wake()
        if case.way == "policy deadline":
            with pytest.raises(DeadlineExceededError):
                await task
        elif case.way == "cancel":
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            if hasattr(task, "cancelling"):
                assert task.cancelling() == 1  # our own request, neither lost nor doubled
        else:
            assert await task == "interrupted"
        assert set(balance) <= {0}
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    asyncio.run(main())
    unborn = case.point == "before" and case.way == "cancel"  # never had a first step
    site.interrupted(attempts=0 if unborn else 2 if case.point == "second attempt" else 1)


@of("trio")
def test_trio_calls_are_interrupted(case: Case) -> None:
    """trio.Cancelled reaches the scope it belongs to, at the next checkpoint at the latest."""
    site = Site(case)
    through: list[str] = []

    async def main() -> None:
        wakes: list[Wake] = []
        guarded: Any = site.pipeline.wrap(asynchronous(site, trio.Event, wakes.append))
        scope = trio.CancelScope()

        def interrupt() -> None:
            if case.way == "cancel":
                scope.cancel()
            else:
                scope.deadline = trio.current_time() - 1

        async def interrupter() -> None:
            while not (site.waiting if case.point == "wait" else wakes):
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            if case.point == "completion":
                wakes[0]()
            interrupt()

        if case.way not in ("cancel", "deadline"):
            with pytest.raises(RAISED.get(case.way, DeadlineExceededError)) as caught:
                await guarded()
            assert site.error in (None, caught.value)
            await trio.lowlevel.checkpoint()  # nothing stays cancelled
            return
        async with trio.open_nursery() as nursery:
            if case.point == "before":
                interrupt()
            else:
                nursery.start_soon(interrupter)
            with scope:
                through.append(await guarded())
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught

    trio.run(main)
    # In trio a task that has been woken is not cancelled before its next checkpoint.
    assert through == (["through"] if case.point == "completion" else [])
    wanted = 2 if case.point == "second attempt" else 1
    site.interrupted(attempts=wanted, passed=bool(through))


def test_the_matrix_is_large_enough() -> None:
    """At least 120 cases, each another one."""
    assert len(set(map(str, CASES))) == len(CASES) >= 120
