"""Errors of parsers that escape an SDK: its server answered, but not with what the API promises.

`json.JSONDecodeError` and pydantic's `ValidationError` are known for this by the frames they have
come through. From anywhere else they are the program's own business.
"""

from __future__ import annotations

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import FAMILIES
from resilience.sdks.verdict import Meaning

__all__ = ["read"]

_MISSHAPEN = Meaning(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True)
_PARSES = ("parse", "stream", "response", "decode")
"""In the name of a module or a function of an SDK that reads an answer, not a request; so does
every method named `json`."""

_DEEPEST = 256


def read(error: Exception) -> Failure | None:
    """A misshapen answer, where an SDK was reading one; else None."""
    sdk = None
    trace = error.__traceback__
    for _ in range(_DEEPEST):
        if trace is None:
            break
        frame = trace.tb_frame
        module = frame.f_globals.get("__name__")
        if isinstance(module, str):
            package = module.partition(".")[0]
            if package in FAMILIES and FAMILIES[package] != "parsing":
                where = f"{module}.{frame.f_code.co_name}".lower()
                reads = frame.f_code.co_name == "json" or any(word in where for word in _PARSES)
                sdk = package if reads else None
        trace = trace.tb_next
    return None if sdk is None else _MISSHAPEN.failure(error, sdk)
