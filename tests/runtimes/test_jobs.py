"""Jobs that may hang: a few at once, the others in turn, and in threads that nobody waits for."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextvars import ContextVar
from typing import Any

import pybreaker
import pytest
import trio
import trio.testing

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    Timeout,
    WorkersBusyError,
)
from resilience._core.outside import drive, sync_runtime
from resilience._runtimes.asyncio_ import asyncio_
from resilience._runtimes.loops import runtime_for
from resilience._runtimes.threads import not_waiting, threads
from resilience.circuit.storage import Jobs
from resilience.testing import virtual_time
from support.calling import run_in
from support.polling import until

both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])


class Hanging(pybreaker.CircuitMemoryStorage):
    """A storage that hangs until the test is over."""

    def __init__(self) -> None:
        super().__init__("closed")
        self.asked = threading.Semaphore(0)
        self.over = threading.Event()

    @property
    def state(self) -> str:
        self.asked.release()
        assert self.over.wait(10)
        return "closed"

    @state.setter
    def state(self, value: str) -> None:
        self._state = value


async def fine() -> str:
    """An async function."""
    return "ok"


# Off the loop


@pytest.mark.real
def test_a_users_own_jobs_do_not_hold_up_a_call() -> None:
    """The loop's default executor is the user's: however full it is, a storage is asked at once."""
    pipeline = Pipeline(CircuitBreaker(storage=pybreaker.CircuitMemoryStorage("closed")))
    over = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(None, over.wait, 10) for _ in range((os.cpu_count() or 1) + 4)]
        try:
            assert await asyncio.wait_for(pipeline.call(fine), 5) == "ok"
        finally:
            over.set()
            await asyncio.gather(*jobs)

    asyncio.run(main())


@pytest.mark.real
@both_loops
def test_a_time_limit_cuts_a_storage_that_hangs(loop: str) -> None:
    """And neither the call nor the end of the loop waits for its thread."""
    storage = Hanging()

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Timeout(0.05), CircuitBreaker(storage=storage), Timeout(0.04)).call(fine)

    began = time.monotonic()
    run_in(loop, main)
    took = time.monotonic() - began
    storage.over.set()
    assert took < 5


@pytest.mark.fault(330)
@pytest.mark.real
@pytest.mark.parametrize("keyed", [False, True])
def test_a_time_limit_leaves_a_storage_that_hangs_in_a_sync_call(keyed: bool) -> None:
    """When it is read, and when the function hangs that makes it: the call ends in time."""
    storage = Hanging()

    def make(key: str) -> Hanging:
        assert storage.state == "closed"
        return storage

    breaker = CircuitBreaker(storage=storage)
    if keyed:
        breaker = CircuitBreaker(key=lambda: "a", storage=make)
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(0.05), breaker, Timeout(0.04)).call(lambda: "ok")
    took = time.monotonic() - began
    storage.over.set()
    assert took < 5
    until(lambda: all_free(breaker._storages._jobs))  # type: ignore[union-attr]


@pytest.mark.fault(330)
@pytest.mark.real
def test_a_call_with_a_time_limit_does_not_wait_for_what_is_written() -> None:
    """A command that is to be written is, in the background, as soon as the storage goes on."""
    over = threading.Event()

    class Slow(pybreaker.CircuitMemoryStorage):
        @property
        def state(self) -> str:
            return str(super().state)

        @state.setter
        def state(self, value: str) -> None:
            assert value == "closed" or over.wait(10)
            pybreaker.CircuitMemoryStorage.state.fset(self, value)

    storage = Slow("closed")
    breaker = CircuitBreaker(storage=storage)
    pipeline = Pipeline(Timeout(5), breaker, Timeout(4))
    assert pipeline.call(lambda: "ok") == "ok"
    breaker.open()
    with pytest.raises(CircuitOpenError):
        pipeline.call(lambda: "ok")
    assert storage.state == "closed"
    over.set()
    until(lambda: storage.state == "open")


@pytest.mark.real
@both_loops
def test_a_storage_has_the_callers_context_variables(loop: str) -> None:
    """In whatever thread it is asked."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen: list[str] = []

    class Telling(pybreaker.CircuitMemoryStorage):
        @property
        def state(self) -> str:
            seen.append(tenant.get())
            return "closed"

        @state.setter
        def state(self, value: str) -> None:
            self._state = value

    async def main() -> None:
        tenant.set("me")
        await Pipeline(CircuitBreaker(storage=Telling("closed"))).call(fine)

    run_in(loop, main)
    assert seen == ["me"]


@pytest.mark.real
def test_a_thread_that_ends_after_the_loop_disturbs_nobody() -> None:
    """Its result has no loop any more to be delivered in."""
    storage = Hanging()

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Timeout(0.2), CircuitBreaker(storage=storage), Timeout(0.19)).call(fine)

    asyncio.run(main())
    before = threading.active_count()
    storage.over.set()
    until(lambda: storage.asked.acquire(blocking=False))
    assert threading.active_count() <= before


@pytest.mark.real
def test_a_storage_that_hangs_holds_a_few_threads_only() -> None:
    """Once these are held, calls give it up after a second, and go on by themselves."""
    storage = Hanging()
    breaker = CircuitBreaker(storage=storage, refresh=0)
    pipeline = Pipeline(breaker)

    async def main() -> None:
        tasks = [asyncio.ensure_future(pipeline.call(fine)) for _ in range(30)]
        done, hanging = await asyncio.wait(tasks, timeout=3)
        assert (len(done), len(hanging)) == (22, 8)
        assert {task.result() for task in done} == {"ok"}
        storage.over.set()
        await asyncio.gather(*hanging)

    with pytest.warns(RuntimeWarning, match="WorkersBusyError"):
        asyncio.run(main())


# In turn


@pytest.mark.real
@both_loops
def test_the_first_to_come_is_the_first_to_be_served(loop: str) -> None:
    """With one permit, jobs are done one after the other, in order."""
    jobs = Jobs(1, 10.0)
    first, order = threading.Event(), []

    async def main() -> None:
        runtime = runtime_for(None, asynchronous=True)

        async def job(number: int) -> None:
            def work() -> None:
                assert first.wait(10)
                order.append(number)

            await jobs.run(runtime, work)

        if loop == "asyncio":
            tasks = [asyncio.ensure_future(job(number)) for number in range(5)]
            await asyncio.sleep(0)
            first.set()
            await asyncio.gather(*tasks)
            return
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(job, number)
                await trio.testing.wait_all_tasks_blocked()
            first.set()

    run_in(loop, main)
    assert order == [0, 1, 2, 3, 4]
    assert all_free(jobs)


def all_free(jobs: Jobs) -> bool:
    return (jobs._semaphore.free, jobs._semaphore.waiting) == (jobs._most, 0)


@pytest.mark.real
def test_who_is_cancelled_in_the_queue_takes_no_permit() -> None:
    """The next in turn gets it."""
    jobs = Jobs(1, 10.0)
    over = threading.Event()

    async def main() -> None:
        holding = asyncio.ensure_future(jobs.run(asyncio_, lambda: over.wait(10)))
        left = asyncio.ensure_future(jobs.run(asyncio_, lambda: "left"))
        following = asyncio.ensure_future(jobs.run(asyncio_, lambda: "followed"))
        await asyncio.sleep(0.01)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        over.set()
        assert await holding
        assert await following == "followed"

    asyncio.run(main())
    assert all_free(jobs)


@pytest.mark.real
def test_a_job_that_was_given_up_keeps_its_permit_until_it_ends() -> None:
    """Its thread is still held; whoever comes next waits, and then not for ever."""
    jobs = Jobs(1, 0.02)
    begun, over = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        over.wait(10)

    async def main() -> None:
        given_up = asyncio.ensure_future(jobs.run(asyncio_, job))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        with pytest.raises(WorkersBusyError):
            await jobs.run(asyncio_, lambda: "next")

    asyncio.run(main())
    assert jobs._semaphore.free == 0
    over.set()
    until(lambda: all_free(jobs))


@pytest.mark.real
def test_a_job_that_is_given_up_as_it_starts_keeps_its_permit_or_never_runs() -> None:
    """Whichever comes first, its thread or who gives it up: there is no third way."""
    jobs = Jobs(1, 0.02)
    ran: list[str] = []
    over = threading.Event()

    def job() -> None:
        ran.append("given up")
        over.wait(10)

    async def main() -> None:
        given_up = asyncio.ensure_future(jobs.run(asyncio_, job))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        try:
            await jobs.run(asyncio_, lambda: ran.append("next"))
        except WorkersBusyError:
            ran.append("refused")

    asyncio.run(main())
    over.set()
    until(lambda: all_free(jobs))
    assert ran in (["given up", "refused"], ["next"])


def test_an_error_and_ctrl_c_give_the_permit_back() -> None:
    """Whether the job had begun or not."""
    jobs = Jobs(1, 1.0)

    class Interrupted:
        asynchronous = False

        async def blocking(self, fn: Any, call: Any = None) -> Any:
            raise KeyboardInterrupt

    class Busy:
        asynchronous = True

        async def blocking(self, fn: Any, call: Any = None) -> Any:
            raise WorkersBusyError

    def fail(error: BaseException) -> None:
        raise error

    for runtime in (Interrupted(), Busy()):
        with pytest.raises((KeyboardInterrupt, WorkersBusyError)):
            drive(jobs.run(runtime, lambda: None))  # type: ignore[arg-type]
        assert all_free(jobs)
    for error in (ConnectionError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            drive(jobs.run(threads, lambda error=error: fail(error)))  # type: ignore[misc]
        assert all_free(jobs)
    assert drive(jobs.run(threads, lambda: "ok")) == "ok"


def test_who_may_not_wait_is_refused() -> None:
    """A call in an event loop that nobody awaits does not stop that loop for its turn."""
    jobs = Jobs(1, 1.0)

    def inside() -> None:
        with pytest.raises(WorkersBusyError):
            drive(jobs.run(not_waiting, lambda: None))

    drive(jobs.run(threads, inside))
    assert all_free(jobs)


def test_who_loses_patience_is_told_how_many_are_busy() -> None:
    """A job inside the only one waits for itself: for as long as jobs may wait, and no longer."""
    jobs = Jobs(1, 2.5)

    def inside() -> None:
        with pytest.raises(WorkersBusyError) as caught:
            drive(jobs.run(sync_runtime(), lambda: None))
        assert caught.value.workers == 1

    with virtual_time(start=0.0) as clock:
        drive(jobs.run(sync_runtime(), inside))
        assert clock.now() == 2.5
    assert all_free(jobs)


def test_jobs_of_a_parent_process_are_not_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads are not there to end them; as many are at work at once as before."""
    jobs = Jobs(1, 0.0)

    def inside() -> str:
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        return drive(jobs.run(sync_runtime(), beside))

    def beside() -> str:
        with pytest.raises(WorkersBusyError):
            drive(jobs.run(sync_runtime(), lambda: None))
        return "ok"

    with virtual_time():
        assert drive(jobs.run(sync_runtime(), inside)) == "ok"
    assert all_free(jobs)


@pytest.mark.fault(23)
@pytest.mark.real
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_in_a_child_process_all_permits_are_free() -> None:
    """Its parent's threads are not in it."""
    jobs = Jobs(1, 0.01)

    def inside() -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if drive(jobs.run(threads, lambda: "ok")) == "ok" else 2
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert drive(jobs.run(threads, inside)) == 0


def test_a_job_that_begins_too_late_does_nothing() -> None:
    """Its caller has given up meanwhile, and with it the permit."""
    ran: list[int] = []
    kept: list[Any] = []

    class Leaves(type(threads)):  # type: ignore[misc]
        """Where a call gives up before its job has begun."""

        async def blocking(self, job: Any, call: Any = None) -> None:
            kept.append(job)
            raise KeyboardInterrupt

    jobs = Jobs(1, 0)
    for _ in range(3):  # each finds the permit of the last one
        with pytest.raises(KeyboardInterrupt):
            drive(jobs.run(Leaves(), lambda: ran.append(1)))
    assert [job() for job in kept] == [None] * 3
    assert ran == []
