"""What the options of planned answers must be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from resilience._core.options import to_count, to_seconds, to_text
from resilience.sdks.auriko import CODES

# What no server sends: the SDK makes these up, so a plan has to bring about their cause instead.
_MADE_BY_THE_SDK = {
    "api_connection_error": "Drop() or Hang()",
    "invalid_response": "ProxyError(status=200)",
    "malformed_response": "Malformed() or ProxyError()",
    "missing_api_key": "a client without a key",
}
to_wait = partial(to_seconds, positive=False)
"""Seconds, or none."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = {"content-length", "transfer-encoding", "connection"}


def to_string(name: str, value: object) -> str:
    """A string, which may be empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {value!r}")
    return value


def to_header(name: str, value: object) -> str:
    """The value of a header."""
    text = to_string(name, value)
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError(
            f"{name} must be printable ASCII without spaces around it, as headers are, "
            f"got {value!r}"
        )
    return text


def to_headers(name: str, value: object) -> dict[str, str]:
    """A copy of a mapping of headers."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of str to str, got {value!r}")
    for key, text in cast("Mapping[object, object]", value).items():
        if not isinstance(key, str):
            raise TypeError(f"{name} must have str for its keys, got {key!r}")
        if not _TOKEN.fullmatch(key) or key.lower() in _FRAMING:
            raise ValueError(f"{name} must name headers other than the framing ones, got {key!r}")
        to_header(f"{name}[{key!r}]", text)
    return dict(value)


def to_retry_after(name: str, value: Any) -> float | str:
    """Seconds, or the text of a `Retry-After` header."""
    return to_header(name, value) if isinstance(value, str) else to_wait(name, value)


def to_status(*also: int) -> Callable[[str, object], int]:
    """A check for the HTTP status of an error, or one of `also`."""
    allowed = "".join(f"{status} or " for status in also) + "between 400 and 599"

    def check(name: str, value: object) -> int:
        status = to_count(name, value, 0)
        if status not in also and not 400 <= status <= 599:
            raise ValueError(f"{name} must be {allowed}, got {value!r}")
        return status

    return check


def to_code(name: str, value: object) -> str:
    """A code of Auriko's that a server sends."""
    code = to_string(name, value)
    if code not in CODES:
        near = difflib.get_close_matches(code, CODES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of Auriko's error codes, got {code!r}{hint}")
    if code in _MADE_BY_THE_SDK:
        raise ValueError(
            f"{name} must be a code that a server sends; {code!r} is made by the SDK, "
            f"plan {_MADE_BY_THE_SDK[code]} instead"
        )
    return code


def check_code_of_error(name: str, code: str, *, foreign: bool) -> None:
    """The same, of an error that has an HTTP status; `foreign`, and any code will do."""
    if foreign:
        to_text(name, code)
    elif not CODES[to_code(name, code)].status:
        raise ValueError(
            f"{name} must be a code with an HTTP status; {code!r} has none, it only comes "
            f"mid-stream: plan ErrorInStream({code!r})"
        )
