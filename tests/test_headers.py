"""What servers say about trying again, and what strangers put in its place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import httpx
import httpx2
import pytest
from auriko.response_headers import ResponseHeaders
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.sdks import headers as module
from resilience.sdks.headers import Hints, hints, pick

NOW = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT."""


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "wall", lambda: NOW)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def wait(value: object, **others: object) -> float | None:
    """The wait in a response with this `Retry-After`."""
    return hints({"Retry-After": value, **others}).wait


@pytest.mark.parametrize(
    "value",
    [
        *["nan", "inf", "-inf", "-1", "+1", "1e308", "9" * 400, "1e3", "1_000", "1e400"],
        *[
            "\u0663",
            "\uff17",
            "\u00b2",
            "0x10",
            "",
            " ",
            ".",
            "1.",
            ".5",
            "soon",
            "5, 10",
            "5;10",
            "5 s",
        ],
        *["7\x00", "\x007", "7\r\n", "\n7", "7\r\nx: y", "7\x0b", "99999999999"],
        *[math.nan, math.inf, -math.inf, -1, -0.5, 1e308, 10**400, -(10**400)],
        *[b"nan", b"\xff", b""],
    ],
)
def test_fault_042_what_is_no_number_is_no_hint(value: object) -> None:
    """Numbers that are none, or are absurd, are as good as no header."""
    assert wait(value) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[(" 12 ", 12.0), ("\t7", 7.0), ("0", 0.0), ("1.5", 1.5), (b"7", 7.0), (7, 7.0)],
        *[(7.5, 7.5), (0, 0.0), (-0.0, 0.0), ("007", 7.0), ("86400", 86400.0), (b" 2.5\t", 2.5)],
    ],
)
def test_fault_043_numbers_however_written(value: object, seconds: float) -> None:
    """Whole numbers and fractions are accepted as text, bytes and numbers."""
    found = wait(value)

    assert found == seconds
    assert type(found) is float
    assert math.copysign(1, found) == 1


@pytest.mark.parametrize("value", [True, False, None, ["7"], {"7": 7}, object(), (7,), 7j])
def test_fault_043_other_objects_are_no_hint(value: object) -> None:
    """Only numbers, text and bytes are read."""
    assert wait(value) is None


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
        ("Sun Nov  6 08:49:47 1994", 10.0),
        ("Sun, 06 Nov 1994 09:49:47 +0100", 10.0),
        ("Sun, 06 Nov 1994 03:49:47 -0500", 10.0),
        ("Sun, 06 Nov 1994 08:49:47", 10.0),
        ("Sun, 06 Nov 1994 08:49:47 -0000", 10.0),
        (b"Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("  Sun, 06 Nov 1994 08:49:47 GMT\t", 10.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:40:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 0101 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Fri, 99 Nov 1994 08:49:47 GMT", None),
        ("Sun, 06 Nov 1994 99:49:47 GMT", None),
        ("Sun, 06 Nov 1994 08:49:47 +9999999999", None),
        ("Sun, 06 Nov 1994 08:49:47 GMT\r\n", None),
        ("Sun, 06 Nov 1994 08:49:47 GMT\x00", None),
        ("Sun, 06 Nov", None),
    ],
)
@pytest.mark.usefixtures("_zone")
def test_fault_044_dates(date: str | bytes, seconds: float | None) -> None:
    """An HTTP date in any form means the same wherever the program runs."""
    assert wait(date) == seconds


def test_fault_044_a_short_year_is_a_near_one() -> None:
    """The standard library reads year 1 as 2001; from 2026 that is past, as year 1 is."""
    today = "Mon, 23 Nov 2026 02:00:00 GMT"

    assert wait("Mon, 01 Jan 0001 00:00:00 GMT", Date=today) == 0.0


def test_fault_044_a_date_is_measured_by_the_servers_own_clock() -> None:
    """The response's `Date` counts, not our clock; an unreadable one does not."""
    then = formatdate(NOW + 7230, usegmt=True)

    assert wait(then, Date=formatdate(NOW + 7200, usegmt=True)) == 30.0
    assert wait(then, Date="yesterday") == 7230.0
    assert wait(then) == 7230.0
    assert wait("5", Date=formatdate(NOW + 7200, usegmt=True)) == 5.0


def test_fault_045_a_huge_header_takes_no_time() -> None:
    """The length is looked at first: 10 MB cost no more than ten bytes."""
    for filler in ("9", " ", "a", ",", "é"):
        huge = {"retry-after": filler * 10_000_000, "date": filler * 10_000_000}
        took = []
        for _ in range(5):
            began = time.perf_counter()
            assert hints(huge) == Hints()
            took.append(time.perf_counter() - began)

        assert min(took) < 0.0001


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        list,
        tuple,
        httpx.Headers,
        httpx2.Headers,
        lambda pairs: ResponseHeaders(httpx.Headers(pairs)),
        lambda pairs: ResponseHeaders(dict(pairs)),
        lambda pairs: type("Multi", (), {"get": lambda self, k: httpx.Headers(pairs).get(k)})(),
    ],
)
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_fault_048_headers_of_every_shape(
    wrap: Callable[[Any], Any], change: Callable[[str], str]
) -> None:
    """Milliseconds go before seconds, in any case and any container."""
    both = [("x-other", "1"), (change("retry-after"), "7"), (change("retry-after-ms"), "1500")]
    word = [(change("x-should-retry"), "FALSE"), (change("retry-after"), "7")]

    assert hints(wrap(both)) == Hints(1.5)
    assert hints(wrap(both[:2])) == Hints(7.0)
    assert hints(wrap(word)) == Hints(7.0, False)
    assert hints(wrap([])) == Hints()


def test_fault_048_bad_milliseconds_leave_the_seconds() -> None:
    """An unreadable `retry-after-ms` does not hide a good `retry-after`."""
    assert hints({"retry-after-ms": "soon", "retry-after": "7"}) == Hints(7.0)
    assert hints({"retry-after-ms": "0", "retry-after": "7"}) == Hints(0.0)


def test_fault_048_051_headers_that_cannot_be_read() -> None:
    """A `get` that raises, or is none, is no hint."""

    class Raises:
        def get(self, name: str) -> str:
            raise RuntimeError("closed")

    class Untouchable:
        def __getattr__(self, name: str) -> str:
            raise RuntimeError("closed")

    for headers in (None, 7, "retry-after: 7", object(), Raises(), Untouchable(), [7], [(1, 2, 3)]):
        assert pick(headers) == {}
        assert hints(headers) == Hints()


@pytest.mark.parametrize(
    ("value", "word"),
    [("true", True), (" False ", False), (b"true", True), ("yes", None), ("", None), (True, None)],
)
def test_the_servers_own_word(value: object, word: bool | None) -> None:
    """`x-should-retry` is true, false, or not said."""
    assert hints({"X-Should-Retry": value}).retry is word


@settings(deadline=None)  # machines differ; test_fault_045 is the one about time
@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.integers(),
        st.floats(),
        st.from_regex(r"\A[A-Z][a-z]{2},? [0-9]{1,3}[ -][A-Z][a-z]{2}[ -][0-9]{1,5} [0-9:]{0,9}"),
        st.datetimes().map(lambda then: then.strftime("%a, %d %b %Y %H:%M:%S GMT")),
        st.datetimes().map(lambda then: then.strftime("%A, %d-%b-%y %H:%M:%S GMT")),
    )
)
def test_no_value_at_all_raises(value: object) -> None:
    """Whatever the header holds, the hint is a finite number of seconds or none."""
    for headers in ({"retry-after": value}, {"retry-after-ms": value}, {"date": value}):
        found = hints(headers).wait
        assert found is None or (type(found) is float and 0 <= found <= 1e9)


@settings(deadline=None)  # machines differ; test_fault_045 is the one about time
@given(st.integers(min_value=0, max_value=10**9 // 2))
def test_dates_survive_the_way(seconds: int) -> None:
    """A date as many seconds ahead as you like is read as that many seconds."""
    date = formatdate(NOW, usegmt=True)
    then = formatdate(NOW + seconds, usegmt=True)

    assert hints({"retry-after": then, "date": date}).wait == seconds
