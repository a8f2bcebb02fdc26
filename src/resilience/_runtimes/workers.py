"""Daemon threads, for calls with a time limit and for what is slow and off the event loop.

A stuck one is left behind, never waited for.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from resilience.errors import WorkersBusyError
from resilience.typing import Bell

__all__ = ["LIMIT", "Job", "elsewhere", "start"]

T = TypeVar("T")

LIMIT = 256
"""Threads at the most, stuck ones included; beyond that `WorkersBusyError`."""

_IDLE = 30.0  # seconds after which a thread with nothing to do ends


class Job:
    """A function on its way through a worker thread, with the caller's context variables."""

    __slots__ = ("_call", "_done", "_pool", "_then", "error", "result")

    def __init__(self, call: Callable[[], Any], then: Callable[[], object] | None = None) -> None:
        context = copy_context()
        self._call: Callable[[], Any] | None = lambda: context.run(call)
        self._done = threading.Event()
        self._then = then
        self._pool = _pool
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        call, self._call = self._call, None
        assert call is not None
        try:
            self.result = call()
        except BaseException as error:  # handed to the caller, whatever it is
            self.error = error
        finally:
            del call
            self._done.set()
            if self._then is not None:
                self._then()

    def wait(self, seconds: float) -> bool:
        """Whether the job was done within `seconds`. A signal's exception comes out of here."""
        return self._done.wait(min(seconds, threading.TIMEOUT_MAX))

    @property
    def pending(self) -> bool:
        """Whether it is still to end; what a parent of fork has begun never does."""
        return not self._done.is_set() and self._pool is _pool

    def outcome(self) -> Any:
        """The result; or the job's own exception, raised here. Once."""
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error


class _Worker:
    def __init__(self, pool: _Pool, first: Job) -> None:
        self.pool = pool
        self.inbox: SimpleQueue[Job] = SimpleQueue()
        self.inbox.put(first)
        threading.Thread(target=self._serve, name="resilience-worker", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                job = self.inbox.get(timeout=_IDLE)
            except Empty:
                if self.pool.retire(self):
                    return
                continue
            job.run()
            del job
            if self.pool is not _pool:
                return  # a child of fork: whoever waited for the job is not in it
            self.pool.park(self)


class _Pool:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._idle: list[_Worker] = []
        self._alive = 0

    def start(self, job: Job) -> None:
        with self._lock:
            if self._idle:
                self._idle.pop().inbox.put(job)
                return
            if self._alive >= LIMIT:
                raise WorkersBusyError(workers=LIMIT)
            self._alive += 1
        try:
            _Worker(self, job)
        except BaseException:  # no thread to be had: give the place back
            with self._lock:
                self._alive -= 1
            raise

    def park(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)

    def retire(self, worker: _Worker) -> bool:
        """Whether an idle worker may end: not if it was given a job a moment ago."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self._alive -= 1
            return True


def _renew() -> None:
    global _pool
    _pool = _Pool()


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)  # threads do not survive a fork


def start(call: Callable[[], Any], then: Callable[[], object] | None = None) -> Job:
    """Begin `call` in a worker thread, and have `then` called there after it.

    Raises `WorkersBusyError` if none is free.
    """
    job = Job(call, then)
    _pool.start(job)
    return job


async def elsewhere(call: Callable[[], T], bell: Bell) -> T:
    """The result of `call`, made in a worker thread while an event loop goes on, by its bell.

    If the wait is cancelled, the thread is left behind.
    """
    job = start(call, bell.ring)
    await bell.wait(math.inf)
    result: T = job.outcome()
    return result
