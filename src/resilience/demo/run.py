"""Runs a scenario: the same calls at the same times, with the pipeline and with a bare client."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeAlias

from auriko._client import Client

from resilience import CircuitBreaker, ModelFallback, Outcome, Pipeline, Retry, Timeout
from resilience.events import Event
from resilience.testing.gateway import Gateway
from resilience.waits import Exponential, RetryAfter

from .phase import Asked, Call, Limits, Seen
from .scenario import Scenario

__all__ = ["Build", "Watch", "live", "run", "standard"]

Watch: TypeAlias = Callable[[Asked, float, Event], object]
"""Receives each event of each call, in the call's thread, with the second of the run."""

Build: TypeAlias = Callable[[Limits, Sequence[Callable[[Any], object]]], Pipeline]
"""Makes the pipeline from its figures and its listeners."""

_CALLERS = 64  # threads; a call that hangs for both clients takes two

_asked: ContextVar[Asked] = ContextVar("asked")


def standard(limits: Limits, listeners: Sequence[Callable[[Any], object]] = ()) -> Pipeline:
    """The pipeline that the documentation recommends."""
    backoff = Exponential(initial=limits.backoff)
    return Pipeline(
        Timeout(limits.total),
        ModelFallback(*limits.models),
        Retry(
            limits.attempts,
            wait=RetryAfter(backoff),
            patience=limits.patience,
            within=limits.within,
        ),
        CircuitBreaker(limits.failures, limits.reset_after, key="model"),
        Timeout(limits.attempt),
        listeners=listeners,
    )


class _Caller:
    """Asks through the pipeline; `watch` receives its events."""

    def __init__(self, client: Client, limits: Limits, watch: Watch, build: Build) -> None:
        self._client, self._limits, self._watch = client, limits, watch
        self._pipeline = build(limits, [self._received])
        self.began = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self.began

    def outcome(self, asked: Asked) -> Outcome[str]:
        _asked.set(asked)
        return self._pipeline.outcome(_ask, self._client, model=self._limits.models[0])

    def _received(self, event: Event) -> None:
        self._watch(_asked.get(), self.now(), event)


def run(scenario: Scenario, watch: Watch, build: Build = standard) -> list[Seen]:
    """Play the scenario in real time, on two gateways of the same plan."""
    limits, plan = scenario.limits, scenario.plan()
    with (
        ThreadPoolExecutor(_CALLERS) as callers,  # last to end: without gateways nothing hangs
        Gateway(plan) as gateway,
        Gateway(plan) as other,
        _client(limits, gateway.base_url, "demo") as client,
        _client(limits, other.base_url, "demo") as bare,
    ):
        gateway.reset()
        other.reset()
        caller = _Caller(client, limits, watch, build)
        under_way: list[tuple[Asked, Future[Outcome[str]], Future[Exception | None]]] = []
        for number, (at, phase) in enumerate(scenario.asks(), 1):
            time.sleep(max(0.0, at - caller.now()))
            asked = Asked(number, phase.name, at)
            guarded = callers.submit(caller.outcome, asked)
            under_way.append((asked, guarded, callers.submit(_bare, bare, limits.models[0])))
        calls = [Call(asked, a.result(), b.result()) for asked, a, b in under_way]
        requests = gateway.requests
    return [
        Seen(
            phase,
            start,
            limits,
            tuple(call for call in calls if call.asked.phase == phase.name),
            tuple(r for r in requests if start <= r.at < start + phase.seconds),
        )
        for start, phase in scenario.timed()
    ]


def live(calls: int, watch: Watch, base_url: str | None = None) -> list[Outcome[str]]:
    """Some calls to the real service, one after the other; the key is in the environment."""
    limits = Limits()
    with _client(limits, base_url) as client:
        caller = _Caller(client, limits, watch, standard)
        return [caller.outcome(Asked(n, "live", caller.now())) for n in range(1, calls + 1)]


def _client(limits: Limits, base_url: str | None, api_key: str | None = None) -> Client:
    """Without retries of its own, and with no more patience than the pipeline."""
    return Client(api_key=api_key, base_url=base_url, timeout=limits.total, max_retries=0)


def _ask(client: Client, model: str) -> str:
    """One question to one model: the text of the answer."""
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Say hello in one word."}],
        max_tokens=16,
    )
    return answer.choices[0].message.content or ""


def _bare(client: Client, model: str) -> Exception | None:
    try:
        _ask(client, model)
    except Exception as error:
        return error
    return None
