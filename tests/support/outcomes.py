"""Outcomes of every look, most of them of real calls in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from resilience import (
    Attempt,
    BadResult,
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Outcome,
    Pipeline,
    Retry,
    Streaming,
    Timeout,
    guarded,
    register_stream,
)
from resilience.failures import Advice, Failure, Kind
from resilience.testing import VirtualTime, virtual_time

__all__ = ["CASES", "SECRET", "StatusError", "called"]

SECRET = "canary-4711"
"""In every argument, result and text of an exception; nowhere in a picture."""
_LONG = "arn:aws:bedrock:eu-central-1:000000000000:inference-profile/" + "very-long-name-" * 10


class StatusError(Exception):
    """Fails with a status and a code, as errors of an own client do."""

    def __init__(self, status: int, code: str | None = None) -> None:
        super().__init__(SECRET)
        self.status_code = status
        self.code = code


def called(pipeline: Pipeline, *steps: tuple[float, Any], model: str | None = None) -> Outcome[Any]:
    """The outcome of a call whose nth attempt takes so many seconds, and returns or raises that."""
    left = iter(steps)
    with virtual_time() as clock:

        def ask(question: str, model: str | None = model) -> Any:
            seconds, answer = next(left)
            clock.sleep(seconds)
            if isinstance(answer, Exception):
                raise answer
            return answer

        outcome: Outcome[Any] = pipeline.outcome(ask, SECRET)
        return outcome


def one() -> Outcome[Any]:
    return called(Pipeline(Retry()), (0.4, SECRET))


def ten() -> Outcome[Any]:
    errors = (StatusError(500, "internal_error"), ConnectionError(SECRET), TimeoutError(SECRET))
    busy = [(0.2 + 0.1 * number, errors[number // 2 % 3]) for number in range(9)]
    chain = ModelFallback("gpt-4o", "claude-sonnet-4-6", "gpt-4o-mini")
    return called(Pipeline(chain, Retry(attempts=4)), *busy, (1.4, SECRET))


def degraded() -> Outcome[Any]:
    chain = ModelFallback("gpt-4o", "claude-sonnet-4-6")
    down = StatusError(500)
    steps = ((0.21, down), (0.34, down), (1.42, SECRET))
    return called(Pipeline(chain, Retry(attempts=2, wait=0.5)), *steps)


def sixty() -> Outcome[Any]:
    limited = [(0.05 * (number % 7 + 1), StatusError(429)) for number in range(60)]
    return called(Pipeline(Retry(attempts=60, wait=0.5)), *limited, model="gpt-4o")


def rejected() -> Outcome[Any]:
    breaker = CircuitBreaker(name=SECRET)
    breaker.open()
    return called(Pipeline(breaker))


def rejected_with_fallback() -> Outcome[Any]:
    breaker = CircuitBreaker()
    breaker.open()
    return called(Pipeline(Fallback(SECRET), breaker))


def fallback() -> Outcome[Any]:
    return called(Pipeline(Fallback(SECRET), Retry()), *[(0.3, StatusError(500))] * 3)


def timed_out() -> Outcome[Any]:
    chain = ModelFallback("gpt-4o", "gpt-4o-mini")
    return called(Pipeline(Timeout(5), chain, Timeout(3)), (60, None), (60, None))


def bad_result() -> Outcome[Any]:
    check = BadResult(lambda result: True)
    return called(Pipeline(Retry(attempts=2), check), (0.4, SECRET), (0.5, SECRET))


def unknown() -> Outcome[Any]:
    return called(Pipeline(Retry()), (0.0, KeyError(SECRET)))


@register_stream
class Chunks:
    """A stream of two chunks, which may break off between them."""

    def __init__(self, clock: VirtualTime, breaks: bool) -> None:
        self._items = self._read(clock, breaks)

    def _read(self, clock: VirtualTime, breaks: bool) -> Iterator[str]:
        clock.sleep(0.7)
        yield SECRET
        clock.sleep(1.1)
        if breaks:
            raise ConnectionError(SECRET)
        yield SECRET

    def __iter__(self) -> Iterator[str]:
        return self._items

    def __next__(self) -> str:
        return next(self._items)


def _stream(read: bool, breaks: bool) -> Outcome[Any]:
    with virtual_time() as clock:

        def ask(model: str) -> Chunks:
            return Chunks(clock, breaks)

        asked = Pipeline(ModelFallback("gpt-4o"), Retry(), Streaming()).wrap(ask)
        outcome: Outcome[Any] = guarded(asked).outcome(model="gpt-4o")
        if not read:
            return outcome
        stream: Any = outcome.value
        try:
            list(stream)
        except Exception:
            assert breaks
        found: Outcome[Any] = stream.outcome
        return found


def stream_begun() -> Outcome[Any]:
    return _stream(read=False, breaks=False)


def stream_read() -> Outcome[Any]:
    return _stream(read=True, breaks=False)


def stream_broken() -> Outcome[Any]:
    return _stream(read=True, breaks=True)


# What the library's own policies do not do in a test, or not yet


def hedged() -> Outcome[Any]:
    """Attempts that overlap, the second answered first; listed as they ended."""
    cancelled = Failure(Kind.CANCELLED, Advice.STOP)
    first = Attempt(1, 0.0, 1.3, "gpt-4o", cancelled)
    second = Attempt(2, 0.5, 0.8, "gpt-4o")
    third = Attempt(3, 0.9, 0.4, "gpt-4o-mini", cancelled)
    return Outcome(SECRET, None, (second, first, third), "gpt-4o", False, 1.3)


def extremes() -> Outcome[Any]:
    """0.1 ms and less beside a minute, at both ends."""
    refused = Failure(Kind.CONNECTION, Advice.RETRY)
    return Outcome(
        None,
        ConnectionError(SECRET),
        (
            Attempt(1, 0.0, 0.0001, "m", refused),
            Attempt(2, 0.0501, 0.00001, "m", refused, 0.05),
            Attempt(3, 0.06, 59.9399, "m", refused, 0.0),
            Attempt(4, 60.0, 0.0001, "m", refused, 0.0001),
        ),
        elapsed=60.0001,
    )


def hours() -> Outcome[Any]:
    late = Failure(Kind.OVERLOADED, Advice.WAIT, status=529, code="overloaded_error")
    return Outcome(
        None,
        TimeoutError(SECRET),
        (Attempt(999, 0.0, 640.0, "m", late), Attempt(1000, 17_000.0, 999.4, "m", late, 16_360.0)),
        elapsed=360_001.0,
    )


def long_names() -> Outcome[Any]:
    code = "a_code_that_somebody_has_made_up_without_a_thought_of_pictures_" * 3
    odd = type("An" + "Unwieldy" * 20 + "Error", (Exception,), {})
    return Outcome(
        None,
        odd(SECRET),
        (
            Attempt(1, 0.0, 1.0, _LONG[:200], Failure(Kind.UNAVAILABLE, Advice.RETRY, status=503)),
            Attempt(2, 1.5, 1.0, "W" * 200, Failure(Kind.UNKNOWN, Advice.STOP, code=code), 0.5),
            Attempt(3, 2.5, 1.0, "m", Failure(Kind.UNKNOWN, Advice.STOP, error=odd(SECRET))),
        ),
        elapsed=3.5,
    )


def scripts() -> Outcome[Any]:
    """Models in other scripts, from right to left, with marks and emoji; and markup."""
    names = [
        "通义千问-最大-二〇二五",
        "한국어-모델",
        "модель-большая",
        "نموذج-كبير-v2",
        "דגם-גדול",
        "हिन्दी-बड़ा-मॉडल",
        "โมเดลภาษาไทย",
        "\u0d14" * 12 + "-മാതൃക",
        "\u1218\u12f4" * 6 + "-ሞዴል",
        "e\u0301te\u0301-mode\u0300le",
        "🦙 llama & <b>co</b> \"x\" 'y'",
        "a\u202eb\u0000c\nd\ud800e",
        "模" * 200,
    ]
    failure = Failure(Kind.INVALID, Advice.FALLBACK, status=400, code="недопустимо_<i>_&amp;")
    attempts = tuple(
        Attempt(number, number - 1.0, 0.8, name, failure, 0.2)
        for number, name in enumerate(names, start=1)
    )
    return Outcome(SECRET, None, attempts, names[0], True, 11.0)


CASES: dict[str, Callable[[], Outcome[Any]]] = {
    case.__name__: case
    for case in (
        one,
        ten,
        degraded,
        sixty,
        rejected,
        rejected_with_fallback,
        fallback,
        timed_out,
        bad_result,
        unknown,
        stream_begun,
        stream_read,
        stream_broken,
        hedged,
        extremes,
        hours,
        long_names,
        scripts,
    )
}
