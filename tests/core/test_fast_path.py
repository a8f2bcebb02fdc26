"""A call at rest: the function is called directly, and what it does is not different for it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import types
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    RetryMultiplicationWarning,
    Timeout,
    current_attempt,
    history,
)
from resilience._core import invoke as invoke_
from resilience._core.call import Call
from resilience._core.context import ambient, get_ambient
from resilience.events import CallEnded, recording
from resilience.testing import script, virtual_time
from support.calling import awaited, rest_and_full, run_in
from support.policies import Busy

# Nothing is set up


@pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
def test_a_healthy_call_at_rest_leaves_the_context_alone(loop: str) -> None:
    """Inside, nothing of ours is around it; on the full path its `Call` is."""
    seen: list[Any] = []

    def look() -> None:
        seen.append(get_ambient())

    async def alook() -> None:
        look()

    for policies in ([Retry(), CircuitBreaker()], [Busy(), Retry(), CircuitBreaker()]):
        fn: Any = Pipeline(*policies).wrap(look if loop == "sync" else alook)
        fn() if loop == "sync" else run_in(loop, fn)
    assert seen[0] is None
    assert isinstance(seen[1], Call)
    assert get_ambient() is None


def test_a_call_inside_an_attempt_is_never_at_rest() -> None:
    """It belongs to that attempt, and reports to it; so it takes the full path."""
    inner = Pipeline(Retry()).wrap(lambda: isinstance(get_ambient(), Call))
    assert inner() is False
    assert Pipeline(Busy()).call(lambda: inner()) is True


# The same as in full


@pytest.mark.parametrize("asynchronous", [False, True])
@rest_and_full
def test_a_success_begun_at_rest_still_counts(asynchronous: bool, listeners: Any) -> None:
    """A call begun at rest, during which another failed, ends that run when it succeeds."""
    breaker = CircuitBreaker(failures=2)
    fail = Pipeline(breaker)

    def fn() -> str:
        fail.outcome(script(ConnectionError))
        return "ok"

    async def afn() -> str:
        return fn()

    guarded: Any = Pipeline(breaker, listeners=listeners).wrap(afn if asynchronous else fn)
    for _ in range(3):
        assert (asyncio.run(awaited(guarded)) if asynchronous else guarded()) == "ok"
        assert breaker.state == "closed"


@pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
def test_a_failure_at_rest_is_the_first_attempt(loop: str) -> None:
    """It is not made again, nor admitted again, and its times are its own."""
    breaker = CircuitBreaker(failures=1)
    numbers: list[int] = []

    def fn() -> None:
        numbers.append(current_attempt().number)
        raise ConnectionError

    async def afn() -> None:
        fn()

    guarded: Any = Pipeline(Retry(attempts=3, wait=0), breaker).wrap(fn if loop == "sync" else afn)
    with pytest.raises(ConnectionError) as caught:
        guarded() if loop == "sync" else run_in(loop, guarded)
    (attempt,) = history(caught.value)
    assert (attempt.number, attempt.started, attempt.waited) == (1, 0, 0)
    assert attempt.duration is not None
    assert attempt.duration >= 0
    assert numbers == [1]
    assert breaker.state == "open"


@pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
def test_further_attempts_after_a_failure_at_rest(loop: str) -> None:
    """They are counted on, and what they waited is their own."""

    def fn() -> None:
        raise ConnectionError

    async def afn() -> None:
        fn()

    guarded: Any = Pipeline(Retry(attempts=3, wait=0)).wrap(fn if loop == "sync" else afn)
    with pytest.raises(ConnectionError) as caught:
        guarded() if loop == "sync" else run_in(loop, guarded)
    attempts = history(caught.value)
    assert [(each.number, each.waited) for each in attempts] == [(1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
def test_whoever_comes_to_listen_during_a_call_hears_when_it_began(loop: str) -> None:
    """Its attempt began with it, also where it was at rest until then."""
    with contextlib.ExitStack() as stack:

        def fn() -> None:
            heard.append(stack.enter_context(recording(CallEnded)))

        async def afn() -> None:
            fn()

        heard: list[Any] = []
        guarded: Any = Pipeline(Retry()).wrap(fn if loop == "sync" else afn)
        guarded() if loop == "sync" else run_in(loop, guarded)
    (((ended,)),) = heard
    assert [attempt.started for attempt in ended.attempts] == [0]
    assert ended.elapsed >= ended.attempts[0].duration


@pytest.mark.fault(68)
@pytest.mark.parametrize("error", [StopIteration(7), StopAsyncIteration(7)])
@rest_and_full
def test_a_users_stop_iteration_comes_out_unchanged(error: Exception, listeners: Any) -> None:
    """Not RuntimeError, and not retried; a policy may still name it."""
    with pytest.raises(type(error)) as caught:
        Pipeline(Retry(), CircuitBreaker(), listeners=listeners).call(script(error))
    assert caught.value is error
    named = Pipeline(Retry(on=type(error), wait=0), listeners=listeners)
    assert named.call(script(error, "ok")) == "ok"
    assert Pipeline(Fallback("else"), listeners=listeners).call(script(error)) == "else"
    outcome = Pipeline(Retry(), listeners=listeners).outcome(script(error))
    assert outcome.error is error


@rest_and_full
def test_an_error_that_lies_about_its_class_is_known_by_its_type(listeners: Any) -> None:
    """A `__class__` that raises or claims to be a rejection changes nothing."""

    class Liar(ConnectionError):
        @property
        def __class__(self) -> Any:
            return CircuitOpenError

    class Raiser(ConnectionError):
        @property
        def __class__(self) -> Any:
            raise RuntimeError("no")

    for kind in (Liar, Raiser):
        body = script(kind, kind, "ok")
        assert Pipeline(Retry(attempts=3, wait=0), listeners=listeners).call(body) == "ok"


# Ctrl-C and clocks


@pytest.mark.fault(8)
def test_ctrl_c_before_a_call_has_begun_leaves_nothing_around(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread is outside any call again, so its next one may be at rest."""
    pipeline = Pipeline(CircuitBreaker())

    def interrupted(value: Any) -> Any:
        token = ambient.set(value)
        if isinstance(value, Call):
            raise KeyboardInterrupt
        return token

    with virtual_time():
        before = ambient.get()
        with monkeypatch.context() as patch:
            patch.setattr(invoke_, "_set", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pipeline.call(int)
        assert ambient.get() is before
        assert pipeline.call(int) == 0


def _refused_connection() -> None:
    raise ConnectionError


@pytest.mark.fault(35)
def test_a_clock_frozen_for_a_test_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freezing replaces the function in every module, but half a call must not go by it."""
    real = time.monotonic
    breaker = CircuitBreaker(failures=1, reset_after=60)
    with monkeypatch.context() as patch:
        for module in [m for m in list(sys.modules.values()) if isinstance(m, types.ModuleType)]:
            for name in [n for n, value in vars(module).items() if value is real]:
                patch.setattr(module, name, lambda: 1e9)
        with pytest.raises(ConnectionError):
            Pipeline(breaker).call(_refused_connection)
        assert 0 < (breaker.snapshot().retry_after or 0) <= 60
    assert 0 < (breaker.snapshot().retry_after or 0) <= 60


# Who is at rest, told by what a call does


@pytest.mark.parametrize(
    ("policies", "rests"),
    [
        ([Retry()], True),
        ([Retry(), CircuitBreaker()], True),
        ([Fallback(1), ModelFallback("a"), Retry(), CircuitBreaker(key="model")], True),
        ([Timeout(9)], False),
        ([Busy(), Retry()], False),
    ],
)
def test_what_takes_the_full_path_stands_in_the_context(policies: Any, rests: bool) -> None:
    """A Timeout is never at rest: something has to look at the time."""

    def look(model: str = "") -> bool:
        return get_ambient() is None

    assert Pipeline(*policies, asynchronous=False).call(look) is rests


class Canned(HTTPAdapter):
    """Answers by itself, without a connection."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        seen.append(get_ambient())
        made = requests.Response()
        made.status_code = 200
        return made


seen: list[Any] = []
URL = "http://twice/"


@pytest.mark.parametrize(("args", "kwargs"), [((URL,), {}), ((), {"url": URL})])
def test_the_first_call_of_a_client_asks_whether_that_retries_too(args: Any, kwargs: Any) -> None:
    """By the call's own arguments, and once: later calls are at rest."""
    seen.clear()
    session = requests.Session()
    session.mount("http://", Canned())
    session.mount(URL, Canned(max_retries=1))
    fn = Pipeline(Retry(attempts=3)).wrap(session.get)
    with pytest.warns(RetryMultiplicationWarning, match=r"requests: 1 time\): .* 3 x 2 = 6 req"):
        assert fn(*args, **kwargs).status_code == 200
    assert fn(*args, **kwargs).status_code == 200
    assert [type(each) for each in seen] == [Call, type(None)]
