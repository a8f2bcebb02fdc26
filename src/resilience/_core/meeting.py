"""Whether two policies may act on the same failure: their `on=` is tried on failures of every kind
that it tells apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from resilience.matching import Match, _Advised, _OfCode, _OfKind, _OfStatus, _Raised

from .failure import Advice, Failure, Kind

__all__ = ["may_meet"]

_UNANSWERED = (ConnectionError, TimeoutError)
"""Of Python's own: nothing came back, so there is neither a status nor a code."""


def may_meet(one: object, other: object) -> bool:
    """Whether a failure may match both; False only where none can."""
    if not (isinstance(one, Match) and isinstance(other, Match)):
        return True  # tenacity's
    try:
        return any(one(failure) and other(failure) for failure in _samples(one, other))
    except Exception:
        return True  # a function of the user's, or a class that is not made so easily


def _samples(*matches: Match) -> Iterator[Failure]:
    statuses: set[int | None] = {None}
    codes: set[str | None] = {None}
    classes: set[type[Exception] | None] = {None}
    for item in itertools.chain.from_iterable(map(_items, matches)):
        if isinstance(item, _OfStatus):
            for each in item.items:
                statuses.update((each[0], each[-1]) if isinstance(each, range) else (each,))
        elif isinstance(item, _OfCode):
            codes.update(item.items)
        elif isinstance(item, _Raised):
            classes.update(item.items)
        elif not isinstance(item, (_Advised, _OfKind)):
            raise TypeError(item)
    for cls, status, code in itertools.product(classes, statuses, codes):
        error = None if cls is None else cls.__new__(cls)
        if isinstance(error, _UNANSWERED) and (status or code):
            continue
        for kind, advice in itertools.product(Kind, Advice):
            yield Failure(kind, advice, status=status, code=code, error=error)


def _items(match: Match) -> Iterator[Match]:
    parts = match._parts()
    if not parts:
        yield match
    for part in parts:
        yield from _items(part)
