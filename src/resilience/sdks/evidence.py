"""What an exception shows of itself, taken at arm's length: nothing here trusts or raises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import index
from types import CoroutineType
from typing import Any, TypeVar, cast

from attrs import define

from resilience.sdks import is_known

__all__ = [
    "Evidence",
    "by_class_name",
    "error_in",
    "header_text",
    "json_object",
    "mapping",
    "peek",
    "status",
    "text",
]

T = TypeVar("T")

_LONGEST_JSON = 1 << 16
"""Characters. A longer body is no error envelope, and would take long to parse."""

_PADDING = 1024
"""Characters in which it must have begun: some proxies keep a connection alive by blank lines."""


def peek(thing: object, name: str) -> Any:
    """The attribute, or None if there is none or reading it raises."""
    try:
        value = getattr(thing, name, None)
    except Exception:
        return None
    if type(value) is CoroutineType:  # someone's async property; closed, so that nothing warns
        value.close()
        return None
    return value


def by_class_name(cls: type, table: Mapping[str, T]) -> T | None:
    """What `table` says of the nearest class that `cls` is made of, the user's own left out."""
    for base in cls.__mro__:
        found = table.get(base.__name__)
        if found is not None and is_known(base):
            return found
    return None


def status(value: Any) -> int | None:
    """A whole number from 100 to 599 (an `HTTPStatus`, numpy's or 503.0 too); else None."""
    if type(value) is not int:
        if value is None or isinstance(value, (str, bytes, bool)):
            return None
        try:
            value = index(_whole(value))
        except Exception:
            return None
    return value if 100 <= value <= 599 else None


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def text(value: object) -> str | None:
    """A plain, non-empty string; else None."""
    if type(value) is str:
        return value or None
    return str.__str__(value) or None if isinstance(value, str) else None


def mapping(value: object) -> Mapping[str, Any]:
    """A dict as it is; an empty one for everything else."""
    return cast("dict[str, Any]", value) if issubclass(type(value), dict) else {}


def json_object(written: object) -> Mapping[str, Any]:
    """The JSON object that a plain string or bytes are, alone in a list or not; an empty one for
    everything else."""
    if type(written) is bytes:
        begins = written[:_PADDING].lstrip().startswith((b"{", b"["))
    elif type(written) is str:
        begins = written[:_PADDING].lstrip().startswith(("{", "["))
    else:
        return {}
    if not begins or len(written) > _LONGEST_JSON:
        return {}
    try:
        return mapping(_unlisted(json.loads(written)))
    except (ValueError, RecursionError):
        return {}


def error_in(body: object) -> Mapping[str, Any]:
    """The error object of a JSON body: what is under `error`, else the body itself."""
    outer = mapping(_unlisted(body))
    inner = outer.get("error")
    return outer if inner is None else mapping(inner) or outer


def _unlisted(body: object) -> object:
    """Google puts an error into a list of one, where a stream was asked for and where OpenAI's
    format was."""
    return body[0] if isinstance(body, list) and len(body) == 1 else body


def header_text(value: object) -> str | None:
    """As `text`; httpx's undecoded headers are bytes."""
    if type(value) is str:
        return value or None
    return text(value.decode("latin-1") if isinstance(value, bytes) else value)


@define
class Evidence:
    """The facts on one error. Any field takes any object; `judge` takes what makes sense of it.

    `wait` and `retry` are what the server said outside of headers, in a body or in metadata;
    headers win.
    """

    error: Exception
    sdk: str | None
    status: Any = None
    code: Any = None
    type: Any = None
    headers: Any = None
    request_id: Any = None
    provider: Any = None
    wait: float | None = None
    retry: bool | None = None
