"""How many tokens a call will take, guessed from its arguments without a tokenizer."""

from __future__ import annotations

from typing import Any

from .anatomy import peek

__all__ = ["ANSWER_LIMITS", "estimate_tokens", "limit_in", "said_in", "tokens_in"]

_PROMPTS = frozenset(("messages", "input", "prompt", "contents", "system", "instructions", "tools"))
ANSWER_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "max_new_tokens")
"""Arguments that limit the tokens of the answer."""
_LIMITS = frozenset(ANSWER_LIMITS)
_BINARY = frozenset({"image_url", "input_audio", "inline_data", "source", "file", "data"})
"""Keys of parts of a message that are no text."""

_VALUES = frozenset((type(None), bool, int, float, str, bytes, list, tuple, dict, set))
"""Types that are no client's."""

_ANSWER = 1000
"""Tokens of an answer whose length nobody limits."""
_PART = 1000
"""Tokens of an image or the like."""
_CHARACTERS = 4
"""Of a token, in English; in other languages there may be 1 or 2."""
_DEEPEST = 8


def estimate_tokens(*args: Any, **kwargs: Any) -> int:
    """A fourth of the characters of the prompt (`messages`, `input`, `contents` and the like; of
    all texts among the arguments where there are none of these), and as many as the answer may have
    at most (`max_tokens` and its like), or 1,000. Lists may have messages in them that are objects,
    as LangChain's and Google's are."""
    return tokens_in(args, kwargs)


def tokens_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The same of the arguments as they are kept. Never raises."""
    found = answer = 0
    prompts = False
    for name, value in kwargs.items():
        if name in _PROMPTS:
            prompts = True
            found += _characters(value, _DEEPEST)
        elif name in _LIMITS:
            if type(value) is int and value > 0:
                answer = value
        elif name == "config":  # Google's
            answer = answer or limit_in(value)
    if not prompts:
        for value in (*args, *kwargs.values()):
            found += _characters(value, _DEEPEST)
    return found // _CHARACTERS + (answer or _ANSWER)


def limit_in(config: Any) -> int:
    """The limit in a config of Google's client; 0 if it has none."""
    for name in ANSWER_LIMITS:
        value = config.get(name) if type(config) is dict else peek(config, name)
        if type(value) is int and value > 0:
            return value
    return 0


def said_in(message: Any) -> str | list[Any] | None:
    """What a client's object says, as LangChain's messages and Google's contents have it; None if
    it is no such object."""
    if type(message) not in _VALUES:
        for name in ("content", "parts", "text"):
            said = peek(message, name)
            if isinstance(said, (str, list)):
                return str(said) if isinstance(said, str) else said
    return None


def _characters(value: Any, deepest: int) -> int:
    kind = type(value)
    if kind is str:
        return len(value)
    if not deepest:
        return 0
    if kind is list or kind is tuple:
        found = 0
        for each in value:
            text = each.get("content") if type(each) is dict else each
            if type(text) is str and (text is each or len(each) == 2):  # as most messages are
                found += len(text)
                continue
            said = said_in(each)
            found += _characters(each if said is None else said, deepest - 1)
        return found
    if kind is dict:
        found = 0
        for name, each in value.items():
            if name in _BINARY and type(each) is not list:
                found += _PART * _CHARACTERS
            elif name not in ("role", "type"):
                found += _characters(each, deepest - 1)
        return found
    return 0
