"""Forks at any moment of a call: the child works, and so does the parent."""

from __future__ import annotations

import os
import threading

import pytest

from resilience import Pipeline, Timeout
from resilience._runtimes import workers
from support.concurrency import run_apart

pytestmark = pytest.mark.real


@pytest.mark.fault(23)
def test_fork_inside_a_call() -> None:
    """A guarded function that forks: parent and child both end the call, timed or at rest."""
    code = """
import os, time
from resilience import CircuitBreaker, Pipeline, Retry, Timeout
def body():
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return "child"
for policies in [(), (Timeout(9),)]:
    pipeline = Pipeline(Retry(), CircuitBreaker(), *policies)
    begun = time.monotonic()
    if policies:  # the child is a copy of the worker thread alone: it works in there
        def body():
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os._exit(0 if pipeline.call(lambda: "ok") == "ok" else 1)
    result = pipeline.call(body)
    if result == "child":
        os._exit(0 if pipeline.call(lambda: 7) == 7 and time.monotonic() - begun < 1 else 1)
    print(result, time.monotonic() - begun < 2)
"""
    assert run_apart(code) == ["0", "True"] * 2


@pytest.mark.fault(23)
def test_a_child_made_inside_a_timed_call_ends_with_its_function() -> None:
    """In the child nobody waits for the worker, which has nothing more to do."""
    code = """
import os, time
from resilience import Pipeline, Timeout
begun = time.monotonic()
child = Pipeline(Timeout(9)).call(os.fork)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), time.monotonic() - begun < 5)
"""
    assert run_apart(code) == ["0", "True"]


@pytest.mark.fault(23)
def test_a_worker_of_the_pool_before_ends_with_its_job() -> None:
    """What a fork does to the pool in the child; the worker waits for no other job."""
    served: list[threading.Thread] = []

    def body() -> None:
        served.append(threading.current_thread())
        workers._renew()

    Pipeline(Timeout(20)).call(body)
    served[0].join(10)
    assert not served[0].is_alive()


@pytest.mark.fault(23)
def test_fork_while_other_threads_are_anywhere_in_a_call() -> None:
    """No lock that another thread held at the fork stays taken in the child for ever."""
    code = """
import os, signal, sys, threading, time
from resilience import CircuitBreaker, CircuitOpenError, Pipeline, Retry, Timeout
sys.setswitchinterval(1e-6)
breaker = CircuitBreaker(failures=2, reset_after=1e-6)
plain, timed = Pipeline(Retry(attempts=2, wait=0), breaker), Pipeline(breaker, Timeout(5))

def fail():
    raise ConnectionError

def call(pipeline, fn):
    try:
        pipeline.call(fn)
    except (ConnectionError, CircuitOpenError):
        pass

def work():
    while not stop:
        call(plain, fail)
        breaker.close()
        call(plain, int)
        call(timed, int)

call(plain, fail)  # the first failure imports a module; Python does not free import locks at a fork
stop = []
threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
hung = bad = 0
forks = 0
finish = time.monotonic() + 3
while time.monotonic() < finish and forks < 150:
    forks += 1
    pid = os.fork()
    if pid == 0:
        signal.alarm(2)
        code = 1
        try:
            call(plain, fail)
            call(plain, fail)
            breaker.open()
            breaker.close()
            if timed.call(lambda: 5) == 5 and plain.call(lambda: 6) == 6:
                code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    hung += status == -signal.SIGALRM
    bad += status > 0
    if hung:
        break
stop.append(1)
print(forks > 10 or hung, hung, bad)
os._exit(0)
"""
    assert run_apart(code, measured=False) == ["True", "0", "0"]


@pytest.mark.fault(23)
def test_a_trial_in_another_thread_keeps_no_place_in_the_child() -> None:
    """That thread is not there to end it: the child may try, and recovers. The parent does too."""
    code = """
import os, threading
from resilience import CircuitBreaker, Pipeline
breaker = CircuitBreaker(reset_after=1e-9)
breaker.open()
pipeline, begun, end = Pipeline(breaker), threading.Event(), threading.Event()

def trial():
    begun.set()
    end.wait(9)

thread = threading.Thread(target=pipeline.call, args=(trial,))
thread.start()
begun.wait(9)
pid = os.fork()
if pid == 0:
    free = breaker.snapshot().trials == 0
    os._exit(0 if free and pipeline.call(lambda: 7) == 7 and breaker.state == "closed" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), breaker.snapshot().trials)
end.set()
thread.join()
print(breaker.state)
"""
    assert run_apart(code) == ["0", "1", "closed"]


@pytest.mark.fault(23)
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_process_has_workers_of_its_own() -> None:
    """Fork after the workers have warmed up: the child's timed calls work."""
    guarded = Pipeline(Timeout(5)).wrap(lambda: "ok")
    assert guarded() == "ok"
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if guarded() == "ok" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
