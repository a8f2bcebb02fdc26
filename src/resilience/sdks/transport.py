"""What goes wrong on the wire, by the names of httpx, httpx2 and httpcore.

The three share their classes' names and nothing else, so the names are what counts. SDKs built
on them keep the transport's error as a `__cause__`; `transport` reads it there too.
"""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Kind
from resilience.sdks import stdlib, verdict
from resilience.sdks.causes import cause, nearest
from resilience.sdks.evidence import by_class_name, peek
from resilience.sdks.verdict import Meaning

__all__ = ["TRANSPORT", "transport"]

TRANSPORT: Mapping[str, Meaning] = {
    "ConnectError": verdict.UNREACHED,
    "ConnectTimeout": verdict.UNCONNECTED,
    "PoolTimeout": verdict.UNCONNECTED,
    "TimeoutException": verdict.TIMED_OUT,
    "NetworkError": verdict.LOST,
    "RemoteProtocolError": verdict.LOST,
    "ProxyError": verdict.LOST,
    "TransportError": verdict.LOST,
    "LocalProtocolError": verdict.INVALID,
    "UnsupportedProtocol": verdict.MISUSED,
    "InvalidURL": verdict.MISUSED,
    "TooManyRedirects": verdict.INVALID,
    "DecodingError": Meaning(Kind.INVALID, Advice.STOP, sent=True),
}
"""By the name of the nearest class: `ReadTimeout` is read as its base, `TimeoutException`."""


def transport(error: object) -> Meaning | None:
    """What went wrong on the wire, told by `error` or the nearest of its causes that knows."""
    return nearest(error, _known, _below)


def _below(error: Exception) -> object:
    found = cause(error)
    if found is None and type(error).__name__ == "ConnectError" and _is_httpcores(error):
        # It is raised `from None` in the end; what it was made from is still the context.
        found = peek(error, "__context__")
    return found


def _known(error: Exception) -> Meaning | None:
    return by_class_name(type(error), TRANSPORT) or stdlib.meaning(error)


def _is_httpcores(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("httpcore", "httpcore2")
