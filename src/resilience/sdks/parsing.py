"""Errors of parsers that escape an SDK: its server answered, but not with what the API promises.

`json.JSONDecodeError` and pydantic's `ValidationError` are known for this by the frames they have
come through. From anywhere else they are the program's own business.
"""

from __future__ import annotations

from resilience.failures import Failure
from resilience.sdks import FAMILIES
from resilience.sdks.evidence import by_class_name
from resilience.sdks.places import places
from resilience.sdks.verdict import MISSHAPEN

__all__ = ["read"]

_PARSES = ("parse", "parsing", "stream", "response", "decode")
"""In the name of a module or a function of an SDK that reads an answer, not a request; so does
every method named `json`."""

_GOOGLES = ("genai.batches", "genai.caches", "genai.files", "genai.models", "genai.tunings")
"""Google's methods read their answers themselves. They parse no JSON to build a request, but they
do check models."""

_OLLAMAS = ("ollama._client._request", "ollama._client.inner")
"""Its methods check their own requests."""

_ERRORS = {
    "JSONDecodeError": (*_PARSES, *_GOOGLES, *_OLLAMAS),
    "ValidationError": (*_PARSES, *_OLLAMAS),
}
"""Where each of the errors comes from a misshapen answer."""

_SERVES = "aiohttp.web"
"""The half of aiohttp that reads the requests of others."""

_PARSERS = frozenset({"json", "pydantic"})
"""They raise the errors: who called them is the one who counts."""

_SCHEMAS = frozenset({"instructor", "pydantic_ai"})
"""They hold what a model wrote against the schema of whoever asks."""

_STORED = "databases"
"""The family that gives back what the program itself has put there."""


def read(error: Exception) -> Failure | None:
    """A misshapen answer, where an SDK was reading one; else None."""
    words = by_class_name(type(error), _ERRORS)
    sdk = None if words is None else _reading(error, words)
    return None if sdk is None else MISSHAPEN.failure(error, sdk)


def _reading(error: Exception, words: tuple[str, ...]) -> str | None:
    """The SDK that was reading an answer, by the innermost frames that are no parser's."""
    sdk = None
    for module, function in places(error):
        package = module.partition(".")[0]
        if package not in _PARSERS:
            known = FAMILIES.get(package, _STORED) != _STORED and package not in _SCHEMAS
            reads = known and _reads(module, function, words)
            # An SDK that has its transport do the reading is the one that was called.
            sdk = None if not reads else package if sdk is None or function != "json" else sdk
    return sdk


def _reads(module: str, function: str, words: tuple[str, ...]) -> bool:
    if module.startswith(_SERVES):
        return False
    # `resources.responses` has the calls of an API of that name, and builds their requests.
    where = function if ".resources" in module else f"{module}.{function}"
    return function == "json" or any(word in where.lower() for word in words)
