"""How the errors of known client libraries are read: one small module per family.

A family module has `read(error) -> Failure | None`. It gathers evidence from its exceptions'
attributes and hands that to `verdict.judge`, in the dialect of the body's format. It is imported
when the first such error is seen, and it never imports the client library itself: exceptions are
recognised by the package and the name of their classes.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

from resilience._core.anatomy import facts_of
from resilience._core.failure import Failure, Kind

__all__ = [
    "in_framework",
    "is_known",
    "package_of",
    "read_result",
    "read_status",
    "reader_for",
]

FAMILIES = {
    "agents": "families",
    "aiohttp": "aiohttp",
    "anthropic": "anthropic",
    "asyncpg": "databases",
    "auriko": "auriko",
    "azure": "families",
    "boto3": "families",
    "botocore": "botocore",
    "cerebras": "families",
    "cohere": "cohere",
    "exceptiongroup": "groups",
    "google": "google",
    "groq": "groq",
    "grpc": "grpc",
    "httpcore": "httpx",
    "httpcore2": "httpx",
    "httpx": "httpx",
    "httpx2": "httpx",
    "huggingface_hub": "families",
    "instructor": "families",
    "json": "parsing",
    "langchain_core": "langchain",
    "litellm": "litellm",
    "mcp": "families",
    "mistralai": "mistral",
    "ollama": "families",
    "openai": "openai",
    "psycopg": "databases",
    "psycopg2": "databases",
    "psycopg_pool": "databases",
    "pydantic_ai": "families",
    "pydantic_core": "parsing",
    "pymongo": "databases",
    "redis": "databases",
    "replicate": "families",
    "requests": "requests",
    "s3transfer": "families",
    "sqlalchemy": "databases",
    "sqlite3": "databases",
    "together": "families",
    "urllib3": "requests",
    "valkey": "databases",
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
    if issubclass(cls, _GROUPS):
        return _reader("groups")
    if in_framework(cls):
        return _reader("langchain")
    if cls in _BUILTIN or cls.__module__ == "pydantic.v1.error_wrappers":
        return _reader("misread")
    if cls is RuntimeError:
        return _reader("loops")
    families = _families(cls)
    if len(families) == 1:
        return _reader(families[0])
    return partial(_with_most_to_say, tuple(map(_reader, families)))


def _families(cls: type) -> list[str]:
    """Those of the known classes that `cls` is made of, if none of them is made of another."""
    found: dict[type, str] = {}
    for base in cls.__mro__:
        package = base.__module__.partition(".")[0]
        if package in FAMILIES and not any(issubclass(each, base) for each in found):
            found[base] = FAMILIES[package]
    # The standard library comes last: an SDK's error is often an OSError or a ValueError too.
    if not found or any(
        is_known(base) and not any(issubclass(each, base) for each in found) for base in cls.__mro__
    ):
        found[Exception] = "stdlib"
    return list(dict.fromkeys(found.values()))


@lru_cache(64)
def _reader(family: str) -> Callable[[Exception], Failure | None]:
    reader: Callable[[Exception], Failure | None] = import_module(f"{__name__}.{family}").read
    return reader


def _with_most_to_say(
    readers: tuple[Callable[[Exception], Failure | None], ...], error: Exception
) -> Failure | None:
    """The failure that has most of its fields; of equals the first, and any before UNKNOWN."""
    failures = [failure for failure in (reader(error) for reader in readers) if failure]
    return max(failures, key=_facts, default=None)


def _facts(failure: Failure) -> tuple[bool, int]:
    known = failure.kind is not Kind.UNKNOWN
    return known, sum(value is not None for value in vars(failure).values())


def read_status(error: Exception) -> Failure | None:
    """What an error that nobody knows means by the status that it carries; None without one."""
    cls: Any = type(error)  # a class is hashable, which mypy does not see
    if not facts_of(error) and not _has_slots(cls):
        return None
    return _reader("unknown")(error)


@lru_cache(512)  # some libraries make a class per client
def _has_slots(cls: type) -> bool:
    return any("__slots__" in base.__dict__ for base in cls.__mro__)


def read_result(result: object) -> Failure | None:
    """What a result means that is an error; None for any other."""
    failure: Failure | None = import_module(f"{__name__}.results").read(result)
    return failure
