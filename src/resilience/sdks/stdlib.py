"""The standard library's own: connections, time-outs, name look-ups, TLS, `http.client`, `urllib`.

Every other exception of Python's is the program's business and stays unknown.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from resilience._core.anatomy import traceback_of
from resilience.failures import Advice, Failure, Kind
from resilience.sdks import verdict
from resilience.sdks.evidence import Evidence, peek
from resilience.sdks.places import places
from resilience.sdks.verdict import PLAIN, Meaning, judge

__all__ = ["UNTRUSTED", "meaning", "read"]


UNTRUSTED = Meaning(Kind.CONNECTION, Advice.STOP, sent=False)
"""The server's certificate was refused. That never heals by itself."""

_KNOWN: Mapping[str, Meaning] = {
    "builtins.ConnectionError": verdict.LOST,
    "builtins.ConnectionRefusedError": verdict.UNREACHED,
    "builtins.TimeoutError": verdict.TIMED_OUT,
    "asyncio.exceptions.TimeoutError": verdict.TIMED_OUT,  # on Python 3.10 a class of its own
    "concurrent.futures._base.TimeoutError": verdict.TIMED_OUT,  # the same
    "http.client.BadStatusLine": verdict.LOST,  # what came was no HTTP
    "http.client.CannotSendHeader": verdict.MISUSED,  # the connection is busy, say
    "http.client.CannotSendRequest": verdict.MISUSED,
    "http.client.ImproperConnectionState": verdict.INVALID,
    "http.client.IncompleteRead": verdict.CUT_SHORT,
    "http.client.InvalidURL": verdict.MISUSED,
    "http.client.LineTooLong": verdict.LOST,
    "http.client.NotConnected": verdict.MISUSED,
    "http.client.UnknownProtocol": verdict.LOST,
    "socket.gaierror": verdict.UNREACHED,
    "ssl.SSLCertVerificationError": UNTRUSTED,
    "ssl.SSLEOFError": verdict.LOST,  # an established connection may end like this
    "ssl.SSLError": verdict.LOST,
    "ssl.SSLZeroReturnError": verdict.LOST,
    "urllib.error.ContentTooShortError": verdict.CUT_SHORT,
}
"""By full name, so that `ssl` and asyncio are not loaded for this."""

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})

_HTTP_ERROR = "urllib.error.HTTPError"
_URL_ERROR = "urllib.error.URLError"


def read(error: Exception) -> Failure | None:
    """Read an error of the standard library; None for one that says nothing about a call."""
    cls: Any = type(error)  # a class is hashable, which mypy does not see
    if _HTTP_ERROR in _names(cls):
        return _answered(error)
    known = meaning(error)
    return None if known is None else known.failure(error, None)


def meaning(error: Exception) -> Meaning | None:
    """As `read`, short of making a `Failure`, and blind to an answer's status."""
    cls: Any = type(error)
    names = _names(cls)
    for name in names:
        known = _KNOWN.get(name)
        if known is not None:
            return verdict.UNREACHED if name == "ssl.SSLError" and shaking_hands(error) else known
    if _URL_ERROR in names:
        reason = peek(error, "reason")  # another error, or a text
        kind: Any = type(reason)
        if issubclass(kind, Exception) and _URL_ERROR not in _names(kind):
            return meaning(reason)
    if issubclass(type(error), OSError) and peek(error, "errno") in _UNREACHABLE:
        return verdict.UNREACHED
    return None


def shaking_hands(error: Exception) -> bool:
    """Whether TLS failed before anything could be sent: by where it was raised, if it was."""
    shaking = any(function == "do_handshake" for _, function in places(error))
    return shaking or traceback_of(error) is None


@lru_cache(512)  # some libraries make a class per client
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)


def _answered(error: Exception) -> Failure:
    """urllib's HTTPError, by status and headers; its body is still to be read from the socket."""
    evidence = Evidence(error, None, peek(error, "code"), headers=peek(error, "headers"))
    return judge(evidence, PLAIN)
