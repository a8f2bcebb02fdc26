"""What the SDKs that Stainless generates share: OpenAI's, Groq's and Anthropic's.

Their classes have the same names, their attributes nearly so.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from resilience.failures import Failure
from resilience.sdks import bodies, verdict
from resilience.sdks.evidence import Evidence, by_class_name, error_in, json_value, peek, word
from resilience.sdks.evidence import status as to_status
from resilience.sdks.headers import pick
from resilience.sdks.transport import transport
from resilience.sdks.values import number
from resilience.sdks.verdict import MISSHAPEN, Meaning, judge

__all__ = ["gathered", "read", "unanswered"]

_UNANSWERED: Mapping[str, Meaning] = {
    "APITimeoutError": verdict.TIMED_OUT,
    "APIConnectionError": verdict.LOST,
}


def read(
    error: Exception,
    sdk: str,
    local: Mapping[str, Meaning],
    statuses: Mapping[int, Meaning] = bodies.SDK_STATUSES,
) -> Failure:
    """Read an error of such an SDK; `local` are those of its own that no server has a part in."""
    body = _whole(error, peek(error, "body"))
    evidence = gathered(error, sdk, body, statuses)
    failure = unanswered(evidence, local)
    if failure:
        return failure
    # An event in a stream: such an APIError came without a status.
    streaming = evidence.status is None and bool(by_class_name(type(error), {"APIError": True}))
    return judge(evidence, bodies.read_body(evidence, body, unwrapped=True), streaming)


def unanswered(evidence: Evidence, local: Mapping[str, Meaning]) -> Failure | None:
    """What is known by its class: a call that got no answer, a 200 that is none of the API's, and
    the family's own errors, `local`. None for all else.
    """
    status = evidence.status
    if type(status) is int and status >= 400:  # as most have
        return None
    error, sdk = evidence.error, evidence.sdk
    cls = type(error)
    found = by_class_name(cls, _UNANSWERED)
    if found:
        failure = (transport(peek(error, "__cause__")) or found).failure(error, sdk)
        # An earlier try of the SDK's own may have been executed, and its answer lost.
        return evolve(failure, sent=None) if failure.sent is False and _again(error) else failure
    if by_class_name(cls, {"APIResponseValidationError": True}):
        headers = peek(peek(error, "response"), "headers")
        facts = {"status": to_status(status), "request_id": pick(headers).request_id}
        return MISSHAPEN.failure(error, sdk, **facts)
    found = by_class_name(cls, local)
    return found.failure(error, sdk) if found else None


def gathered(error: Exception, sdk: str, body: object, statuses: Mapping[int, Meaning]) -> Evidence:
    """What an `APIError` has to say with this body."""
    fields = error_in(body)
    response = peek(error, "response")
    code, category = peek(error, "code"), peek(error, "type")
    return Evidence(
        error,
        sdk,
        peek(error, "status_code"),
        word(fields.get("code")) if code is None else code,
        fields.get("type") if category is None else category,
        peek(response, "headers"),
        peek(error, "request_id"),
        fields.get("provider"),
        statuses=statuses,
    )


def _whole(error: Exception, body: object) -> object:
    """The body, which OpenAI's SDK cuts down to what is under `error`, be that only a text."""
    if type(body) is not str:
        return body
    return json_value(peek(peek(error, "response"), "content")) or body


def _again(error: Exception) -> bool:
    """Whether the SDK itself had tried before."""
    sent = pick(peek(peek(error, "request"), "headers"))
    return bool(number(sent.get("x-stainless-retry-count")))
