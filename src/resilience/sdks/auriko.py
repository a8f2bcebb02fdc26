"""Auriko's SDK, and `CODES`: every error code of its gateway, with what to do about it.

The codes are those of the SDK's registry (1.2), those that the SDK makes up itself, and those
that only the service's documentation names, older pages included.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from resilience.failures import Failure
from resilience.sdks import bodies
from resilience.sdks.codes import load
from resilience.sdks.evidence import Evidence, by_class_name, peek
from resilience.sdks.transport import transport
from resilience.sdks.verdict import Code, Dialect, judge

__all__ = ["CODES", "Code", "read"]


CODES: Mapping[str, Code] = load("auriko")


def read(error: Exception) -> Failure:
    """Read an `AurikoAPIError`, one that its OpenAI-compatible client raised included."""
    status = peek(error, "status_code")
    if not status and by_class_name(type(error), {"APIConnectionError": True}):
        meaning = transport(peek(error, "__cause__")) or CODES["api_connection_error"]
        return meaning.failure(error, "auriko", code="api_connection_error", type="api_error")
    headers = peek(error, "response_headers")
    raw = peek(headers, "_raw")  # httpx's own inside Auriko's wrapper: faster to read
    evidence = Evidence(
        error,
        "auriko",
        status,
        peek(error, "code"),
        peek(error, "type"),
        headers if raw is None else raw,
        peek(error, "request_id"),
        peek(error, "provider"),
        model_call=True,
    )
    usual = bodies.dialect("openai")
    return judge(evidence, usual if bodies.settles(evidence.code, usual) else _read_body(evidence))


def _read_body(evidence: Evidence) -> Dialect:
    """As `bodies.read_body`; what is not in Auriko's envelope, its SDK calls malformed."""
    body, found = peek(evidence.error, "body"), evidence
    if evidence.code == "malformed_response":
        found = evolve(evidence, code=None, type=None)
    dialect = bodies.read_body(found, body)
    if found.code is not None or found.type is not None:
        evidence.code, evidence.type, evidence.wait = found.code, found.type, found.wait
    evidence.body = found.body
    return dialect
