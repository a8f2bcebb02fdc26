"""A bit of everything, printed: run by test_modes.py under the interpreter's odd options."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
from typing import Any

import trio

from resilience import (
    BadResult,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    guarded,
    history,
    resilient,
)
from resilience.errors import WorkersBusyError
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import TRANSIENT, status
from resilience.sdks.headers import pick
from resilience.testing import script, virtual_time
from resilience.waits import Exponential, Fixed

logging.getLogger("resilience").addHandler(logging.NullHandler())  # what fails does so on purpose


class ServiceError(Exception):
    """An error as SDKs have them."""

    def __init__(self, status_code: int, **headers: Any) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code
        self.headers = headers


@describe.register(ServiceError)
def _read(error: ServiceError) -> Failure:
    kind, advice = Kind.INVALID, Advice.STOP
    if error.status_code >= 500:
        kind, advice = Kind.UNAVAILABLE, Advice.RETRY
    wait = pick(error.headers).wait
    return Failure(kind, advice, status=error.status_code, retry_after=wait)


def told(error: BaseException) -> str:
    """An error with what was noted on it."""
    return " / ".join([type(error).__name__, *getattr(error, "__notes__", ())])


def sync_calls() -> None:
    """Every policy, at rest and not."""
    answer = script(ConnectionError(), TimeoutError(), "answer")
    print("retry", Pipeline(Retry(wait=Fixed(1))).call(answer), len(answer.calls))
    breaker = CircuitBreaker(failures=2, reset_after=5, key="model")
    models = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=Fixed(1)), breaker)
    down = script(ServiceError(503), ServiceError(503), "from b", "again b")
    ask = models.wrap(lambda *, model="a": (model, down()))
    print("models", ask(), breaker.circuit("a").state, ask(), breaker.circuit("b").state)
    outcome = Pipeline(Fallback("else"), Retry(attempts=2, wait=Fixed(1))).outcome(
        script(ServiceError(500), ServiceError(500))
    )
    print("fallback", outcome.value, outcome.degraded, [a.number for a in outcome.attempts])
    refined = Pipeline(Retry(attempts=2, wait=Fixed(0)), BadResult(lambda result: not result))
    print("bad result", refined.call(script("", "better")), refined.call(script("", 0)))
    try:
        Pipeline(Retry(attempts=2, wait=Fixed(2), on=TRANSIENT | status(500))).call(
            script(ServiceError(500), ServiceError(400))
        )
    except ServiceError as error:
        print("error", told(error), len(history(error)), describe(error).kind.name)
    try:
        Pipeline(Retry(), breaker).call(lambda *, model: None, model="a")
    except CircuitOpenError as error:
        print("rejected", error.key, pickle.loads(pickle.dumps(error)).key)
    numbers = []
    for attempt in Pipeline(Retry(attempts=3, wait=Exponential())).attempts():
        with attempt:
            numbers.append(attempt.number)
            if attempt.number < 3:
                raise ConnectionError
    print("attempts", numbers)
    for header in ("7", b"7", 7.5, "soon", b"\xff", None):
        print("header", header.__class__.__name__, pick({"retry-after": header}).wait)


async def calls(sleep: Any) -> None:
    """The same body under a loop."""

    async def slow() -> None:
        await sleep(30)

    flaky = script(ConnectionError(), "ok")

    async def once() -> str:
        return str(flaky())

    print("awaited", await Pipeline(Retry(wait=Fixed(0.001))).call(once))
    try:
        await Pipeline(Timeout(0.01)).call(slow)
    except DeadlineExceededError as error:
        print("timed out", error.seconds)


@resilient(Timeout(10), Retry(attempts=2, wait=Fixed(0)))
def timed(*numbers: int) -> int:
    """In a worker thread."""
    return sum(numbers)


def main() -> None:
    with virtual_time() as clock:
        sync_calls()
        print("slept", len(clock.sleeps))
    asyncio.run(calls(asyncio.sleep))
    trio.run(calls, trio.sleep)
    print("worker", timed(1, 2, 3), pickle.loads(pickle.dumps(timed)) is timed)
    print("handle", guarded(timed).outcome(4, 5).value, guarded(timed).pipeline)
    try:
        Pipeline(Timeout(0.01)).call(asyncio.run, asyncio.sleep(0.2))
    except (DeadlineExceededError, WorkersBusyError) as error:
        print("left behind", type(error).__name__)
    print(Pipeline(Retry(on=status(500, 503)), CircuitBreaker(key="model"), Timeout(5)))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
