"""What a server says in its response headers about trying again.

Headers come from strangers. A value that is not exactly what it should be is no hint; nothing
here raises, and nothing takes longer for a longer value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resilience._core.world import wall

from .resets import RESETS, reset_in
from .values import LONGEST, http_date, number, text

__all__ = ["NOTHING", "Hints", "hints", "pick"]

_WANTED = (
    *("retry-after-ms", "x-ms-retry-after-ms", "retry-after", "x-amz-retry-after", "date"),
    *("x-should-retry", "x-error-retryable", "x-rate-limit-source", "x-budget-exceeded"),
    *("x-request-id", "request-id"),
    *RESETS,
)
# Two tables: with one for both, -bb warns of bytes that are compared with a string.
_NAMES: Mapping[object, str] = {name: name for name in _WANTED}
_RAW_NAMES: Mapping[object, str] = {name.encode(): name for name in _WANTED}
_WORDS: Mapping[object, bool] = {"true": True, "false": False}
_raw_name = _RAW_NAMES.get


class Hints:
    """What the server said about trying again; None where it said nothing.

    Each is worked out where it is asked for: most errors need one or two of them.
    """

    __slots__ = ("_said",)

    def __init__(self, said: Mapping[str, object]) -> None:
        self._said = said

    @property
    def wait(self) -> float | None:
        """Seconds to stay away: `retry-after-ms`, else `x-ms-retry-after-ms`, else `retry-after`,
        else `x-amz-retry-after` (milliseconds too).

        A date is measured against the response's own `Date`, so a wrong clock here does no harm;
        one in the past means 0.0.
        """
        said = self._said
        for name in ("retry-after-ms", "x-ms-retry-after-ms"):
            if name in said and (milliseconds := number(said[name])) is not None:
                return milliseconds / 1000
        if "retry-after" in said:
            value = said["retry-after"]
            seconds = number(value)
            if seconds is not None:
                return seconds
            then = http_date(value)
            if then is not None:
                wait = max(0.0, then - self._now())
                return wait if wait <= LONGEST else None
        if "x-amz-retry-after" in said:
            milliseconds = number(said["x-amz-retry-after"])
            return None if milliseconds is None else milliseconds / 1000
        return None

    @property
    def reset(self) -> float | None:
        """Seconds until the limit is full again, by the reset headers."""
        return None if RESETS.isdisjoint(self._said) else reset_in(self._said, self._now())

    @property
    def retry(self) -> bool | None:
        """The server's own word on whether to: `x-should-retry`."""
        return _word(self._said.get("x-should-retry"))

    @property
    def retryable(self) -> bool | None:
        """Auriko's word on that, by its class of error: `X-Error-Retryable`."""
        return _word(self._said.get("x-error-retryable"))

    @property
    def spent(self) -> bool:
        """A budget is used up: `X-Budget-Exceeded`, whatever it says but "false"."""
        value = self._said.get("x-budget-exceeded")
        return value is not None and _word(value) is not False

    @property
    def elsewhere(self) -> bool | None:
        """Whose limit it is (`X-Rate-Limit-Source`): False for Auriko's own, which holds for
        every model, True for that of a provider upstream."""
        value = self._said.get("x-rate-limit-source")
        source = None if value is None else text(value)
        if not source:
            return None
        # The service documents the two cases, not their words.
        return "upstream" in source.lower() or "provider" in source.lower()

    def _now(self) -> float:
        """When the server answered, by its own clock; else now, by ours."""
        now = http_date(self._said.get("date"))
        return wall() if now is None else now


NOTHING = Hints({})


def hints(headers: object) -> Hints:
    """Read the hints in whatever an SDK calls its headers; see `pick`."""
    said = pick(headers)
    return Hints(said) if said else NOTHING


def pick(headers: Any) -> dict[str, object]:
    """The few headers that matter here, by their lower-case names.

    Takes httpx's headers, a plain mapping in any case, a list of pairs, and anything with a
    `get` of its own (Auriko's headers, multidicts). Nothing is there if looking raises.
    """
    try:
        raw: Any = getattr(headers, "_list", None)
        if type(raw) is list and raw and len(raw[0]) == 3:  # httpx's store: lower case, undecoded
            return {name: value for _, key, value in raw if (name := _raw_name(key))}
        raw = getattr(headers, "raw", None)
        if type(raw) is list:  # the same by its public name: one look at each that there is
            return {name: value for key, value in raw if (name := _raw_name(key.lower()))}
        if isinstance(headers, dict):
            headers = headers.items()
        elif not isinstance(headers, (list, tuple)):
            found = {name: headers.get(name) for name in _WANTED}
            return {name: value for name, value in found.items() if value is not None}
        return {name: value for key, value in headers if (name := _name(key))}
    except Exception:
        return {}


def _name(key: object) -> str | None:
    if isinstance(key, str):
        return _NAMES.get(key.lower())
    return _raw_name(key.lower()) if isinstance(key, bytes) else None


def _word(value: object) -> bool | None:
    """True or False as a header says it."""
    word = None if value is None else text(value)
    return None if word is None else _WORDS.get(word.lower())
