"""What the options of planned answers must be: converters and validators for attrs fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, cast

from attrs import Attribute

from resilience._core.options import to_count, to_number, to_seconds
from resilience.sdks.auriko import CODES

__all__ = [
    "copied",
    "count",
    "extra_headers",
    "header_or_seconds",
    "http_status",
    "maybe_seconds",
    "optional_header",
    "optional_milliseconds",
    "optional_retry_after",
    "optional_status",
    "optional_text",
    "optional_time",
    "plain_code",
    "plain_seconds",
    "sendable_code",
    "some_time",
]

Validator: TypeAlias = "Callable[[Any, Attribute[Any], Any], None]"

# What no server sends: the SDK makes these up, so a plan has to bring about their cause instead.
_MADE_BY_THE_SDK = {
    "api_connection_error": "Drop() or Hang()",
    "invalid_response": "ProxyError(status=200)",
    "malformed_response": "Malformed() or ProxyError()",
    "missing_api_key": "a client without a key",
}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = {"content-length", "transfer-encoding", "connection"}


def plain_seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value


def maybe_seconds(value: float | timedelta | None) -> float | None:
    return value.total_seconds() if isinstance(value, timedelta) else value


def header_or_seconds(value: float | timedelta | str | None) -> float | str | None:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _check_header(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {value!r}")
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError(
            f"{name} must be printable ASCII without spaces around it, as headers are, "
            f"got {value!r}"
        )


def _name(instance: object, attribute: Attribute[Any]) -> str:
    return f"{type(instance).__name__}.{attribute.name}"


def some_time(instance: object, attribute: Attribute[Any], value: object) -> None:
    to_seconds(_name(instance, attribute), value, positive=False)


def optional_time(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        some_time(instance, attribute, value)


def optional_text(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str):
        name = _name(instance, attribute)
        raise TypeError(f"{name} must be a str or None, got {value!r}")


def count(instance: object, attribute: Attribute[Any], value: object) -> None:
    to_count(_name(instance, attribute), value, least=0)


def http_status(*also: int) -> Validator:
    allowed = "".join(f"{status} or " for status in also) + "between 400 and 599"

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        name = _name(instance, attribute)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, got {value!r}")
        if value not in also and not 400 <= value <= 599:
            raise ValueError(f"{name} must be {allowed}, got {value!r}")

    return check


def optional_status(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        http_status()(instance, attribute, value)


def sendable_code(instance: object, attribute: Attribute[Any], value: object) -> None:
    name = _name(instance, attribute)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {value!r}")
    if value not in CODES:
        near = difflib.get_close_matches(value, CODES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of Auriko's error codes, got {value!r}{hint}")
    if value in _MADE_BY_THE_SDK:
        raise ValueError(
            f"{name} must be a code that a server sends; {value!r} is made by the SDK, "
            f"plan {_MADE_BY_THE_SDK[value]} instead"
        )


def plain_code(instance: object, attribute: Attribute[Any], value: str) -> None:
    sendable_code(instance, attribute, value)
    if not CODES[value].status:
        raise ValueError(
            f"{_name(instance, attribute)} must be a code with an HTTP status; "
            f"{value!r} has none, it only comes mid-stream: plan ErrorInStream({value!r})"
        )


def optional_retry_after(instance: object, attribute: Attribute[Any], value: object) -> None:
    name = _name(instance, attribute)
    if isinstance(value, str):
        _check_header(name, value)
    elif value is not None:
        to_seconds(name, value, positive=False)


def optional_milliseconds(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        to_number(_name(instance, attribute), value, least=0)


def optional_header(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _check_header(_name(instance, attribute), value)


def extra_headers(instance: object, attribute: Attribute[Any], value: object) -> None:
    name = _name(instance, attribute)
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of str to str, got {value!r}")
    for key, text in cast("Mapping[object, object]", value).items():
        if not isinstance(key, str):
            raise TypeError(f"{name} must have str for its keys, got {key!r}")
        if not _TOKEN.fullmatch(key) or key.lower() in _FRAMING:
            raise ValueError(f"{name} must name headers other than the framing ones, got {key!r}")
        _check_header(f"{name}[{key!r}]", text)


def copied(value: Mapping[str, str] | None) -> Mapping[str, str]:
    # What is no mapping is left for the validator, whose message names the field.
    if value is None:
        return {}
    return dict(value) if isinstance(value, Mapping) else value  # pyright: ignore[reportUnnecessaryIsInstance]
