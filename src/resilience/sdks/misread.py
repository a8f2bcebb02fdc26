"""Python's own errors out of an SDK or framework making something of an answer: a TypeError over
 a list that is null, a KeyError over a field that is missing. The server answered, but with
something else.

They are known for this by the innermost frames, and a framework's by the answer that such a frame
still holds. The same errors over what the caller handed in, and all that anybody else raises, are
the program's own business.
"""

from __future__ import annotations

from types import FrameType

from attrs import evolve

from resilience.failures import Failure, describe_result
from resilience.sdks import package_of
from resilience.sdks.evidence import mapping
from resilience.sdks.places import frames, module_of
from resilience.sdks.verdict import MISSHAPEN

__all__ = ["read", "tripped"]

_SDKS = frozenset(
    {"anthropic", "auriko", "botocore", "cohere", "google", "groq"}
    | {"litellm", "mistralai", "openai", "replicate"}
)
_FRAMEWORKS = ("agents.models.", "instructor.", "llama_index.", "pydantic_ai.models.")
"""So begin the modules that ask an SDK, and make something of its answer."""
_HELD = ("response", "response_dict", "completion")
"""What they call it."""
_INTEGRATION = "langchain_"
"""So begin the packages that read answers for LangChain; its core does not."""
_CORE = "langchain_core"
_CORE_MODELS = "langchain_core.language_models.chat_models"

_PARSERS = frozenset({"json", "pydantic"})
"""Who called them is the one who counts."""

_CALLS = (".resources", "_resources", ".responses")
"""In the name of a module whose methods are the API's calls, and build their requests."""

_READERS = ("eventstream", "parsers", "replicate.stream", "streaming", "unchecked_base_model")
"""In the name of a module that does nothing but read answers."""

_READS = (
    *("chunk", "decode", "from_mldev", "from_vertex", "json_to", "parse", "response", "result"),
)
_BUILDS = (
    *("api_payload", "enter", "input", "param", "request", "response_format", "send"),
    *("to_mldev", "to_vertex"),
)
"""In the name of a function that reads an answer, and of one that has to do with a request."""

_NEAREST = 12
"""Innermost frames that are looked at."""


def read(error: Exception) -> Failure | None:
    """A misshapen answer, where an SDK was at work on one; else None."""
    sdk = None
    for frame in _innermost(error):
        module, package = module_of(frame), _package(frame)
        if package in _PARSERS:
            continue
        if module.startswith(_FRAMEWORKS):
            return tripped(error)
        if not _is_sdk(module, package) or package != (sdk or package):
            break
        sdk = package
        reads = _reads(module, frame.f_code.co_name.lower())
        if reads is not None:
            if not reads:
                return None
            failure = _of_answer(frame)
            return MISSHAPEN.failure(error, sdk) if failure is None else evolve(failure, sdk=sdk)
    return None


def tripped(error: Exception) -> Failure | None:
    """What the answer means that a framework could not use; None where it was at something else."""
    nearest = _innermost(error)
    frame = next((each for each in nearest if _package(each) not in _PARSERS), None)
    if frame is None or not module_of(frame).startswith(_FRAMEWORKS):
        return None
    return _of_answer(frame)


def _of_answer(frame: FrameType) -> Failure | None:
    """What an answer means that is an error, or is none; None where the frame holds no such."""
    for name in _HELD:
        held = frame.f_locals.get(name)
        if package_of(type(held)) or mapping(held).get("error"):
            return describe_result(held)
    return None


def _package(frame: FrameType) -> str:
    return module_of(frame).partition(".")[0]


def _innermost(error: Exception) -> list[FrameType]:
    return frames(error)[: -_NEAREST - 1 : -1]


def _is_sdk(module: str, package: str) -> bool:
    if package == _CORE:
        return module == _CORE_MODELS
    return package in _SDKS or package.startswith(_INTEGRATION)


def _reads(module: str, function: str) -> bool | None:
    """Whether the function reads an answer; None where that is up to its caller."""
    if module == _CORE_MODELS:
        return function in ("invoke", "ainvoke")  # they take the first of what came
    if any(word in module for word in _CALLS) or any(word in function for word in _BUILDS):
        return False
    if any(word in module for word in _READERS) or any(word in function for word in _READS):
        return True
    return None
