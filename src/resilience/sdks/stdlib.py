"""The standard library's own: connections, time-outs, name look-ups, TLS, unreachable networks.

Every other exception of Python's is the program's business and stays unknown.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks.evidence import peek
from resilience.sdks.verdict import Meaning

__all__ = ["UNTRUSTED", "meaning", "read"]

_UNREACHED = Meaning(Kind.CONNECTION, Advice.RETRY, sent=False)
_LOST = Meaning(Kind.CONNECTION, Advice.RETRY)
_TIMED_OUT = Meaning(Kind.TIMEOUT, Advice.RETRY)

UNTRUSTED = Meaning(Kind.CONNECTION, Advice.STOP, sent=False)
"""The server's certificate was refused. That never heals by itself."""

_KNOWN: Mapping[str, Meaning] = {
    "builtins.ConnectionError": _LOST,
    "builtins.ConnectionRefusedError": _UNREACHED,
    "builtins.TimeoutError": _TIMED_OUT,
    "asyncio.exceptions.TimeoutError": _TIMED_OUT,  # on Python 3.10 a class of its own
    "concurrent.futures._base.TimeoutError": _TIMED_OUT,  # the same
    "socket.gaierror": _UNREACHED,
    "ssl.SSLCertVerificationError": UNTRUSTED,
    "ssl.SSLEOFError": _LOST,  # an established connection may end like this
    "ssl.SSLError": _UNREACHED,
    "ssl.SSLZeroReturnError": _LOST,
}
"""By full name, so that `ssl` and asyncio are not loaded for this."""

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


def read(error: Exception) -> Failure | None:
    """Read an error of the standard library; None for one that says nothing about a call."""
    known = meaning(error)
    return None if known is None else known.failure(error, None)


def meaning(error: Exception) -> Meaning | None:
    """As `read`, short of making a `Failure`."""
    for base in type(error).__mro__:
        known = _KNOWN.get(f"{base.__module__}.{base.__qualname__}")
        if known is not None:
            return known
    if issubclass(type(error), OSError) and peek(error, "errno") in _UNREACHABLE:
        return _UNREACHED
    return None
