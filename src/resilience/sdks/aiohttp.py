"""aiohttp. Its errors of a status have no body: only the status and the headers decide.

A total timeout is a plain TimeoutError of Python's and is read as such.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import stdlib, verdict
from resilience.sdks.bodies import dialect
from resilience.sdks.evidence import Evidence, by_class_name, peek
from resilience.sdks.verdict import Meaning, judge

__all__ = ["read"]

_CLASSES: Mapping[str, Meaning] = {
    "ClientConnectionError": verdict.LOST,
    "ClientConnectorCertificateError": stdlib.UNTRUSTED,
    "ClientConnectorError": verdict.UNREACHED,
    "ClientPayloadError": verdict.CUT_SHORT,
    "ConnectionTimeoutError": verdict.UNCONNECTED,
    "HttpProcessingError": verdict.LOST,  # what came was no HTTP
    "InvalidURL": verdict.MISUSED,
    "InvalidUrlRedirectClientError": verdict.INVALID,
    "NonHttpUrlClientError": verdict.MISUSED,
    "NonHttpUrlRedirectClientError": verdict.INVALID,
    "ServerFingerprintMismatch": stdlib.UNTRUSTED,
    "ServerTimeoutError": verdict.TIMED_OUT,
    "TooManyRedirects": verdict.INVALID,
    "UploadAbortedError": verdict.LOST,
}


def read(error: Exception) -> Failure | None:
    """Read a `ClientError`; one of a status by that and its headers, where it has any."""
    cls = type(error)
    meaning = by_class_name(cls, _CLASSES)
    if meaning is None and by_class_name(cls, {"ClientResponseError": True}):
        # The parser's complaint about what is no HTTP goes by 400, which no server sent.
        meaning = by_class_name(type(peek(error, "__cause__")), _CLASSES)
        if meaning is None:
            return _answered(error)
    return None if meaning is None else meaning.failure(error, "aiohttp")


def _answered(error: Exception) -> Failure:
    evidence = Evidence(error, "aiohttp", peek(error, "status"), headers=peek(error, "headers"))
    failure = judge(evidence, dialect("flat"))  # some providers have statuses of their own
    if failure.sent is True and by_class_name(type(error), {"ContentTypeError": True}):
        # An answer by its status, but not one of the API's.
        return evolve(failure, kind=Kind.SERVER, advice=Advice.RETRY, retry_limit=1)
    return failure
