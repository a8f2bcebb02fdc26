"""Ready-made `on_result=` checks: answers that came with status 200 and are none.

    Retry(on_result=no_choices)
    CircuitBreaker(on_result=error_body)

Each takes any result, true if it is a bad one, and never raises. They look at the fields that the
SDKs' models and plain dicts share; a stream is not looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ._core.fields import to_text

__all__ = ["empty_answer", "error_body", "finish_reason", "no_choices"]

_ANSWERS = ("choices", "candidates", "content", "output", "message")
"""Where OpenAI's and Auriko's chat, Google, Anthropic, OpenAI's responses and Cohere keep them."""
_SAID = ("content", "tool_calls", "function_call", "refusal", "audio")
_MISSING = object()


def no_choices(result: Any) -> bool:
    """No answer in it: text or nothing where an object should be, or an empty list of choices.

    OpenAI's SDK gives a page of HTML as a string, and a body of another shape as a completion
    whose `choices` are None.
    """
    if result is None or isinstance(result, (str, bytes)):
        return True
    found = [value for name in _ANSWERS if (value := _look(result, name)) is not _MISSING]
    if not found:
        return isinstance(result, dict)
    return all(value is None or value == [] for value in found)


def error_body(result: Any) -> bool:
    """An error in the place of an answer: `{"error": {...}}`, which some gateways send with 200.

    OpenAI's SDK keeps it as an extra field, `.error`.
    """
    return _look(result, "error") not in (_MISSING, None)


def empty_answer(result: Any) -> bool:
    """Every choice is a message that says nothing, calls no tool and refuses nothing."""
    messages = list(_messages(result))
    return bool(messages) and all(
        _look(message, name) in (_MISSING, None, "", []) for message in messages for name in _SAID
    )


def finish_reason(*reasons: str) -> Callable[[Any], bool]:
    """A check for answers that ended for one of these reasons, such as "length" or "error"."""
    if not reasons:
        raise ValueError("reasons must name at least one reason, got ()")
    wanted = frozenset(to_text("reasons", reason) for reason in reasons)

    def ended(result: Any) -> bool:
        """Whether a choice of the answer ended for such a reason."""
        found = [_look(choice, "finish_reason") for choice in _choices(result)]
        found += [_look(result, "stop_reason"), _look(result, "finish_reason")]
        return any(isinstance(reason, str) and reason in wanted for reason in found)

    return ended


def _choices(result: Any) -> Iterator[Any]:
    choices = _look(result, "choices")
    if isinstance(choices, (list, tuple)):
        yield from choices


def _messages(result: Any) -> Iterator[Any]:
    for choice in _choices(result):
        message = _look(choice, "message")
        if message is not _MISSING and message is not None:
            yield message


def _look(thing: Any, name: str) -> Any:
    try:
        if isinstance(thing, dict):
            return thing.get(name, _MISSING)
        return getattr(thing, name, _MISSING)
    except Exception:
        return _MISSING
