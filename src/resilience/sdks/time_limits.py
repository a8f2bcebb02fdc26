"""Where Google's client takes a time limit: in milliseconds, deep in its argument `config`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["limit_in", "takes_config", "with_limit"]


def takes_config(fn: Any) -> bool:
    """Whether `fn` is a method such as `client.models.generate_content`. Those of a chat are not:
    a config of the call's own would replace the chat's."""
    return getattr(fn, "__module__", None) == "google.genai.models"


def limit_in(config: Any) -> float | None:
    """The seconds that a config sets; None if it sets none."""
    found = _part(_part(config, "http_options"), "timeout")
    return found / 1000 if isinstance(found, (int, float)) else None


def with_limit(config: Any, seconds: float) -> Any:
    """A config that differs in that alone. It may be a dict, one of Google's objects, or None."""
    limit = {"timeout": max(1, int(seconds * 1000))}
    options = _changed(_part(config, "http_options"), limit)
    if isinstance(options, dict) and not isinstance(config, Mapping) and config is not None:
        options = sys.modules["google.genai.types"].HttpOptions(**options)
    return _changed(config, {"http_options": options})


def _part(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, value.get(_camel(name)))
    return getattr(value, name, None)


def _changed(value: Any, changes: dict[str, Any]) -> Any:
    if value is None:
        return changes
    if not isinstance(value, Mapping):
        return value.model_copy(update=changes)
    other = {_camel(name) for name in changes} - changes.keys()
    return {**{name: each for name, each in value.items() if name not in other}, **changes}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.title, rest))
