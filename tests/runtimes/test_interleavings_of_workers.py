"""The pool of worker threads, in every order of those who use it and those who end.

See support/interleaving.py. It is tried again without its lock, or with a mistake in it: then an
order that breaks it must be found.
"""

from __future__ import annotations

from typing import Any

import pytest

from resilience import WorkersBusyError
from resilience._runtimes import workers
from support.interleaving import Baton, WatchedDict, WatchedList, watch
from support.scenes import Scene, is_found_out, stopped_twice, watchable  # noqa: F401

pytestmark = [pytest.mark.real, pytest.mark.steady, pytest.mark.usefixtures("_own_pool")]


@pytest.fixture
def _own_pool(watchable: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """What there is only one of is put back."""
    for name in ("_pool", "_Worker", "LIMIT"):
        monkeypatch.setattr(workers, name, getattr(workers, name))


class Worker(workers._Worker):
    """A worker that is served by a thread of the test; its idle time may be over any moment."""

    def __init__(self, pool: Any, first: Any) -> None:
        self._pool = pool
        self._job = first
        self._go: Any = Baton()
        watch(self, but=["_pool", "_go"])


class Job:
    """A job that counts how often it was run."""

    def __init__(self) -> None:
        self.runs = self.ends = 0

    def run(self) -> None:
        self.runs += 1

    def end(self) -> None:
        self.ends += 1


class Works(Scene):
    """A pool with one worker, which does a job and may then be idle too long any moment; and
    callers that bring a job each. A caller who gets a new worker is that worker's thread.
    """

    epochs = False

    def __init__(
        self, without: str | None = None, *, limit: int, pool: Any = workers._Pool
    ) -> None:
        super().__init__(without)
        workers.LIMIT = self.limit = limit
        workers._Worker = self.hire  # type: ignore[assignment,misc]
        workers._pool = self.pool = pool()
        self.pool._lock = self.lock("pool")
        self.pool._idle = WatchedList()
        self.pool._alive = 1
        self.jobs: tuple[Any, ...] = Job(), Job(), Job()
        self.busy = Worker(self.pool, self.jobs[2])
        watch(self.pool, but=["_lock", "_idle"])
        self.hired: dict[Any, Worker] = WatchedDict()
        self.rejected: list[Any] = WatchedList()
        self.most = 1

    def hire(self, pool: Any, first: Any) -> Worker:
        """What the pool makes when it wants one more."""
        self.most = max(self.most, self.pool._alive)
        self.hired[first] = worker = Worker(pool, first)
        return worker

    def serve(self) -> None:
        self.busy._serve()

    def first(self) -> None:
        self.call(self.jobs[0])

    def second(self) -> None:
        self.call(self.jobs[1])

    def call(self, job: Any) -> None:
        try:
            self.pool.start(job)
        except WorkersBusyError:
            self.rejected.append(job)
        if job in self.hired:
            self.hired[job]._serve()

    def holds(self) -> bool:
        """Each job was run once or rejected with all workers taken; in the end none is left."""
        ended = (self.pool._alive, len(self.pool._idle)) == (0, 0)
        counts = [job.runs + self.rejected.count(job) for job in self.jobs]
        told = all(job.runs == job.ends for job in self.jobs)
        room = len(self.rejected) <= 3 - self.limit
        return ended and told and room and self.most <= self.limit and counts == [1, 1, 1]


class Careless(workers._Pool):
    """Lets go a worker that was given a job a moment ago."""

    def retire(self, worker: Any) -> bool:
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
            self._alive -= 1
            return True


@pytest.mark.fault(106)
@pytest.mark.parametrize("limit", [1, 2])
def test_no_job_is_given_to_a_worker_that_ends(limit: int) -> None:
    """Two callers, a worker that ends or not: every job is run, or rejected by name."""
    stopped_twice(
        lambda: Works(limit=limit), Works.serve, Works.first, Works.second, holds=Works.holds
    )


@pytest.mark.fault(106)
def test_a_pool_without_its_lock_is_found_out() -> None:
    """The same job twice, a worker too many, a job for nobody: one of these is found."""
    is_found_out(
        lambda: Works("pool", limit=2), Works.serve, Works.first, Works.second, holds=Works.holds
    )


@pytest.mark.fault(106)
def test_a_pool_that_lets_go_too_early_is_found_out() -> None:
    """The job it was given a moment ago is never run."""
    is_found_out(
        lambda: Works(limit=2, pool=Careless),
        Works.serve,
        Works.first,
        Works.second,
        holds=Works.holds,
    )
