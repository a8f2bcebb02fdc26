"""Errors whose meaning a test chooses, and what is read off one that comes out."""

from __future__ import annotations

from typing import Any

from resilience.failures import Advice, Failure, Kind, describe


class DescribedError(Exception):
    """An error that means what it is made with."""

    def __init__(self, advice: Advice, kind: Kind = Kind.RATE_LIMIT, **facts: Any) -> None:
        super().__init__("secret")
        self.failure = Failure(kind, advice, **facts)


@describe.register(DescribedError)
def _read(error: DescribedError) -> Failure:
    return error.failure


def rate_limit(retry_after: float | None = None, **facts: Any) -> DescribedError:
    """A 429 whose server asks for so many seconds, or names none."""
    return DescribedError(Advice.WAIT, status=429, retry_after=retry_after, **facts)


def note_of(error: BaseException) -> str:
    """The one note of ours on an error."""
    (note,) = [n for n in getattr(error, "__notes__", ()) if n.startswith("resilience:")]
    return str(note)
