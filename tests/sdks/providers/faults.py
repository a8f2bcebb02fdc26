"""What can go wrong between a client and a provider, the same list for every SDK."""

from __future__ import annotations

from attrs import Factory, frozen

__all__ = ["DATE", "FAULTS", "PROXY_PAGE", "Fault", "patience"]

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
"""The `Date` of every answer; dates in `Retry-After` are ten seconds later."""

PROXY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"


@frozen
class Fault:
    """One thing that goes wrong.

    `kind` picks the provider's envelope ("rate_limit", "quota", "server" ...); `body` replaces it.
    `how`: "answer" with that status and headers; "refused", "hang" or "drop" without one; "stream"
    an error event after the first content of a stream (`body` replaces the whole stream), "cut" the
    same with the connection lost at its end; "shape" a 200 that is none of the API's.
    """

    name: str
    status: int = 200
    kind: str = ""
    headers: dict[str, str] = Factory(dict)
    body: bytes | None = None
    how: str = "answer"


def _limited(name: str, **headers: str) -> Fault:
    wanted = {key.replace("_", "-"): value for key, value in headers.items()}
    return Fault(name, 429, "rate_limit", wanted)


FAULTS = [
    _limited("429"),
    _limited("429 seconds", retry_after="7"),
    _limited("429 fraction", retry_after="1.5"),
    _limited("429 date", retry_after="Sun, 06 Nov 1994 08:49:47 GMT"),
    _limited("429 rfc850", retry_after="Sunday, 06-Nov-94 08:49:47 GMT"),
    _limited("429 asctime", retry_after="Sun Nov  6 08:49:47 1994"),
    _limited("429 milliseconds", retry_after_ms="250", retry_after="9"),
    _limited("429 azure", x_ms_retry_after_ms="350", retry_after="9"),
    _limited("429 nonsense", retry_after="soon"),
    _limited("429 told not to", retry_after="7", x_should_retry="false"),
    Fault("429 quota", 429, "quota"),
    Fault("500", 500, "server"),
    Fault("502 html", 502, "", {"content-type": "text/html"}, PROXY_PAGE),
    Fault("503", 503, "unavailable", {"retry-after": "7"}),
    Fault("504", 504, "timeout"),
    Fault("529", 529, "overloaded"),
    Fault("400", 400, "invalid"),
    Fault("400 told to", 400, "invalid", {"x-should-retry": "true"}),
    Fault("400 context length", 400, "context_length"),
    Fault("400 content filter", 400, "content_filter"),
    Fault("401", 401, "auth"),
    Fault("403", 403, "permission"),
    Fault("404 model", 404, "model"),
    Fault("408", 408, "request_timeout"),
    Fault("409", 409, "conflict"),
    Fault("413", 413, "too_large"),
    Fault("422", 422, "unprocessable"),
    Fault("refused", how="refused"),
    Fault("read timeout", how="hang"),
    Fault("dropped", how="drop"),
    Fault("mid-stream", how="stream"),
    Fault("wrong shape", how="shape"),
]


def patience(url: str) -> float:
    """Seconds that a client waits: few for a server that hangs, and for the others enough that a
    busy machine does not look like one."""
    return 0.3 if url.endswith("/hang") else 20.0
