"""Numbers, dates and durations as strangers write them in headers and bodies.

A value that is not exactly one of them is None: nothing here raises, guesses, or takes longer for
a longer value.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

__all__ = ["LONGEST", "duration", "http_date", "number", "text", "timestamp"]

LONGEST = 1e9
"""Seconds, some thirty years. Beyond that a wait is a mistake, and dates overflow."""

_LONGEST_TEXT = 64
"""Characters. The longest HTTP date has 35."""

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|m|s|us|ns))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# Dates are rare: their patterns are compiled by `re` at their first use, and kept there.
_TIMESTAMP = (
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?"
)

_WEEKDAY = r"(?:[A-Za-z]{3,9}(?:, *| +))?"
_CLOCK = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?"
_ZONE = r"(?: +(?P<zone>[A-Za-z]{1,3}|[+-][0-9]{4}))?"
_DAY, _MONTH, _YEAR = r"(?P<day>[0-9]{1,2})", r"(?P<month>[A-Za-z]{3,9})", r"(?P<year>[0-9]{2,4})"
_HTTP_DATE = f"{_WEEKDAY}{_DAY}[ -]{_MONTH}[ -]{_YEAR} +{_CLOCK}{_ZONE}"
_ASCTIME = f"{_WEEKDAY}{_MONTH} +{_DAY} +{_CLOCK} +{_YEAR}{_ZONE}"
_MONTHS = {
    name: number
    for number, month in enumerate(
        (
            *("january", "february", "march", "april", "may", "june"),
            *("july", "august", "september", "october", "november", "december"),
        ),
        1,
    )
    for name in (month, month[:3])
}
_ZONES = {
    **dict.fromkeys(("GMT", "UTC", "UT", "Z"), 0),
    **{f"{zone}ST": -hours for hours, zone in enumerate("ECMP", 5)},
    **{f"{zone}DT": 1 - hours for hours, zone in enumerate("ECMP", 5)},
}
"""Hours from Greenwich, of the zones that mail dates may name."""


def text(value: object, longest: int = _LONGEST_TEXT) -> str | None:
    """A short printable ASCII string without the white space around it, or None."""
    if type(value) is bytes and len(value) <= longest and value.isalnum():  # as most are
        return value.decode()
    if not isinstance(value, (str, bytes)) or len(value) > longest or not value.isascii():
        return None
    found = (value if isinstance(value, str) else value.decode("ascii")).strip(" \t")
    return found if found.isprintable() else None


def number(value: object, most: float = LONGEST) -> float | None:
    """A finite number from 0 to `most`, from a number or from plain decimal digits."""
    if type(value) is bytes and len(value) < 9 and value.isdigit():  # as most are
        return float(value)
    if isinstance(value, (int, float)):
        # `nan` fails both comparisons, and an integer of any size compares without overflow.
        fits = not isinstance(value, bool) and 0 <= value <= most
        return abs(float(value)) if fits else None
    written = text(value)
    if written is None or _NUMBER.fullmatch(written) is None:
        return None
    found = float(written)
    return found if found <= most else None


def duration(value: object) -> float | None:
    """Seconds of a duration as Go and protobuf write it: `6m0s`, `120ms`, `36.5s`."""
    written = text(value)
    if written is None or _DURATION.fullmatch(written) is None:
        return None
    found = sum(float(digits) * _UNITS[unit] for digits, unit in _PART.findall(written))
    return found if found <= LONGEST else None


def http_date(value: object) -> float | None:
    """Unix seconds of an HTTP date in any of its three forms; one without a zone is UTC."""
    written = text(value)
    if written is None:
        return None
    # By no parser of the platform's, which follow the locale, nor by `email`: importing that, with
    # all it takes along, doubles the time that the library takes to be imported.
    match = re.fullmatch(_HTTP_DATE, written) or re.fullmatch(_ASCTIME, written)
    month = None if match is None else _MONTHS.get(match["month"].lower())
    zone = None if match is None else _zone(match["zone"])
    if match is None or month is None or zone is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 1900 if year > 68 else 2000
    parts = ("day", "hour", "minute", "second")
    day, hour, minute, second = (int(match[part] or 0) for part in parts)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone(zone))
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _zone(written: str | None) -> timedelta | None:
    """How far a zone is from UTC; None for one that is not known."""
    if written is None:
        return timedelta()
    if written[0] in "+-":
        ahead = timedelta(hours=int(written[1:3]), minutes=int(written[3:]))
        return ahead if written[0] == "+" else -ahead
    hours = _ZONES.get(written.upper())
    return None if hours is None else timedelta(hours=hours)


def timestamp(value: object) -> float | None:
    """Unix seconds of an ISO 8601 or RFC 3339 time; one without a zone is UTC."""
    written = text(value)
    match = None if written is None else re.fullmatch(_TIMESTAMP, written)
    if match is None:
        return None
    *fields, fraction, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        zone = timezone(-offset if sign == "-" else offset)
        whole = datetime(*map(int, fields), tzinfo=zone)  # type: ignore[arg-type, misc]
    except ValueError:
        return None
    return whole.timestamp() + float(f"0.{fraction or 0}")
