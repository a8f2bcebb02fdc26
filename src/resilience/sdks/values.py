"""Numbers, dates and durations as strangers write them in headers and bodies.

A value that is not exactly one of them is None: nothing here raises, guesses, or takes longer for
a longer value.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_tz

__all__ = ["LONGEST", "duration", "http_date", "number", "text", "timestamp"]

LONGEST = 1e9
"""Seconds, some thirty years. Beyond that a wait is a mistake, and dates overflow."""

_LONGEST_TEXT = 64
"""Characters. The longest HTTP date has 35."""

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|m|s|us|ns))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?"
)


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
    try:
        # Never the platform's parsers: those follow the locale and the local time zone.
        parsed = parsedate_tz(written)
        if parsed is None:
            return None
        zone = timezone(timedelta(seconds=parsed[9] or 0))
        return datetime(*parsed[:6], tzinfo=zone).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def timestamp(value: object) -> float | None:
    """Unix seconds of an ISO 8601 or RFC 3339 time; one without a zone is UTC."""
    written = text(value)
    match = None if written is None else _TIMESTAMP.fullmatch(written)
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
