"""A sync call's chain never suspends: a policy that waits by itself is named."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from resilience import Pipeline, Retry
from resilience._core.guard import drive
from resilience.policy import Call, Inner, Policy, Runtime
from resilience.testing import script
from support.calling import message_of
from support.policies import Busy


class Impatient(Policy):
    """Waits for an event loop before it calls, or never calls."""

    def __init__(self) -> None:
        self.closed = 0

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def impatient(call: Call) -> Any:
            try:
                await asyncio.sleep(0)
            finally:
                self.closed += 1
            return await inner(call)

        return impatient


def test_a_policy_that_waits_by_itself_is_named() -> None:
    """The innermost one that did; the function is not called, and what has suspended is closed."""
    policy = Impatient()
    body = script("never")
    message = message_of(RuntimeError, Pipeline(Busy(), Retry(), policy).call, body)

    assert "Impatient.bind.<locals>.impatient" in message
    assert body.calls == []  # type: ignore[attr-defined]
    assert policy.closed == 1


def test_it_may_wait_by_itself_where_a_loop_runs() -> None:
    """In an async call that is only the loop's business."""

    async def answer() -> str:
        return "ok"

    async def main() -> str:
        return await Pipeline(Impatient()).call(answer)

    assert asyncio.run(main()) == "ok"


def test_a_coroutine_that_waits_is_named() -> None:
    """Without a policy in sight, it is the coroutine itself that is named."""

    class Nameless:
        def __init__(self, *steps: None) -> None:
            self.steps = steps

        def __await__(self) -> Any:
            return iter(self.steps)

    async def waits() -> None:
        await Nameless(None)

    begun = waits()
    with pytest.raises(RuntimeError, match="waits"):
        drive(begun)
    assert inspect.getcoroutinestate(begun) == inspect.CORO_CLOSED


def test_what_it_returns_and_raises_comes_out() -> None:
    """The value; the error itself, also one that would end a generator."""
    error = KeyError("mine")

    async def value() -> int:
        return 7

    async def fails() -> None:
        raise error

    assert drive(value()) == 7
    with pytest.raises(KeyError) as caught:
        drive(fails())
    assert caught.value is error
