"""Worker threads: bounded, used again, left behind; and what happens without them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest

from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    WorkersBusyError,
    history,
)
from resilience import guarded as handle
from resilience._runtimes import workers
from resilience._runtimes.threads import threads
from resilience.policy import Runtime
from support.concurrency import run_apart
from support.gates import Bulkhead
from support.polling import until

pytestmark = pytest.mark.real


# Bounded


@pytest.mark.fault(106)
def test_a_thousand_stuck_calls_use_a_bounded_number_of_threads() -> None:
    """As many time out as there are workers, the rest is rejected by name; then they come back."""
    release = threading.Event()
    entered: list[int] = []
    stuck = Pipeline(Timeout(0.001)).wrap(lambda: (entered.append(1), release.wait()))
    fast = Pipeline(Timeout(20)).wrap(lambda: "ok")
    before = set(threading.enumerate())
    seen: Counter[Any] = Counter()
    try:
        for number in range(1000):
            seen[type(handle(stuck).outcome().error)] += 1
            if number % 100 == 0:
                next_fast = handle(fast).outcome()
                assert next_fast.value == "ok" or type(next_fast.error) is WorkersBusyError
        grown = set(threading.enumerate()) - before
    finally:
        release.set()
    assert set(seen) == {DeadlineExceededError, WorkersBusyError}
    assert len(entered) <= workers.LIMIT
    assert len(grown) <= workers.LIMIT
    until(lambda: handle(fast).outcome().value == "ok")


@pytest.mark.fault(106)
def test_a_thousand_calls_that_time_out_and_end_share_a_few_threads() -> None:
    """A worker whose late function has ended is used again."""
    before = set(threading.enumerate())
    late = Pipeline(Timeout(0.0005)).wrap(lambda: time.sleep(0.01))
    seen: Counter[Any] = Counter()
    for _ in range(1000):
        seen[type(handle(late).outcome().error)] += 1
    assert seen[DeadlineExceededError] > 900
    assert WorkersBusyError not in seen
    assert len(set(threading.enumerate()) - before) < 64


@pytest.mark.fault(110)
@pytest.mark.parametrize(("outer", "inner", "same"), [(20, 30, True), (30, 20, False)])
def test_one_worker_where_the_outer_limit_ends_first(
    outer: float, inner: float, same: bool
) -> None:
    """An inner limit that could not fire first needs no thread of its own; another does."""
    within = Pipeline(Timeout(inner)).wrap(threading.get_ident)
    threads = Pipeline(Timeout(outer)).call(lambda: [threading.get_ident(), within()])

    assert threading.get_ident() not in threads
    assert (threads[0] == threads[1]) is same


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
@pytest.mark.fault(110)
def test_time_limits_nested_deeper_than_there_are_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five limits, one worker: an answer or a rejection; what is left behind ends unharmed."""
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


# Left behind


@pytest.mark.fault(112)
@pytest.mark.parametrize("policies", [(), (Retry(),), (Timeout(20), Retry())], ids=str)
@pytest.mark.parametrize("way", ["call", "block"])
def test_a_function_left_behind_makes_no_further_guarded_attempt(policies: Any, way: str) -> None:
    """Its caller has left at the deadline: what it would still do by a pipeline is not done."""
    inner = Pipeline(*policies)
    left, ended = threading.Event(), threading.Event()
    attempts: list[str] = []

    def body() -> None:
        try:
            attempts.append(inner.call(lambda: "before"))
            assert left.wait(5)
            if way == "call":
                attempts.append(inner.call(lambda: "after"))
            for attempt in Pipeline(Retry()).attempts() if way == "block" else ():
                with attempt:
                    attempts.append("after")
        finally:
            ended.set()

    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(0.05)).call(body)
    left.set()
    assert ended.wait(5)
    assert attempts == ["before"]


@pytest.mark.fault(112)
def test_retries_and_models_end_with_the_deadline_of_a_call_further_out() -> None:
    """A chain inside a function that was left behind asks no other model."""
    ended = threading.Event()
    attempts: list[str] = []

    def ask(*, model: str) -> None:
        attempts.append(model)
        if len(attempts) == 2:
            time.sleep(0.1)  # the caller of the whole has left by then
        raise ConnectionError

    chain = Pipeline(ModelFallback("a", "b", "c"), Retry(attempts=2, wait=0)).wrap(ask)

    def body() -> None:
        try:
            chain(model="a")
        finally:
            ended.set()

    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(0.05)).call(body)
    assert ended.wait(5)
    assert attempts == ["a", "a"]


@pytest.mark.fault(112)
def test_a_late_error_of_an_abandoned_function_disturbs_nobody() -> None:
    """What a function raises after its deadline goes nowhere: no warning, no output."""
    left, ended = threading.Event(), threading.Event()

    def late() -> None:
        try:
            assert left.wait(5)
            raise ConnectionError("late")
        finally:
            ended.set()

    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(0.01)).call(late)
    left.set()
    assert ended.wait(5)


# No thread to be had


@pytest.mark.fault(106)
def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more threads, the call is rejected by name, and no permit lost."""
    monkeypatch.setattr(workers, "LIMIT", 1)
    workers._renew()
    bulkhead, breaker = Bulkhead(1), CircuitBreaker(failures=1, on=Exception)
    pipeline = Pipeline(Retry(attempts=2, wait=0, on=Exception), bulkhead, breaker, Timeout(20))
    guarded = pipeline.wrap(lambda: "ok")

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(WorkersBusyError) as caught:
                guarded()
            assert type(caught.value.__cause__) is RuntimeError
            assert caught.value.workers == 0
            assert "busy" not in str(caught.value)
            assert history(caught.value) == ()
    assert bulkhead.slots.free == 1
    assert breaker.state == "closed"
    assert guarded() == "ok"


def test_what_runs_in_the_background_needs_no_thread_to_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a thread it is not done at all, and no error comes out."""
    done: list[Any] = []

    async def job(runtime: Runtime) -> None:
        done.append(runtime)
        raise ConnectionError

    workers._renew()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: 1 / 0)
        threads.background(job)
    assert done == []
    threads.background(job)
    until(lambda: done == [threads])


LAST = """
import atexit, sys, threading, time
from resilience import CircuitBreaker, Pipeline, Retry, Timeout, WorkersBusyError
from resilience._runtimes import workers
pipeline = Pipeline(Retry(attempts=2, wait=0), CircuitBreaker(), Timeout(5))

def call(fresh):
    if fresh:
        workers._renew()  # no thread is there: one has to be started
    try:
        return pipeline.call(lambda: "ok")
    except WorkersBusyError as busy:
        return type(busy.__cause__).__mro__[-4].__name__  # RuntimeError, or derived from it
"""


@pytest.mark.fault(107, 205)
@pytest.mark.parametrize("fresh", [False, True])
def test_a_timed_call_while_the_interpreter_shuts_down(fresh: bool) -> None:
    """In atexit: an answer or, where Python starts no threads any more, a rejection by name."""
    code = LAST + f"print(call(False)); atexit.register(lambda: print(call({fresh})))"
    found = run_apart(code)
    assert found[0] == "ok"
    assert found[1] in (["ok", "RuntimeError"] if fresh else ["ok"])


@pytest.mark.fault(107, 205)
def test_a_daemon_thread_that_calls_until_the_end() -> None:
    """A thread that goes on while the interpreter shuts down sees no error of threading."""
    code = f"""{LAST}
def work(fresh):
    while True:
        assert call(fresh) in ("ok", "RuntimeError")
        made.append(fresh)

made = []
for n in range(6):
    threading.Thread(target=work, args=(n % 2 == 0,), daemon=True).start()
while not {{True, False}} <= {{*made}}:
    time.sleep(0.001)
atexit.register(time.sleep, 0.2)  # meanwhile the threads go on
print("end")
"""
    assert run_apart(code) == ["end"]


def test_a_system_without_fork() -> None:
    """Where there is no fork (Windows) there is nothing to prepare for, and calls go through."""
    code = """
import os
del os.fork, os.register_at_fork
from resilience import Bulkhead, CircuitBreaker, Hold, Pipeline, SpendLimit, Streaming, Timeout
from resilience.shared import RedisCircuit
shared = CircuitBreaker(storage=RedisCircuit("redis://127.0.0.1:1"), name="shared")
print(Pipeline(Hold(), CircuitBreaker(), shared, Bulkhead(2), Timeout(9)).call(lambda: "ok"))

@Pipeline(Streaming(idle=9)).wrap
def stream():
    yield "ok"

print(*stream())
"""
    assert run_apart(code) == ["ok", "ok"]
