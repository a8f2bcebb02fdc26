"""Mistral's SDK. The body is a string of JSON; its codes are numbers in quotes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resilience.failures import Failure
from resilience.sdks import bodies, verdict
from resilience.sdks.evidence import (
    Evidence,
    by_class_name,
    error_in,
    json_object,
    peek,
)
from resilience.sdks.transport import transport
from resilience.sdks.verdict import MISSHAPEN, Dialect, judge

__all__ = ["read"]


def read(error: Exception) -> Failure | None:
    """Read a `MistralError` or a `NoResponseError`; None for any other."""
    cls = type(error)
    if by_class_name(cls, {"NoResponseError": True}):
        return (transport(peek(error, "__cause__")) or verdict.LOST).failure(error, "mistralai")
    status = peek(error, "status_code")
    if status is None:
        return None
    fields = _fields(peek(error, "body"))
    # A 200 that raises is an error event in a stream, or nothing that the API promises.
    begun = status == 200
    evidence = Evidence(
        error,
        "mistralai",
        status=fields.get("raw_status_code", status) if begun else status,
        headers=peek(error, "headers"),
    )
    dialect = bodies.read_body(evidence, fields)
    return judge(evidence, Dialect(dialect.codes, otherwise=MISSHAPEN), begun)


def _fields(body: object) -> Mapping[str, Any]:
    fields = error_in(json_object(body))
    return error_in(fields.get("data")) or fields  # an event of a stream is wrapped once more
