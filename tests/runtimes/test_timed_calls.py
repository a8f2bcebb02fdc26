"""Sync calls with a time limit: what is left behind, and what that costs."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from resilience import (
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    WorkersBusyError,
    resilient,
)
from resilience._runtimes import workers
from resilience.waits import Fixed

pytestmark = pytest.mark.real


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets the number of workers; there is a new pool of them for the test, and one after it."""

    def set_(number: int) -> None:
        monkeypatch.setattr(workers, "LIMIT", number)
        workers._renew()

    yield set_
    workers._renew()


# After the deadline


def test_no_further_attempt_after_a_deadline_has_fired() -> None:
    """When the caller has its error, nothing goes on calling behind its back."""
    calls: list[float] = []

    def failing() -> None:
        calls.append(time.monotonic())
        raise ConnectionError

    fn = Pipeline(Timeout(0.25), Retry(attempts=10, wait=Fixed(0.1))).wrap(failing)
    with pytest.raises((ConnectionError, DeadlineExceededError)):  # the latter on a busy machine
        fn()
    made = len(calls)
    time.sleep(0.35)
    assert len(calls) == made


def test_a_start_that_a_past_deadline_prevents_is_no_attempt() -> None:
    """Of a sync call that a loop's thread makes on the spot, and cannot cut: the first model
    overran the time, so the second is not called, nor is it in the record."""
    calls: list[str] = []

    def overrun(model: str = "a") -> None:
        calls.append(model)
        time.sleep(0.03)
        raise ConnectionError

    async def main() -> list[int]:
        outcome = Pipeline(Timeout(0.02), ModelFallback("a", "b")).outcome(overrun)
        return [attempt.number for attempt in outcome.attempts]

    assert asyncio.run(main()) == [1]
    assert calls == ["a"]


@pytest.mark.fault(107)
def test_the_interpreter_exits_at_once_with_a_stuck_worker() -> None:
    """A worker left behind does not hold up the end of the program."""
    code = """
import time
from resilience import Pipeline, Timeout
try:
    Pipeline(Timeout(0.05)).call(time.sleep, 30)
except TimeoutError:
    print(time.time())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert time.time() - float(done.stdout) < 5  # of 30, on a busy machine


@pytest.mark.fault(8)
def test_the_slot_is_back_after_ctrl_c() -> None:
    """Ctrl-C while a trial waits for its worker: KeyboardInterrupt itself, the slot given back."""
    code = """
import os, signal, threading, time
from resilience import CircuitBreaker, Pipeline, Timeout
breaker = CircuitBreaker(failures=1, reset_after=0.01)
breaker.open(); time.sleep(0.02)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try:
    Pipeline(breaker, Timeout(30)).call(time.sleep, 20)
except KeyboardInterrupt:
    print(breaker.state, breaker.snapshot().trials, time.monotonic() - begun < 2)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.split() == ["half-open", "0", "True"]


# Workers


def test_healthy_calls_under_nested_timeouts_meet_no_false_deadline(limit: Any) -> None:
    """Eight calls of 50 ms under two Timeouts with four workers: an answer or WorkersBusyError."""
    limit(4)
    fn = Pipeline(Timeout(5), Retry(), Timeout(4)).wrap(lambda: time.sleep(0.05) or "ok")
    seen: list[Any] = []

    def run() -> None:
        try:
            seen.append(fn())
        except Exception as error:
            seen.append(type(error))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) <= {"ok", WorkersBusyError}
    assert seen.count("ok") >= 4


def test_a_timed_call_uses_one_worker_however_many_timeouts_there_are() -> None:
    """Nested timeouts and nested guarded functions move to a worker once."""
    names: list[str] = []

    @resilient(Timeout(5), Timeout(4))
    def inner() -> None:
        names.append(threading.current_thread().name)

    @resilient(Timeout(9), Retry(), Timeout(8))
    def outer() -> str:
        names.append(threading.current_thread().name)
        return threading.current_thread().name

    assert outer() != threading.current_thread().name
    assert names == ["resilience-worker"]


def test_a_call_rejected_for_want_of_a_worker_was_no_attempt(limit: Any) -> None:
    """Nothing ran: no attempt, no history."""
    limit(0)
    outcome = Pipeline(Timeout(5)).outcome(int)
    assert type(outcome.error) is WorkersBusyError
    assert outcome.attempts == ()


@pytest.mark.fault(108)
def test_context_variables_are_seen_inside_a_timed_call() -> None:
    """It runs in a worker thread with the caller's context variables."""
    who = contextvars.ContextVar("who", default="nobody")
    who.set("me")
    assert Pipeline(Timeout(5)).call(who.get) == "me"
