"""Many threads and tasks at once, signals and forks: nothing hangs, nothing is counted twice."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pybreaker import CircuitBreakerListener, CircuitMemoryStorage

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    WorkersBusyError,
)
from resilience._core.rest import epochs
from resilience._runtimes import workers
from resilience.events import AttemptEnded, CallEnded, WaitBegan

pytestmark = pytest.mark.real


@pytest.fixture
def _fast_switching() -> Iterator[None]:
    """Threads take turns every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(number: int, fn: Callable[[int], Any], limit: float = 30) -> None:
    """Run `fn(n)` in so many threads and wait for them; what one raises is raised here."""
    problems: list[BaseException] = []

    def run(n: int) -> None:
        try:
            fn(n)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit)
        assert not thread.is_alive(), "a thread hangs"
    if problems:
        raise problems[0]


def run_apart(code: str, *, measured: bool = True) -> list[str]:
    """What a program of its own prints; if it hangs it is killed, and the test fails.

    `measured=False` keeps `make coverage` out of it: its lock, which every call takes, is neither
    reentrant nor free again after a fork, so a signal or a fork at any moment would hang in there.
    """
    env = {k: v for k, v in os.environ.items() if measured or not k.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=25,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def fail() -> None:
    raise ConnectionError


# The end of the open time

ENDINGS: tuple[Exception | None, ...] = (None, ConnectionError(), ValueError())


@pytest.mark.parametrize("trials", [1, 3])
def test_fault_018_64_threads_across_the_end_of_the_open_time(trials: int) -> None:
    """64 threads that call again and again while the open time ends: exactly `trials` go through.

    A trial stays inside until every other thread has been refused after the end.
    """
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=0.0005)
    through: list[int] = []
    refused: list[int] = []
    leave = threading.Event()
    rounds: list[int] = []
    wrong: list[Any] = []
    finish = time.monotonic() + 2.2

    def trial(n: int) -> None:
        through.append(n)
        assert leave.wait(10)
        ending = ENDINGS[len(rounds) % 3]
        if ending is not None:
            raise ending

    def between() -> None:
        """Look at the round that is over, and prepare the next; run by one thread."""
        if rounds and (len(through), len(refused)) != (trials, 64 - trials):
            wrong.append((len(through), len(refused)))
        rounds.append(1)
        through.clear()
        refused.clear()
        leave.clear()
        breaker.open()

    guarded = Pipeline(breaker).wrap(trial)
    meeting = threading.Barrier(64, action=between)

    over: list[bool] = []

    def decide() -> None:
        over.append(time.monotonic() >= finish)

    go_on = threading.Barrier(64, action=decide)

    def until_over(n: int) -> None:
        while True:
            meeting.wait(10)
            end = breaker._only._until
            while True:
                try:
                    guarded(n)
                except CircuitOpenError:
                    if time.monotonic() < end:
                        continue
                    refused.append(n)
                    if len(refused) == 64 - trials:
                        leave.set()
                except (ConnectionError, ValueError):
                    pass
                break
            go_on.wait(10)
            if over[-1]:
                return

    in_threads(64, until_over)
    between()
    assert wrong == []
    assert len(rounds) > 20


@pytest.mark.parametrize("trials", [1, 3])
def test_fault_018_1000_tasks_across_the_end_of_the_open_time(trials: int) -> None:
    """The same for a thousand tasks of one loop."""
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=0.002)

    async def one_round(ending: Exception | None) -> tuple[int, int]:
        through: list[int] = []
        refused: list[int] = []
        leave = asyncio.Event()

        async def trial() -> None:
            through.append(1)
            await leave.wait()
            if ending is not None:
                raise ending

        guarded = Pipeline(breaker).wrap(trial)

        async def one() -> None:
            while True:
                try:
                    await guarded()
                except CircuitOpenError:
                    if time.monotonic() < end:
                        await asyncio.sleep(0)
                        continue
                    refused.append(1)
                    if len(refused) == 1000 - trials:
                        leave.set()
                except (ConnectionError, ValueError):
                    pass
                return

        breaker.open()
        end = breaker._only._until
        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(1000))), 20)
        return len(through), len(refused)

    async def main() -> set[tuple[int, int]]:
        finish = time.monotonic() + 0.8
        seen = set()
        number = 0
        while number < 3 or time.monotonic() < finish:
            seen.add(await one_round(ENDINGS[number % 3]))
            number += 1
        return seen

    assert asyncio.run(main()) == {(trials, 1000 - trials)}


# Counting


@pytest.mark.usefixtures("_fast_switching")
def test_fault_022_the_counters_agree_when_half_the_attempts_fail() -> None:
    """Circuits open and close all the time: no foreign error, and every attempt told once."""
    breaker = CircuitBreaker(key="model", failures=3, reset_after=0.0002, trials=2)
    heard: Counter[type] = Counter()
    made: list[int] = []  # appended to by many threads: += on a number would lose some
    answered: list[str] = []
    tally = threading.Lock()

    def listen(event: AttemptEnded | WaitBegan | CallEnded) -> None:
        with tally:
            heard[type(event)] += 1

    pipeline = Pipeline(
        Fallback("none", on=CircuitOpenError),
        ModelFallback("a", "b"),
        Retry(attempts=2, wait=0),
        breaker,
        listeners=[listen],
    )

    def work(n: int) -> None:
        chance = random.Random(n)

        @pipeline
        def ask(*, model: str = "a") -> str:
            made.append(1)
            if chance.random() < 0.5:
                raise ConnectionError
            return model

        for _ in range(60):
            try:
                answered.append(ask())
            except ConnectionError:
                answered.append("error")

    in_threads(16, work)
    assert len(answered) == 16 * 60
    assert set(answered) <= {"a", "b", "none", "error"}
    assert heard[CallEnded] == 16 * 60
    assert heard[AttemptEnded] == len(made)
    for model in "ab":
        circuit = breaker.circuit(model)
        assert not circuit._places
        assert 0 <= circuit.failures < 3


@pytest.mark.usefixtures("_fast_switching")
@pytest.mark.parametrize("storage", [None, lambda key: CircuitMemoryStorage("closed")])
def test_fault_018_019_first_use_of_a_key_makes_one_circuit(storage: Any) -> None:
    """32 threads meet at a key that nobody has used: one circuit, which counts all their calls."""
    breaker = CircuitBreaker(key="model", failures=10**6, storage=storage)
    guarded = Pipeline(breaker).wrap(lambda model: fail())
    meeting = threading.Barrier(32)
    found: list[tuple[int, Any]] = []

    def work(n: int) -> None:
        try:
            for key in range(40):
                meeting.wait(10)
                if n % 2:
                    found.append((key, breaker.circuit(key)))
                with pytest.raises(ConnectionError):
                    guarded(key)
        except BaseException:
            meeting.abort()
            raise

    in_threads(32, work)
    assert len({id(circuit) for _, circuit in found}) == 40
    assert all(breaker.circuit(key) is circuit for key, circuit in found)
    if storage is None:
        assert {breaker.circuit(key).failures for key in range(40)} == {32}


@pytest.mark.usefixtures("_fast_switching")
def test_at_rest_is_told_exactly_when_every_circuit_is_closed_and_clean() -> None:
    """16 threads fail, succeed, open and close at random; in the end the flag is right."""
    one, keyed = CircuitBreaker(failures=3), CircuitBreaker(key="key", failures=2, reset_after=1e-5)
    pipelines = [Pipeline(one), Pipeline(Retry(wait=0), one), Pipeline(keyed), Pipeline(one, keyed)]

    def agree() -> list[tuple[bool, bool]]:
        def calm(breaker: CircuitBreaker) -> bool:
            return all(c.closed and c.failures == 0 for c in breaker._circuits.values())

        calms = [calm(one), calm(one), calm(keyed), calm(one) and calm(keyed)]
        return [(p.rest.token is not None, c) for p, c in zip(pipelines, calms, strict=True)]

    def work(n: int) -> None:
        chance = random.Random(n)

        def maybe(key: int) -> None:
            if chance.random() < 0.5:
                raise ConnectionError

        guarded = [pipeline.wrap(maybe) for pipeline in pipelines]
        for _ in range(40):
            circuit = chance.choice([one._only, keyed.circuit(chance.randrange(3))])
            what = chance.random()
            if what < 0.1:
                circuit.close()
            elif what < 0.15:
                circuit.open()
            elif what < 0.18:
                circuit.isolate()
            else:
                try:
                    chance.choice(guarded)(chance.randrange(3))
                except (ConnectionError, CircuitOpenError):
                    pass

    for _ in range(8):
        in_threads(16, work)
        assert all(told == calm for told, calm in agree()), agree()
        for circuit in [one._only, *keyed._circuits.values()]:
            circuit.close()
        assert agree() == [(True, True)] * 4
        tokens = [pipeline.rest.token for pipeline in pipelines]
        keyed.circuit(0).open()
        assert [p.rest.token is t for p, t in zip(pipelines, tokens, strict=True)] == [
            True,
            True,
            False,
            False,
        ]
        keyed.circuit(0).close()


# Locks


class _Probe:
    """User code that looks from another thread whether it runs under a lock of ours.

    The other thread makes calls of its own through the same pipeline, by another circuit.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.breaker: CircuitBreaker | None = None
        self.pipeline: Pipeline | None = None
        self.busy = False

    def __call__(self, where: str) -> None:
        if self.busy or self.breaker is None or self.pipeline is None:
            return  # the other thread's calls come through here too
        self.busy = True
        self.seen[where] += 1
        try:
            in_threads(1, self._elsewhere, limit=10)
        finally:
            self.busy = False

    def _elsewhere(self, n: int) -> None:
        assert self.breaker is not None
        assert self.pipeline is not None
        kept = self.breaker._circuits
        circuits = list(kept.values())
        locks = [epochs._lock, kept._lock, self.pipeline.rest._lock, workers._pool._lock]
        for lock in [*locks, *(circuit._lock for circuit in circuits)]:
            assert lock.acquire(timeout=5), "user code runs under a lock"
            lock.release()
        for circuit in circuits:
            assert circuit.state in ("closed", "open", "half-open")
        self.pipeline.outcome(lambda model: "ok")
        self.pipeline.outcome(lambda model: fail())
        self.breaker.circuit("other").close()


def _probing_storage(probe: _Probe) -> Any:
    """A storage each of whose methods and properties probes."""

    def asked(name: str) -> property:
        plain = getattr(CircuitMemoryStorage, name)

        def read(self: Any) -> Any:
            probe("storage")
            return plain.fget(self)

        def write(self: Any, value: Any) -> None:
            probe("storage")
            plain.fset(self, value)

        return property(read, write if plain.fset else None)

    def called(name: str) -> Any:
        plain = getattr(CircuitMemoryStorage, name)

        def method(self: Any, *args: Any) -> Any:
            probe("storage")
            return plain(self, *args)

        return method

    members: dict[str, Any] = {}
    for name in dir(CircuitMemoryStorage):
        if not name.startswith("_"):
            is_property = isinstance(getattr(CircuitMemoryStorage, name), property)
            members[name] = (asked if is_property else called)(name)
    return type("Probing", (CircuitMemoryStorage,), members)


@pytest.mark.parametrize("stored", [False, True])
def test_fault_019_020_user_code_runs_under_no_lock(stored: bool) -> None:
    """Every function a user can give, storages included, may wait for a thread that calls."""
    probe = _Probe()

    class Listener(CircuitBreakerListener):
        def before_call(self, *args: Any, **kwargs: Any) -> None:
            probe("before_call")

        def success(self, *args: Any) -> None:
            probe("success")

        def failure(self, *args: Any) -> None:
            probe("failure")

        def state_change(self, *args: Any) -> None:
            probe("state_change")

    def saying(where: str, value: Any) -> Any:
        def say(*args: Any, **kwargs: Any) -> Any:
            probe(where)
            return value(*args) if callable(value) else value

        return say

    storage = _probing_storage(probe)

    breaker = CircuitBreaker(
        failures=2,
        key=saying("key", lambda *args: "other" if probe.busy else "own"),
        on=saying("breaker on", True),
        on_result=saying("breaker on_result", False),
        storage=(lambda key: storage("closed")) if stored else None,
        refresh=0,
        listeners=[Listener()],
    )
    pipeline = Pipeline(
        Fallback(call=saying("fallback", "fallen"), on=saying("fallback on", True)),
        ModelFallback("a", "b", on=saying("models on", True)),
        Retry(
            wait=saying("wait", 0.0),
            on=saying("retry on", True),
            on_result=saying("retry on_result", False),
            adjust=saying("adjust", lambda attempt, args, kwargs: (args, kwargs)),
            stop=saying("stop", False),
        ),
        breaker,
        Timeout(saying("seconds", 20.0)),
        listeners=[saying("listener", None)],
    )
    probe.breaker, probe.pipeline = breaker, pipeline

    def body(model: str) -> str:
        probe("function")
        calls.append(model)
        if len(calls) % 4:
            raise ConnectionError
        return model

    calls: list[str] = []
    guarded = pipeline.wrap(body)
    for _ in range(6):
        breaker.circuit("own").close()
        assert guarded() in ("a", "b", "fallen")
    in_threads(1, probe._elsewhere)
    expected = {
        *("key", "breaker on", "breaker on_result", "before_call", "success", "failure"),
        *("state_change", "fallback", "fallback on", "models on", "wait", "retry on"),
        *("retry on_result", "adjust", "stop", "seconds", "listener", "function"),
    }
    assert expected | ({"storage"} if stored else set()) <= set(probe.seen)


def test_fault_020_a_storage_may_be_made_slowly() -> None:
    """While one thread makes the storage for a key, another may call with that key."""
    found: list[Any] = []

    def make(key: Any) -> Any:
        if not found:
            found.append("making")
            in_threads(1, lambda n: found.append(guarded("a")), limit=10)
        return CircuitMemoryStorage("closed")

    guarded: Any = Pipeline(CircuitBreaker(key="model", storage=make)).wrap(lambda model: model)
    assert guarded("a") == "a"
    assert found == ["making", "a"]


def test_fault_019_a_guarded_function_may_wait_for_guarded_calls_of_other_threads() -> None:
    """A trial that waits for other threads' calls: they are refused at once, nobody waits."""
    breaker = CircuitBreaker(failures=1, reset_after=1e-6)
    seen: list[Any] = []

    def body(depth: int) -> str:
        if depth:
            in_threads(
                1, lambda n: seen.append(Pipeline(breaker).outcome(body, depth - 1)), limit=10
            )
        return "ok"

    guarded = Pipeline(breaker, Timeout(20)).wrap(body)
    assert guarded(3) == "ok"
    breaker.open()
    time.sleep(0.001)
    assert guarded(2) == "ok"
    assert [type(outcome.error) for outcome in seen] == [type(None)] * 3 + [CircuitOpenError]
    assert breaker.state == "closed"


# Signals


@pytest.mark.parametrize("timed", [False, True])
def test_fault_033_a_signal_handler_may_make_guarded_calls(timed: bool) -> None:
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
places = [len(breaker.circuit(key)._places) for key in (0, 1)]
for key in (0, 1):
    breaker.circuit(key).close()
print(handled > 50, calls > 50, places == [0, 0], pipeline.rest.token is not None or limits != [])
"""
    assert run_apart(code, measured=False) == ["True"] * 4


def test_fault_008_ctrl_c_while_a_worker_starts_leaves_no_attempt_behind(
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


def test_fault_028_ctrl_c_at_any_step_of_a_trial_loses_no_place() -> None:
    """Interrupted at each instruction of ours in turn: the circuit recovers."""
    code = """
import contextvars, sys
import resilience
from resilience import CircuitBreaker, Pipeline
from resilience.testing import virtual_time
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
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    clock.advance(10)
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
    # Measured, it would be traced by two.
    assert run_apart("import warnings; warnings.simplefilter('ignore')" + code, measured=False) == [
        "True",
        "[]",
    ]


# Forks


def test_fault_023_fork_inside_a_call() -> None:
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


def test_fault_023_a_child_made_inside_a_timed_call_ends_with_its_function() -> None:
    """In the child nobody waits for the worker, which has nothing more to do."""
    code = """
import os, time
from resilience import Pipeline, Timeout
begun = time.monotonic()
child = Pipeline(Timeout(9)).call(os.fork)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), time.monotonic() - begun < 5)
"""
    assert run_apart(code) == ["0", "True"]


def test_fault_023_a_worker_of_the_pool_before_ends_with_its_job() -> None:
    """What a fork does to the pool in the child; the worker waits for no other job."""
    served: list[threading.Thread] = []

    def body() -> None:
        served.append(threading.current_thread())
        workers._renew()

    Pipeline(Timeout(20)).call(body)
    served[0].join(10)
    assert not served[0].is_alive()


def test_fault_023_fork_while_other_threads_are_anywhere_in_a_call() -> None:
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


def test_fault_023_a_trial_in_another_thread_keeps_no_place_in_the_child() -> None:
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


# Workers


def test_fault_106_a_thousand_stuck_calls_use_a_bounded_number_of_threads() -> None:
    """As many time out as there are workers, the rest is refused by name; then they come back."""
    release = threading.Event()
    entered: list[int] = []
    stuck = Pipeline(Timeout(0.001)).wrap(lambda: (entered.append(1), release.wait()))
    fast = Pipeline(Timeout(20)).wrap(lambda: "ok")
    before = set(threading.enumerate())
    seen: Counter[Any] = Counter()
    try:
        for number in range(1000):
            seen[type(stuck.outcome().error)] += 1  # type: ignore[attr-defined]
            if number % 100 == 0:
                next_fast = fast.outcome()  # type: ignore[attr-defined]
                assert next_fast.value == "ok" or type(next_fast.error) is WorkersBusyError
        grown = set(threading.enumerate()) - before
    finally:
        release.set()
    assert set(seen) == {DeadlineExceededError, WorkersBusyError}
    assert len(entered) <= workers.LIMIT
    assert len(grown) <= workers.LIMIT
    finish = time.monotonic() + 10
    while time.monotonic() < finish and fast.outcome().value != "ok":  # type: ignore[attr-defined]
        time.sleep(0.005)
    assert fast() == "ok"


def test_fault_106_a_thousand_calls_that_time_out_and_end_share_a_few_threads() -> None:
    """A worker whose late function has ended is used again."""
    before = set(threading.enumerate())
    late = Pipeline(Timeout(0.0005)).wrap(lambda: time.sleep(0.01))
    seen: Counter[Any] = Counter()
    for _ in range(1000):
        seen[type(late.outcome().error)] += 1  # type: ignore[attr-defined]
    assert seen[DeadlineExceededError] > 900
    assert WorkersBusyError not in seen
    assert len(set(threading.enumerate()) - before) < 64


@pytest.mark.parametrize(("outer", "inner", "same"), [(20, 30, True), (30, 20, False)])
def test_fault_110_one_worker_where_the_outer_limit_ends_first(
    outer: float, inner: float, same: bool
) -> None:
    """An inner limit that could not fire first needs no thread of its own; another does."""
    within = Pipeline(Timeout(inner)).wrap(threading.get_ident)
    threads = Pipeline(Timeout(outer)).call(lambda: [threading.get_ident(), within()])

    assert threading.get_ident() not in threads
    assert (threads[0] == threads[1]) is same


def test_fault_106_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more threads, its error comes out and no place is lost."""
    monkeypatch.setattr(workers, "LIMIT", 1)
    workers._renew()
    guarded = Pipeline(Timeout(20)).wrap(lambda: "ok")

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                guarded()
    assert guarded() == "ok"


def test_a_system_without_fork() -> None:
    """Where there is no fork (Windows) there is nothing to prepare for, and calls go through."""
    code = """
import os
del os.fork, os.register_at_fork
from resilience import CircuitBreaker, Pipeline, Timeout
from resilience.shared import RedisCircuit
shared = CircuitBreaker(storage=RedisCircuit("redis://127.0.0.1:1"), name="shared")
print(Pipeline(CircuitBreaker(), shared, Timeout(9)).call(lambda: "ok"))
"""
    assert run_apart(code) == ["ok"]
