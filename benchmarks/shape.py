"""How long a way a call takes through the library: calls made and files entered.

    python benchmarks/shape.py [--check] [--list NAME]

Counted are calls of the library's own functions, each entry of a coroutine once, however often it
is resumed. The limits are for a call that nobody listens to; what the `resilience` logger adds,
which listens by itself, is given beside it. With --check, exit status 1 if a way is longer than its
limit; with --list, every call of one way in order, without the logger.
"""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import resilience
from resilience import (
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    PolicyOrderWarning,
    Retry,
    Timeout,
)
from resilience.integrations.logging import LEVELS, configure
from resilience.policy import Inner, Policy, Runtime

HOME = str(Path(resilience.__file__).parent)
RESUMED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Busy(Policy):
    """Does nothing, and is never at rest: the call takes the full path."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner


def walk(call: Callable[[], object]) -> list[tuple[str, str]]:
    """File and function for each library call that `call` makes."""
    seen: list[tuple[str, str]] = []
    entered: set[int] = set()
    kept: list[Any] = []  # so that no id of a frame that may be resumed is used twice

    def count(frame: Any, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HOME) and id(frame) not in entered:
            if code.co_flags & RESUMED:  # the variables of any other would live on
                entered.add(id(frame))
                kept.append(frame)
            seen.append((code.co_filename[len(HOME) + 1 :], code.co_qualname))

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return seen


def answer(x: int, *, model: str = "m") -> int:
    return x


class Failing:
    """Fails so many times out of so many."""

    def __init__(self, *, times: int, of: int) -> None:
        self.times, self.of, self.made = times, of, 0

    def __call__(self, x: int, *, model: str = "m") -> int:
        self.made += 1
        if (self.made - 1) % self.of < self.times:
            raise ConnectionError
        return x


def healthy() -> Callable[[], object]:
    guarded = Pipeline(Busy(), Fallback(0), Retry(), CircuitBreaker()).wrap(answer)
    return lambda: guarded(1)


def one_retry() -> Callable[[], object]:
    failing = Failing(times=1, of=2)
    guarded = Pipeline(Busy(), Fallback(0), Retry(wait=0), CircuitBreaker()).wrap(failing)
    return lambda: guarded(1)


def failing_chain() -> Callable[[], object]:
    failing = Failing(times=2, of=2)
    breaker = CircuitBreaker(key="model", failures=10**6)
    guarded = Pipeline(
        ModelFallback("a", "b"), Retry(attempts=1), breaker, Timeout(5), asynchronous=False
    ).wrap(failing)

    def call() -> object:
        try:
            return guarded(1)
        except ConnectionError as error:
            return error

    return call


def trial() -> Callable[[], object]:
    breaker = CircuitBreaker(reset_after=1e-9)
    guarded = Pipeline(Retry(), breaker).wrap(answer)

    def call() -> object:
        return guarded(1)

    def prepare() -> None:
        breaker.open()

    call.prepare = prepare  # type: ignore[attr-defined]
    return call


WAYS: dict[str, tuple[Callable[[], Callable[[], object]], int, int]] = {
    "healthy, full path": (healthy, 20, 8),
    "one failure and one retry": (one_retry, 100, 99),
    "failing chain of four policies": (failing_chain, 170, 20),
    "half-open trial to closed": (trial, 45, 9),
}


def walked(make: Callable[[], Callable[[], object]]) -> list[tuple[str, str]]:
    """What is walked once everything is learnt and loaded."""
    call = make()
    prepare: Callable[[], None] = getattr(call, "prepare", lambda: None)
    for _ in range(10):
        prepare()
        call()
    prepare()
    return walk(call)


def main() -> int:
    warnings.simplefilter("ignore", PolicyOrderWarning)
    logging.getLogger("resilience").addHandler(logging.NullHandler())
    failed = False
    for name, (make, most_calls, most_files) in WAYS.items():
        logged = len(walked(make))
        configure(levels=dict.fromkeys(LEVELS))
        seen = walked(make)
        configure()
        calls, files = len(seen), len({file for file, _ in seen})
        over = calls > most_calls or files > most_files
        failed = failed or over
        print(
            f"{name:34s} {calls:4d} calls (at most {most_calls}, {logged} with the logger), "
            f"{files:3d} files (at most {most_files}){'  OVER' if over else ''}"
        )
        if "--list" in sys.argv and sys.argv[-1] in name:
            for file, function in seen:
                print(f"    {file:34s} {function}")
    return 1 if failed and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
