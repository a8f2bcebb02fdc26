"""How many tokens an answer used, as it reports them: each format has two names of its own.

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

_PROMPT = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")  # beside Anthropic's
_ANSWER = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
_THOUGHT = ("thoughts_token_count",)  # beside Google's

_HOLDERS = ("response", "message", "data", "delta", "chunk", "x_groq")
"""What items of streams may have it in."""

_SILENT = {type(None), bool, int, float, str, bytes, list, tuple}
_known: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
"""Whether values of a class may report them."""

_EDGE = 4
"""Items at the beginning and at the end of a stream, where it is."""


def tokens_of(result: object) -> Tokens | None:
    """Those of a result; None where it reports none."""
    kind = type(result)
    return None if kind in _SILENT or not _may_report(kind) else _read(result)


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
    found = _known.get(cls)
    if found is None:
        packages = {base.__module__.partition(".")[0] for base in cls.__mro__}
        found = _known[cls] = cls is dict or not packages.isdisjoint(_PACKAGES)
    return found


def _read(answer: object) -> Tokens | None:
    usage = _get(answer, "usage") or _get(answer, "usage_metadata")
    if usage is None:
        if type(answer) is dict:
            return None
        usage = answer  # Ollama's
    usage = _get(usage, "tokens") or usage  # Cohere's
    prompt, reply = _first(usage, _PROMPT), _first(usage, _ANSWER)
    if prompt is reply is None:
        return None
    if prompt is not None:
        prompt += sum(_first(usage, (name,)) or 0 for name in _CACHED)
    if reply is not None:
        reply += _first(usage, _THOUGHT) or 0
    return prompt, reply


def _first(usage: object, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = _get(usage, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
            return int(value)
    return None


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if type(thing) is dict else peek(thing, name)
