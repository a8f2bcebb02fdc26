"""Anthropic's SDK. Its API names the class of an error, and a finer code for some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import google_rpc, stainless, verdict
from resilience.sdks.evidence import Evidence, mapping, peek
from resilience.sdks.verdict import Code, Dialect, Meaning, judge

__all__ = ["CODES", "TYPES", "heard", "read"]

_SPENT = Code(Kind.QUOTA, Advice.STOP, type="rate_limit_error")
_UNBILLED = Code(Kind.QUOTA, Advice.STOP, type="billing_error")
_UNREAD = Code(Kind.UNAVAILABLE, Advice.WAIT, sent=False, note="refused: it could not be checked")
_MISSING = Code(Kind.NOT_FOUND, Advice.STOP, type="not_found_error")
_HALF_DONE = Code(Kind.SERVER, Advice.STOP, sent=True, note="look before it is done again")

CODES: Mapping[str, Code] = {
    "authorization_check_unavailable": _UNREAD,
    "change_outcome_unknown": _HALF_DONE,
    "cmek_context_unavailable": _UNREAD,
    "cmek_key_unreachable": _UNREAD,
    "compaction_unavailable": Code(Kind.OVERLOADED, Advice.WAIT, type="overloaded_error"),
    "contract_spend_limit_reached": _SPENT,
    "enforced_spend_limit_reached": _SPENT,
    "environment_not_found": _MISSING,
    "file_expired": _MISSING,
    "linked_organization_billing_unavailable": _UNBILLED,
    "linked_organization_spend_limit_reached": _UNBILLED,
    "organization_on_hold": Code(Kind.PERMISSION, Advice.STOP, type="invalid_request_error"),
    "ramp_limit_exceeded": Code(Kind.RATE_LIMIT, Advice.WAIT, type="rate_limit_error"),
    "registration_pending": _HALF_DONE,
    "thread_not_found": _MISSING,
    "workspace_created_incomplete": _HALF_DONE,
}

TYPES: Mapping[str, Meaning] = {
    **verdict.TYPES,
    "billing_error": Meaning(Kind.QUOTA, Advice.STOP),
    # Messages know nothing that could be missing but the model, and it has no code.
    "not_found_error": Meaning(Kind.NOT_FOUND, Advice.FALLBACK),
    "request_too_large": Meaning(Kind.INVALID, Advice.STOP),
    "timeout_error": Meaning(Kind.TIMEOUT, Advice.RETRY),
}

_STATUSES: Mapping[int, Meaning] = {
    **stainless.STATUSES,
    499: Meaning(Kind.CANCELLED, Advice.STOP),
}

_DIALECT = Dialect(CODES, _STATUSES, TYPES)

_LOCAL: Mapping[str, Meaning] = {
    "CredentialsError": Meaning(Kind.AUTH, Advice.STOP, sent=False),
    "RetryableError": Meaning(Kind.UNKNOWN, Advice.RETRY),  # raised by a user's middleware
}


def read(error: Exception) -> Failure:
    """Read an `APIError` of any kind, and what the SDK or its middleware raises by itself."""
    said = stainless.details(error)
    evidence = stainless.gathered(error, "anthropic", said)
    failure = stainless.unanswered(evidence, _LOCAL)
    if failure:
        return failure
    return judge(evidence, heard(evidence, said))


def heard(evidence: Evidence, said: Mapping[str, Any]) -> Dialect:
    """Take the code into `evidence`, from its own place; the dialect to judge it in, which is
    Google's where Vertex answers in the place of the model."""
    code = peek(evidence.error, "error_code")  # older versions leave it in the body
    evidence.code = mapping(said.get("details")).get("error_code") if code is None else code
    return google_rpc.overheard(evidence, said) or _DIALECT
