"""httpx, httpx2 and httpcore: transport errors, and a status raised by `raise_for_status`."""

from __future__ import annotations

from resilience.failures import Failure
from resilience.sdks import package_of
from resilience.sdks.bodies import read_response
from resilience.sdks.evidence import by_class_name, peek
from resilience.sdks.transport import TRANSPORT, transport

__all__ = ["read"]


def read(error: Exception) -> Failure | None:
    """Read a transport error, or an `HTTPStatusError` by its status, headers and body."""
    sdk = package_of(type(error)) or "httpx"
    if by_class_name(type(error), TRANSPORT):
        meaning = transport(error)
        return None if meaning is None else meaning.failure(error, sdk)
    response = peek(error, "response")
    if response is None:
        return None
    # Of a stream that was not read, the content is an error, and looking reads nothing.
    return read_response(error, sdk, response, peek(response, "content"))
