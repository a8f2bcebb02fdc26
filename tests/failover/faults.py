"""The sixteen faults: what the primary model does, what a caller should see, what is counted.

Times are those of the exam; `at(scale)` gives the same with all of them multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Factory, frozen

from resilience.testing.gateway import (
    CutStream,
    Drop,
    Error,
    GarbledStream,
    Hang,
    Ok,
    Plan,
    Received,
    SlowStart,
    StalledStream,
    Timetable,
    UnfinishedStream,
)

__all__ = ["ANSWERS", "FALLBACK", "FAULTS", "PRIMARY", "Fault", "Reply", "Seen"]

PRIMARY, FALLBACK = "primary", "fallback"
ANSWERS = {
    model: " ".join(f"{model}-{number}" for number in range(1, 61)) for model in (PRIMARY, FALLBACK)
}
"""Sixty tokens from each model, so that one answer is never taken for the other."""


@frozen
class Reply:
    """What one call has given: an answer, or an error."""

    text: str
    seconds: float
    error: Exception | None = None
    model: str | None = None
    usage: int | None = None
    """Tokens of the answer, where they were reported."""

    @property
    def whole(self) -> bool:
        """Whether it is one model's whole answer."""
        return self.error is None and self.text in ANSWERS.values()


@frozen
class Seen:
    """What the judge goes by."""

    replies: list[Reply]
    asked: list[Received]
    """At the primary model."""
    scale: float

    def within(self, seconds: float) -> int:
        """Requests of the primary model within so many seconds of the first."""
        return sum(each.at - self.asked[0].at <= seconds * self.scale for each in self.asked)


Conduct = Callable[[Seen], object]


@frozen
class Fault:
    """One fault. `required` and `advised` are what is looked at, by name."""

    number: int
    name: str
    primary: Callable[[float], Plan]
    """By the scale of time."""
    fallback: Plan = Factory(lambda: Ok(ANSWERS[FALLBACK]))
    required: dict[str, Conduct] = Factory(dict[str, Conduct])
    advised: dict[str, Conduct] = Factory(dict[str, Conduct])
    limit: float = 60.0
    """Seconds for a call, after which it hangs."""
    refusal: str | None = None
    """What the error says where the caller should see one."""
    calls: int = 1
    every: float = 0.0
    lasts: float = 0.0
    """Seconds, about, where that is long."""


def attempts(least: int, most: int) -> Conduct:
    """So many requests at the primary model."""
    return lambda seen: least <= len(seen.asked) <= most


def _waited(seen: Seen) -> bool:
    return len(seen.asked) < 2 or seen.asked[1].at - seen.asked[0].at >= 1.8 * seen.scale


def _usage(seen: Seen) -> bool:
    return all(reply.usage for reply in seen.replies)


def _quick(seen: Seen) -> bool:
    return seen.replies[0].seconds <= 15 * seen.scale


def _named(seen: Seen) -> bool:
    return seen.replies[0].error is not None or seen.replies[0].model == FALLBACK


def _not_refused(seen: Seen) -> bool:
    return getattr(seen.replies[0].error, "status_code", None) != 400


def _all_answered(seen: Seen) -> bool:
    return all(reply.whole for reply in seen.replies)


def _back(seen: Seen) -> bool:
    return any(each.answer == "ok" and each.at <= 90 * seen.scale for each in seen.asked)


_TEXT = ANSWERS[PRIMARY]
_OK = Ok(_TEXT)
_ONCE: dict[str, Conduct] = {"one attempt at the primary": attempts(1, 1)}
_SIX: dict[str, Conduct] = {"at most 6 attempts at the primary": attempts(0, 6)}
_USAGE: dict[str, Conduct] = {"usage reported": _usage}
_SECOND: dict[str, Conduct] = {"a second attempt at the primary": attempts(2, 99)}


def _always(plan: Any) -> Callable[[float], Plan]:
    return lambda scale: plan


FAULTS = (
    Fault(
        1,
        "429 with Retry-After: 2, once",
        lambda scale: [Error("rate_limit_exceeded", retry_after=2 * scale), _OK],
        required={"at most 2 attempts within 1.5 s": lambda seen: seen.within(1.5) <= 2},
        advised={**_SECOND, "1.8 s later": _waited},
    ),
    Fault(
        2,
        "429 without a header, for ever",
        _always("rate_limit_exceeded"),
        required={"at most 4 attempts within 3 s": lambda seen: seen.within(3) <= 4, **_SIX},
    ),
    Fault(3, "500 once", _always(["internal_error", _OK]), advised=_SECOND),
    Fault(4, "503 for ever", _always("service_unavailable"), required=_SIX),
    Fault(5, "a reset before any byte, once", _always([Drop(reset=True), _OK])),
    Fault(
        6, "never answers", lambda scale: Hang(120 * scale), advised=_ONCE, limit=100.0, lasts=90
    ),
    Fault(
        7,
        "the first token after 20 s",
        lambda scale: SlowStart(20 * scale, _TEXT, pings=False),
        advised={"within 15 s": _quick},
        lasts=20,
    ),
    Fault(8, "cut after 40 of 60 tokens", _always(CutStream(40, text=_TEXT))),
    Fault(
        9,
        "silent after 20 tokens, for 30 s",
        lambda scale: StalledStream(20, 30 * scale, text=_TEXT),
        limit=45.0,
        lasts=30,
    ),
    Fault(
        10,
        "the tenth event is no JSON",
        _always(GarbledStream(8, text=_TEXT)),  # the first is the role
        advised={"the whole answer": _all_answered},
    ),
    Fault(
        11,
        "complete, but without the terminator",
        _always(UnfinishedStream(reason=True, text=_TEXT)),
        advised=_USAGE,
        limit=8.0,
    ),
    Fault(
        12,
        "400 context_length_exceeded",
        _always("context_length_exceeded"),
        required=_ONCE,
    ),
    Fault(
        13,
        "400 content_policy_violation",
        _always(Error("content_policy_violation", status=400)),
        required=_ONCE,
        refusal="content policy violation",
    ),
    Fault(
        14,
        "cut after 40 tokens; the fallback takes no prefill",
        _always(CutStream(40, text=_TEXT)),
        fallback=Ok(ANSWERS[FALLBACK], prefill=False),
        required={"not the fallback's 400": _not_refused},
    ),
    Fault(
        15,
        "503 for 60 s, then well: twenty calls",
        lambda scale: Timetable((0, "service_unavailable"), (60 * scale, _OK)),
        required={"back within 30 s of its recovery": _back},
        calls=20,
        every=4.0,
        lasts=80,
    ),
    Fault(
        16,
        "503 for ever: who has answered?",
        _always("service_unavailable"),
        required={**_SIX, "the fallback's name": _named},
        advised=_USAGE,
    ),
)
