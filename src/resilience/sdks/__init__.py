"""How the errors of known client libraries are read: one small module per family.

A family module has `read(error) -> Failure | None`. It gathers evidence from its exceptions'
attributes and hands that to `verdict.judge` with its own table of codes. It is imported when
the first such error is seen, and it never imports the client library itself: exceptions are
recognised by the package and the name of their classes.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from importlib import import_module

from resilience._core.failure import Failure
from resilience.sdks._shapes import is_stream_manager

__all__ = ["in_framework", "is_known", "is_stream_manager", "package_of", "reader_for"]

FAMILIES = {
    "aiohttp": "aiohttp",
    "anthropic": "anthropic",
    "auriko": "auriko",
    "botocore": "botocore",
    "cohere": "cohere",
    "exceptiongroup": "groups",
    "google": "google",
    "groq": "groq",
    "grpc": "grpc",
    "httpcore": "httpx",
    "httpcore2": "httpx",
    "httpx": "httpx",
    "httpx2": "httpx",
    "json": "parsing",
    "langchain_core": "langchain",
    "litellm": "litellm",
    "mistralai": "mistral",
    "openai": "openai",
    "pydantic_core": "parsing",
    "requests": "requests",
    "urllib3": "requests",
}
"""Top-level package of an exception class -> the module here that reads it."""

_BUILTIN = frozenset({AttributeError, IndexError, KeyError, TypeError, ValueError})
"""What Python raises over data of another shape than expected: the program's, or an answer's."""

_GROUPS: tuple[type, ...] = tuple(filter(None, [getattr(builtins, "BaseExceptionGroup", None)]))


def package_of(cls: type) -> str | None:
    """The first known package among the classes that `cls` is made of."""
    for base in cls.__mro__:
        package = base.__module__.partition(".")[0]
        if package in FAMILIES:
            return package
    return None


def is_known(cls: type) -> bool:
    """Is `cls` a client library's or Python's own, not one that a user has made of them?"""
    package = cls.__module__.partition(".")[0]
    return package in FAMILIES or package in sys.stdlib_module_names


def in_framework(cls: type) -> bool:
    """Is `cls` one of LangChain's? Such a class is often an SDK's as well."""
    return any(base.__module__.partition(".")[0] == "langchain_core" for base in cls.__mro__)


def reader_for(cls: type) -> Callable[[Exception], Failure | None]:
    """The function that reads exceptions of `cls`; it returns None for one it does not know."""
    package = package_of(cls)
    # The standard library comes last: an SDK's error is often an OSError or a ValueError too.
    family = "stdlib" if package is None else FAMILIES[package]
    if cls in _BUILTIN:
        family = "misread"
    if in_framework(cls):
        family = "langchain"
    if issubclass(cls, _GROUPS):
        family = "groups"
    reader: Callable[[Exception], Failure | None] = import_module(f"{__name__}.{family}").read
    return reader
