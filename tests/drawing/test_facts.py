"""What is drawn of a call, in words: headlines, times, the axis, and the texts of others."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from resilience import Attempt, Outcome
from resilience._drawing.facts import axis, facts_of, lasting
from resilience._drawing.texts import cells, clean, escape, shorten
from resilience.failures import Advice, Failure, Kind
from support.outcomes import CASES


@pytest.mark.parametrize(
    ("name", "headline", "summary"),
    [
        ("one", "Answered", "1 attempt, 400 ms"),
        ("sixty", "Failed: 429 rate limit", "60 attempts, 41.2 s"),
        ("rejected", "Rejected: CircuitOpenError", "no attempt was made, 0 s"),
        ("rejected_with_fallback", "Answered by the fallback", "no attempt was made, 0 s"),
        ("fallback", "Answered by the fallback", "3 attempts, 2.30 s"),
        ("timed_out", "Failed: DeadlineExceededError", "2 attempts, 5.00 s"),
        ("bad_result", "A bad result was given back", "2 attempts, 1.47 s"),
        ("unknown", "Failed: KeyError", "1 attempt, 0 s"),
        ("stream_begun", "Answer under way by gpt-4o", "1 attempt, 700 ms"),
        ("stream_read", "Answered by gpt-4o", "1 attempt, 1.80 s"),
        ("stream_broken", "Failed: StreamInterruptedError", "1 attempt, 1.80 s"),
        ("degraded", "Answered by claude-sonnet-4-6, not the first choice", "3 attempts, 2.47 s"),
    ],
)
def test_a_call_in_two_lines(name: str, headline: str, summary: str) -> None:
    """How it ended and thanks to whom; how many attempts it took, and how long."""
    facts = facts_of(CASES[name]())
    assert (facts.headline, facts.summary) == (headline, summary)


def words(failure: Failure) -> str:
    (row,) = facts_of(Outcome(attempts=(Attempt(failure=failure, duration=1.0),))).rows
    return row.words


@pytest.mark.fault(343)
def test_a_failure_in_words() -> None:
    """Its status, and its code or what it means; the class of an error that means nothing known."""
    unknown, retry = Kind.UNKNOWN, Advice.RETRY
    assert words(Failure(Kind.RATE_LIMIT, retry, status=429, code="slow_down")) == "429 slow_down"
    assert words(Failure(Kind.RATE_LIMIT, retry, status=429)) == "429 rate limit"
    assert words(Failure(Kind.TIMEOUT, retry)) == "timeout"
    assert words(Failure(Kind.SERVER, retry, status=500)) == "500 server error"
    assert words(Failure(unknown, retry, error=KeyError("secret"))) == "KeyError"
    assert words(Failure(unknown, retry, status=418, error=KeyError())) == "418 KeyError"
    assert words(Failure(unknown, retry)) == "unknown error"
    assert {row.words for row in facts_of(CASES["bad_result"]()).rows} == {"bad result"}


def test_attempts_are_in_the_order_of_their_numbers() -> None:
    """However they overlapped; each says when it began, how long it took, and the wait before."""
    rows = facts_of(CASES["hedged"]()).rows
    assert [(row.number, row.start, row.wait, row.time) for row in rows] == [
        ("1", "0 s", "", "1.30 s"),
        ("2", "500 ms", "", "800 ms"),
        ("3", "900 ms", "", "400 ms"),
    ]
    assert facts_of(CASES["extremes"]()).rows[1].wait == "50 ms"


def test_what_is_under_way_goes_to_the_end() -> None:
    """It has no time yet."""
    facts = facts_of(CASES["stream_begun"]())
    (row,) = facts.rows
    assert (row.words, row.time, row.ended) == ("under way", "", facts.span)


def test_a_legend_where_there_is_something_to_tell_apart() -> None:
    """None for bars of one kind."""
    assert facts_of(CASES["one"]()).legend == []
    assert facts_of(CASES["fallback"]()).legend == ["failed", "wait"]
    assert facts_of(CASES["degraded"]()).legend == ["answered", "failed", "wait"]
    begun = Outcome(attempts=(Attempt(1), Attempt(2, 1.0, 0.5)), elapsed=2.0)
    assert facts_of(begun).legend == ["answered", "under way"]


def test_a_call_of_no_time() -> None:
    """All of it is at the beginning of the axis."""
    facts = facts_of(Outcome(attempts=(Attempt(1, 0.0, 0.0),)))
    assert (facts.share(0.0), list(axis(facts.span))) == (0.0, [(0.0, "0 ms")])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00001, "<0.1 ms"),
        (0.0001, "0.1 ms"),
        (0.00994, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.94, "99.9 s"),
        (99.96, "100 s"),
        (599.4, "599 s"),
        (599.6, "10m 00s"),
        (3_599.4, "59m 59s"),
        (3_599.6, "1h 00m"),
        (7_265, "2h 01m"),
        (3_600_000, "1,000h 00m"),
    ],
)
def test_times_have_units(seconds: float, text: str) -> None:
    """Three digits or so, and never one digit too many by rounding."""
    assert lasting(seconds) == text


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (0.00012, ["0 ms", "0.05 ms", "0.1 ms"]),
        (0.39999999, ["0 ms", "100 ms", "200 ms", "300 ms", "400 ms"]),
        (0.7, ["0 ms", "200 ms", "400 ms", "600 ms"]),
        (2.31, ["0 s", "0.5 s", "1 s", "1.5 s", "2 s"]),
        (60.0, ["0 s", "20 s", "40 s", "60 s"]),
        (660.0, ["0 min", "5 min", "10 min"]),
        (9_000.0, ["0 h", "1 h", "2 h"]),
        (300_000.0, ["0 h", "24 h", "48 h", "72 h"]),
        (1e9, ["0 h"]),
    ],
)
def test_the_axis_has_round_times(span: float, labels: list[str]) -> None:
    """At most five steps, in one unit, each at its place."""
    marks = list(axis(span))
    assert [label for _, label in marks] == labels
    steps = {round(b - a, 6) for (a, _), (b, _) in pairwise(marks)}
    assert len(steps) <= 1
    assert all(0 <= share <= 1 and math.isfinite(share) for share, _ in marks)


@pytest.mark.fault(340)
def test_texts_of_others_are_made_fit() -> None:
    """Line breaks, control characters, marks of direction and lone surrogates become blanks."""
    assert clean("a\r\nb\tc\x00d\u202ee\ud800f  g ") == "a b c d e f g"
    assert escape('<b a="1">&é模') == "&lt;b a=&quot;1&quot;&gt;&amp;&#233;&#27169;"


def test_texts_are_measured_in_cells() -> None:
    """Chinese characters take two, marks over letters none."""
    assert [cells(text) for text in ("abc", "模型", "e\u0301", "модель")] == [3, 4, 1, 6]


def test_the_middle_of_a_long_text_gives_way() -> None:
    """Models of one family differ at the end."""
    assert shorten("claude-sonnet-4-6", 17) == "claude-sonnet-4-6"
    assert shorten("claude-sonnet-4-6", 12) == "claud...-4-6"
    assert shorten("模" * 20, 11) == "模模...模模"
    assert all(cells(shorten("模a" * 50, most)) <= most for most in range(3, 60))
