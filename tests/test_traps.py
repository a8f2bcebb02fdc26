"""The traps that the design tells of, one test each."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from typing import Any
from unittest.mock import Mock

import pytest
import trio

from conftest import Takes, World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    Guarded,
    Model,
    ModelFallback,
    Outcome,
    Pipeline,
    PolicyOrderWarning,
    Retry,
    Timeout,
    WorkersBusyError,
    current_attempt,
    history,
    resilient,
    served_by,
)
from resilience._core.record import Record
from resilience._runtimes import workers
from resilience.testing import script, virtual_time
from resilience.waits import Fixed


class ByHand:
    """Calls that are begun and ended by hand, over one pipeline, without threads.

    Each runs on a stack of its own (a greenlet would do; a thread that is waited for does too).
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._guarded = pipeline.wrap(self._body)
        self._gates: dict[int, threading.Event] = {}
        self._begun: dict[int, threading.Event] = {}
        self._good: dict[int, bool] = {}
        self._threads: dict[int, threading.Thread] = {}
        self.results: dict[int, str] = {}

    def _body(self, number: int) -> str:
        self._begun[number].set()
        assert self._gates[number].wait(5)
        if not self._good[number]:
            raise ConnectionError(f"own error {number}")
        return "ok"

    def begin(self, number: int) -> None:
        self._gates[number], self._begun[number] = threading.Event(), threading.Event()

        def run() -> None:
            try:
                self.results[number] = self._guarded(number)
            except Exception as error:
                self.results[number] = f"{type(error).__name__}: {error}"
                self._begun[number].set()

        self._threads[number] = threading.Thread(target=run)
        self._threads[number].start()
        assert self._begun[number].wait(5)

    def end(self, number: int, *, good: bool) -> None:
        self._good[number] = good
        self._gates[number].set()
        self._threads[number].join(5)


@pytest.mark.parametrize("at_rest", [True, False])
@pytest.mark.real
def test_interleaved_calls_do_not_open_a_circuit_that_keeps_being_reset(at_rest: bool) -> None:
    """16 calls in flight that end failure, success, failure, ...: never five failures in a row."""
    breaker = CircuitBreaker(failures=5)
    calls = ByHand(Pipeline(breaker, listeners=[] if at_rest else [lambda event: None]))
    for number in range(16):
        calls.begin(number)
    for number in range(16):
        calls.end(number, good=number % 2 == 1)
    assert breaker.state == "closed"
    assert breaker._only.failures == 0
    assert all("CircuitOpenError" not in result for result in calls.results.values())


@pytest.mark.parametrize("at_rest", [True, False])
@pytest.mark.real
def test_a_call_begun_before_the_opening_keeps_its_own_error(at_rest: bool) -> None:
    """Six in flight, all fail: the fifth opens the circuit, the sixth still tells its own error."""
    breaker = CircuitBreaker(failures=5)
    calls = ByHand(Pipeline(breaker, listeners=[] if at_rest else [lambda event: None]))
    for number in range(6):
        calls.begin(number)
    for number in range(6):
        calls.end(number, good=False)
    assert breaker.state == "open"
    assert calls.results[5] == "ConnectionError: own error 5"


@pytest.mark.parametrize("at_rest", [True, False])
@pytest.mark.real
def test_fault_021_late_failures_after_close_change_nothing(at_rest: bool) -> None:
    """Four begun before the opening fail after `close()`: the circuit has no failure on record."""
    breaker = CircuitBreaker(failures=5)
    calls = ByHand(Pipeline(breaker, listeners=[] if at_rest else [lambda event: None]))
    for number in range(9):
        calls.begin(number)
    for number in range(4, 9):
        calls.end(number, good=False)
    assert breaker.state == "open"
    breaker.close()
    for number in range(4):
        calls.end(number, good=False)
    assert breaker.state == "closed"
    assert breaker._only.failures == 0


def test_a_late_success_from_before_the_opening_does_not_close_it(world: World) -> None:
    """An answer counts only if the circuit has not changed since its call was admitted."""
    breaker = CircuitBreaker(failures=1)

    def open_meanwhile(*args: Any) -> str:
        breaker.open()
        return "late"

    assert world.run(Pipeline(breaker).wrap(world.function(open_meanwhile))) == "late"
    assert breaker.state == "open"


@pytest.mark.real
def test_no_further_attempt_after_a_sync_deadline_has_fired() -> None:
    """When the caller has its error, nothing goes on calling behind its back."""
    calls: list[float] = []

    def failing() -> None:
        calls.append(time.monotonic())
        raise ConnectionError

    guarded = Pipeline(Timeout(0.25), Retry(attempts=10, wait=Fixed(0.1))).wrap(failing)
    with pytest.raises(ConnectionError):
        guarded()
    made = len(calls)
    time.sleep(0.35)
    assert len(calls) == made


@pytest.mark.real
def test_an_abandoned_worker_makes_no_further_guarded_attempt() -> None:
    """A function left behind in its worker thread is unwound at its next guarded call."""
    inner_calls: list[int] = []
    finished = threading.Event()

    @resilient(Retry(attempts=50, wait=Fixed(0.02)))
    def inner() -> None:
        inner_calls.append(1)
        raise ConnectionError

    def outer() -> None:
        try:
            inner()
        finally:
            finished.set()

    with pytest.raises(DeadlineExceededError):
        Pipeline(Timeout(0.1)).call(lambda: (time.sleep(0.15), outer()))
    assert finished.wait(2)
    assert inner_calls == []


@pytest.mark.real
def test_healthy_calls_under_nested_sync_timeouts_meet_no_false_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight calls of 50 ms under two Timeouts with four workers: an answer or WorkersBusyError."""
    monkeypatch.setattr(workers, "LIMIT", 4)
    workers._renew()
    guarded = Pipeline(Timeout(5), Retry(), Timeout(4)).wrap(lambda: time.sleep(0.05) or "ok")
    seen: list[Any] = []

    def run() -> None:
        try:
            seen.append(guarded())
        except Exception as error:
            seen.append(type(error))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    workers._renew()
    assert set(seen) <= {"ok", WorkersBusyError}
    assert seen.count("ok") >= 4


@pytest.mark.real
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


@pytest.mark.real
def test_fault_008_the_permit_is_back_after_ctrl_c() -> None:
    """Ctrl-C while a trial waits for its worker: KeyboardInterrupt itself, the place given back."""
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
    print(breaker.state, len(breaker._only._places), time.monotonic() - begun < 2)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.split() == ["half-open", "0", "True"]


@pytest.mark.real
def test_fault_107_the_interpreter_exits_at_once_with_a_stuck_worker() -> None:
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
    assert time.time() - float(done.stdout) < 0.5


@pytest.mark.real
def test_fault_106_stuck_calls_use_a_bounded_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond the limit a timed call is refused by name; it never times out unexecuted."""
    monkeypatch.setattr(workers, "LIMIT", 8)
    workers._renew()
    release = threading.Event()
    seen: list[type[BaseException]] = []
    guarded = Pipeline(Timeout(0.01)).wrap(release.wait)
    before = set(threading.enumerate())  # idle workers of tests before this one
    for _ in range(40):
        try:
            guarded()
        except TimeoutError as error:
            seen.append(type(error))
        except WorkersBusyError as error:
            seen.append(type(error))
    alive = len(set(threading.enumerate()) - before)
    release.set()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            assert Pipeline(Timeout(2)).call(lambda: "ok") == "ok"
            break
        except WorkersBusyError:
            time.sleep(0.01)
    else:
        pytest.fail("no worker came back")
    workers._renew()
    assert seen == [DeadlineExceededError] * 8 + [WorkersBusyError] * 32
    assert alive <= 8


@pytest.mark.real
def test_fault_108_context_variables_are_seen_inside_a_timed_sync_call() -> None:
    """A timed call runs in a worker thread with the caller's context variables."""
    who = contextvars.ContextVar("who", default="nobody")
    who.set("me")
    assert Pipeline(Timeout(5)).call(who.get) == "me"


@pytest.mark.parametrize("failures", [0, 1])
def test_an_awaitable_is_handed_over_from_a_sync_call(failures: int) -> None:
    """A plain function that returns a coroutine, on attempt 1 or on attempt 2, is awaited.

    The attempts and waits made before count: it is one call with one record.
    """
    made: list[int] = []

    async def answer(number: int) -> int:
        made.append(number)
        if number < 3:
            raise ConnectionError("async")
        return number

    calls: list[int] = []

    def flaky() -> Any:
        calls.append(1)
        if len(calls) <= failures:
            raise ConnectionError("sync")
        return answer(len(calls))

    # A listener keeps it from rest, so the chain itself meets the awaitable.
    guarded = Pipeline(Retry(attempts=3), listeners=[lambda event: None]).wrap(flaky)
    with virtual_time() as clock:
        outcome = asyncio.run(_await(guarded.outcome))
    assert outcome.value == 3
    assert [attempt.number for attempt in outcome.attempts] == [1, 2, 3]
    assert len(calls) == 3
    assert len(clock.sleeps) == 2


def test_handed_over_attempts_never_exceed_the_limit() -> None:
    """One sync failure and then awaitables that fail: three attempts with attempts=3, not four."""
    calls: list[int] = []

    async def broken() -> None:
        raise ConnectionError("async")

    def flaky() -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError("sync")
        return broken()

    guarded = resilient(Retry(attempts=3))(flaky)
    with virtual_time(), pytest.raises(ConnectionError) as caught:
        asyncio.run(_await(guarded))
    assert str(caught.value) == "async"
    assert len(calls) == 3
    assert [attempt.number for attempt in history(caught.value)] == [1, 2, 3]


def test_a_half_open_place_is_given_back_at_a_hand_over() -> None:
    """Between the hand-over and the await the trial's place is free; unused awaitables close."""
    breaker = CircuitBreaker(failures=1, reset_after=1)
    closed: list[bool] = []

    async def answer() -> str:
        return "ok"

    made: list[Any] = []

    def make() -> Any:
        made.append(answer())
        return made[-1]

    guarded = Pipeline(breaker).wrap(make)
    with virtual_time() as clock:
        breaker.open()
        clock.advance(2)
        awaitable: Any = guarded()
        assert not breaker._only._places
        assert breaker.state == "half-open"
        permit = breaker._only.admit(clock.now())
        with pytest.raises(CircuitOpenError):
            asyncio.run(_await(lambda: awaitable))
        closed.append(inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED)
        permit.succeeded()
    assert closed == [True]


def test_an_awaitable_serves_only_the_model_it_was_asked_for() -> None:
    """If the chain goes another way in async mode, the answer is not passed off as another's."""
    breaker = CircuitBreaker(key="model", failures=1)

    async def ask(model: str) -> str:
        return f"answer of {model}"

    def create(model: str) -> Any:
        return ask(model)

    guarded = Pipeline(ModelFallback("a", "b"), breaker, listeners=[lambda event: None]).wrap(
        create
    )
    with virtual_time():
        awaitable: Any = guarded()
        breaker.circuit("a").isolate()
        assert asyncio.run(_await(lambda: awaitable)) == "answer of b"


def test_a_function_not_yet_known_is_called_where_the_loop_runs() -> None:
    """It may need the running loop; a Timeout must not move it to a worker thread."""

    async def main() -> str:
        def start() -> Any:
            return asyncio.get_running_loop().create_task(answer())

        async def answer() -> str:
            return "ok"

        guarded: Any = Pipeline(Timeout(5)).wrap(start)
        return await guarded()

    assert asyncio.run(main()) == "ok"


def test_one_function_under_asyncio_then_trio_then_virtual_time() -> None:
    """The runtime is chosen for each call, not when the function is decorated."""

    @resilient(Timeout(30), Retry(wait=Fixed(0)))
    async def ask() -> str:
        attempts.append(current_attempt().number)
        if len(attempts) % 2:
            raise ConnectionError
        return "ok"

    attempts: list[int] = []
    assert asyncio.run(_await(ask)) == "ok"
    assert trio.run(_await, ask) == "ok"
    with virtual_time():
        assert asyncio.run(_await(ask)) == "ok"
        assert trio.run(_await, ask) == "ok"
    assert attempts == [1, 2] * 4


def test_a_task_that_outlives_a_finished_timeout_is_free_of_its_deadline() -> None:
    """Tasks started inside inherit the context, but not a deadline that is over."""

    @resilient(Retry(attempts=2, wait=Fixed(1)))
    async def flaky() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        return "ok"

    attempts: list[int] = []

    async def main() -> str:
        async def background() -> str:
            await left.wait()
            return await flaky()

        async def body() -> asyncio.Task[str]:
            return asyncio.create_task(background())

        left = asyncio.Event()
        task = await Pipeline(Timeout(0.5)).call(body)
        left.set()
        return await task

    with virtual_time():
        assert asyncio.run(main()) == "ok"
    assert len(attempts) == 2


class Bot:
    """Methods guarded in every way."""

    name = "bot"

    @resilient
    def chat(self, messages: str) -> tuple[str, str]:
        return self.name, messages

    @resilient(Retry())
    async def achat(self, messages: str) -> tuple[str, str]:
        return self.name, messages

    @classmethod
    @resilient(Retry())
    def made(cls, x: int) -> tuple[str, int]:
        return cls.name, x

    @resilient(Retry())
    @classmethod
    def made_too(cls, x: int) -> tuple[str, int]:
        return cls.name, x

    @staticmethod
    @resilient(Retry())
    def free(x: int) -> int:
        return x


def test_methods_keep_their_self() -> None:
    """`bot.method.outcome(x)` and the rest know the instance, class methods their class."""
    bot = Bot()
    assert bot.chat("hi") == ("bot", "hi")
    outcome = bot.chat.outcome("hi")
    assert isinstance(outcome, Outcome)
    assert outcome.value == ("bot", "hi")
    assert bot.chat.with_policies(Timeout(5))("hi") == ("bot", "hi")
    assert bot.chat.replacing(Retry(attempts=1))("hi") == ("bot", "hi")
    assert asyncio.run(_await(bot.achat, "hi")) == ("bot", "hi")
    assert asyncio.run(_await(bot.achat.outcome, "hi")).value == ("bot", "hi")
    assert (bot.made(1), Bot.made(1), Bot.made_too(1), bot.free(2)) == (
        ("bot", 1),
        ("bot", 1),
        ("bot", 1),
        2,
    )
    assert Bot.chat(bot, "hi") == ("bot", "hi")
    assert Bot.made_too.outcome(1).value == ("bot", 1)
    assert bot.made_too.with_policies(Retry())(1) == ("bot", 1)
    assert inspect.iscoroutinefunction(bot.achat)
    assert str(inspect.signature(bot.chat)) == "(messages: 'str') -> 'tuple[str, str]'"
    assert bot.chat == bot.chat
    assert bot.chat.__self__ is bot


def test_fault_088_an_instance_is_not_kept_alive_by_its_guarded_method() -> None:
    """Nothing per instance is remembered."""
    bot = Bot()
    bot.chat("hi")
    gone = weakref.ref(bot)
    del bot
    assert gone() is None


def test_the_bare_decorators_second_failing_call_gives_the_users_own_error(world: World) -> None:
    """Three failures, then two more that open the circuit: still the user's error."""
    guarded = resilient(world.function(ConnectionError("mine")))
    for _ in range(2):
        with pytest.raises(ConnectionError, match="mine"):
            world.run(guarded)
    with pytest.raises(CircuitOpenError):
        world.run(guarded)
    assert len(world.calls) == 5


def test_the_first_example_reaches_the_second_model_when_the_first_hangs(world: World) -> None:
    """Two attempts of 15 s at a hung model leave time for the second one."""
    answer = world.function(Takes(100), Takes(100), lambda messages, model: model)
    guarded = resilient(
        Timeout(60),
        ModelFallback("gpt-4o", "claude-sonnet-4-6", "gpt-4o-mini"),
        Retry(attempts=2),
        CircuitBreaker(key="model"),
        Timeout(15),
    )(answer)
    outcome = world.run(guarded.outcome, "hi")
    assert outcome.value == "claude-sonnet-4-6"
    assert [a.model for a in outcome.attempts] == ["gpt-4o", "gpt-4o", "claude-sonnet-4-6"]
    assert outcome.degraded
    assert 30 <= outcome.elapsed < 32


def test_a_policy_that_waits_for_a_loop_in_a_sync_call_is_named() -> None:
    """The driver closes the coroutine and says which policy suspended."""

    class Impatient:
        def bind(self, call: Any, runtime: Any) -> Any:
            async def waits(*args: Any, **kwargs: Any) -> Any:
                await asyncio.sleep(0)
                return await call(*args, **kwargs)

            return waits

    with pytest.raises(RuntimeError, match=r"Impatient\.bind\.<locals>\.waits"):
        Pipeline(Impatient()).call(lambda: 1)


@pytest.mark.parametrize("error", [StopIteration(7), StopAsyncIteration(7)])
@pytest.mark.parametrize("at_rest", [True, False])
def test_fault_068_a_users_stop_iteration_comes_out_unchanged(
    error: Exception, at_rest: bool
) -> None:
    """Not RuntimeError, and not retried; a policy may still name it."""
    listeners = [] if at_rest else [lambda event: None]
    body = script(error)
    with pytest.raises(type(error)) as caught:
        Pipeline(Retry(), CircuitBreaker(), listeners=listeners).call(body)
    assert caught.value is error
    named = Pipeline(Retry(on=type(error), wait=Fixed(0)), listeners=listeners)
    assert named.call(script(error, "ok")) == "ok"
    assert Pipeline(Fallback("else"), listeners=listeners).call(script(error)) == "else"
    outcome = Pipeline(Retry(), listeners=listeners).outcome(script(error))
    assert outcome.error is error


def test_fault_024_guarded_functions_pickle_by_name_or_say_why_not() -> None:
    """A function of a module comes back as itself, a bound method too; a local one is refused."""
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level
    bound = pickle.loads(pickle.dumps(Bot().chat))
    assert bound("hi") == ("bot", "hi")
    kept: Any = Pipeline(Retry()).wrap(another)
    with pytest.raises(TypeError, match="pickles by name"):
        pickle.dumps(kept)


@resilient
def at_module_level() -> int:
    """Docs."""
    return 1


def another() -> int:
    return 1


def test_fault_087_a_guarded_function_looks_like_the_function() -> None:
    """Name, docs, signature, `__wrapped__`, colour."""
    assert isinstance(at_module_level, Guarded)
    assert at_module_level.__name__ == "at_module_level"  # type: ignore[attr-defined]
    assert at_module_level.__doc__ == "Docs."
    assert at_module_level.__wrapped__() == 1  # type: ignore[attr-defined]
    assert not inspect.iscoroutinefunction(at_module_level)
    assert not asyncio.iscoroutinefunction(at_module_level)


@pytest.mark.parametrize("shape", ["returns", "retries", "falls", "outcome"])
@pytest.mark.parametrize("at_rest", [True, False])
def test_fault_064_no_cycle_keeps_a_frame_alive(shape: str, at_rest: bool) -> None:
    """A big local of the user's function is freed with the error, without the collector."""

    class Big:
        pass

    seen: list[weakref.ref[Big]] = []

    def failing() -> None:
        big = Big()
        seen.append(weakref.ref(big))
        raise ConnectionError

    policies: dict[str, Pipeline] = {
        "returns": Pipeline(listeners=[] if at_rest else [lambda event: None]),
        "retries": Pipeline(Retry(wait=Fixed(0)), CircuitBreaker(failures=99)),
        "falls": Pipeline(Fallback(None, on=KeyError), Retry(wait=Fixed(0))),
        "outcome": Pipeline(Retry(wait=Fixed(0)), CircuitBreaker(failures=99)),
    }
    gc.collect()
    gc.disable()
    try:
        if shape == "outcome":
            outcome = policies[shape].outcome(failing)
            assert isinstance(outcome.error, ConnectionError)
            del outcome
        else:
            kept = 0
            try:
                policies[shape].call(failing)
            except ConnectionError as error:
                kept = len(history(error)) and seen[-1]() is not None
            assert kept
        assert [ref() for ref in seen] == [None] * len(seen)
    finally:
        gc.enable()


async def _await(fn: Any, *args: Any) -> Any:
    return await fn(*args)


def test_a_function_guarded_while_a_circuit_is_open_still_gets_its_model() -> None:
    """Whether a call at rest has its arguments rewritten does not depend on when it was wrapped."""
    breaker = CircuitBreaker(key="model")
    breaker.circuit("other").open()
    guarded: Any = Pipeline(ModelFallback("a", "b"), breaker).wrap(lambda model=None: model)
    breaker.circuit("other").close()
    assert guarded() == "a"


# What a hostile reader found


def test_the_time_passed_on_concerns_the_pipelines_own_function_only() -> None:
    """A guarded call inside a call with `pass_as` gets the deadline, not the argument."""
    calls: list[int] = []

    def fetch(url: str) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return url

    inner = Pipeline(Retry(attempts=2, wait=0))

    @resilient(Timeout(10, pass_as="timeout"))
    def outer(timeout: float | None = None) -> str:
        assert timeout is not None
        return inner.call(fetch, "u")

    assert outer() == "u"


def test_a_retry_outside_the_chain_starts_it_with_the_guarded_function_again() -> None:
    """`Model(call=)` stands in for its own turn only."""
    log: list[tuple[str, str]] = []

    def main_create(*, model: str) -> None:
        log.append(("main", model))
        raise ConnectionError

    def other_create(*, model: str) -> None:
        log.append(("other", model))
        raise ConnectionError

    with pytest.warns(PolicyOrderWarning):
        pipeline = Pipeline(
            Retry(attempts=2, wait=0, again=True),
            ModelFallback("a", Model("b", call=other_create)),
        )
    with pytest.raises(ConnectionError):
        pipeline.call(main_create)
    assert log == [("main", "a"), ("other", "b")] * 2


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_fault_023_a_fork_under_load_leaves_no_lock_taken() -> None:
    """Whatever other threads held at the fork, the child's calls go through."""
    breaker = CircuitBreaker(failures=10**9)
    pipeline = Pipeline(breaker)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            for body in (lambda: 1 / 0, int, lambda: [].pop(), script(ConnectionError)):
                try:
                    pipeline.call(body)
                except Exception:
                    continue

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                signal.alarm(5)
                try:
                    pipeline.call(int)
                    try:
                        pipeline.call(script(ConnectionError))
                    except ConnectionError:
                        os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_one_exception_object_in_many_calls_counts_in_each() -> None:
    """Marks on an error belong to the call that made them."""
    same = ConnectionError("shared")
    attempts: dict[int, int] = {}

    async def fail(number: int) -> None:
        attempts[number] = attempts.get(number, 0) + 1
        await asyncio.sleep(0)
        raise same

    breaker = CircuitBreaker(failures=10**6)
    guarded = Pipeline(Retry(attempts=3, wait=0), breaker).wrap(fail)

    async def main() -> None:
        await asyncio.gather(*(guarded(n) for n in range(20)), return_exceptions=True)

    asyncio.run(main())
    assert set(attempts.values()) == {3}
    assert breaker._only.failures == 60


def test_a_call_that_starts_the_next_one_keeps_no_chain_of_records() -> None:
    """A poller that reschedules itself from inside a guarded call does not grow."""

    def records() -> int:
        gc.collect()
        return sum(type(each) is Record for each in gc.get_objects())

    before = records()

    async def main() -> int:
        done = asyncio.get_running_loop().create_future()

        @resilient(Retry(), listeners=[lambda event: None])
        async def poll(left: int) -> None:
            if left:
                task.append(asyncio.create_task(poll(left - 1)))
                task.pop(0)
                await asyncio.sleep(0)
            else:
                done.set_result(records())

        task = [asyncio.create_task(poll(300))]
        alive: int = await done
        await task[0]
        return alive

    assert asyncio.run(main()) - before < 20


def test_fault_116_no_secret_in_a_repr_or_a_message() -> None:
    """Not the arguments of a partial, not the overrides that may hold a key."""

    def create(*, model: str, api_key: str) -> None: ...

    secret = functools.partial(create, api_key="sk-SECRET")
    bound = functools.partial(secret, model="m")
    shown = [repr(Pipeline().wrap(secret))]
    shown.append(
        repr(ModelFallback(Model("b", extra_headers={"Authorization": "Bearer sk-SECRET"})))
    )
    with pytest.raises(TypeError) as refused:
        Pipeline(ModelFallback("a")).wrap(bound)
    shown.append(str(refused.value))
    with pytest.raises(TypeError) as unpicklable:
        pickle.dumps(Pipeline().wrap(secret))
    shown.append(str(unpicklable.value))
    assert not [each for each in shown if "SECRET" in each]


def test_an_error_that_lies_about_its_class_is_known_by_its_type() -> None:
    """A `__class__` that raises or claims to be a refusal changes nothing."""

    class Liar(ConnectionError):
        @property
        def __class__(self) -> Any:
            return CircuitOpenError

    class Raiser(ConnectionError):
        @property
        def __class__(self) -> Any:
            raise RuntimeError("no")

    for kind in (Liar, Raiser):
        calls = script(kind, kind, "ok")
        assert Pipeline(Retry(attempts=3, wait=0)).call(calls) == "ok"


def test_an_override_finds_a_positional_argument() -> None:
    """A model's override replaces the argument where the caller put it."""

    def chat(messages: str, temperature: float = 1.0, *, model: str) -> tuple[str, float, str]:
        return messages, temperature, model

    guarded = Pipeline(ModelFallback(Model("a", temperature=0.0))).wrap(chat)
    assert guarded("m", 0.5, model="a") == ("m", 0.0, "a")


def test_served_by_knows_the_model_inside_a_call_at_rest() -> None:
    """At rest too, inside the function it is the model of the attempt under way."""
    seen: list[str | None] = []
    guarded: Any = Pipeline(ModelFallback("a", "b")).wrap(
        lambda model=None: seen.append(served_by())
    )
    guarded(model="b")
    guarded()
    assert seen == ["b", "a"]


def test_a_result_that_cannot_be_guarded_is_the_programs_mistake() -> None:
    """It comes out of a Fallback too, at rest or not."""
    for listeners in ([], [lambda event: None]):
        pipeline = Pipeline(Fallback("else"), Retry(), listeners=listeners)
        with pytest.raises(TypeError, match="generator"):
            pipeline.call(lambda: (x for x in "ab"))


def test_a_mock_can_be_decorated_bare() -> None:
    """Anything callable is a function to the bare decorator, whatever attributes it has."""
    assert resilient(Mock(return_value=3))() == 3


def test_a_storage_factory_that_fails_leaves_the_circuit_to_itself() -> None:
    """One warning, and every call is made."""

    def dead(key: str) -> Any:
        raise ConnectionError("redis down")

    pipeline = Pipeline(CircuitBreaker(key="model", storage=dead))
    with pytest.warns(RuntimeWarning, match="goes on by itself"):
        assert pipeline.call(lambda *, model: "ok", model="a") == "ok"
    assert pipeline.call(lambda *, model: "ok", model="a") == "ok"


def test_an_async_method_is_known_for_async_while_a_loop_runs() -> None:
    """Even on its first use with the circuit open, a Fallback's value is awaited."""

    def required(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return wrapper

    @required
    async def create() -> str:
        return "never"

    breaker = CircuitBreaker()
    breaker.open()
    guarded: Any = Pipeline(Fallback("instead"), breaker).wrap(create)

    async def main() -> str:
        return await guarded()

    assert asyncio.run(main()) == "instead"


def test_an_endless_retry_keeps_a_bounded_history() -> None:
    """Of very many attempts the first and the last are remembered, under their own numbers."""
    body = script(*[ConnectionError()] * 2_500, KeyError())
    with virtual_time(), pytest.raises(KeyError) as caught:
        Pipeline(Retry(attempts=None, wait=0)).call(body)
    numbers = [attempt.number for attempt in history(caught.value)]
    assert len(numbers) == 1_000
    assert numbers[:3] == [1, 2, 3]
    assert numbers[-1] == 2_501


def test_a_call_refused_for_want_of_a_worker_was_no_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing ran: no attempt, no history."""
    monkeypatch.setattr(workers, "LIMIT", 0)
    workers._renew()
    outcome = Pipeline(Timeout(5)).outcome(int)
    workers._renew()
    assert type(outcome.error) is WorkersBusyError
    assert outcome.attempts == ()
