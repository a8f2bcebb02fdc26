"""Names of keys: from a prefix, a breaker's name and a key's value, none ever for two circuits."""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import Any

from resilience._core.options import to_text

__all__ = ["key_name", "to_prefix"]

_KIND = "circuit1"  # with the version of the layout: other versions have other keys
_PLAIN = re.compile(r"[A-Za-z0-9_.@-]{1,80}")


def to_prefix(name: str, value: Any) -> str:
    """Text that can be sent."""
    text = to_text(name, value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text that UTF-8 can encode, got {value!r}") from None
    return text


def key_name(prefix: str, name: str | None, value: Any, kind: str = _KIND) -> str:
    """`prefix:circuit1:name:value`; what is long, odd or no text is there as a digest.

    A circuit has this one key only, so that in a cluster it lies in one slot. TypeError for a
    value for which other processes could not compute the same name.
    """
    return f"{prefix}:{kind}:{_part(name)}:{_part(value)}"


def _part(value: Any) -> str:
    if value is None:
        return "~"  # no digest is as short, and no text is named so
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return str.__str__(value)
    return "~" + hashlib.sha256(_encoded(value)).hexdigest()[:40]


def _encoded(value: Any) -> bytes:
    """Bytes that are the same in every process for values that are equal, and only for those."""
    if value is None:
        return b"none"
    if isinstance(value, str):
        return b"text" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return b"bytes" + value
    if isinstance(value, (int, float)):  # True, 1 and 1.0 are one key of a dict
        whole = isinstance(value, int) or value.is_integer()
        return b"number" + repr(int(value) if whole else value).encode()
    if isinstance(value, Enum):
        return b"enum" + _digests(type(value).__qualname__, value.name)
    if isinstance(value, tuple):
        return b"tuple" + _digests(*value)
    if isinstance(value, frozenset):
        return b"set" + b"".join(sorted(_digests(each) for each in value))
    raise TypeError(
        f"a circuit shared through Redis needs a key of text, numbers or tuples of them, got a "
        f"{type(value).__name__}"
    )


def _digests(*parts: Any) -> bytes:
    return b"".join(hashlib.sha256(_encoded(each)).digest() for each in parts)
