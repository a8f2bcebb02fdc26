"""What a server says in its response headers about trying again.

Headers come from strangers. A value that is not exactly what it should be is no hint; nothing
here raises, and nothing takes longer for a longer value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import CoroutineType
from typing import Any

from resilience._core.clock import wall

from .evidence import header_text
from .resets import RESETS, WINDOWS, reset_in, window_in
from .values import LONGEST, duration, http_date, number, text

__all__ = ["NOTHING", "Hints", "pick"]

_WANTED = (
    *("retry-after-ms", "x-ms-retry-after-ms", "retry-after", "x-amz-retry-after", "date"),
    *("x-should-retry", "x-error-retryable", "x-rate-limit-source", "x-budget-exceeded"),
    *("x-request-id", "request-id", "x-stainless-retry-count"),
    *RESETS,
    *WINDOWS,
)
# Two tables: with one for both, -bb warns of bytes that are compared with a string.
_NAMES: Mapping[object, str] = {name: name for name in _WANTED}
_RAW_NAMES: Mapping[object, str] = {name.encode(): name for name in _WANTED}
_TEXTS = (str, bytes, int, float)
"""A header counts by its text, never by its presence: a mock has them all."""
_WORDS = {"true": True, "false": False}
_RAW_WORDS = {name.encode(): word for name, word in _WORDS.items()}


class Hints(dict[str, object]):
    """The few headers that matter here, by their lower-case names, and what they say about trying
    again; None where they say nothing.

    Each is worked out where it is asked for: most errors need one or two of them.
    """

    __slots__ = ()

    @property
    def wait(self) -> float | None:
        """Seconds to stay away: `retry-after-ms`, else `x-ms-retry-after-ms`, else `retry-after`
        (a number, a duration or a date), else `x-amz-retry-after` (milliseconds too).

        A date is measured against the response's own `Date`, so a wrong clock here does no harm;
        one in the past means 0.0.
        """
        wait = None
        if "retry-after-ms" in self:
            wait = _milliseconds(self["retry-after-ms"])
        if wait is None and "x-ms-retry-after-ms" in self:
            wait = _milliseconds(self["x-ms-retry-after-ms"])
        if wait is None and "retry-after" in self:
            value = self["retry-after"]
            wait = number(value)
            if wait is None:
                value = _once(value)
                wait = number(value)
            if wait is None:
                wait = duration(value)
            if wait is None and (then := http_date(value)) is not None:
                wait = max(0.0, then - self.now)
                return wait if wait <= LONGEST else None
        if wait is None and "x-amz-retry-after" in self:
            wait = _milliseconds(self["x-amz-retry-after"])
        return wait

    @property
    def reset(self) -> float | None:
        """Seconds until the limit is full again, by the reset headers."""
        return None if RESETS.isdisjoint(self) else reset_in(self, self.now)

    @property
    def window(self) -> float | None:
        """Seconds until the limit that was met lets the next one in, by the headers of services
        that say so apart from `Retry-After`."""
        return None if WINDOWS.isdisjoint(self) else window_in(self, self.now)

    @property
    def exhausted(self) -> bool:
        """Nothing is left of the limit."""
        return "x-ratelimit-remaining" in self and number(self["x-ratelimit-remaining"]) == 0

    @property
    def retry(self) -> bool | None:
        """The server's own word on whether to: `x-should-retry`."""
        return _word(self.get("x-should-retry"))

    @property
    def retryable(self) -> bool | None:
        """Auriko's word on that, by its class of error: `X-Error-Retryable`."""
        return _word(self.get("x-error-retryable"))

    @property
    def over_budget(self) -> bool:
        """A budget is used up: `X-Budget-Exceeded`, whatever it says but "false"."""
        value = self.get("x-budget-exceeded")
        return value is not None and _word(value) is not False

    @property
    def elsewhere(self) -> bool | None:
        """Whose limit it is (`X-Rate-Limit-Source`): False for Auriko's own, which holds for
        every model, True for that of a provider upstream."""
        value = self.get("x-rate-limit-source")
        source = None if value is None else text(value)
        if not source:
            return None
        # The service documents the two cases, not their words.
        return "upstream" in source.lower() or "provider" in source.lower()

    @property
    def request_id(self) -> str | None:
        """The server's number of the request: `x-request-id`, else `request-id`."""
        return header_text(self.get("x-request-id") or self.get("request-id"))

    @property
    def now(self) -> float:
        """When the server answered, by its own clock; else now, by ours."""
        now = http_date(self.get("date"))
        return wall() if now is None else now


NOTHING = Hints()


def pick(headers: Any) -> Hints:
    """The few headers that matter here.

    Takes httpx's headers, a plain mapping in any case, a list of pairs, and anything with a
    `get` of its own (Auriko's headers, multidicts). Nothing is there if looking raises.
    """
    found = Hints()
    try:
        raw: Any = getattr(headers, "_list", None)
        if type(raw) is list and raw and len(raw[0]) == 3:  # httpx's store: lower case, undecoded
            for _, key, value in raw:
                if key in _RAW_NAMES:
                    found[_RAW_NAMES[key]] = value
            return found
        for key, value in _pairs(headers):
            if (name := _name(key)) and isinstance(value, _TEXTS):
                found[name] = value
        return found
    except Exception:
        return Hints()


def _pairs(headers: Any) -> Iterable[tuple[object, object]]:
    raw = getattr(headers, "raw", None)
    if type(raw) is list:  # httpx's store by its public name: one look at each that there is
        return raw
    if isinstance(headers, dict):
        return headers.items()
    if isinstance(headers, (list, tuple)):
        return headers
    found: list[tuple[object, object]] = []
    for name in _WANTED:
        value = headers.get(name)
        if type(value) is CoroutineType:  # of an async mock; closed, so that nothing warns
            value.close()
            break
        found.append((name, value))
    return found


def _name(key: object) -> str | None:
    if isinstance(key, str):
        return _NAMES.get(key.lower())
    return _RAW_NAMES.get(key.lower()) if isinstance(key, bytes) else None


def _milliseconds(value: object) -> float | None:
    """Seconds, of milliseconds as a header gives them."""
    found = number(value)
    if found is None:
        found = number(_once(value))
    return None if found is None else found / 1000


def _once(value: object) -> object:
    """A header that was sent several times with one value, and joined on its way, as it was sent
    once. Different values are left as they are, and are nothing that is read."""
    written = text(value)
    parts = [] if written is None else [part.strip() for part in written.split(",")]
    for size in (1, 2):  # a date has a comma of its own
        if len(parts) > size and parts == parts[:size] * (len(parts) // size):
            return ", ".join(parts[:size])
    return value


def _word(value: object) -> bool | None:
    """True or False as a header says it."""
    if value is None:
        return None
    if type(value) is bytes and value in _RAW_WORDS:  # as most are
        return _RAW_WORDS[value]
    word = text(value)
    return None if word is None else _WORDS.get(word.lower())
