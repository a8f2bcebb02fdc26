"""What a server says in its response headers about trying again.

Headers come from strangers. A value that is not exactly a number of seconds or an HTTP date is
no hint; nothing here raises, and nothing takes longer for a longer value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_tz
from typing import Any, NamedTuple, cast

from resilience._core.world import wall

__all__ = ["Hints", "hints", "pick"]

_LONGEST_VALUE = 64
"""Characters. The longest HTTP date has 35."""

_LONGEST_WAIT = 1e9
"""Seconds, some thirty years. Beyond that a number is a mistake, and dates overflow."""

_WANTED = ("retry-after-ms", "retry-after", "x-should-retry", "date", "x-request-id")
_WANTED_RAW = {name.encode(): name for name in _WANTED}
_WORDS = {"true": True, "false": False}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class Hints(NamedTuple):
    """What the server said about trying again; None where it said nothing."""

    wait: float | None = None
    """Seconds to stay away: `retry-after-ms`, else `retry-after`."""
    retry: bool | None = None
    """Its own word on whether to: `x-should-retry`."""


def hints(headers: object) -> Hints:
    """Read the hints in whatever an SDK calls its headers; see `pick`.

    A date is measured against the response's own `Date`, so a wrong clock here does no harm;
    one in the past means 0.0.
    """
    said = pick(headers)
    word = _text(said.get("x-should-retry"))
    return Hints(_wait(said), None if word is None else _WORDS.get(word.lower()))


def pick(headers: Any) -> dict[str, object]:
    """The few headers that matter here, by their lower-case names.

    Takes httpx's headers, a plain mapping in any case, a list of pairs, and anything with a
    `get` of its own (Auriko's headers, multidicts). Nothing is there if looking raises.
    """
    try:
        raw: Any = getattr(headers, "raw", None)
        if isinstance(raw, list):  # httpx's, undecoded: one look instead of a search per name
            pairs = cast("list[tuple[bytes, bytes]]", raw)
            lower = [(key.lower(), value) for key, value in pairs]
            return {_WANTED_RAW[key]: value for key, value in lower if key in _WANTED_RAW}
        if isinstance(headers, dict):
            headers = list(cast("dict[object, object]", headers).items())
        if isinstance(headers, (list, tuple)):
            items = cast("Sequence[tuple[object, object]]", headers)
            return {name: value for key, value in items if (name := str(key).lower()) in _WANTED}
        found = {name: headers.get(name) for name in _WANTED}
    except Exception:
        return {}
    return {name: value for name, value in found.items() if value is not None}


def _wait(said: dict[str, object]) -> float | None:
    milliseconds = _number(said.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = said.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return seconds
    then = _date(value)
    if then is None:
        return None
    now = _date(said.get("date"))
    wait = max(0.0, then - (wall() if now is None else now))
    return wait if wait <= _LONGEST_WAIT else None


def _text(value: object) -> str | None:
    """A short printable ASCII string without the white space around it, or None."""
    if not isinstance(value, (str, bytes)) or len(value) > _LONGEST_VALUE or not value.isascii():
        return None
    text = (value if isinstance(value, str) else value.decode("ascii")).strip(" \t")
    return text if text.isprintable() else None


def _number(value: object) -> float | None:
    """A finite number >= 0, from a number or from plain decimal digits; None for all else."""
    if isinstance(value, (int, float)):
        # `nan` fails both comparisons, and an integer of any size compares without overflow.
        fits = not isinstance(value, bool) and 0 <= value <= _LONGEST_WAIT
        return abs(float(value)) if fits else None
    text = _text(value)
    if text is None or _NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return number if number <= _LONGEST_WAIT else None


def _date(value: object) -> float | None:
    """Unix seconds of an HTTP date in any of its three forms; one without a zone is UTC."""
    text = _text(value)
    if text is None:
        return None
    try:
        # Never the platform's parsers: those follow the locale and the local time zone.
        parsed = parsedate_tz(text)
        if parsed is None:
            return None
        zone = timezone(timedelta(seconds=parsed[9] or 0))
        return datetime(*parsed[:6], tzinfo=zone).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
