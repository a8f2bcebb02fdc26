"""requests, and urllib3 below it.

requests says ConnectionError for nearly everything, a body that stalls included; what it was is
told by the urllib3 errors in its arguments, down to the socket's.
"""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import package_of, stdlib
from resilience.sdks.bodies import answered
from resilience.sdks.causes import cause, nearest
from resilience.sdks.evidence import by_class_name, peek
from resilience.sdks.verdict import MISSHAPEN, Meaning

__all__ = ["below", "known", "read"]

_LOST = Meaning(Kind.CONNECTION, Advice.RETRY)
_CUT_SHORT = Meaning(Kind.CONNECTION, Advice.RETRY, sent=True)
_UNREACHED = Meaning(Kind.CONNECTION, Advice.RETRY, sent=False)
_UNCONNECTED = Meaning(Kind.TIMEOUT, Advice.RETRY, sent=False)
_TIMED_OUT = Meaning(Kind.TIMEOUT, Advice.RETRY)
_INVALID = Meaning(Kind.INVALID, Advice.STOP, sent=False)
_UNREADABLE = Meaning(Kind.INVALID, Advice.STOP, sent=True)

_REQUESTS: Mapping[str, Meaning] = {
    "ChunkedEncodingError": _CUT_SHORT,
    "ConnectTimeout": _UNCONNECTED,
    "ContentDecodingError": _UNREADABLE,
    "InvalidHeader": _INVALID,
    "InvalidSchema": _INVALID,
    "InvalidURL": _INVALID,
    "JSONDecodeError": MISSHAPEN,
    "InvalidJSONError": _INVALID,  # of the request's own JSON
    "MissingSchema": _INVALID,
    "ReadTimeout": _TIMED_OUT,
    "TooManyRedirects": Meaning(Kind.INVALID, Advice.STOP),
    "URLRequired": _INVALID,
}
_URLLIB3: Mapping[str, Meaning] = {
    "ClosedPoolError": _INVALID,
    "ConnectTimeoutError": _UNCONNECTED,
    "DecodeError": _UNREADABLE,
    "EmptyPoolError": _UNCONNECTED,
    "HostChangedError": _INVALID,
    "IncompleteRead": _CUT_SHORT,
    "InvalidChunkLength": _CUT_SHORT,
    "LocationValueError": _INVALID,
    "CertificateError": stdlib.UNTRUSTED,
    "NewConnectionError": _UNREACHED,
    "ReadTimeoutError": _TIMED_OUT,
    "ResponseError": Meaning(Kind.SERVER, Advice.RETRY),  # too many of some status
}
_VAGUE: Mapping[str, Meaning] = {
    "SSLError": _UNREACHED,
    "ConnectionError": _LOST,
    "MaxRetryError": _LOST,
    "ProtocolError": _LOST,
    "ProxyError": _LOST,
    "RetryError": Meaning(Kind.SERVER, Advice.RETRY),
    "Timeout": _TIMED_OUT,
    "TimeoutError": _TIMED_OUT,
}
"""Those of either that mean little by themselves: asked last, after everything below them."""


def read(error: Exception) -> Failure | None:
    """Read a `RequestException` or an error of urllib3; a status is that of its response."""
    sdk = package_of(type(error)) or "requests"
    response = peek(error, "response") if sdk == "requests" else None
    if response is not None and not by_class_name(type(error), _REQUESTS):
        # Not `content`, which would read the rest of a stream.
        return answered(error, sdk, response, peek(response, "_content"))
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
