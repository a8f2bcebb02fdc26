"""httpx, httpx2 and httpcore: transport errors, and a status raised by `raise_for_status`.

The three share their classes' names and nothing else, so the names are what counts. SDKs built
on them keep the transport's error as a `__cause__`; `transport` reads it there too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import package_of, stdlib
from resilience.sdks.evidence import Evidence, by_class_name, peek
from resilience.sdks.headers import pick
from resilience.sdks.verdict import Meaning, judge

__all__ = ["read", "transport"]

_DEEPEST = 8
"""How far a chain of causes is followed: httpx, httpcore, the socket, and some to spare."""

_TRANSPORT: Mapping[str, Meaning] = {
    "ConnectError": Meaning(Kind.CONNECTION, Advice.RETRY, sent=False),
    "ConnectTimeout": Meaning(Kind.TIMEOUT, Advice.RETRY, sent=False),
    "PoolTimeout": Meaning(Kind.TIMEOUT, Advice.RETRY, sent=False),
    "TimeoutException": Meaning(Kind.TIMEOUT, Advice.RETRY),
    "NetworkError": Meaning(Kind.CONNECTION, Advice.RETRY),
    "RemoteProtocolError": Meaning(Kind.CONNECTION, Advice.RETRY),
    "ProxyError": Meaning(Kind.CONNECTION, Advice.RETRY),
    "TransportError": Meaning(Kind.CONNECTION, Advice.RETRY),
    "LocalProtocolError": Meaning(Kind.INVALID, Advice.STOP),
    "UnsupportedProtocol": Meaning(Kind.INVALID, Advice.STOP, sent=False),
    "InvalidURL": Meaning(Kind.INVALID, Advice.STOP, sent=False),
    "TooManyRedirects": Meaning(Kind.INVALID, Advice.STOP),
    "DecodingError": Meaning(Kind.INVALID, Advice.STOP, sent=True),
}
"""By the name of the nearest class: `ReadTimeout` is read as its base, `TimeoutException`."""


def read(error: Exception) -> Failure | None:
    """Read a transport error, or an `HTTPStatusError` by its status and headers."""
    sdk = package_of(type(error)) or "httpx"
    if by_class_name(type(error), _TRANSPORT):
        meaning = transport(error)
        return None if meaning is None else meaning.failure(error, sdk)
    response = peek(error, "response")
    if response is None:
        return None
    headers = peek(response, "headers")
    evidence = Evidence(
        error,
        sdk,
        status=peek(response, "status_code"),
        headers=headers,
        request_id=pick(headers).get("x-request-id"),
    )
    return judge(evidence, {})


def transport(error: object) -> Meaning | None:
    """What went wrong on the wire, told by `error` or the nearest of its causes that knows."""
    nearest: Meaning | None = None
    for cause in _causes(error):
        found = by_class_name(type(cause), _TRANSPORT) or stdlib.meaning(cause)
        if found is stdlib.UNTRUSTED:  # a ConnectError hides it
            return found
        nearest = nearest or found
    return nearest


def _causes(error: object) -> Iterator[Exception]:
    for _ in range(_DEEPEST):
        if not isinstance(error, Exception):
            return
        yield error
        error = peek(error, "__cause__")
