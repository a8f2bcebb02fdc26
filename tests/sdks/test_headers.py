"""What servers say about trying again, and what strangers put in its place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from email.utils import format_datetime, formatdate
from typing import Any

import httpx
import httpx2
import pytest
from auriko.response_headers import ResponseHeaders
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.failures import asked_wait
from resilience.sdks import headers as module
from resilience.sdks.headers import pick
from resilience.sdks.values import duration, number, timestamp

ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]
NOW = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT."""


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "wall", lambda: NOW)


@pytest.fixture(params=ZONES)
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def wait(value: object, **others: object) -> float | None:
    """The wait in a response with this `Retry-After`."""
    return pick({"Retry-After": value, **others}).wait


def said(headers: object) -> tuple[float | None, bool | None]:
    """The wait and the word in any headers."""
    found = pick(headers)
    return found.wait, found.retry


SILENCE = (None, None)


@pytest.mark.fault(42)
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
def test_what_is_no_number_is_no_hint(value: object) -> None:
    """Numbers that are none, or are absurd, are as good as no header."""
    assert wait(value) is None


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[(" 12 ", 12.0), ("\t7", 7.0), ("0", 0.0), ("1.5", 1.5), (b"7", 7.0), (7, 7.0)],
        *[(7.5, 7.5), (0, 0.0), (-0.0, 0.0), ("007", 7.0), ("86400", 86400.0), (b" 2.5\t", 2.5)],
    ],
)
def test_numbers_however_written(value: object, seconds: float) -> None:
    """Whole numbers and fractions are accepted as text, bytes and numbers."""
    found = wait(value)

    assert found == seconds
    assert type(found) is float
    assert math.copysign(1, found) == 1


@pytest.mark.fault(43)
@pytest.mark.parametrize("value", [True, False, None, ["7"], {"7": 7}, object(), (7,), 7j])
def test_other_objects_are_no_hint(value: object) -> None:
    """Only numbers, text and bytes are read."""
    assert wait(value) is None


@pytest.mark.fault(44)
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
        ("Sun, 06 Nov 1994 03:49:47 EST", 10.0),
        ("Sun, 06 Nov 1994 01:49:47 pdt", 10.0),
        ("Sun, 06 Nov 1994 08:49:47 UTC", 10.0),
        ("Sun, 06 Nov 1994 08:49:47 Z", 10.0),
        ("6 November 1994 08:50 GMT", 23.0),
        ("Sun Nov  6 09:49:47 1994 +0100", 10.0),
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
        ("Sun, 06 Nov 1994 08:49:47 XYZ", None),
        ("Sun, 06 Now 1994 08:49:47 GMT", None),
        ("Sun, 06 Nov 1994 08:49:60 GMT", None),
        ("Sun, 06 Nov 1994 08:49:47 +9900", None),
    ],
)
@pytest.mark.usefixtures("_zone")
def test_dates(date: str | bytes, seconds: float | None) -> None:
    """An HTTP date in any form means the same wherever the program runs."""
    assert wait(date) == seconds


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    ("date", "today", "seconds"),
    [
        ("Mon, 01 Jan 0001 00:00:00 GMT", "Mon, 23 Nov 2026 02:00:00 GMT", 0.0),
        ("Monday, 23-Nov-26 02:00:09 GMT", "Mon, 23 Nov 2026 02:00:00 GMT", 9.0),
        ("Sunday, 01-Jan-69 00:00:09 GMT", "Wed, 01 Jan 1969 00:00:00 GMT", 9.0),
        ("Sunday, 01-Jan-68 00:00:09 GMT", "Sun, 01 Jan 2068 00:00:00 GMT", 9.0),
    ],
)
def test_short_years(date: str, today: str, seconds: float) -> None:
    """Two digits are a year from 1969 to 2068; four are what they say."""
    assert wait(date, Date=today) == seconds


@pytest.mark.fault(44)
def test_a_date_is_measured_by_the_servers_own_clock() -> None:
    """The response's `Date` counts, not our clock; an unreadable one does not."""
    then = formatdate(NOW + 7230, usegmt=True)

    assert wait(then, Date=formatdate(NOW + 7200, usegmt=True)) == 30.0
    assert wait(then, Date="yesterday") == 7230.0
    assert wait(then) == 7230.0
    assert wait("5", Date=formatdate(NOW + 7200, usegmt=True)) == 5.0


@pytest.mark.fault(45)
def test_a_huge_header_takes_no_time() -> None:
    """The length is looked at first: 10 MB cost no more than ten bytes."""
    for filler in ("9", " ", "a", ",", "é"):
        huge = {"retry-after": filler * 10_000_000, "date": filler * 10_000_000}
        took = []
        for _ in range(5):
            began = time.perf_counter()
            assert said(huge) == SILENCE
            took.append(time.perf_counter() - began)

        assert min(took) < 0.0001


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        list,
        tuple,
        httpx.Headers,
        httpx2.Headers,
        lambda pairs: [(name.encode(), value.encode()) for name, value in pairs],
        lambda pairs: ResponseHeaders(httpx.Headers(pairs)),
        lambda pairs: ResponseHeaders(dict(pairs)),
        lambda pairs: type("Multi", (), {"get": lambda self, k: httpx.Headers(pairs).get(k)})(),
    ],
)
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_headers_of_every_shape(wrap: Callable[[Any], Any], change: Callable[[str], str]) -> None:
    """Milliseconds go before seconds, in any case and any container."""
    both = [("x-other", "1"), (change("retry-after"), "7"), (change("retry-after-ms"), "1500")]
    word = [(change("x-should-retry"), "FALSE"), (change("retry-after"), "7")]

    assert said(wrap(both)) == (1.5, None)
    assert said(wrap(both[:2])) == (7.0, None)
    assert said(wrap(word)) == (7.0, False)
    assert said(wrap([])) == SILENCE


@pytest.mark.fault(48)
def test_bad_milliseconds_leave_the_seconds() -> None:
    """An unreadable `retry-after-ms` does not hide a good `retry-after`."""
    assert wait("7", **{"retry-after-ms": "soon"}) == 7.0
    assert wait("7", **{"retry-after-ms": "0"}) == 0.0


@pytest.mark.fault(48, 51)
def test_headers_that_cannot_be_read() -> None:
    """A `get` that raises, or is none, is no hint."""

    class Raises:
        def get(self, name: str) -> str:
            raise RuntimeError("closed")

    class Untouchable:
        def __getattr__(self, name: str) -> str:
            raise RuntimeError("closed")

    unpaired = [[7], [(1, 2)], [(1, 2, 3)]]
    for headers in (None, 7, "retry-after: 7", object(), Raises(), Untouchable(), *unpaired):
        assert pick(headers) == {}
        assert said(headers) == SILENCE


@pytest.mark.parametrize(
    ("value", "word"),
    [("true", True), (" False ", False), (b"true", True), ("yes", None), ("", None), (True, None)],
)
def test_the_servers_own_word(value: object, word: bool | None) -> None:
    """`x-should-retry` is true, false, or not said."""
    assert pick({"X-Should-Retry": value}).retry is word


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
        found = pick(headers).wait
        assert found is None or (type(found) is float and 0 <= found <= 1e9)


@settings(deadline=None)
@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2001, 1, 1), timezones=st.just(timezone.utc)),
    st.sampled_from(ZONES),
)
def test_dates_survive_the_way(then: datetime, zone: str) -> None:
    """What the standard library writes is read as the same instant, in four time zones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        here = then.astimezone()
        for date in (format_datetime(then, usegmt=True), format_datetime(here)):
            seconds = max(0.0, then.replace(microsecond=0).timestamp() - NOW)
            assert pick({"retry-after": date, "date": formatdate(NOW)}).wait == seconds
    time.tzset()


def test_milliseconds_of_every_provider() -> None:
    """OpenAI's header goes before Azure's, that before the seconds, and those before Amazon's."""
    every = {"x-ms-retry-after-ms": "350", "retry-after": "9", "x-amz-retry-after": "1200"}

    assert pick({"retry-after-ms": "250", **every}).wait == 0.25
    assert pick(every).wait == 0.35
    assert pick({**every, "x-ms-retry-after-ms": "nan"}).wait == 9.0
    assert pick({"x-amz-retry-after": "1200"}).wait == 1.2
    assert pick({"x-amz-retry-after": "-1"}).wait is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
        ({"X-RateLimit-Reset-Requests": "1994-11-06T08:49:47.500Z"}, 10.5),
        ({"X-RateLimit-Reset-Requests": "1994-11-06T09:49:47+01:00"}, 10.0),
        ({"x-ratelimit-reset-requests": "30"}, 30.0),
        ({"x-ratelimit-reset-requests": "0"}, None),
        ({"x-ratelimit-reset-requests": "-1"}, None),
        ({"x-ratelimit-reset-requests": "1994-11-06T08:49:30Z"}, None),
        ({"x-ratelimit-reset-requests": "1994-13-06T08:49:30Z"}, None),
        ({"anthropic-ratelimit-tokens-reset": "1994-11-06T08:49:47Z"}, 10.0),
        ({"x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-reset": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"ratelimit-reset": "50"}, 50.0),
        ({"ratelimit": '"default";r=50;t=30'}, 30.0),
        ({"ratelimit": '"burst";r=0;t=3, "daily";r=50;t=4000'}, 3.0),
        ({"ratelimit": '"default";r=50;t=nan'}, None),
        ({"ratelimit": '"default";r=50;t=1e3'}, None),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "17",
            },
            1.0,
        ),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({}, None),
    ],
)
def test_reset_headers_of_every_provider(headers: dict[str, str], seconds: float | None) -> None:
    """Durations, instants and numbers of seconds; of several limits, those that are used up."""
    found = pick(headers).reset
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("epoch", ["1784111787", "1784111787000"])
def test_reset_times_in_unix_seconds_or_milliseconds(
    epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number too large for a wait is an instant."""
    monkeypatch.setattr(module, "wall", lambda: 1784111777.0)

    for name in ("x-ratelimit-reset", "anthropic-ratelimit-unified-reset"):
        assert pick({name: epoch}).reset == 10.0


@pytest.mark.parametrize(
    ("source", "elsewhere"),
    [
        *[("upstream", True), ("Upstream-Provider", True), ("provider", True)],
        *[("auriko", False), ("routing", False), (b"auriko", False), ("", None), (None, None)],
    ],
)
def test_whose_limit_it_is(source: object, elsewhere: bool | None) -> None:
    """Auriko's own limit holds for every model, one upstream does not."""
    assert pick({"X-Rate-Limit-Source": source}).elsewhere is elsewhere


@pytest.mark.parametrize(
    ("value", "spent"), [("true", True), ("daily", True), ("false", False), (None, False)]
)
def test_a_budget_that_is_used_up(value: object, spent: bool) -> None:
    """`X-Budget-Exceeded` says so, whatever it says, but for "false"."""
    assert pick({"X-Budget-Exceeded": value}).over_budget is spent


@settings(deadline=None)
@given(
    st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.none(), st.lists(st.text()))
)
def test_no_reset_header_raises(value: object) -> None:
    """Whatever a reset header holds, it is seconds to come or nothing."""
    for name in module.RESETS:
        found = pick({name: value}).reset
        assert found is None or (type(found) is float and 0 < found <= 1e9)


@settings(deadline=None)
@given(st.text(alphabet="0123456789.hmsnuTZ:+-_eE "))
def test_parsers_give_finite_numbers_or_nothing(written: str) -> None:
    """Near misses of numbers, durations and timestamps never become infinite or negative."""
    for parse in (number, duration, timestamp):
        found = parse(written)
        assert found is None or math.isfinite(found)
        assert found is None or parse is timestamp or found >= 0


def test_a_reader_of_ones_own_may_ask_for_the_wait() -> None:
    """The same for whatever a client calls its headers; odd ones ask for nothing."""
    assert asked_wait({"RETRY-AFTER": "8"}) == 8.0
    assert asked_wait([("retry-after-ms", b"250")]) == 0.25
    assert asked_wait(None) is None
    assert asked_wait({"retry-after": "soon"}) is None


@pytest.mark.fault(207)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7, 7"}, 7.0),
        ({"Retry-After": b"7,7,7"}, 7.0),
        ({"retry-after-ms": "250, 250"}, 0.25),
        ({"Retry-After": ", ".join(["Sun, 06 Nov 1994 08:49:47 GMT"] * 2)}, 10.0),
        ([("Retry-After", "7"), ("Retry-After", "7")], 7.0),
        ({"Retry-After": "7, 9"}, None),
        ({"Retry-After": "7, soon"}, None),
        ({"Retry-After": "soon, soon"}, None),
        ({"Retry-After": ", "}, None),
    ],
)
def test_a_header_that_was_sent_twice(headers: Any, seconds: float | None) -> None:
    """As requests gives it, joined, or as httpx does, one after the other: read as if it was sent
    once. Two that contradict each other are no hint, as ever."""
    extra = {"Date": formatdate(NOW, usegmt=True)}
    pairs = [*(headers.items() if isinstance(headers, dict) else headers), *extra.items()]
    assert pick(pairs).wait == seconds


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"X-Request-Id": "a", "request-id": "b"}, "a"),
        ([(b"request-id", b"b")], "b"),
        ({"x-request-id": ""}, None),
        ({}, None),
    ],
)
def test_the_number_of_a_request(headers: Any, found: str | None) -> None:
    """In one of two headers."""
    assert pick(headers).request_id == found
