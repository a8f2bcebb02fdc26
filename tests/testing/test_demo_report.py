"""The demo's report has the figures of the events and of the gateways, and can be read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from attrs import evolve, frozen

from resilience.cli import main
from resilience.demo import run
from resilience.demo.phase import Phase
from resilience.demo.record import Played
from resilience.demo.report import page
from resilience.demo.scenario import bad_minute
from resilience.events import (
    AttemptEnded,
    CallEnded,
    CircuitChanged,
    CircuitOpened,
    Event,
    recording,
)
from resilience.testing.gateway import Drop, Gateway, Received
from support.browser import Browser, found

pytestmark = pytest.mark.real

PACE = 1 / 20
SIZES = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
TOLD = re.compile(r"([\d.]+) s: (calls|requests) answered (\d+), failed (\d+)")


class Page:
    """What a report says, found in its HTML as anybody would."""

    def __init__(self, html: str) -> None:
        self.html = html
        body = html[html.index("<main>") : html.index("</body>")]
        self._main = ElementTree.fromstring(body)
        self.bands = [each for each in self._main.iter("section") if each.get("class") == "run"]

    @property
    def headline(self) -> str:
        return self._main.findtext("h1") or ""

    def figures(self, title: str) -> list[str]:
        """The row of the first table, or of the phases, that has this title."""
        for row in self._main.iter("tr"):
            if (row.findtext("th") or "").startswith(title):
                return [cell.text or "" for cell in row.findall("td")]
        raise AssertionError(title)

    def charts(self, name: str) -> list[Element]:
        """The picture of each band whose label begins so."""
        return [
            svg
            for band in self.bands
            for svg in band.iter("svg")
            if svg.get("aria-label", "").startswith(f"{name}:")
        ]


@frozen
class Minute:
    """A played minute; beside it what `recording` had, and what the gateways themselves say."""

    played: Played
    events: list[Event]
    gateways: list[Gateway]
    page: Page

    def ended(self, number: int) -> list[CallEnded]:
        """The ends of a run's calls, of what was recorded for the whole process."""
        own = {id(each.event) for each in self.played.runs[number].events}
        return [each for each in self.events if isinstance(each, CallEnded) and id(each) in own]


@pytest.fixture(scope="module")
def minute() -> Minute:
    """Three seconds for the minute, once for all tests."""
    gateways: list[Gateway] = []

    def gateway(plan: Any) -> Gateway:
        gateways.append(Gateway(plan))
        return gateways[-1]

    with pytest.MonkeyPatch.context() as patch, recording() as events:
        patch.setattr(run, "Gateway", gateway)
        played = run.run(bad_minute(PACE), lambda *_: None)
    return Minute(played, events, gateways, Page(page(played)))


def columns(shown: Element, what: str) -> dict[str, tuple[int, int]]:
    """What a chart's columns are said to be: how many answered and failed, by their second."""
    told = [TOLD.fullmatch(title.text or "") for title in shown.iter("title")]
    assert all(each and each[2] == what for each in told)
    return {each[1]: (int(each[3]), int(each[4])) for each in told if each}


def by_second(moments: list[tuple[float, bool]]) -> dict[str, tuple[int, int]]:
    """The same, counted anew."""
    counted = Counter((int(at / PACE), good) for at, good in moments)
    return {
        f"{place * PACE:.2f}": (counted[place, True], counted[place, False])
        for place in sorted({place for place, _ in counted})
    }


@pytest.mark.fault(355)
def test_every_event_is_in_a_run_and_none_twice(minute: Minute) -> None:
    """The three runs together have what `recording` had, in whatever thread it happened."""
    kept = [id(each.event) for each in sum((run.events for run in minute.played.runs), ())]
    assert sorted(kept) == sorted(map(id, minute.events))
    calls = len(minute.played.guarded.calls)
    assert [len(minute.ended(number)) for number in range(3)] == [calls] * 3


@pytest.mark.fault(355)
def test_the_headline_figures(minute: Minute) -> None:
    """Answered, failed and waits as the calls' last events have them, requests as the gateways."""
    shown = minute.page.figures
    ended = [minute.ended(number) for number in range(3)]
    answered = [sum(each.error is None for each in run) for run in ended]
    requests = [gateway.requests for gateway in minute.gateways]
    assert shown("calls answered") == list(map(str, answered))
    assert shown("calls failed") == [str(sum(each.error is not None for each in e)) for e in ended]
    assert shown("requests on the wire") == [str(len(sent)) for sent in requests]
    assert shown("requests wasted") == [str(len(wasted(sent))) for sent in requests]
    waits = [sorted(each.elapsed for each in run) for run in ended]
    assert shown("longest wait") == [f"{each[-1]:.2f} s" for each in waits]
    for title, percent in (("median wait", 50), ("95th percentile", 95)):
        enough = [
            next(w for w in each if 100 * sum(x <= w for x in each) >= percent * len(each))
            for each in waits
        ]
        assert shown(title) == [f"{wait:.2f} s" for wait in enough]
    numbers = re.findall(r"\d+", minute.page.headline)
    assert numbers == list(map(str, [len(ended[0]), *answered]))


def wasted(requests: list[Received]) -> list[Received]:
    return [each for each in requests if each.answer != "ok"]


@pytest.mark.fault(355)
def test_every_column(minute: Minute) -> None:
    """Each second's calls, by the events, and its requests, by the gateway's own record."""
    page = minute.page
    for number, (calls, requests) in enumerate(
        zip(page.charts("calls"), page.charts("requests"), strict=True)
    ):
        ended = set(map(id, minute.ended(number)))
        asked = [
            (each.asked.at, each.event.error is None)
            for each in minute.played.runs[number].events
            if isinstance(each.event, CallEnded) and id(each.event) in ended
        ]
        sent = [(each.at, each.answer == "ok") for each in minute.gateways[number].requests]
        assert columns(calls, "calls") == by_second(asked)
        assert columns(requests, "requests") == by_second(sent)


@pytest.mark.fault(355, 356)
def test_bars_are_to_one_scale_from_zero(minute: Minute) -> None:
    """What was answered stands on the line, what failed hangs from it, as high as it is many."""
    units = set[float]()
    for shown in minute.page.charts("requests"):
        line = shown.find("path[@class='zero']")
        assert line is not None
        zero = float(re.findall(r"M0 ([\d.]+)H", line.get("d", ""))[0])
        for group in shown.iter("g"):
            told = TOLD.fullmatch(group.findtext("title") or "")
            assert told
            counts = {"answered": int(told[3]), "failed": int(told[4])}
            bars = {bar.get("class", ""): bar for bar in group.iter("rect")}
            assert set(bars) == {kind for kind, count in counts.items() if count}
            for kind, bar in bars.items():
                top, height = float(bar.get("y", "")), float(bar.get("height", ""))
                assert top == pytest.approx(zero - height if kind == "answered" else zero, abs=0.02)
                units.add(height / counts[kind])
                assert int(float(bar.get("x", ""))) == round(float(told[1]) / PACE)
    assert max(units) == pytest.approx(min(units), abs=0.02)


@pytest.mark.fault(355)
def test_circuits_and_the_models_that_answered(minute: Minute) -> None:
    """The states of each circuit from one event to the next; a mark for each answer."""
    events = sorted(minute.played.guarded.events, key=lambda each: each.at)
    for model in minute.played.scenario.limits.models:
        (shown,) = minute.page.charts(model)
        label = shown.get("aria-label", "")
        answers = [each for each in minute.ended(2) if each.served_by == model and not each.error]
        opened = [e for e in minute.events if isinstance(e, CircuitOpened) and e.model == model]
        assert list(map(int, re.findall(r"(\d+) (?:answer|opening)", label))) == [
            len(answers),
            len(opened),
        ]
        assert len(shown.findall("g")) == len(answers)
        changes = [
            (each.event.new, f"{each.at:.2f}")
            for each in events
            if isinstance(each.event, CircuitChanged) and each.event.model == model
        ]
        assert all(float(rect.get("width", "")) > 0 for rect in shown.iter("rect"))
        titles = [title.text or "" for title in shown.findall("rect/title")]
        told = [re.findall(r"(open|half-open), ([\d.]+) to", title)[0] for title in titles]
        expected = [change for change in changes if change[0] != "closed"]
        assert sorted(told) == sorted(expected)
    assert any(isinstance(each, CircuitOpened) for each in minute.events)


@pytest.mark.fault(355)
def test_the_phases_add_up(minute: Minute) -> None:
    """Their calls and requests are those of the whole, for each run."""
    scenario = minute.played.scenario
    rows = [
        [int(text) for text in minute.page.figures(f"{number} {phase.name}") if text.isdigit()]
        for number, phase in enumerate(scenario.phases, 1)
    ]
    in_all = [sum(column) for column in zip(*rows, strict=True)]
    shown = minute.page.figures
    assert in_all[0] == len(minute.played.guarded.calls)
    assert list(map(str, in_all[1:4])) == shown("calls answered")
    assert list(map(str, in_all[4:])) == shown("requests on the wire")


def test_the_sdk_retries_by_itself_at_the_scenarios_pace(minute: Minute) -> None:
    """More requests than attempts; its own waits, a second in all, are as much shorter."""
    bare, retries, _ = minute.played.runs
    for own in (bare, retries):
        attempts = [each for each in own.events if isinstance(each.event, AttemptEnded)]
        assert len(attempts) == len(own.calls)
    assert len(bare.requests) == len(bare.calls)
    down = [call for call in retries.calls if call.asked.phase == "one model down"]
    failed = [call.outcome for call in down if call.outcome.error is not None]
    assert failed
    assert min(outcome.elapsed for outcome in failed) < 0.8  # twice 0.5 s, shortened by a fifth
    assert len(retries.requests) >= len(retries.calls) + 2 * len(failed)


@pytest.mark.fault(355)
def test_requests_after_the_end_are_shown_and_counted(minute: Minute) -> None:
    """A client that goes on when the minute is over has further columns, and so have the others."""
    played = minute.played
    end = sum(phase.seconds for phase in played.scenario.phases)
    late = evolve(played.bare.requests[-1], at=end + 2.5 * PACE)
    more = evolve(played.bare, requests=(*played.bare.requests, late))
    shown = Page(page(evolve(played, runs=(more, *played.runs[1:]))))
    widths = {svg.get("viewBox", "").split()[2] for svg in shown.charts("requests")}
    assert widths == {"63"}
    assert columns(shown.charts("requests")[0], "requests")[f"{end + 2 * PACE:.2f}"] == (0, 1)
    assert shown.figures("requests on the wire")[0] == str(len(more.requests))
    last = shown.figures(f"{len(played.scenario.phases)} ")
    before = minute.page.figures(f"{len(played.scenario.phases)} ")
    assert int(last[6]) == int(before[6]) + 1


# It can be read


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all; where none is installed the tests are skipped, but not in CI."""
    if found() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium: tests/support/chromium.sh installs Debian's")
    with Browser() as browser:
        yield browser


@pytest.mark.fault(356)
def test_it_can_be_read(browser: Browser, minute: Minute, tmp_path: Path) -> None:
    """On a phone, between, and in a wide window, by day and in the dark: no text is cut, pale, or
    over another."""
    for width, scheme in (*SIZES, (800, "light")):
        shown = browser.render(minute.page.html, width, scheme, picture=False)
        problems = shown.problems()
        if problems:
            picture = tmp_path / f"{width}-{scheme}.png"
            picture.write_bytes(browser.render(minute.page.html, width, scheme).png)
            problems.append(f"see {picture}")
        assert problems == []
        words = {text.text for text in shown.texts}
        assert {"answered", "failed", "open", "half open", "circuit closed"} <= words


@pytest.mark.fault(356)
@pytest.mark.parametrize(
    "keep",
    [wasted, lambda requests: wasted(requests) * 99, lambda requests: []],
    ids=["failures", "a lot of failures", "nothing"],
)
def test_an_odd_minute_can_be_read(
    browser: Browser, minute: Minute, keep: Callable[[list[Received]], list[Received]]
) -> None:
    """One of a single phase, in which no request was answered, or none was made at all."""
    played = minute.played
    phase = Phase("cut off", 60 * PACE, trouble={"gpt-4o": Drop()})
    runs = [
        evolve(each, calls=(), events=(), requests=tuple(keep(list(each.requests))))
        for each in played.runs
    ]
    alone = evolve(played.scenario, phases=(phase,))
    shown = Page(page(evolve(played, scenario=alone, runs=tuple(runs))))
    for width in (390, 1280):
        assert browser.render(shown.html, width, picture=False).problems() == []
    counts = [str(len(each.requests)) for each in runs]
    assert shown.figures("requests on the wire") == shown.figures("requests wasted") == counts
    assert "gpt-4o: drop" in shown.html


@pytest.mark.fault(356)
def test_it_is_one_file_of_ascii(minute: Minute) -> None:
    """Without a script, without anything from elsewhere, for light and dark."""
    html = minute.page.html
    assert html.isascii()
    assert not re.search(r"<script|<link|@import|url\(|\ssrc=|\shref=|\son\w+=", html)
    assert "prefers-color-scheme: dark" in html


# Where it goes


@pytest.mark.fault(357)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fast", "--report", "missing/report.html"], "missing"),
        (["--fast", "--report", "."], "cannot write"),
        (["--fast"], "resilience-demo.html"),
        (["--live", "--report", "report.html"], "--live"),
    ],
)
def test_a_report_that_cannot_be_written_is_said_at_once(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before the minute is played, with status 2; nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AURIKO_API_KEY", "sk-of-nobody")
    (tmp_path / "resilience-demo.html").mkdir()
    assert main(["demo", *arguments]) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert output.out == ""
    assert [each.name for each in tmp_path.iterdir()] == ["resilience-demo.html"]
