"""From evidence to a `Failure`: the one decision that all families share, each in its dialect.

Evidence is believed in this order: the server's own word (`x-should-retry`), then the code,
then Auriko's word on the class of error (`X-Error-Retryable`; by the class, so the code knows
better), then the type, then the status. A generic word (`invalid_request_error`) in the place of
either leaves the decision to the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, field, frozen

from resilience._core.options import Value
from resilience.failures import Advice, Failure, Kind
from resilience.sdks.asked import asked_in
from resilience.sdks.calls import host_in, is_model_call
from resilience.sdks.evidence import Evidence, header_text, text
from resilience.sdks.evidence import status as to_status
from resilience.sdks.headers import NOTHING, Hints, pick

__all__ = ["MISSHAPEN", "PLAIN", "STATUSES", "Code", "Dialect", "Meaning", "judge"]

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
_HINTED = (413, 429, 503)
"""Statuses whose wait hint is worth knowing even when this call is not repeated."""

_BLANK = vars(Failure(Kind.UNKNOWN, Advice.STOP))
"""Every field of a failure, at its default."""


@frozen(eq=False, repr=False)
class Meaning(Value):
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


LOST = Meaning(Kind.CONNECTION, Advice.RETRY)
CUT_SHORT = Meaning(Kind.CONNECTION, Advice.RETRY, sent=True)
UNREACHED = Meaning(Kind.CONNECTION, Advice.RETRY, sent=False)
TIMED_OUT = Meaning(Kind.TIMEOUT, Advice.RETRY)
UNCONNECTED = Meaning(Kind.TIMEOUT, Advice.RETRY, sent=False)
INVALID = Meaning(Kind.INVALID, Advice.STOP)
MISUSED = Meaning(Kind.INVALID, Advice.STOP, sent=False)
UNSIGNED = Meaning(Kind.AUTH, Advice.STOP, sent=False)
LIMITED = Meaning(Kind.RATE_LIMIT, Advice.WAIT, sent=False)
MISSHAPEN = Meaning(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True)
"""An answer that came with a 200 and is none of the API's."""


def _refused(meaning: Meaning) -> bool | None:
    """A server that names one of these looked at the request and turned it away."""
    return False if meaning.kind in _REFUSALS else None


@frozen(eq=False, repr=False)
class Code(Meaning):
    """What a server's code stands for; `status` and `type` are what it usually comes with."""

    status: int | None = field(default=None, kw_only=True)
    type: str = field(default="", kw_only=True)
    by_status: bool = field(default=False, kw_only=True)
    """The code says nothing: the status alone decides, where there is one."""
    note: str = field(default="", kw_only=True)
    sent: bool | None = field(default=Factory(_refused, takes_self=True), kw_only=True)
    when: frozenset[int] = field(default=frozenset(), kw_only=True)
    """The statuses that it holds with; with none of its own, any."""
    hosts: tuple[str, ...] = field(default=(), kw_only=True)
    """Whose word it is; with nobody's, everybody's."""
    anywhere: bool = field(default=False, kw_only=True)
    """It holds as well where nobody else's host can be told."""

    def holds(self, status: int | None, error: Exception) -> bool:
        """Is it this that the server says?"""
        fits = not self.when or status in self.when
        return fits and (not self.hosts or host_in(error, self.hosts, self.anywhere))


STATUSES: Mapping[int, Meaning] = {
    400: Meaning(Kind.INVALID, Advice.STOP),
    401: Meaning(Kind.AUTH, Advice.STOP),
    402: Meaning(Kind.QUOTA, Advice.STOP),
    403: Meaning(Kind.PERMISSION, Advice.STOP),
    404: Meaning(Kind.NOT_FOUND, Advice.STOP),
    408: Meaning(Kind.TIMEOUT, Advice.RETRY),
    409: Meaning(Kind.CONFLICT, Advice.STOP),
    410: Meaning(Kind.NOT_FOUND, Advice.STOP),
    429: Meaning(Kind.RATE_LIMIT, Advice.WAIT, sent=False),
    500: Meaning(Kind.SERVER, Advice.RETRY),
    501: Meaning(Kind.UNSUPPORTED, Advice.STOP),
    502: Meaning(Kind.SERVER, Advice.RETRY),
    503: Meaning(Kind.UNAVAILABLE, Advice.WAIT),
    504: Meaning(Kind.TIMEOUT, Advice.RETRY),
    505: Meaning(Kind.SERVER, Advice.STOP),
    # Cloudflare's, of the server behind it.
    521: Meaning(Kind.UNAVAILABLE, Advice.RETRY),
    522: Meaning(Kind.TIMEOUT, Advice.RETRY),
    523: Meaning(Kind.UNAVAILABLE, Advice.RETRY),
    524: Meaning(Kind.TIMEOUT, Advice.RETRY),
    525: Meaning(Kind.CONNECTION, Advice.RETRY),
    526: Meaning(Kind.CONNECTION, Advice.RETRY),
    530: Meaning(Kind.UNAVAILABLE, Advice.RETRY),
    529: Meaning(Kind.OVERLOADED, Advice.WAIT),
}
"""What a status means alone. A family hands in its own copy where its SDK differs (409)."""

_OTHER_5XX = Meaning(Kind.SERVER, Advice.RETRY)
_UNKNOWN = Meaning(Kind.UNKNOWN, Advice.STOP)
_OVER_BUDGET = Meaning(Kind.QUOTA, Advice.STOP, sent=False)
_TOO_LARGE = Meaning(Kind.CONTEXT_LENGTH, Advice.FALLBACK, sent=False)
"""One request larger than a whole minute's limit: no wait is long enough."""

MODEL_CALLS: Mapping[int, Meaning] = {
    404: Meaning(Kind.NOT_FOUND, Advice.FALLBACK),
    410: Meaning(Kind.NOT_FOUND, Advice.FALLBACK),
    501: Meaning(Kind.UNSUPPORTED, Advice.FALLBACK),
}
"""What some statuses mean of the call of a model, if nothing else was said: it is the model."""

_OWN = (403, 412, 498)
"""Statuses that mean something of its own at some provider: words of the dialect, then."""

_VAGUE = (None, 400, 500, 502)
"""Statuses that a gateway may put over another, which then ends the code."""


@frozen(eq=False, repr=False)
class Dialect:
    """What a format's words stand for, codes and types; `otherwise`: an error that says nothing."""

    codes: Mapping[str, Code | tuple[Code, ...]]
    """Of several for a word the first that holds counts."""
    statuses: Mapping[int, Meaning] = STATUSES
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
    headers = NOTHING if evidence.headers is None else pick(evidence.headers)
    hints = NOTHING if begun else headers
    meaning = _meaning(evidence, status, code, category, hints, dialect)
    advice = meaning.advice
    wait = hints.wait
    if wait is None:
        wait = evidence.wait
    word = hints.retry
    if word is None:
        word = evidence.retry
    if word is not None:
        advice = _obeying(word, advice, wait)
    retried = advice in _RETRIED
    if wait is None and (retried or status in _HINTED):
        wait = None if evidence.body is None else asked_in(evidence.body)
        if wait is None and meaning.kind is _RATE_LIMIT:
            wait = hints.window or (hints.reset if status == 403 else None)
    return Failure._of(
        {
            "kind": meaning.kind,
            "advice": advice,
            "status": status,
            "code": code,
            "type": category,
            "retry_after": wait if retried or status in _HINTED else None,
            "reset_after": hints.reset if retried and wait is None else None,
            "request_id": header_text(evidence.request_id) or headers.request_id,
            "provider": text(evidence.provider),
            "sdk": evidence.sdk,
            "retry_limit": meaning.retry_limit if retried else None,
            "sent": True if begun else False if status == 429 else meaning.sent,
            "elsewhere": hints.elsewhere if meaning.kind is _RATE_LIMIT else None,
            "error": evidence.error,
        }
    )


def _obeying(word: bool, advice: Advice, wait: float | None) -> Advice:
    """The server's own word goes before what its code or status stands for."""
    if word:
        return Advice.RETRY if wait is None and advice is not Advice.WAIT else Advice.WAIT
    # It says nothing about another model.
    return Advice.FALLBACK if advice in _RETRIED else advice


def _meaning(
    evidence: Evidence,
    status: int | None,
    code: str | None,
    type: str | None,
    hints: Hints,
    dialect: Dialect,
) -> Meaning:
    if hints.over_budget:
        return _OVER_BUDGET
    coded = None if code is None else _word(code, status, evidence, dialect)
    if coded is not None and not coded.by_status:
        return _fitting(coded, status)
    # A client that found no envelope made up the type as well.
    made_up = coded is not None and coded.kind is Kind.UNKNOWN
    typed = None if type is None or made_up else _word(type, status, evidence, dialect)
    if typed is not None and not typed.by_status:
        found = _fitting(typed, status)
    else:
        by_status = _by_status(status, None if coded else code, hints, evidence, dialect)
        found = by_status or coded or typed or dialect.otherwise
    retryable = hints.retryable
    if retryable is not None and retryable is not (found.advice in _RETRIED):
        advice = Advice.RETRY if retryable else Advice.FALLBACK
        return Meaning(found.kind, advice, sent=found.sent)
    return found


def _word(word: str, status: int | None, evidence: Evidence, dialect: Dialect) -> Code | None:
    """What a word stands for here."""
    found = dialect.codes.get(word)
    if not isinstance(found, tuple):
        return found
    return next((each for each in found if each.holds(status, evidence.error)), None)


def _fitting(meaning: Meaning, status: int | None) -> Meaning:
    return _TOO_LARGE if status == 413 and meaning.kind is _RATE_LIMIT else meaning


def _by_status(
    status: int | None, code: str | None, hints: Hints, evidence: Evidence, dialect: Dialect
) -> Meaning | None:
    if status is not None and status < 400:
        status = None
    if code is not None and status in _VAGUE:
        status = _trailing(code) or status
    if status is None:
        return None
    if status in _OWN:
        found = _word(str(status), status, evidence, dialect)
        if found is not None:
            return found
    if status in MODEL_CALLS and (evidence.model_call or is_model_call(evidence.error)):
        return MODEL_CALLS[status]
    if status == 403 and (hints.wait is not None or hints.exhausted):
        return LIMITED
    statuses = evidence.statuses or dialect.statuses
    return statuses.get(status) or (INVALID if status < 500 else _OTHER_5XX)


def _trailing(code: str) -> int | None:
    """The status that a code ends with, such as `upstream_503`."""
    digits = code[-3:]
    if digits.isascii() and digits.isdigit() and not code[-4:-3].isdigit():
        return int(digits) if 400 <= int(digits) <= 599 else None
    return None
