"""Whether a match is sure to match failures of a kind and advice, whatever else is known."""

from __future__ import annotations

from resilience.errors import RejectedError
from resilience.matching import (
    _Advised,
    _AllOf,
    _AnyOf,
    _NoneOf,
    _OfCode,
    _OfKind,
    _OfStatus,
    _Raised,
)

from .failure import Advice, Failure, Kind

__all__ = ["may_name", "surely"]


def surely(match: object, failure: Failure) -> bool | None:
    """True or False; None where that depends on more than the failure's kind and advice: its
    status, its code, its class, or what a function of the user's says."""
    if isinstance(match, (_Advised, _OfKind)):
        return match._holds(failure)
    if isinstance(match, (_AnyOf, _AllOf)):
        settling = isinstance(match, _AnyOf)
        found = {surely(part, failure) for part in match._parts()}
        if settling in found:
            return settling
        return None if None in found else not settling
    if isinstance(match, _NoneOf):
        (part,) = match._parts()
        inner = surely(part, failure)
        return None if inner is None else not inner
    rejected = failure.kind is Kind.REJECTED
    if isinstance(match, _Raised):
        return _of_class(match.items, rejected=rejected)
    if isinstance(match, (_OfStatus, _OfCode)) and rejected:
        return False  # ours have neither
    return None


def _of_class(classes: tuple[type[Exception], ...], *, rejected: bool) -> bool | None:
    if Exception in classes or (rejected and RejectedError in classes):
        return True
    own = [issubclass(each, RejectedError) for each in classes]
    if (not rejected and all(own)) or (rejected and not any(own)):
        return False
    return None


def may_name(match: object, kind: Kind) -> bool:
    """Whether a match may mean failures of this kind explicitly: by an item that names them, not by
    their advice, and not as it means any error."""
    if surely(match, Failure(Kind.UNKNOWN, Advice.STOP)):
        return False
    return _names(match, Failure(kind, Advice.STOP))


def _names(match: object, failure: Failure) -> bool:
    if isinstance(match, (_Advised, _NoneOf)) or surely(match, failure) is False:
        return False
    if isinstance(match, (_AnyOf, _AllOf)):
        return any(_names(part, failure) for part in match._parts())
    return True
