"""A call as text: `Outcome.timeline()`."""

from __future__ import annotations

import pickle

import pytest

from resilience import Attempt, Outcome
from resilience._drawing.texts import cells
from support.outcomes import CASES, SECRET

EVERY = pytest.mark.parametrize("name", CASES)


def test_a_timeline() -> None:
    """Two lines about the call, then one for each attempt, with waits and attempts to scale."""
    assert CASES["degraded"]().timeline().split("\n") == [
        "Answered by claude-sonnet-4-6, not the first choice",
        "3 attempts, 2.47 s",
        "",
        "# model             outcome           start   wait   time  0             2.47 s",
        "1 gpt-4o            500 server error    0 s        210 ms |xx                  |",
        "2 gpt-4o            500 server error 710 ms 500 ms 340 ms | ....xxxx           |",
        "3 claude-sonnet-4-6 answered         1.05 s        1.42 s |        ============|",
    ]


@pytest.mark.fault(344)
@EVERY
@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_keep_to_the_width(name: str, width: int) -> None:
    """Whatever the names; and all bars are of one length."""
    lines = CASES[name]().timeline(width).split("\n")
    assert max(map(cells, lines)) <= width
    assert {cells(line) for line in lines[4:]} <= {width}


@pytest.mark.fault(342)
@EVERY
def test_every_attempt_has_a_line_and_a_bar(name: str) -> None:
    """Of a character at least, however short it was."""
    outcome = CASES[name]()
    lines = outcome.timeline().split("\n")[4:]
    bars = [line[line.index("|") :] for line in lines]
    assert len(lines) == len(outcome.attempts)
    assert all(set(bar) & set("=x>") for bar in bars)


def test_a_bar_shows_how_an_attempt_ended() -> None:
    """And the dots before it, how long was waited; without a word about colours."""
    attempts = (Attempt(1, 0.0, 1.0), Attempt(2, 3.0, 1.0, waited=2.0), Attempt(3, 4.0))
    *_, first, second, third = Outcome(attempts=attempts, elapsed=5.0).timeline(60).split("\n")
    assert first.endswith("|=====                    |")
    assert second.endswith("|     ..........=====     |")
    assert third.endswith("|                    >>>>>|")


def test_what_nobody_can_tell_has_no_column() -> None:
    """Without models or waits the bars have more room."""
    assert CASES["one"]().timeline().split("\n")[3].split()[:4] == ["#", "outcome", "start", "time"]


@pytest.mark.fault(344)
def test_our_own_characters_are_ascii() -> None:
    """A terminal, a log file or a mail that knows no more does not break."""
    assert CASES["ten"]().timeline().isascii()
    assert CASES["long_names"]().timeline().isascii()


@pytest.mark.parametrize("width", [59, 0, -1, True, 80.0, "80", None])
def test_a_bad_width(width: object) -> None:
    """It is refused with field, rule and value."""
    outcome: Outcome[None] = Outcome()
    with pytest.raises((TypeError, ValueError), match=f"width.*{width!r}"):
        outcome.timeline(width)  # type: ignore[arg-type]


@pytest.mark.fault(341)
@EVERY
def test_nothing_of_what_was_sent_or_answered_is_shown(name: str) -> None:
    """Arguments, results, texts of exceptions and names of circuits are in no picture."""
    outcome = CASES[name]()
    for shown in (outcome.timeline(), outcome.to_html(), outcome._repr_svg_()):
        assert SECRET not in shown


def test_a_pickled_outcome_looks_the_same() -> None:
    """It is a value, before it was drawn and after."""
    outcome = CASES["sixty"]()
    copy = pickle.loads(pickle.dumps(outcome))
    assert copy.timeline() == outcome.timeline()
    assert copy._repr_svg_() == outcome._repr_svg_()
    assert copy.to_html() == outcome.to_html()
