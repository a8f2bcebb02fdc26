"""What known SDKs hand out besides plain results, recognised without importing them."""

from __future__ import annotations

__all__ = ["is_stream_manager"]

_PACKAGES = frozenset({"anthropic", "auriko", "groq", "openai"})
_SUFFIXES = ("StreamManager", "ResponseContextManager", "ConnectionManager")


def is_stream_manager(cls: type) -> bool:
    """Is `cls` an SDK's lazy context manager, which sends its request only at `__enter__`?

    Such as what `client.chat.completions.stream()`, `.with_streaming_response` and
    `client.realtime.connect()` return.
    """
    return any(
        base.__name__.endswith(_SUFFIXES) and base.__module__.partition(".")[0] in _PACKAGES
        for base in cls.__mro__
    )
