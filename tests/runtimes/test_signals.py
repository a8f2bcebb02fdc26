"""Signals that arrive at any moment of a call: nothing hangs, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resilience import Pipeline, Retry, Timeout
from resilience._runtimes import workers
from support.concurrency import run_apart

pytestmark = pytest.mark.real

TESTS = str(Path(__file__).parents[1])


@pytest.mark.fault(33)
@pytest.mark.parametrize("timed", [False, True])
def test_a_signal_handler_may_make_guarded_calls(timed: bool) -> None:
    """A handler that comes at any moment of a call, and calls through the same circuit: no hang."""
    code = f"""
import faulthandler, random, signal, sys, time
faulthandler.dump_traceback_later(15, exit=True)
from resilience import CircuitBreaker, CircuitOpenError, Pipeline, Retry, Timeout
breaker = CircuitBreaker(key="key", failures=2, reset_after=1e-5)
limits = [Timeout(5)] if {timed} else []
pipeline = Pipeline(Retry(attempts=2, wait=0), breaker, *limits)
random.seed(1)

@pipeline
def body(key, bad):
    if bad:
        raise ConnectionError
    return key

def call():
    try:
        assert body(random.randrange(2), random.random() < 0.5) in (0, 1)
    except (ConnectionError, CircuitOpenError):
        pass

def handle(number, frame):
    global handled
    call()
    breaker.circuit(random.randrange(2)).close()
    handled += 1

handled = calls = 0
signal.signal(signal.SIGALRM, handle)
finish = time.monotonic() + 1.2
while time.monotonic() < finish:
    signal.setitimer(signal.ITIMER_REAL, 1e-6 + random.random() * 0.0004)
    call()
    calls += 1
signal.setitimer(signal.ITIMER_REAL, 0)
trials = [breaker.circuit(key).snapshot().trials for key in (0, 1)]
for key in (0, 1):
    breaker.circuit(key).close()
print(handled > 50, calls > 50, trials == [0, 0], bool(limits) or pipeline._idle.period is not None)
"""
    assert run_apart(code, measured=False) == ["True"] * 4


@pytest.mark.fault(8)
def test_ctrl_c_while_a_worker_starts_leaves_no_attempt_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The function may have begun already: it makes no further guarded attempt."""
    start, left = workers.start, threading.Event()
    ended = threading.Event()
    attempts: list[int] = []

    def interrupted(call: Callable[[], Any]) -> Any:
        start(call)
        raise KeyboardInterrupt

    def body() -> None:
        try:
            assert left.wait(5)
            Pipeline(Retry()).call(lambda: attempts.append(1))
        finally:
            ended.set()

    monkeypatch.setattr(workers, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(Timeout(30)).call(body)
    left.set()
    assert ended.wait(5)
    assert attempts == []


@pytest.mark.fault(28)
def test_ctrl_c_at_any_step_of_a_trial_loses_no_place() -> None:
    """Interrupted at each instruction of ours in turn: the circuit recovers.

    Its lock stays owned only where a `with` has ended and not yet released it. There Python looks
    for no signal; only a trace function is called.
    """
    code = """
import contextvars, sys
import resilience
from resilience import CircuitBreaker, Pipeline
from resilience.testing import virtual_time
from support.arriving import at_the_end_of_a_with
ours = resilience.__path__[0]

def recovers(step):
    left = step
    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(ours):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace
    breaker = CircuitBreaker(reset_after=10)
    pipeline = Pipeline(breaker)
    breaker.open()
    clock.advance(10)
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for this when tracing begins
    sys.settrace(trace)
    try:
        pipeline.call(int)
    except KeyboardInterrupt as problem:
        excused = at_the_end_of_a_with(problem, "<string>")
    finally:
        sys.settrace(None)
    clock.advance(10)
    if breaker._one._lock._is_owned():
        return left <= 0, excused
    return left <= 0, pipeline.outcome(int).error is None

with virtual_time() as clock:
    steps, bad = 0, []
    while True:
        steps += 1
        reached, well = contextvars.copy_context().run(recovers, steps)
        if not reached:
            break
        if not well:
            bad.append(steps)
print(steps > 500, bad)
"""
    before = f"import sys, warnings; sys.path.append({TESTS!r}); warnings.simplefilter('ignore')"
    # Measured, it would be traced by two.
    assert run_apart(before + code, measured=False) == ["True", "[]"]
