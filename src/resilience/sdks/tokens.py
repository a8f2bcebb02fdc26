"""How many tokens an answer used, as it reports them: each format has names of its own.

Known by names, without importing an SDK.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from resilience._core.anatomy import peek

__all__ = ["Tokens", "tokens_of", "tokens_of_stream"]

Tokens: TypeAlias = "tuple[int | None, int | None]"
"""Of the prompt, and of the answer."""

_PACKAGES = frozenset(
    (
        "anthropic",
        "auriko",
        "cohere",
        "google",
        "groq",
        "litellm",
        "mistralai",
        "ollama",
        "openai",
        "together",
    )
)

_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")
_FORMATS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    # Of the prompt, of the answer; what comes on top of the one, and of the other.
    ("prompt_tokens", "completion_tokens", (), ()),  # OpenAI's
    ("input_tokens", "output_tokens", _CACHED, ()),  # Anthropic's
    ("prompt_token_count", "candidates_token_count", (), ("thoughts_token_count",)),  # Google's
    ("prompt_eval_count", "eval_count", (), ()),  # Ollama's
)

_HOLDERS = ("response", "message", "data", "delta", "chunk", "x_groq")
"""What items of streams may have it in."""

_SILENT = {type(None), bool, int, float, str, bytes, list, tuple}
_known: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
"""Whether values of a class may report them."""

_TOO_MANY = 10**15
_EDGE = 4
"""Items at the beginning and at the end of a stream, where it is."""


def tokens_of(result: object) -> Tokens | None:
    """Those of a result; None where it reports none."""
    kind = type(result)
    if kind is dict or (kind not in _SILENT and _may_report(kind)):
        return _read(result)
    return None


def tokens_of_stream(items: Sequence[object]) -> Tokens | None:
    """Those of a stream: for each number, what the last of its items reports."""
    prompt = answer = None
    edges = {*range(min(_EDGE, len(items))), *range(max(0, len(items) - _EDGE), len(items))}
    for item in (items[at] for at in sorted(edges)):
        for found in filter(None, map(_read, _places(item))):
            prompt = prompt if found[0] is None else found[0]
            answer = answer if found[1] is None else found[1]
    return None if prompt is answer is None else (prompt, answer)


def _places(item: object) -> Iterator[object]:
    if _may_report(type(item)):
        yield item
        yield from (held for name in _HOLDERS if (held := _get(item, name)) is not None)


def _may_report(cls: Any) -> bool:
    if cls is dict:
        return True
    found = _known.get(cls)
    if found is None:
        packages = {base.__module__.partition(".")[0] for base in cls.__mro__}
        found = _known[cls] = not packages.isdisjoint(_PACKAGES)
    return found


def _read(answer: object) -> Tokens | None:
    usage = _get(answer, "usage") or _get(answer, "usage_metadata")
    if usage is None:
        return None if type(answer) is dict else _counts(answer)  # Ollama's
    return _counts(usage) or _counts(_get(usage, "tokens"))  # Cohere's


def _counts(usage: object) -> Tokens | None:
    for name, reply_name, cached, thought in _FORMATS:
        prompt, reply = _number(usage, name), _number(usage, reply_name)
        if prompt is reply is None:
            continue
        if prompt is not None:
            for each in cached:
                prompt += _number(usage, each) or 0
        if reply is not None:
            for each in thought:
                reply += _number(usage, each) or 0
        return prompt, reply
    return None


def _number(usage: object, name: str) -> int | None:
    value = usage.get(name) if type(usage) is dict else peek(usage, name)
    if type(value) is int and 0 <= value < _TOO_MANY:
        return value
    if isinstance(value, float) and 0 <= value < _TOO_MANY:  # Cohere's
        return int(value)
    return None


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if type(thing) is dict else peek(thing, name)
