"""gRPC. Its `code()` is a method, and the code is all that there is: no HTTP status.

A refused connection, a dropped one and a busy service are all UNAVAILABLE; only the text, which
is not read, tells them apart. So nobody knows whether the request was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from types import CoroutineType
from typing import Any

from attrs import evolve

from resilience.failures import Failure
from resilience.sdks.codes import load
from resilience.sdks.evidence import Evidence, by_class_name, peek
from resilience.sdks.protobuf import retry_delay
from resilience.sdks.values import number, text
from resilience.sdks.verdict import Code, Dialect, judge

__all__ = ["CODES", "read"]

CODES: Mapping[str, Code] = load("grpc")
_DIALECT = Dialect(CODES)
_MOST = 256
"""Entries of metadata looked at."""


def read(error: Exception) -> Failure | None:
    """Read an `RpcError`, of the sync client or of `grpc.aio`, by its code and its metadata."""
    if not by_class_name(type(error), {"RpcError": True}):
        return None
    if _ask(error, "done") is False:  # a call that is still under way; its code would be waited for
        return None
    code = peek(_ask(error, "code"), "name")
    if code is None:
        return None
    trailing = _pairs(_ask(error, "trailing_metadata"))
    metadata = dict(trailing)
    pushback = metadata.get("grpc-retry-pushback-ms")
    wait = retry_delay(metadata.get("grpc-status-details-bin"))
    if wait is None and (milliseconds := number(pushback)) is not None:
        wait = milliseconds / 1000
    evidence = Evidence(
        error,
        "grpc",
        code=code,
        headers=trailing,
        wait=wait,
        retry=False if _negative(pushback) else None,
    )
    failure = judge(evidence, _DIALECT)
    # Metadata that came before the end: the server had begun to answer.
    return evolve(failure, sent=True) if _pairs(_ask(error, "initial_metadata")) else failure


def _ask(error: Exception, name: str) -> Any:
    """What the method says, or None; a coroutine of someone's is not waited for."""
    method = peek(error, name)
    try:
        value = method()
    except Exception:
        return None
    if type(value) is CoroutineType:
        value.close()
        return None
    return value


def _pairs(metadata: Any) -> list[tuple[Any, Any]]:
    try:
        return [(key, value) for key, value in islice(metadata, _MOST) if isinstance(key, str)]
    except Exception:
        return []


def _negative(pushback: object) -> bool:
    """By gRPC's rules, a server that answers so wants no other try."""
    written = text(pushback)
    return written is not None and written[:1] == "-" and written[1:].isdigit()
