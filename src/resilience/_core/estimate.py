"""How many tokens a call will take, guessed from its arguments without a tokenizer."""

from __future__ import annotations

from typing import Any

__all__ = ["estimate_tokens"]

_PROMPTS = ("messages", "input", "prompt", "contents", "system", "instructions", "tools")
_MOST = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
_BINARY = frozenset({"image_url", "input_audio", "inline_data", "source", "file", "data"})
"""Keys of parts of a message that are no text."""

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
    at most (`max_tokens` and its like), or 1,000."""
    prompts = [kwargs[name] for name in _PROMPTS if name in kwargs]
    characters = _characters(prompts or (*args, *kwargs.values()), _DEEPEST)
    return characters // _CHARACTERS + _answer(kwargs)


def _answer(kwargs: dict[str, Any]) -> int:
    config = kwargs.get("config")
    for name in _MOST:
        value = kwargs.get(name)
        if value is None and config is not None:  # Google's
            value = config.get(name) if type(config) is dict else getattr(config, name, None)
        if type(value) is int and value > 0:
            return value
    return _ANSWER


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
            else:
                found += _characters(each, deepest - 1)
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
