"""Ready-made checks for `BadResult`: answers that came with status 200 and are none.

    Pipeline(Retry(), CircuitBreaker(), BadResult(no_choices, error_body))

Each takes any result, gives what is true if it is a bad one, and never raises. They look at the
fields of the SDKs' models and of plain dicts: OpenAI's and Auriko's chat, OpenAI's responses,
Anthropic, Google, Cohere, Mistral, Groq, Bedrock. A stream is not looked into, nor is what
`with_raw_response` returns: that would have to be parsed, which is up to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from ._core.failure import Advice, Kind
from ._core.options import to_text

__all__ = ["empty_answer", "error_body", "finish_reason", "no_choices"]

_ANSWERS = ("choices", "candidates", "content", "output", "message")
"""Where OpenAI's and Auriko's chat, Google, Anthropic, OpenAI's responses and Bedrock, and Cohere
keep them."""
_PARTS = ("content", "tool_calls", "function_call", "refusal", "audio")
_REASONS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "status")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
_BESIDES = frozenset(
    {"type", "thought", "thought_signature", "thoughtSignature", "reasoningContent"}
)
"""Fields of a part of an answer that are no answer."""
_DEEPEST = 8
"""Lists in lists that are looked into; there are four at most."""

_ENDS: dict[str, Advice | Kind] = {
    **dict.fromkeys(
        ("length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length"),
        Advice.FALLBACK,
    ),
    "model_context_window_exceeded": Kind.CONTEXT_LENGTH,
    **dict.fromkeys(
        (
            *("content_filter", "content_filtered", "guardrail_intervened", "refusal"),
            *("BLOCKLIST", "PROHIBITED_CONTENT", "RECITATION", "SAFETY", "SPII"),
        ),
        Kind.CONTENT_FILTER,
    ),
    "error": Kind.SERVER,
}
"""What a reason to end means, where it means more than an answer that is not wanted."""

_PLAIN = (bool, int, float, str, bytes, list, tuple, dict)
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
    return all(_void(value) and not isinstance(value, (str, bytes)) for value in found)


def error_body(result: Any) -> bool:
    """An error in the place of an answer: `{"error": {...}}`, which some gateways send with 200;
    or a response of httpx, aiohttp, urllib and their like with a status of 400 or more.

    OpenAI's SDK keeps the error as an extra field, `.error`. One that is null, false or empty is
    none, nor is a mock.
    """
    status = _look(result, "status_code")
    if status is _MISSING and not isinstance(result, dict):
        status = _look(result, "status")  # aiohttp's and urllib's responses
    if type(status) is int and status >= 400:
        return True
    found = _look(result, "error")
    return not (_void(found) or any(map(_mocks, type(found).__mro__)))


def _mocks(cls: type) -> bool:
    return cls.__module__ == "unittest.mock"


def empty_answer(result: Any) -> bool:
    """Every message in it says nothing, calls no tool and refuses nothing; thinking aloud does not
    count. No message at all is for `no_choices`."""
    messages = list(_messages(result))
    return bool(messages) and all(_silent(message) for message in messages)


def finish_reason(*reasons: str) -> Callable[[Any], Advice | Kind | bool]:
    """A check for answers that ended for one of these reasons, such as "length" or "error".

    The words are each API's own: "length", Anthropic's "max_tokens", Google's "MAX_TOKENS"; of
    OpenAI's responses the status and the reason that it is incomplete. An answer that was too long
    is FALLBACK, one that was filtered STOP, "error" a fault of the server; the rest is retried.
    """
    if not reasons:
        raise ValueError("reasons must name at least one reason, got ()")
    wanted = frozenset(to_text("reasons", reason) for reason in reasons)

    def ended(result: Any) -> Advice | Kind | bool:
        """What it means that the answer, or a choice of it, ended for such a reason."""
        ends = [result, *_listed(result, "choices"), *_listed(result, "candidates")]
        found = [_look(end, name) for end in ends for name in _REASONS]
        found.append(_look(_look(result, "incomplete_details"), "reason"))
        word = next((word for word in map(_word, found) if word in wanted), None)
        return word is not None and _ENDS.get(word, True)

    return ended


def _messages(result: Any) -> Iterator[Any]:
    """What each choice says: the fields of a message, or the list of its parts."""
    for choice in _listed(result, "choices"):
        message = _look(choice, "message")
        if message is not _MISSING and message is not None:
            yield [_look(message, name) for name in _PARTS]
    for candidate in _listed(result, "candidates"):
        content = _look(candidate, "content")
        if content is not _MISSING:
            yield _look(content, "parts")
    output = _look(result, "output")
    if isinstance(output, (list, tuple)):
        yield output
    for message in (result, _look(result, "message"), _look(output, "message")):
        if _look(message, "content") is not _MISSING:
            yield [_look(message, name) for name in _PARTS]


def _silent(content: Any, depth: int = _DEEPEST) -> bool:
    """Nothing, a list of such, or parts that hold nothing but thoughts."""
    if _void(content):
        return True
    if isinstance(content, (list, tuple)):
        return depth > 0 and all(_silent(part, depth - 1) for part in content)
    kind = _word(_look(content, "type"))
    if kind == "message":  # of OpenAI's responses
        return depth > 0 and _silent(_look(content, "content"), depth - 1)
    if kind in _THOUGHTS or _look(content, "thought") is True:
        return True
    try:
        fields: dict[str, Any] = content if isinstance(content, dict) else vars(content)
    except TypeError:
        return False
    return bool(fields) and all(name in _BESIDES or _void(fields[name]) for name in fields)


def _void(value: Any) -> bool:
    """Missing, null, or a plain empty value; nobody's own idea of truth or equality is asked."""
    if value is _MISSING or value is None:
        return True
    return not value if type(value) in _PLAIN else type(value).__name__ == "Unset"  # Mistral's null


def _word(value: Any) -> str | None:
    """A word, or an enum's."""
    word = value.value if isinstance(value, Enum) else value
    return str.__str__(word) if isinstance(word, str) else None


def _listed(thing: Any, name: str) -> Iterator[Any]:
    listed = _look(thing, name)
    if isinstance(listed, (list, tuple)):
        yield from listed


def _look(thing: Any, name: str) -> Any:
    try:
        if isinstance(thing, dict):
            return thing.get(name, _MISSING)
        return getattr(thing, name, _MISSING)
    except Exception:
        return _MISSING
