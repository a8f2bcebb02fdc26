"""What was asked for: the request that an error shows, if it shows one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resilience.sdks.evidence import peek, text

__all__ = ["host_in", "is_model_call"]

_LAST = frozenset({"completions", "responses", "messages", "embeddings"})
_METHODS = frozenset({"generateContent", "streamGenerateContent"})
"""How the path of a call of a model ends; the second are Google's."""

_LONGEST = 4096
"""Characters. No such URL is longer."""


def is_model_call(error: Exception) -> bool:
    """Was it a call of a model? A POST to one of a few paths; False where nothing tells."""
    request = _request(error)
    if (text(peek(request, "method")) or "").upper() != "POST":
        return False
    last = _parts(request)[1].rstrip("/").rpartition("/")[2]
    return last in _LAST or last.rpartition(":")[2] in _METHODS


def host_in(error: Exception, hosts: Iterable[str], anywhere: bool) -> bool:
    """Did the request go to one of these hosts, or one below them? With `anywhere`, other requests
    will do as well, if their host is nobody's public name or they are calls of a model."""
    host = _parts(_request(error))[0].lower()
    if any(host == each or host.endswith(f".{each}") for each in hosts):
        return True
    return anywhere and (
        not host.rpartition(".")[2].isalpha() or "." not in host or is_model_call(error)
    )


def _request(error: Exception) -> Any:
    for owner in (error, peek(error, "response"), peek(error, "raw_response")):
        for name in ("request", "request_info"):  # the second is aiohttp's
            found = peek(owner, name)
            if found is not None:
                return found
    return None


def _parts(request: Any) -> tuple[str, str]:
    """Host and path of a request's URL, which is a text (requests) or has both; else empty."""
    url = peek(request, "url")
    written = text(url)
    if written is None:
        host, path = text(peek(url, "host")) or "", text(peek(url, "path")) or ""
        return (host, path) if len(path) <= _LONGEST else (host, "")
    if len(written) > _LONGEST:
        return "", ""
    address, _, path = written.partition("?")[0].partition("://")[2].partition("/")
    return address.rpartition("@")[2].partition(":")[0], path
