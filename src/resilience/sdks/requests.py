"""requests, and urllib3 below it.

requests says ConnectionError for nearly everything, a body that stalls included; what it was is
told by the urllib3 errors in its arguments, down to the socket's.
"""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import package_of, stdlib, verdict
from resilience.sdks.bodies import read_response
from resilience.sdks.causes import cause, nearest
from resilience.sdks.evidence import by_class_name, peek
from resilience.sdks.verdict import MISSHAPEN, Meaning

__all__ = ["below", "known", "read"]

_UNREADABLE = Meaning(Kind.INVALID, Advice.STOP, sent=True)

_REQUESTS: Mapping[str, Meaning] = {
    "ChunkedEncodingError": verdict.CUT_SHORT,
    "ConnectTimeout": verdict.UNCONNECTED,
    "ContentDecodingError": _UNREADABLE,
    "InvalidHeader": verdict.MISUSED,
    "InvalidSchema": verdict.MISUSED,
    "InvalidURL": verdict.MISUSED,
    "JSONDecodeError": MISSHAPEN,
    "InvalidJSONError": verdict.MISUSED,  # of the request's own JSON
    "MissingSchema": verdict.MISUSED,
    "ReadTimeout": verdict.TIMED_OUT,
    "TooManyRedirects": verdict.INVALID,
    "URLRequired": verdict.MISUSED,
}
_URLLIB3: Mapping[str, Meaning] = {
    "ClosedPoolError": verdict.MISUSED,
    "ConnectTimeoutError": verdict.UNCONNECTED,
    "DecodeError": _UNREADABLE,
    "EmptyPoolError": verdict.UNCONNECTED,
    "HostChangedError": verdict.MISUSED,
    "IncompleteRead": verdict.CUT_SHORT,
    "InvalidChunkLength": verdict.CUT_SHORT,
    "LocationValueError": verdict.MISUSED,
    "CertificateError": stdlib.UNTRUSTED,
    "NewConnectionError": verdict.UNREACHED,
    "ReadTimeoutError": verdict.TIMED_OUT,
    "ResponseError": Meaning(Kind.SERVER, Advice.RETRY),  # too many of some status
}
_VAGUE: Mapping[str, Meaning] = {
    "SSLError": verdict.UNREACHED,
    "ConnectionError": verdict.LOST,
    "MaxRetryError": verdict.LOST,
    "ProtocolError": verdict.LOST,
    "ProxyError": verdict.LOST,
    "RetryError": Meaning(Kind.SERVER, Advice.RETRY),
    "Timeout": verdict.TIMED_OUT,
    "TimeoutError": verdict.TIMED_OUT,
}
"""Those of either that mean little by themselves: asked last, after everything below them."""


def read(error: Exception) -> Failure | None:
    """Read a `RequestException` or an error of urllib3; a status is that of its response."""
    sdk = package_of(type(error)) or "requests"
    response = peek(error, "response") if sdk == "requests" else None
    if response is not None and not by_class_name(type(error), _REQUESTS):
        # Not `content`, which would read the rest of a stream.
        return read_response(error, sdk, response, peek(response, "_content"))
    meaning = nearest(error, known, below) or by_class_name(type(error), _VAGUE)
    return None if meaning is None else meaning.failure(error, sdk)


def known(error: Exception) -> Meaning | None:
    """What the class of `error` says by itself: one of requests', urllib3's or Python's own."""
    tables = {"requests": _REQUESTS, "urllib3": _URLLIB3}
    table = tables.get(package_of(type(error)) or "")
    return stdlib.meaning(error) if table is None else by_class_name(type(error), table)


def below(error: Exception) -> object:
    """What `error` wraps: its reason, the last error among its arguments, or its cause."""
    reason = peek(error, "reason")
    if isinstance(reason, Exception):
        return reason
    arguments = peek(error, "args")
    if isinstance(arguments, tuple):
        for each in reversed(arguments):
            if isinstance(each, Exception):
                return each
    return cause(error)
