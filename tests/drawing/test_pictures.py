"""A call as a page and as an SVG, in a real browser: all of it can be read."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from resilience import Outcome
from resilience._drawing.texts import clean
from support.browser import Browser, Page, found
from support.outcomes import CASES, degraded, scripts, ten

pytestmark = [pytest.mark.real, pytest.mark.steady]

EVERY = pytest.mark.parametrize("name", CASES)
PHONE, TABLET, DESKTOP = 390, 800, 1280
SVG = 880  # its own width


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all; where none is installed the tests are skipped, but not in CI."""
    if found() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium: tests/support/chromium.sh installs Debian's")
    with Browser() as browser:
        yield browser


def check(browser: Browser, html: str, width: int, scheme: str, tmp_path: Path) -> Page:
    """No text is cut, lies on another, or is pale; what is wrong can be looked at."""
    page = browser.render(html, width, scheme, picture=False)
    problems = page.problems()
    if problems:
        picture = tmp_path / f"{width}-{scheme}.png"
        picture.write_bytes(browser.render(html, width, scheme).png)
        problems.append(f"see {picture}")
    assert problems == []
    return page


def has_every_attempt(page: Page, outcome: Outcome[Any]) -> bool:
    """Whether the page has the number of each, in their order."""
    numbers = [str(number) for number in sorted(attempt.number for attempt in outcome.attempts)]
    return [text.text for text in page.texts if text.text in numbers] == numbers


@pytest.mark.fault(342)
@EVERY
def test_a_page_can_be_read(browser: Browser, name: str, tmp_path: Path) -> None:
    """On a phone and in a wide window; and between the two."""
    outcome = CASES[name]()
    html = outcome.to_html()
    for width in (PHONE, TABLET, DESKTOP) if name in ("ten", "long_names") else (PHONE, DESKTOP):
        assert has_every_attempt(check(browser, html, width, "light", tmp_path), outcome)


@pytest.mark.fault(342)
@EVERY
def test_an_svg_can_be_read(browser: Browser, name: str, tmp_path: Path) -> None:
    """In its own width, in a page that is put around it."""
    outcome = CASES[name]()
    page = check(browser, outcome._repr_svg_(), SVG, "light", tmp_path)
    assert has_every_attempt(page, outcome)


@pytest.mark.fault(343)
@pytest.mark.parametrize("name", ["ten", "stream_begun"])
def test_both_can_be_read_in_the_dark(browser: Browser, name: str, tmp_path: Path) -> None:
    """With a contrast of 4.5 at least, as by day."""
    outcome = CASES[name]()
    check(browser, outcome.to_html(), PHONE, "dark", tmp_path)
    check(browser, outcome._repr_svg_(), SVG, "dark", tmp_path)


@pytest.mark.parametrize("name", ["one", "ten", "sixty"])
def test_screenshots(browser: Browser, name: str) -> None:
    """They have the size of what was shown, whatever the number of attempts."""
    outcome = CASES[name]()
    for html, width in ((outcome.to_html(), DESKTOP), (outcome._repr_svg_(), SVG)):
        page = browser.render(html, width)
        assert struct.unpack(">II", page.png[16:24]) == (page.width, page.height)
        assert page.height > 26 * len(outcome.attempts)


@pytest.mark.fault(343)
def test_there_is_a_light_and_a_dark_look(browser: Browser) -> None:
    """By what the reader prefers; the texts are the same."""
    outcome = degraded()
    for html in (outcome.to_html(), outcome._repr_svg_()):
        light, dark = (browser.render(html, SVG, scheme) for scheme in ("light", "dark"))
        assert [text.text for text in light.texts] == [text.text for text in dark.texts]
        assert light.png != dark.png
        assert {"answered", "failed", "wait"} <= {text.text for text in light.texts}  # the legend


def test_names_are_text_and_never_markup(browser: Browser) -> None:
    """Whatever is in a model's name, it is shown as it is."""
    outcome = scripts()
    names = [clean(attempt.model or "") for attempt in outcome.attempts]
    page = browser.render(outcome.to_html(), DESKTOP, picture=False)
    shown = "\n".join(text.text for text in page.texts)
    assert [name for name in names if len(name) < 50 and name not in shown] == []


def test_bars_are_to_scale() -> None:
    """A wait and the attempt after it lie where they were in the call's time."""
    outcome = degraded()
    expected = [
        ("failed", 0.0, 0.21),
        ("wait", 0.21, 0.5),
        ("failed", 0.71, 0.34),
        ("answered", 1.05, 1.42),
    ]
    rects = ElementTree.fromstring(outcome._repr_svg_()).iter("{http://www.w3.org/2000/svg}rect")
    bars = [(r.get("class"), float(r.get("x", 0)), float(r.get("width", 0))) for r in rects][-4:]
    begin = bars[0][1]
    second = (bars[3][1] + bars[3][2] - begin) / outcome.elapsed
    assert [kind for kind, _, _ in bars] == [kind for kind, _, _ in expected]
    for (_, x, width), (_, start, duration) in zip(bars, expected, strict=True):
        assert (x - begin) / second == pytest.approx(start, abs=0.001)
        assert width / second == pytest.approx(duration, abs=0.001)

    style = r'<i class="(\w+)" style="left: (?:min\()?([\d.]+)%.*?width: ([\d.]+)%'
    for (kind, left, width), (_, start, duration) in zip(
        re.findall(style, outcome.to_html()), expected, strict=True
    ):
        assert kind in ("answered", "failed", "waiting")
        assert float(left) / 100 * outcome.elapsed == pytest.approx(start, abs=0.001)
        assert float(width) / 100 * outcome.elapsed == pytest.approx(duration, abs=0.001)


@pytest.mark.fault(340)
@EVERY
def test_a_picture_is_one_file_of_ascii(name: str) -> None:
    """Without a script, without anything from elsewhere; the SVG is well-formed XML."""
    outcome = CASES[name]()
    for text in (outcome.to_html(), outcome._repr_svg_()):
        assert text.isascii()
        assert not re.search(r"<script|<link|@import|url\(|\ssrc=|\shref=|\son\w+=", text)
    root = ElementTree.fromstring(outcome._repr_svg_())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.fault(124)
def test_nothing_is_imported_before_it_is_drawn() -> None:
    """A program that draws no call does not pay for it."""
    program = "import sys, resilience; print([m for m in sys.modules if '_drawing' in m])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_an_svg_in_a_page_leaves_the_rest_of_it_alone(browser: Browser) -> None:
    """A notebook may put it into its own page: its rules are for itself."""
    text = "<p class='text head soft failed' style='color: rgb(9, 9, 9)'>mine</p>"
    bare = browser.render(f"<!doctype html>{text}", picture=False).texts[0]
    page = browser.render(f"<!doctype html>{text}{ten()._repr_svg_()}", picture=False)
    assert page.texts[0] == bare


def test_what_cannot_be_read_is_noticed(browser: Browser) -> None:
    """A text that is cut, outside the window, over another, or pale: the checks can fail."""
    place = "position: absolute; white-space: nowrap"
    page = browser.render(
        f"""<!doctype html><body style="margin: 0; overflow: hidden; height: 200px">
        <p style="width: 30px; overflow: hidden; white-space: nowrap">much too long for that</p>
        <p style="{place}; left: 380px; top: 60px">outside</p>
        <p style="{place}; left: 10px; top: 100px">one</p>
        <p style="{place}; left: 14px; top: 104px">other</p>
        <p style="{place}; left: 200px; top: 100px; color: #999; background: #fff">pale</p>
        <p style="{place}; left: 200px; top: 140px">fine</p>
        <svg width="30" height="20" style="{place}; left: 300px; top: 100px">
        <rect width="30" height="20" fill="#777"/><text y="15" fill="#888">cut here</text></svg>""",
        width=400,
        picture=False,
    )
    noticed = [re.findall(r"^\w+|'.*?'", problem) for problem in page.problems()]
    assert noticed == [
        ["cut", "'much too long for that'"],
        ["cut", "'outside'"],
        ["cut", "'cut here'"],
        ["overlap", "'one'", "'other'"],
        ["pale", "'pale'"],
        ["pale", "'cut here'"],
    ]
