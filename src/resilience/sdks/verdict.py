"""From evidence to a `Failure`: the one decision that all families share, each in its dialect.

Evidence is believed in this order: the server's own word (`x-should-retry`), then the code,
then Auriko's word on the class of error (`X-Error-Retryable`; by the class, so the code knows
better), then the type, then the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, field, frozen

from resilience.failures import Advice, Failure, Kind
from resilience.sdks.evidence import Evidence, header_text, text
from resilience.sdks.evidence import status as to_status
from resilience.sdks.headers import NOTHING, Hints, pick

__all__ = ["MISSHAPEN", "PLAIN", "STATUSES", "TYPES", "Code", "Dialect", "Meaning", "judge"]

_RETRIED = (Advice.RETRY, Advice.WAIT)
_RATE_LIMIT = Kind.RATE_LIMIT
_REFUSALS = frozenset(
    {
        Kind.AUTH,
        Kind.PERMISSION,
        Kind.INVALID,
        Kind.NOT_FOUND,
        Kind.UNSUPPORTED,
        Kind.CONTEXT_LENGTH,
        Kind.RATE_LIMIT,
        Kind.QUOTA,
    }
)
_COMPLAINTS = frozenset(
    {Kind.INVALID, Kind.AUTH, Kind.QUOTA, Kind.PERMISSION, Kind.NOT_FOUND, Kind.CONFLICT}
)
_HINTED = (413, 429, 503)
"""Statuses whose wait hint is worth knowing even when this call is not repeated."""


_BLANK = vars(Failure(Kind.UNKNOWN, Advice.STOP))
"""Every field of a failure, at its default."""


@frozen
class Meaning:
    """What a status, a type or a class of errors stands for."""

    kind: Kind
    advice: Advice
    retry_limit: int | None = field(default=None, kw_only=True)
    sent: bool | None = field(default=None, kw_only=True)

    def failure(self, error: Exception, sdk: str | None, **facts: Any) -> Failure:
        """The `Failure` of an error that decides by its class; `facts` are further fields."""
        failure = object.__new__(Failure)
        failure.__dict__.update(
            _BLANK,
            kind=self.kind,
            advice=self.advice,
            sdk=sdk,
            retry_limit=self.retry_limit,
            sent=self.sent,
            error=error,
            **facts,
        )
        return failure


MISSHAPEN = Meaning(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True)
"""An answer that came with a 200 and is none of the API's."""


def _refused(meaning: Meaning) -> bool | None:
    """A server that names one of these looked at the request and turned it away."""
    return False if meaning.kind in _REFUSALS else None


@frozen
class Code(Meaning):
    """What a server's code stands for; `status` and `type` are what it usually comes with."""

    status: int | None = field(default=None, kw_only=True)
    type: str = field(default="", kw_only=True)
    by_status: bool = field(default=False, kw_only=True)
    """The code says nothing: the status alone decides."""
    note: str = field(default="", kw_only=True)
    sent: bool | None = field(default=Factory(_refused, takes_self=True), kw_only=True)


TYPES: Mapping[str, Meaning] = {
    "rate_limit_error": Meaning(Kind.RATE_LIMIT, Advice.WAIT),
    "overloaded_error": Meaning(Kind.OVERLOADED, Advice.WAIT),
    "insufficient_quota": Meaning(Kind.QUOTA, Advice.STOP),
    "authentication_error": Meaning(Kind.AUTH, Advice.STOP),
    "permission_error": Meaning(Kind.PERMISSION, Advice.STOP),
    "not_found_error": Meaning(Kind.NOT_FOUND, Advice.STOP),
}
"""Types that decide by themselves; `_by_type` has the ones that look at the status too."""

STATUSES: Mapping[int, Meaning] = {
    400: Meaning(Kind.INVALID, Advice.STOP),
    401: Meaning(Kind.AUTH, Advice.STOP),
    402: Meaning(Kind.QUOTA, Advice.STOP),
    403: Meaning(Kind.PERMISSION, Advice.STOP),
    404: Meaning(Kind.NOT_FOUND, Advice.STOP),
    408: Meaning(Kind.TIMEOUT, Advice.RETRY),
    409: Meaning(Kind.CONFLICT, Advice.STOP),
    429: Meaning(Kind.RATE_LIMIT, Advice.WAIT, sent=False),
    500: Meaning(Kind.SERVER, Advice.RETRY),
    502: Meaning(Kind.SERVER, Advice.RETRY),
    503: Meaning(Kind.UNAVAILABLE, Advice.WAIT),
    504: Meaning(Kind.TIMEOUT, Advice.RETRY),
    529: Meaning(Kind.OVERLOADED, Advice.WAIT),
}
"""What a status means alone. A family hands in its own copy where its SDK differs (409)."""

_OTHER_4XX = Meaning(Kind.INVALID, Advice.STOP)
_OTHER_5XX = Meaning(Kind.SERVER, Advice.STOP)
_SERVER_FAULT = Meaning(Kind.SERVER, Advice.RETRY)
_UNKNOWN = Meaning(Kind.UNKNOWN, Advice.STOP)
_SPENT = Meaning(Kind.QUOTA, Advice.STOP, sent=False)


@frozen
class Dialect:
    """What a family's words stand for; `otherwise`: an error that tells nothing."""

    codes: Mapping[str, Code]
    statuses: Mapping[int, Meaning] = STATUSES
    types: Mapping[str, Meaning] = TYPES
    otherwise: Meaning = _UNKNOWN


PLAIN = Dialect({})
"""HTTP, and no more than that."""


def judge(evidence: Evidence, dialect: Dialect, streaming: bool = False) -> Failure:
    """Decide what `evidence` amounts to.

    `streaming` says that the error came out of a response that had begun, as status 200 does.
    """
    status = to_status(evidence.status)
    code = text(evidence.code)
    category = text(evidence.type)
    begun = streaming or (status is not None and status < 300)
    # Headers sent before the error happened cannot be about it.
    said = NOTHING if begun or evidence.headers is None else pick(evidence.headers)
    meaning = _meaning(status, code, category, said, dialect)
    advice = meaning.advice
    wait = said.wait
    if wait is None:
        wait = evidence.wait
    word = said.retry
    if word is None:
        word = evidence.retry
    if word is not None:
        advice = _obeying(word, advice, wait)
    retried = advice in _RETRIED
    return Failure._of(
        {
            "kind": meaning.kind,
            "advice": advice,
            "status": status,
            "code": code,
            "type": category,
            "retry_after": wait if retried or status in _HINTED else None,
            "reset_after": said.reset if retried and wait is None else None,
            "request_id": header_text(evidence.request_id),
            "provider": text(evidence.provider),
            "sdk": evidence.sdk,
            "retry_limit": meaning.retry_limit if retried else None,
            "sent": True if begun else False if status == 429 else meaning.sent,
            "elsewhere": said.elsewhere if meaning.kind is _RATE_LIMIT else None,
            "error": evidence.error,
        }
    )


def _obeying(word: bool, advice: Advice, wait: float | None) -> Advice:
    """The server's own word goes before what its code or status stands for."""
    if word:
        return Advice.RETRY if wait is None and advice is not Advice.WAIT else Advice.WAIT
    return Advice.STOP if advice in _RETRIED else advice  # it says nothing about another model


def _meaning(
    status: int | None,
    code: str | None,
    type: str | None,
    said: Hints,
    dialect: Dialect,
) -> Meaning:
    if said.spent:
        return _SPENT
    coded = None if code is None else dialect.codes.get(code)
    if coded is not None and not coded.by_status:
        return coded
    by_status = _by_status(status, dialect.statuses)
    found = None if coded is not None else _by_type(type, by_status, dialect.types)
    found = found or by_status or coded or dialect.otherwise
    retryable = said.retryable
    if retryable is not None and retryable is not (found.advice in _RETRIED):
        return Meaning(found.kind, Advice.RETRY if retryable else Advice.STOP, sent=found.sent)
    return found


def _by_type(
    type: str | None, by_status: Meaning | None, types: Mapping[str, Meaning]
) -> Meaning | None:
    if type is None:
        return None
    if type in ("api_error", "server_error"):
        return by_status if by_status and by_status.advice in _RETRIED else _SERVER_FAULT
    if type == "invalid_request_error":
        return by_status if by_status and by_status.kind in _COMPLAINTS else _OTHER_4XX
    return types.get(type)


def _by_status(status: int | None, statuses: Mapping[int, Meaning]) -> Meaning | None:
    if status is None or status < 400:
        return None
    return statuses.get(status) or (_OTHER_4XX if status < 500 else _OTHER_5XX)
