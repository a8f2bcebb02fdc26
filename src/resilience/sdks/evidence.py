"""What an exception shows of itself, taken at arm's length: nothing here trusts or raises."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any, TypeVar, cast

from attrs import define

from resilience._core.anatomy import peek
from resilience.sdks import is_known

__all__ = [
    "Evidence",
    "by_class_name",
    "error_in",
    "header_text",
    "json_object",
    "json_value",
    "mapping",
    "peek",
    "status",
    "text",
    "unlisted",
    "word",
]

T = TypeVar("T")

_LONGEST_JSON = 1 << 16
"""Characters. A longer body is no error envelope, and would take long to parse."""

_LONGEST_WORD = 128
_PADDING = 1024
"""Characters in which it must have begun: some proxies keep a connection alive by blank lines."""


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
    """The JSON object that a plain string or bytes are, or the first of a list of them; an empty
    one for everything else."""
    return mapping(unlisted(json_value(written)))


def json_value(written: object) -> object:
    """The JSON object or list that a plain string or bytes are; None for everything else."""
    if type(written) is bytes:
        begins = written[:_PADDING].lstrip().startswith((b"{", b"["))
    elif type(written) is str:
        begins = written[:_PADDING].lstrip().startswith(("{", "["))
    else:
        return None
    if not begins or len(written) > _LONGEST_JSON:
        return None
    import json  # which a program that calls an API has imported

    try:
        return cast("object", json.loads(written))
    except (ValueError, RecursionError):
        return None


def error_in(body: object) -> Mapping[str, Any]:
    """The error object of a JSON body: what is under `error`, else the body itself."""
    outer = mapping(unlisted(body))
    inner = outer.get("error")
    return outer if inner is None else mapping(inner) or outer


def unlisted(body: object) -> object:
    """The first of a list: Google puts an error into one, where a stream was asked for and where
    OpenAI's format was; Salesforce puts several."""
    return cast("list[object]", body)[0] if type(body) is list and body else body


def word(value: object) -> str | None:
    """A code or a type, which may be a number; None for a sentence, that is no such thing."""
    if type(value) is int:
        return str(value) if 0 <= value < 10**9 else None
    found = text(value)
    return found if found and len(found) <= _LONGEST_WORD and " " not in found else None


def header_text(value: object) -> str | None:
    """As `text`; httpx's undecoded headers are bytes."""
    if type(value) is str:
        return value or None
    return text(value.decode("latin-1") if isinstance(value, bytes) else value)


@define(eq=False, repr=False)
class Evidence:
    """The facts on one error. Any field takes any object; `judge` takes what makes sense of it.

    `request_id`, `wait` and `retry` are what the server said outside of headers, in metadata or in
    an attribute; of the latter two headers win. `body` is what it may have said more in.
    `model_call`: such it was, whatever the
    request shows. `statuses`: what the SDK in question makes of them, if not what all do.
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
    body: Any = None
    model_call: bool = False
    statuses: Mapping[int, Any] | None = None
