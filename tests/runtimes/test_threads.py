"""Many threads and tasks at once: nothing hangs, nothing is counted twice."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from contextvars import ContextVar
from typing import Any

import pytest
from pybreaker import CircuitBreakerListener, CircuitMemoryStorage

from resilience import (
    BadResult,
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
)
from resilience._core import locks
from resilience.circuit.circuit import Circuit
from resilience.events import AttemptEnded, CallEnded, WaitBegan
from support.concurrency import fast_switching, in_threads  # noqa: F401

pytestmark = pytest.mark.real


def fail() -> None:
    raise ConnectionError


# The end of the open time

ENDINGS: tuple[Exception | None, ...] = (None, ConnectionError(), ValueError())


@pytest.mark.fault(18)
@pytest.mark.parametrize("trials", [1, 3])
def test_64_threads_across_the_end_of_the_open_time(trials: int) -> None:
    """64 threads that call again and again while the open time ends: exactly `trials` go through.

    A trial stays inside until every other thread has been rejected after the end.
    """
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=0.0005)
    through: list[int] = []
    rejected: list[int] = []
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
        if rounds and (len(through), len(rejected)) != (trials, 64 - trials):
            wrong.append((len(through), len(rejected)))
        rounds.append(1)
        through.clear()
        rejected.clear()
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
            end = time.monotonic() + (breaker._only.retry_after or 0.0)
            while True:
                try:
                    guarded(n)
                except CircuitOpenError:
                    if time.monotonic() < end:
                        continue
                    rejected.append(n)
                    if len(rejected) == 64 - trials:
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


@pytest.mark.fault(18)
@pytest.mark.parametrize("trials", [1, 3])
def test_1000_tasks_across_the_end_of_the_open_time(trials: int) -> None:
    """The same for a thousand tasks of one loop."""
    breaker = CircuitBreaker(trials=trials, successes=trials, reset_after=0.002)

    async def one_round(ending: Exception | None) -> tuple[int, int]:
        through: list[int] = []
        rejected: list[int] = []
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
                    rejected.append(1)
                    if len(rejected) == 1000 - trials:
                        leave.set()
                except (ConnectionError, ValueError):
                    pass
                return

        breaker.open()
        end = time.monotonic() + (breaker._only.retry_after or 0.0)
        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(1000))), 20)
        return len(through), len(rejected)

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


@pytest.mark.fault(22)
@pytest.mark.usefixtures("fast_switching")
def test_the_counters_agree_when_half_the_attempts_fail() -> None:
    """Circuits open and close all the time: no foreign error, and every attempt published once."""
    breaker = CircuitBreaker(key="model", failures=3, reset_after=0.0002, trials=2)
    received: Counter[type] = Counter()
    made: list[int] = []  # appended to by many threads: += on a number would lose some
    answered: list[str] = []
    tally = threading.Lock()

    def listen(event: AttemptEnded | WaitBegan | CallEnded) -> None:
        with tally:
            received[type(event)] += 1

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
    assert received[CallEnded] == 16 * 60
    assert received[AttemptEnded] == len(made)
    for model in "ab":
        circuit = breaker.circuit(model)
        assert circuit.snapshot().trials == 0
        assert 0 <= circuit.failures < 3


@pytest.mark.fault(18, 19)
@pytest.mark.usefixtures("fast_switching")
@pytest.mark.parametrize("storage", [None, lambda key: CircuitMemoryStorage("closed")])
def test_first_use_of_a_key_makes_one_circuit(storage: Any) -> None:
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


@pytest.mark.usefixtures("fast_switching")
def test_at_rest_is_told_exactly_when_every_circuit_is_closed_and_clean() -> None:
    """16 threads fail, succeed, open and close at random; in the end the flag is right."""
    one, keyed = CircuitBreaker(failures=3), CircuitBreaker(key="key", failures=2, reset_after=1e-5)
    pipelines = [Pipeline(one), Pipeline(Retry(wait=0), one), Pipeline(keyed), Pipeline(one, keyed)]

    def agree() -> list[tuple[bool, bool]]:
        def clean(*circuits: Circuit) -> bool:
            return all((c.state, c.failures) == ("closed", 0) for c in circuits)

        ours = clean(one._only)
        theirs = clean(*map(keyed.circuit, range(3)))
        expected = [ours, ours, theirs, ours and theirs]
        return [(p._idle.period is not None, c) for p, c in zip(pipelines, expected, strict=True)]

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
        assert all(rests is clean for rests, clean in agree()), agree()
        for circuit in [one._only, *map(keyed.circuit, range(3))]:
            circuit.close()
        assert agree() == [(True, True)] * 4
        periods = [pipeline._idle.period for pipeline in pipelines]
        keyed.circuit(0).open()
        assert [p._idle.period is t for p, t in zip(pipelines, periods, strict=True)] == [
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
        self.elsewhere: ContextVar[bool] = ContextVar("elsewhere", default=False)

    def __call__(self, where: str) -> None:
        if self.elsewhere.get() or self.breaker is None or self.pipeline is None:
            return  # the other thread's calls come through here too
        self.seen[where] += 1
        in_threads(1, self._elsewhere, limit=10)

    def _elsewhere(self, n: int) -> None:
        self.elsewhere.set(True)
        assert self.breaker is not None
        assert self.pipeline is not None
        for lock in list(locks._locks):
            assert lock.acquire(timeout=5), "user code runs under a lock"
            lock.release()
        for key in ("own", "other"):
            assert self.breaker.circuit(key).state in ("closed", "open", "half-open")
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


@pytest.mark.fault(19, 20)
@pytest.mark.parametrize("stored", [False, True])
def test_user_code_runs_under_no_lock(stored: bool) -> None:
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
        key=saying("key", lambda *args: "other" if probe.elsewhere.get() else "own"),
        on=saying("breaker on", True),
        storage=(lambda key: storage("closed")) if stored else None,
        refresh=0,
        listeners=[Listener()],
    )
    pipeline = Pipeline(
        Fallback(call=saying("fallback", "fallen"), on=saying("fallback on", True)),
        ModelFallback("a", "b", on=saying("models on", True), rounds=1),
        Retry(
            wait=saying("wait", 0.0),
            on=saying("retry on", True),
            adjust=saying("adjust", lambda attempt, args, kwargs: (args, kwargs)),
            stop=saying("stop", False),
            attempts=3,
        ),
        breaker,
        BadResult(saying("check", False)),
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
        *("key", "breaker on", "before_call", "success", "failure", "state_change"),
        *("fallback", "fallback on", "models on", "wait", "retry on", "check"),
        *("adjust", "stop", "seconds", "listener", "function"),
    }
    assert expected | ({"storage"} if stored else set()) <= set(probe.seen)


@pytest.mark.fault(20)
def test_a_storage_may_be_made_slowly() -> None:
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


@pytest.mark.fault(19)
def test_a_guarded_function_may_wait_for_guarded_calls_of_other_threads() -> None:
    """A trial that waits for other threads' calls: they are rejected at once, nobody waits."""
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
