"""aiohttp. Its errors of a status have no body: only the status and the headers decide.

A total timeout is a plain TimeoutError of Python's and is read as such.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import stdlib
from resilience.sdks.bodies import dialect
from resilience.sdks.evidence import Evidence, by_class_name, peek
from resilience.sdks.headers import pick
from resilience.sdks.verdict import Meaning, judge

__all__ = ["read"]

_LOST = Meaning(Kind.CONNECTION, Advice.RETRY)
_UNREACHED = Meaning(Kind.CONNECTION, Advice.RETRY, sent=False)
_MISTAKE = Meaning(Kind.INVALID, Advice.STOP, sent=False)
_MISLED = Meaning(Kind.INVALID, Advice.STOP)

_CLASSES: Mapping[str, Meaning] = {
    "ClientConnectionError": _LOST,
    "ClientConnectorCertificateError": stdlib.UNTRUSTED,
    "ClientConnectorError": _UNREACHED,
    "ClientPayloadError": Meaning(Kind.CONNECTION, Advice.RETRY, sent=True),
    "ConnectionTimeoutError": Meaning(Kind.TIMEOUT, Advice.RETRY, sent=False),
    "HttpProcessingError": _LOST,  # what came was no HTTP
    "InvalidURL": _MISTAKE,
    "InvalidUrlRedirectClientError": _MISLED,
    "NonHttpUrlClientError": _MISTAKE,
    "NonHttpUrlRedirectClientError": _MISLED,
    "ServerFingerprintMismatch": stdlib.UNTRUSTED,
    "ServerTimeoutError": Meaning(Kind.TIMEOUT, Advice.RETRY),
    "TooManyRedirects": _MISLED,
    "UploadAbortedError": _LOST,
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
    said = pick(peek(error, "headers"))
    evidence = Evidence(
        error,
        "aiohttp",
        status=peek(error, "status"),
        headers=said,
        request_id=said.get("x-request-id") or said.get("request-id"),
    )
    failure = judge(evidence, dialect("flat"))  # some providers have statuses of their own
    if failure.sent is True and by_class_name(type(error), {"ContentTypeError": True}):
        # An answer by its status, but not one of the API's.
        return evolve(failure, kind=Kind.SERVER, advice=Advice.RETRY, retry_limit=1)
    return failure
