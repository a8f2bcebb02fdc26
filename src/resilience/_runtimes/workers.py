"""Daemon threads, for calls with a time limit and for what is slow and off the event loop.

A stuck one is left behind, never waited for.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from resilience._core.call import Call
from resilience._core.locks import new_lock
from resilience._core.runtime import Waiter
from resilience.errors import WorkersBusyError

__all__ = ["LIMIT", "Job", "elsewhere", "in_use", "start"]

T = TypeVar("T")

LIMIT = 256
"""Threads at the most, stuck ones included; beyond that `WorkersBusyError`."""

_IDLE = 30.0  # seconds after which a thread with nothing to do ends


class Job:
    """A function on its way through a worker thread, with the caller's context variables."""

    __slots__ = ("_call", "_done", "_pool", "_then", "error", "result")

    def __init__(self, call: Callable[[], Any], then: Callable[[], object] | None = None) -> None:
        self._call: Any = (copy_context(), call)
        # A bare lock: an Event takes three times as long to make and to wait for.
        self._done = threading.Lock()
        self._done.acquire()
        self._then = then
        self._pool = _pool
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        (context, call), self._call = self._call, None
        try:
            self.result = context.run(call)
        except BaseException as error:  # handed to the caller, whatever it is
            self.error = error

    def end(self) -> None:
        """Wake whoever waits for it."""
        self._done.release()
        if self._then is not None:
            self._then()

    def wait(self, seconds: float) -> bool:
        """Whether the job was done within `seconds`. A signal's exception comes out of here."""
        if not self._done.acquire(timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX))):
            return False
        self._done.release()  # for whoever asks again
        return True

    @property
    def pending(self) -> bool:
        """Whether it is still to end; what a parent of fork has begun never does."""
        return self._done.locked() and self._pool is _pool

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
    __slots__ = ("_go", "_job", "_pool")

    def __init__(self, pool: _Pool, first: Job) -> None:
        self._pool = pool
        self._job: Job | None = first
        self._go = threading.Lock()
        threading.Thread(target=self._serve, name="resilience-worker", daemon=True).start()

    def do(self, job: Job) -> None:
        """Hand over a job; the worker must be idle."""
        self._job = job
        self._go.release()

    def _serve(self) -> None:
        pool = self._pool
        self._go.acquire()
        while True:
            job, self._job = self._job, None
            assert job is not None
            job.run()
            pool.park(self)  # before its caller goes on, who may have the next job
            job.end()
            del job
            if pool is not _pool:
                return  # a child of fork: nobody here will give it another
            while not self._go.acquire(timeout=_IDLE):
                if pool.retire(self):
                    return


class _Pool:
    def __init__(self) -> None:
        self._lock = new_lock()
        self._idle: list[_Worker] = []
        self._alive = 0

    def start(self, job: Job) -> None:
        try:
            worker = self._idle.pop()  # one step: nobody else gets this one
        except IndexError:
            pass
        else:
            worker.do(job)
            return
        with self._lock:
            if self._alive >= LIMIT:
                raise WorkersBusyError(workers=LIMIT)
            self._alive += 1
        try:
            _Worker(self, job)
        except BaseException as error:  # no thread to be had: give the place back
            with self._lock:
                self._alive -= 1
            if isinstance(error, RuntimeError):  # as when the interpreter is shutting down
                raise WorkersBusyError(workers=self._alive) from error
            raise

    def park(self, worker: _Worker) -> None:
        self._idle.append(worker)

    def retire(self, worker: _Worker) -> bool:
        """Whether an idle worker may end: not if it was given a job a moment ago."""
        with self._lock:
            try:
                self._idle.remove(worker)
            except ValueError:
                return False
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

    Raises `WorkersBusyError` if none is to be had.
    """
    job = Job(call, then)
    _pool.start(job)
    return job


def in_use() -> tuple[int, int]:
    """How many threads are busy, those left behind included, and how many are idle."""
    idle = len(_pool._idle)
    return max(0, _pool._alive - idle), idle


async def elsewhere(fn: Callable[[], T], waiter: Waiter, call: Call | None = None) -> T:
    """The result of `fn`, made in a worker thread while an event loop goes on, or a sync call waits
    until its deadline.

    If the wait is cancelled, the thread is left behind.
    """
    job = start(fn, waiter.set)
    await waiter.wait(math.inf, call)
    result: T = job.outcome()
    return result
