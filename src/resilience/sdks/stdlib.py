"""The standard library's own: connections, time-outs, name look-ups, TLS, `http.client`, `urllib`.

Every other exception of Python's is the program's business and stays unknown.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from resilience.failures import Advice, Failure, Kind
from resilience.sdks.evidence import Evidence, peek
from resilience.sdks.headers import pick
from resilience.sdks.verdict import PLAIN, Meaning, judge

__all__ = ["UNTRUSTED", "meaning", "read"]

_UNREACHED = Meaning(Kind.CONNECTION, Advice.RETRY, sent=False)
_LOST = Meaning(Kind.CONNECTION, Advice.RETRY)
_TIMED_OUT = Meaning(Kind.TIMEOUT, Advice.RETRY)
_CUT_SHORT = Meaning(Kind.CONNECTION, Advice.RETRY, sent=True)
_MISUSED = Meaning(Kind.INVALID, Advice.STOP, sent=False)

UNTRUSTED = Meaning(Kind.CONNECTION, Advice.STOP, sent=False)
"""The server's certificate was refused. That never heals by itself."""

_KNOWN: Mapping[str, Meaning] = {
    "builtins.ConnectionError": _LOST,
    "builtins.ConnectionRefusedError": _UNREACHED,
    "builtins.TimeoutError": _TIMED_OUT,
    "asyncio.exceptions.TimeoutError": _TIMED_OUT,  # on Python 3.10 a class of its own
    "concurrent.futures._base.TimeoutError": _TIMED_OUT,  # the same
    "http.client.BadStatusLine": _LOST,  # what came was no HTTP
    "http.client.CannotSendHeader": _MISUSED,  # of a connection that is busy, or in no such state
    "http.client.CannotSendRequest": _MISUSED,
    "http.client.ImproperConnectionState": Meaning(Kind.INVALID, Advice.STOP),
    "http.client.IncompleteRead": _CUT_SHORT,
    "http.client.InvalidURL": _MISUSED,
    "http.client.LineTooLong": _LOST,
    "http.client.NotConnected": _MISUSED,
    "http.client.UnknownProtocol": _LOST,
    "socket.gaierror": _UNREACHED,
    "ssl.SSLCertVerificationError": UNTRUSTED,
    "ssl.SSLEOFError": _LOST,  # an established connection may end like this
    "ssl.SSLError": _LOST,
    "ssl.SSLZeroReturnError": _LOST,
    "urllib.error.ContentTooShortError": _CUT_SHORT,
}
"""By full name, so that `ssl` and asyncio are not loaded for this."""

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


_MOST_FRAMES = 256
"""Frames of a TLS error looked at."""

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
            return _UNREACHED if name == "ssl.SSLError" and shaking_hands(error) else known
    if _URL_ERROR in names:
        reason = peek(error, "reason")  # another error, or a text
        kind: Any = type(reason)
        if issubclass(kind, Exception) and _URL_ERROR not in _names(kind):
            return meaning(reason)
    if issubclass(type(error), OSError) and peek(error, "errno") in _UNREACHABLE:
        return _UNREACHED
    return None


def shaking_hands(error: Exception) -> bool:
    """Whether TLS failed before anything could be sent: by where it was raised, if it was."""
    trace, frames = peek(error, "__traceback__"), 0
    while trace is not None and frames < _MOST_FRAMES:
        if trace.tb_frame.f_code.co_name == "do_handshake":
            return True
        trace, frames = trace.tb_next, frames + 1
    return frames == 0


@lru_cache(512)  # some libraries make a class per client
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)


def _answered(error: Exception) -> Failure:
    """urllib's HTTPError, by status and headers; its body is still to be read from the socket."""
    said = pick(peek(error, "headers"))
    evidence = Evidence(
        error,
        None,
        status=peek(error, "code"),
        headers=said,
        request_id=said.get("x-request-id") or said.get("request-id"),
    )
    return judge(evidence, PLAIN)
