"""Guarded functions of a program of their own, as in a notebook.

Imported, they are those of a module. Run with the name of a folder, each is `__main__`'s, and is
written there for another process by cloudpickle: by value, as nobody can import it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resilience import (
    BadResult,
    CircuitBreaker,
    FailureRate,
    Fallback,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    SlowCalls,
    Timeout,
    guarded,
    resilient,
)
from resilience.matching import TRANSIENT, status
from resilience.policy import Call, Inner, Policy, Runtime

calls: list[Any] = []


def fail_first(value: Any) -> Any:
    """Fails every other time, first of all the first."""
    calls.append(value)
    if len(calls) % 2:
        raise ConnectionError(value)
    return value


def nothing(result: object) -> bool:
    """A check of results."""
    return result is None


class Tagged(Policy):
    """A policy of the user's own."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def tagged(call: Call) -> Any:
            return self.tag, await inner(call)

        return tagged


@resilient
def bare(x: int) -> int:
    """The default policies."""
    return int(fail_first(x))


@resilient(
    Timeout(60),
    ModelFallback("a", Model("b", temperature=0)),
    Retry(attempts=2, wait=0, on=TRANSIENT | status(418)),
    CircuitBreaker(key="model", trip=FailureRate(0.5, window=9) | SlowCalls(10, 0.9, calls=50)),
    BadResult(nothing),
    Pipeline(Timeout(15, pass_as="limit"), name="part"),
    name="chat",
)
def chat(x: int, *, model: str = "m", temperature: float = 1, limit: float = 0) -> Any:
    """A chain of models, a keyed breaker with rates, a check of results, a nested pipeline."""
    return fail_first(x), model, temperature, 0 < limit <= 15


@resilient(Retry(attempts=2, wait=0))
async def later(x: int) -> int:
    """A coroutine function."""
    return int(fail_first(x))


class Bot:
    """An object with guarded methods."""

    def __init__(self, name: str) -> None:
        self.name = name

    @resilient(Retry(attempts=2, wait=0))
    def ask(self, x: int) -> tuple[str, int]:
        """A method."""
        return self.name, fail_first(x)

    @classmethod
    @resilient(Retry(attempts=2, wait=0))
    def made(cls, x: int) -> tuple[str, int]:
        """A class method."""
        return cls("made").name, fail_first(x)


@resilient(Retry(attempts=3, wait=0))
def further_in(x: int) -> int:
    """Spends its attempts on everything but 0."""
    calls.append(x)
    if x:
        raise ConnectionError
    return x


@resilient(Retry(attempts=3, wait=0, retry_exhausted=False), CircuitBreaker())
def calls_another(x: int) -> int:
    """Does not repeat what the other has repeated."""
    return further_in(x)


opened = CircuitBreaker(failures=1)


@resilient(Retry(attempts=1), opened)
def failed(x: int) -> int:
    """Its circuit is open here."""
    if x:
        raise ConnectionError
    return x


shared = Pipeline(CircuitBreaker(failures=1))


@shared
def one(x: int) -> int:
    """Opens the circuit that it shares."""
    raise ConnectionError


@shared
def two(x: int) -> int:
    """Has the same circuit."""
    return x


@resilient(Tagged("tag"), Retry(attempts=2, wait=0))
def own_policy(x: int) -> int:
    """Under a policy of this program's own."""
    return int(fail_first(x))


@resilient(
    Fallback(call=lambda failure, x: -x),
    Retry(attempts=2, wait=0, on=lambda failure: failure.status is None),
    CircuitBreaker(key=lambda x: x % 2, name="parity"),
    listeners=[lambda event: calls.append(type(event).__name__)],
)
def with_functions(x: int) -> int:
    """Options that are functions."""
    raise ConnectionError


def local() -> Callable[[int], int]:
    """A guarded closure."""
    factor = 2

    @resilient(Retry(attempts=2, wait=0))
    def double(x: int) -> int:
        return factor * int(fail_first(x))

    return double


def main(folder: Path) -> None:
    """Write one file for each function, or pair of functions that belong together."""
    import cloudpickle

    for learnt in (failed, calls_another):
        try:
            learnt(1)
        except ConnectionError:
            pass
    for _ in range(3):
        calls_another(0)
    calls.clear()
    sent: dict[str, Any] = {
        "bare": bare,
        "chat": chat,
        "later": later,
        "method": Bot("bot").ask,
        "class_method": Bot.made,
        "calls_another": calls_another,
        "failed": failed,
        "sharing": (one, two),
        "own_policy": own_policy,
        "with_functions": with_functions,
        "local": local(),
        "variant": guarded(bare).replacing(Retry(attempts=4, wait=0)),
        "lambda": resilient(Retry(attempts=2, wait=0))(lambda x: 3 * fail_first(x)),
    }
    for name, fn in sent.items():
        (folder / name).write_bytes(cloudpickle.dumps(fn))
    print(opened.state)


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # what fails here does so on purpose
    main(Path(sys.argv[1]))
