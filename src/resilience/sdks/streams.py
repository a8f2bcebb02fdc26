"""The streams of known SDKs: which classes they are, and what their items say.

Recognised by names, without importing an SDK.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import AsyncGeneratorType, GeneratorType, SimpleNamespace
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from resilience._core.failure import Advice, Failure, Kind
from resilience.errors import BadResultError

__all__ = [
    "Format",
    "Seen",
    "bound_helpers",
    "format_of",
    "is_manager",
    "is_stream",
    "makes_manager",
    "register_stream",
    "server_error",
    "watch_bytes",
    "watch_for_terminator",
]

C = TypeVar("C", bound=type)

_PACKAGES = re.compile(
    "anthropic|auriko|cohere|google|groq|litellm|mistralai|ollama|openai|together"
)
_STREAM = re.compile(r"(?:Async)?(?:\w*Stream(?:Async)?|CustomStreamWrapper)")
_MANAGER = re.compile(r"\w*(?:StreamManager|ConnectionManager|ResponseContextManager)")


class Seen:
    """What a stream has shown of its end so far."""

    __slots__ = ("done", "ends_unmarked", "error", "finished", "started")

    def __init__(self) -> None:
        self.done = False
        """Whether its terminator came."""
        self.error: Any = None
        """What an error event has said, as it came."""
        self.started: set[int] = set()
        self.finished: set[int] = set()
        """Choices that have begun, and those with a reason to have ended."""
        self.ends_unmarked = False
        """Whether its provider is known to send neither."""

    @property
    def complete(self) -> bool:
        """Whether it has come to its end."""
        return self.done or self.ends_unmarked or bool(self.started <= self.finished != set())


class Format(NamedTuple):
    """How to read the items of one kind.

    `look(item, seen)`: whether it carries content; notes in `seen` what it says of the end, and
    raises for one that is an error. `text(item)`: its text. `ends`: whether a complete stream of
    such items says so.
    """

    look: Callable[[Any, Seen], bool]
    text: Callable[[Any], str]
    ends: bool = True


# OpenAI's chat completions, and whatever is compatible

_DELTA = ("refusal", "tool_calls", "reasoning_content", "reasoning", "audio", "function_call")


def _chat(chunk: Any, seen: Seen) -> bool:
    choices, content = chunk.choices, False
    if choices and len(choices) == 1:  # as most are
        (choice,) = choices
        delta, known = choice.delta, choice.index in seen.started
        if known and not choice.finish_reason and delta is not None and delta.content:
            return True
    for choice in choices or ():
        index = choice.index
        seen.started.add(index)
        if choice.finish_reason:
            seen.finished.add(index)
        delta = choice.delta
        if delta is not None and not content:
            content = bool(delta.content) or any(getattr(delta, name, None) for name in _DELTA)
    if getattr(chunk, "system_fingerprint", None) == "fp_ollama":
        seen.ends_unmarked = True
    return content


def _chat_text(chunk: Any) -> str:
    parts = [choice.delta.content for choice in chunk.choices or () if not choice.index]
    return "".join(part for part in parts if isinstance(part, str))


def _completion(chunk: Any, seen: Seen) -> bool:
    for choice in chunk.choices or ():
        seen.started.add(choice.index)
        if choice.finish_reason:
            seen.finished.add(choice.index)
    return any(choice.text for choice in chunk.choices or ())


def _completion_text(chunk: Any) -> str:
    return "".join(choice.text or "" for choice in chunk.choices or () if not choice.index)


def _chat_event(event: Any, seen: Seen) -> bool:
    """Of `chat.completions.stream()`: the chunk comes first, then what is made of it."""
    return _chat(event.chunk, seen) if event.type == "chunk" else False


def _chat_event_text(event: Any) -> str:
    return _chat_text(event.chunk) if event.type == "chunk" else ""


# OpenAI's responses, and Auriko's


def _responses(event: Any, seen: Seen) -> bool:
    kind = event.type
    if kind in ("response.completed", "response.incomplete"):
        seen.done = True
    elif kind in ("response.failed", "error"):
        raise BadResultError(event, _failure_of(event))
    return bool(kind.endswith(".delta"))


def _failure_of(event: Any) -> Failure:
    from resilience.failures import describe_result  # which needs this package

    source = event.response.error if event.type == "response.failed" else event
    body = {name: getattr(source, name, None) for name in ("code", "message", "param")}
    return describe_result({"error": body}) or Failure(Kind.SERVER, Advice.RETRY)


def _responses_text(event: Any) -> str:
    return _string(event.delta) if event.type == "response.output_text.delta" else ""


# Anthropic's


def _anthropic(event: Any, seen: Seen) -> bool:
    kind = event.type
    if kind == "message_stop" or (kind == "message_delta" and event.delta.stop_reason):
        seen.done = True
    return bool(kind == "content_block_delta")


def _anthropic_text(event: Any) -> str:
    delta = event.delta if event.type == "content_block_delta" else None
    return _string(getattr(delta, "text", None))


# Google's


def _google(answer: Any, seen: Seen) -> bool:
    content = False
    for number, candidate in enumerate(answer.candidates or ()):
        seen.started.add(number)
        if candidate.finish_reason:
            seen.finished.add(number)
        content = content or bool(candidate.content is not None and candidate.content.parts)
    return content


def _google_text(answer: Any) -> str:
    parts = [
        _string(part.text)
        for candidate in (answer.candidates or ())[:1]
        if candidate.content is not None
        for part in candidate.content.parts or ()
        if not part.thought
    ]
    return "".join(parts)


# Cohere's, version 2

_COHERE = ("content-delta", "tool-plan-delta", "tool-call-start", "tool-call-delta")


def _cohere(event: Any, seen: Seen) -> bool:
    if event.type == "message-end":
        seen.done = True
        if event.delta is not None and event.delta.finish_reason == "ERROR":
            raise BadResultError(event, Failure(Kind.SERVER, Advice.RETRY, sdk="cohere"))
    elif event.type == "message-start" and isinstance(getattr(event, "data", None), str):
        # What is no JSON, its SDK logs, makes an empty item of, and goes on.
        raise BadResultError(event, Failure(Kind.SERVER, Advice.RETRY, sdk="cohere"))
    return event.type in _COHERE


def _cohere_text(event: Any) -> str:
    if event.type != "content-delta":
        return ""
    return _string(event.delta.message.content.text)


# Mistral's, Ollama's


def _mistral(event: Any, seen: Seen) -> bool:
    return _chat(event.data, seen)


def _mistral_text(event: Any) -> str:
    return _chat_text(event.data)


def _ollama(answer: Any, seen: Seen) -> bool:
    seen.done = seen.done or bool(answer.done)
    message = getattr(answer, "message", None)
    if message is None:
        return bool(answer.response or answer.thinking)
    return bool(message.content or message.thinking or message.tool_calls)


def _ollama_text(answer: Any) -> str:
    message = getattr(answer, "message", None)
    return _string(answer.response if message is None else message.content)


# Anything else: bytes, lines, what a generator of the user's yields


def _anything(item: Any, seen: Seen) -> bool:
    return True


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


_ANYTHING = Format(_anything, _string, ends=False)
_CHAT = Format(_chat, _chat_text)

_ITEMS: tuple[tuple[str, Format], ...] = (
    (r"openai\..*ChatCompletionChunk", _CHAT),
    (r"(?:groq|together)\..*Chunk", _CHAT),
    (r"auriko\..*Chunk", _CHAT),
    (r"litellm\..*ModelResponseStream", Format(_chat, _chat_text, ends=False)),  # checks itself
    (r"openai\.types\.completion.*Completion", Format(_completion, _completion_text)),
    (r"openai\.lib\.streaming\.chat\..*", Format(_chat_event, _chat_event_text)),
    (r"openai\..*responses\..*", Format(_responses, _responses_text)),
    (r"auriko\..*Event", Format(_responses, _responses_text)),
    (r"anthropic\..*", Format(_anthropic, _anthropic_text)),
    (r"google\..*GenerateContentResponse", Format(_google, _google_text)),
    (r"cohere\.v2\..*", Format(_cohere, _cohere_text)),
    (r"mistralai\..*CompletionEvent", Format(_mistral, _mistral_text)),
    (r"ollama\..*", Format(_ollama, _ollama_text)),
)
"""Module and name of an item's class, and how it is read."""


class Registered(NamedTuple):
    """What a user has said of a stream class."""

    content: Callable[[Any], object] | None
    complete: Callable[[Any], object] | None


_registered: dict[type, Registered] = {}
_formats: WeakKeyDictionary[type, Format] = WeakKeyDictionary()
_streams: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
_managers: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def register_stream(
    cls: C,
    /,
    *,
    content: Callable[[Any], object] | None = None,
    complete: Callable[[Any], object] | None = None,
) -> C:
    """Have objects of `cls` and its subclasses guarded as streams. May decorate the class.

    - `content`: a function of an item, whether it carries content; by default each does.
    - `complete`: a function of an item, whether the stream is complete with it. Without one, any
      end without an error is a complete one.

    TypeError for a class whose objects cannot be iterated. Safe from any thread.
    """
    given: Any = cls
    if not isinstance(given, type) or not (hasattr(cls, "__iter__") or hasattr(cls, "__aiter__")):
        raise TypeError(f"register_stream must get a class that can be iterated, got {cls!r}")
    if not given.__dictoffset__:
        raise TypeError(f"register_stream must get a class without __slots__, got {cls!r}")
    for name, function in (("content", content), ("complete", complete)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function of an item, got {function!r}")
    _registered[cls] = Registered(content, complete)
    _streams.clear()
    return cls


def is_stream(cls: type) -> bool:
    """Whether objects of a class are streams: nothing else is ever iterated."""
    found = _streams.get(cls)
    if found is None:
        found = cls in (GeneratorType, AsyncGeneratorType) or any(
            base in _registered or _named(base, _STREAM) for base in cls.__mro__
        )
        _streams[cls] = found
    return found


def is_manager(value: object) -> bool:
    """Whether this is a context manager that gives a stream, or a response, when it is entered."""
    cls = type(value)
    found = _managers.get(cls)
    if found is None:
        found = _managers[cls] = any(_named(base, _MANAGER) for base in cls.__mro__)
    if found:
        return True
    return cls.__module__ == "contextlib" and str(
        getattr(getattr(value, "func", None), "__module__", "")
    ).startswith("httpx")


def makes_manager(fn: object) -> bool:
    """Whether a function makes such a manager, though it wraps one that is async, as those of
    `with_streaming_response` do."""
    names = getattr(getattr(fn, "__code__", None), "co_names", ())
    return isinstance(names, tuple) and any(map(_MANAGER.fullmatch, names))


def bound_helpers(cls: type) -> dict[str, Any]:
    """Attributes that a stream has bound to itself, as they are for one that stands for it:
    Anthropic's `text_stream`."""
    if not hasattr(cls, "__stream_text__"):
        return {}
    return {"text_stream": property(lambda stream: stream.__stream_text__())}


def _named(cls: type, names: re.Pattern[str]) -> bool:
    package = str(cls.__module__).partition(".")[0]
    return bool(_PACKAGES.fullmatch(package) and names.fullmatch(cls.__name__))


def format_of(item: type, stream: type) -> Format:
    """How to read items of a class, in a stream of a class."""
    for base in stream.__mro__:
        if base in _registered:
            return _users(_registered[base])
    if item is type(None):  # there is none
        return _CHAT if any(_named(base, _STREAM) for base in stream.__mro__) else _ANYTHING
    found = _formats.get(item)
    if found is None:
        name = f"{item.__module__}.{item.__qualname__}"
        found = next((f for pattern, f in _ITEMS if re.fullmatch(pattern, name)), _ANYTHING)
        _formats[item] = found
    return found


def _users(registered: Registered) -> Format:
    content, complete = registered

    def look(item: Any, seen: Seen) -> bool:
        if complete is not None and complete(item):
            seen.done = True
        return bool(_anything(item, seen) if content is None else content(item))

    return Format(look, _string, ends=complete is not None)


def watch_for_terminator(stream: object, seen: Seen) -> None:
    """Have `seen` record OpenAI's `[DONE]`, which reaches no consumer, and error events, where
    they can be seen."""
    raw = getattr(stream, "_raw_stream", stream)
    decoder: Any = getattr(raw, "_decoder", None)
    if hasattr(decoder, "aiter_bytes") and not hasattr(raw, "__next__"):
        chunks = decoder.aiter_bytes

        async def aiter_bytes(source: Any) -> Any:
            async for event in chunks(source):
                _record(event, seen)
                yield event

        decoder.aiter_bytes = aiter_bytes
    elif hasattr(decoder, "iter_bytes"):
        pieces = decoder.iter_bytes

        def iter_bytes(source: Any) -> Any:
            for event in pieces(source):
                _record(event, seen)
                yield event

        decoder.iter_bytes = iter_bytes


def _record(event: Any, seen: Seen) -> None:
    if event.data.startswith("[DONE]"):
        seen.done = True
    elif event.event == "error":
        seen.error = event.data


def server_error(error: Exception, seen: Seen) -> Exception:
    """What a read has failed with: the server's own error where its SDK has tripped over the event
    (OpenAI's helper for responses does, over one that comes first), else `error`."""
    if type(error) is not RuntimeError or seen.error is None:
        return error
    import json  # which the SDK has imported

    event = SimpleNamespace(**json.loads(seen.error))  # as the SDK has read it, too
    found = BadResultError(event, _failure_of(event))
    found.__cause__ = error
    return found


def watch_bytes(stream: Any, bounded: Any, touched: Callable[[], object]) -> bool:
    """Have `touched` called for whatever the server sends, and async reads made by `bounded`;
    False for a stream that does not show its response."""
    stream = getattr(stream, "completion_stream", stream)
    for name in ("response", "_response", "http_response"):
        response = getattr(stream, name, None)
        source = getattr(response, "stream", None)
        if response is None or not hasattr(source, "__aiter__" if bounded else "__iter__"):
            continue
        response.stream = _watched(source, bounded, touched)
        return True
    return False


def _watched(source: Any, bounded: Any, touched: Callable[[], object]) -> Any:
    """A response's stream of bytes, of the same class."""

    def __iter__(self: Any) -> Any:
        for chunk in source:
            touched()
            yield chunk

    async def __aiter__(self: Any) -> Any:
        chunks = source.__aiter__()
        while True:
            try:
                chunk = await bounded(chunks)
            except StopAsyncIteration:
                return
            yield chunk

    def close(self: Any) -> None:
        source.close()

    async def aclose(self: Any) -> None:
        await source.aclose()

    facts = {"close": close, "aclose": aclose, "__iter__": __iter__, "__aiter__": __aiter__}
    watched: Any = type(type(source).__name__, (type(source),), facts)
    return object.__new__(watched)
