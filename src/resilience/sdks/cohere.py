"""Cohere's SDK. Its errors have neither code nor type: the status alone decides."""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks.evidence import Evidence, mapping, peek
from resilience.sdks.headers import pick
from resilience.sdks.verdict import MISSHAPEN, STATUSES, Dialect, Meaning, judge

__all__ = ["read"]

_STATUSES: Mapping[int, Meaning] = {
    **STATUSES,
    409: Meaning(Kind.CONFLICT, Advice.RETRY),  # as the SDK itself does
    498: Meaning(Kind.AUTH, Advice.STOP),
    499: Meaning(Kind.CANCELLED, Advice.STOP),
}

_DIALECT = Dialect({}, _STATUSES, otherwise=MISSHAPEN)


def read(error: Exception) -> Failure | None:
    """Read an `ApiError`, and a `ParsingError` of an answer that fits no schema."""
    status = peek(error, "status_code")
    if status is None:
        return None
    headers = peek(error, "headers")
    evidence = Evidence(
        error,
        "cohere",
        status=status,
        headers=headers,
        request_id=pick(headers).request_id or mapping(peek(error, "body")).get("id"),
        body=peek(error, "body"),
        model_call=True,
    )
    return judge(evidence, _DIALECT)
