"""Python's own errors out of an SDK that was making something of an answer: a TypeError over a list
that is null, a KeyError over a field that is missing. The server answered, but with something else.

They are known for this by the innermost frames. The same errors over what the caller handed in,
and all that anybody else raises, are the program's own business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import FrameType, TracebackType

from resilience.failures import Failure
from resilience.sdks.verdict import MISSHAPEN

__all__ = ["read"]

_SDKS = frozenset(
    {"anthropic", "auriko", "botocore", "cohere", "google", "groq"}
    | {"litellm", "mistralai", "openai"}
)
_INTEGRATION = "langchain_"
"""So begin the packages that read answers for LangChain; its core does not."""
_CORE = "langchain_core"

_PARSERS = frozenset({"json", "pydantic"})
"""Who called them is the one who counts."""

_CALLS = (".resources", "_resources", ".responses")
"""In the name of a module whose methods are the API's calls, and build their requests."""

_READERS = ("eventstream", "parsers", "streaming", "unchecked_base_model")
"""In the name of a module that does nothing but read answers."""

_READS = ("chunk", "decode", "from_mldev", "from_vertex", "parse", "response", "result")
_BUILDS = (
    *("api_payload", "enter", "input", "param", "request", "response_format", "send"),
    *("to_mldev", "to_vertex"),
)
"""In the name of a function that reads an answer, and of one that has to do with a request."""

_DEEPEST = 256
_NEAREST = 12
"""Frames that are passed on the way to the innermost, and how many of these are looked at."""


def read(error: Exception) -> Failure | None:
    """A misshapen answer, where an SDK was at work on one; else None."""
    sdk = None
    for frame in _innermost(error.__traceback__):
        named = frame.f_globals.get("__name__")
        module = named if isinstance(named, str) else ""
        package = module.partition(".")[0]
        if package in _PARSERS:
            continue
        if not _is_sdk(package) or package != (sdk or package):
            break
        sdk = package
        reads = _reads(module, frame.f_code.co_name.lower())
        if reads is not None:
            return MISSHAPEN.failure(error, sdk) if reads else None
    return None


def _innermost(trace: TracebackType | None) -> Iterator[FrameType]:
    """The last frames of a traceback, the innermost first; none of one that is endless."""
    last: deque[TracebackType] = deque(maxlen=_NEAREST)
    for _ in range(_DEEPEST):
        if trace is None:
            return (each.tb_frame for each in reversed(last))
        last.append(trace)
        trace = trace.tb_next
    return iter(())


def _is_sdk(package: str) -> bool:
    return package in _SDKS or (package.startswith(_INTEGRATION) and package != _CORE)


def _reads(module: str, function: str) -> bool | None:
    """Whether the function reads an answer; None where that is up to its caller."""
    if any(word in module for word in _CALLS) or any(word in function for word in _BUILDS):
        return False
    if any(word in module for word in _READERS) or any(word in function for word in _READS):
        return True
    return None
