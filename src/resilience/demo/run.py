"""Runs a scenario: the same calls at the same times, for a bare client, for one that retries by
itself, and for one under a pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, TypeAlias

from auriko._client import Client

from resilience import CircuitBreaker, ModelFallback, Outcome, Pipeline, Retry, Timeout
from resilience.events import Event
from resilience.testing.gateway import Gateway
from resilience.waits import Exponential, RetryAfter

from .phase import Asked, Call, Limits
from .record import NAMES, Played, Recorded, Run
from .scenario import Scenario

__all__ = ["Build", "Watch", "live", "run", "standard"]

Watch: TypeAlias = Callable[[Asked, float, Event], object]
"""Receives each event of each call, in the call's thread, with the second of the run."""

Build: TypeAlias = Callable[[Limits, Sequence[Callable[[Any], object]]], Pipeline]
"""Makes the pipeline from its figures and its listeners."""

_CALLERS = 64  # threads; a call that hangs for all three clients takes three

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


def unguarded(limits: Limits, listeners: Sequence[Callable[[Any], object]] = ()) -> Pipeline:
    """No policies: calls are recorded, and left alone."""
    return Pipeline(listeners=listeners)


class _Paced(Client):
    """The SDK's client, whose own waits take as many times longer as the scenario does."""

    pace = 1.0

    def _calculate_retry_delay(  # type: ignore[override]  # it is static
        self, attempt: int, retry_after_header: str | None = None
    ) -> float:
        asked = None if retry_after_header is None else str(float(retry_after_header) / self.pace)
        return super()._calculate_retry_delay(attempt, asked) * self.pace


class _Caller:
    """Asks through a client and a pipeline, and keeps the events; `watch` receives them as well."""

    def __init__(
        self, client: Client, limits: Limits, build: Build, watch: Watch | None = None
    ) -> None:
        self._client, self._model, self._watch = client, limits.models[0], watch
        self._pipeline = build(limits, [self._received])
        self.events: list[Recorded] = []
        self.began = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self.began

    def ask(self, asked: Asked) -> Call:
        _asked.set(asked)
        return Call(asked, self._pipeline.outcome(_ask, self._client, model=self._model))

    def setup(self) -> str:
        """How it asks, in words."""
        client = f"max_retries={self._client.max_retries}, timeout {self._client.timeout:.3g} s"
        policies = " > ".join(type(policy).__name__ for policy in self._pipeline.policies)
        return f"{client}, under {policies}" if policies else f"{client}, {self._model} alone"

    def _received(self, event: Event) -> None:
        recorded = Recorded(_asked.get(), self.now(), event)
        self.events.append(recorded)
        if self._watch is not None:
            self._watch(*recorded)


def run(scenario: Scenario, watch: Watch, build: Build = standard) -> Played:
    """Play the scenario in real time, for the three side by side, each with a gateway of the same
    plan; `watch` receives the events of the one under the pipeline."""
    limits, plan = scenario.limits, scenario.plan()
    with (
        ThreadPoolExecutor(_CALLERS) as threads,  # last to end: without gateways nothing hangs
        ExitStack() as stack,
    ):
        gateways = [stack.enter_context(Gateway(plan)) for _ in NAMES]
        bare, retrying, single = (
            stack.enter_context(_client(limits, gateway.base_url, "demo", retries, scenario.every))
            for gateway, retries in zip(gateways, (0, None, 0), strict=True)
        )
        callers = (
            _Caller(bare, limits, unguarded),
            _Caller(retrying, limits, unguarded),
            _Caller(single, limits, build, watch),
        )
        for gateway, caller in zip(gateways, callers, strict=True):
            gateway.reset()
            caller.began = time.monotonic()
        calls = _ask_all(scenario, callers, threads)
        runs = tuple(
            Run(name, caller.setup(), made, tuple(caller.events), tuple(gateway.requests))
            for name, caller, made, gateway in zip(NAMES, callers, calls, gateways, strict=True)
        )
    return Played(scenario, f"auriko {version('auriko')}", runs)


def _ask_all(
    scenario: Scenario, callers: Sequence[_Caller], threads: ThreadPoolExecutor
) -> list[tuple[Call, ...]]:
    """Each question at its second, to every caller; what became of them, for each caller."""
    under_way: list[list[Future[Call]]] = [[] for _ in callers]
    for number, (at, phase) in enumerate(scenario.asks(), 1):
        time.sleep(max(0.0, at - callers[-1].now()))
        asked = Asked(number, phase.name, at)
        for futures, caller in zip(under_way, callers, strict=True):
            futures.append(threads.submit(caller.ask, asked))
    return [tuple(future.result() for future in futures) for futures in under_way]


def live(calls: int, watch: Watch, base_url: str | None = None) -> list[Outcome[str]]:
    """Some calls to the real service, one after the other; the key is in the environment."""
    limits = Limits()
    with _client(limits, base_url) as client:
        caller = _Caller(client, limits, standard, watch)
        return [caller.ask(Asked(n, "live", caller.now())).outcome for n in range(1, calls + 1)]


def _client(
    limits: Limits,
    base_url: str | None,
    api_key: str | None = None,
    max_retries: int | None = 0,
    pace: float = 1.0,
) -> Client:
    """With no more patience than the pipeline; `max_retries` None is the SDK's own."""
    client = _Paced(
        api_key=api_key, base_url=base_url, timeout=limits.total, max_retries=max_retries
    )
    client.pace = pace
    return client


def _ask(client: Client, model: str) -> str:
    """One question to one model: the text of the answer."""
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Say hello in one word."}],
        max_tokens=16,
    )
    return answer.choices[0].message.content or ""
