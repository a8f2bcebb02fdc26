"""The formats that the gateway speaks, each at its path: bodies and events of answers, as data.

Auriko's chat completions, which are OpenAI's and more (https://docs.auriko.ai); OpenAI's
responses; Anthropic's messages.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from resilience.sdks.auriko import CODES

from .plan import Error

__all__ = ["FORMATS", "Chat", "Format", "type_of"]

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    413: "request_too_large",
    504: "timeout_error",
    529: "overloaded_error",
    **_TYPES,
}


def type_of(error: Error) -> str:
    """The type of an error: its code's, or for a code that is not Auriko's, its status'."""
    known = CODES.get(error.code)
    if known is not None and known.type:
        return known.type
    usual = "api_error" if error.http_status >= 500 else "invalid_request_error"
    return _TYPES.get(error.http_status, usual)


class Format(ABC):
    """What is said in answer to one request, in one format."""

    ping: ClassVar[bytes] = b": keep-alive\n\n"

    def __init__(self, number: int, model: str, prompt: Any, text: str | None) -> None:
        self.number = number
        self.model = model
        self.prompt = prompt
        self.text = f"Hello from {model}." if text is None else text

    @property
    def pieces(self) -> list[str]:
        """The text as a stream has it, word by word."""
        words = self.text.split(" ")
        pieces = [word if place == 0 else f" {word}" for place, word in enumerate(words)]
        return pieces if self.text else []

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer."""
        return len(json.dumps(self.prompt).split()), len(self.text.split())

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """A plain answer."""

    @abstractmethod
    def opening(self) -> list[bytes]:
        """The events of a stream before its content."""

    @abstractmethod
    def content(self, piece: str) -> bytes:
        """An event with a piece of the text."""

    @abstractmethod
    def closing(self, *, reason: bool = True, terminator: bool = True) -> list[bytes]:
        """The events after the content: what says why it ends, and what says that it ends."""

    @staticmethod
    @abstractmethod
    def error(number: int, error: Error) -> dict[str, Any]:
        """The body of an error."""

    def failure(self, error: Error) -> bytes:
        """An error as an event of a stream."""
        return _event(self.error(self.number, error))

    def garbled(self) -> bytes:
        """An event that is no JSON."""
        return self.content("?").replace(b'{"', b'{{"', 1)


class Chat(Format):
    """Chat completions."""

    def body(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {**self._head("chat.completion"), "choices": [choice], **self._tail()}

    def opening(self) -> list[bytes]:
        return [self._chunk({"role": "assistant", "content": ""})]

    def content(self, piece: str) -> bytes:
        return self._chunk({"content": piece})

    def closing(self, *, reason: bool = True, terminator: bool = True) -> list[bytes]:
        events: list[bytes] = []
        if reason:
            events.append(self._chunk({}, "stop"))
            last = {**self._head("chat.completion.chunk"), "choices": [], **self._tail()}
            events.append(_event(last))  # Auriko always sends usage and routing
        if terminator:
            events.append(b"data: [DONE]\n\n")
        return events

    @staticmethod
    def error(number: int, error: Error) -> dict[str, Any]:
        return {
            "error": {
                "message": _message(error),
                "type": type_of(error),
                "code": error.code,
                "param": error.param,
                "doc_url": f"https://docs.auriko.ai/errors/{error.code}",
                "provider": error.provider,
            }
        }

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.number:08d}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": None,
        }

    def _tail(self) -> dict[str, Any]:
        prompt_tokens, answer_tokens = self.counts
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answer_tokens,
            "total_tokens": prompt_tokens + answer_tokens,
        }
        return {"usage": usage, "routing_metadata": _routing(self.model)}


class Messages(Format):
    """Anthropic's messages."""

    ping: ClassVar[bytes] = b'event: ping\ndata: {"type": "ping"}\n\n'

    def body(self) -> dict[str, Any]:
        block = {"type": "text", "text": self.text}
        return self._message([block], "end_turn", self.counts[1])

    def opening(self) -> list[bytes]:
        block = {"type": "text", "text": ""}
        return [
            _named({"type": "message_start", "message": self._message([], None, 1)}),
            _named({"type": "content_block_start", "index": 0, "content_block": block}),
        ]

    def content(self, piece: str) -> bytes:
        delta = {"type": "text_delta", "text": piece}
        return _named({"type": "content_block_delta", "index": 0, "delta": delta})

    def closing(self, *, reason: bool = True, terminator: bool = True) -> list[bytes]:
        events: list[bytes] = []
        if reason:
            delta = {"stop_reason": "end_turn", "stop_sequence": None}
            usage = {"output_tokens": self.counts[1]}
            events.append(_named({"type": "content_block_stop", "index": 0}))
            events.append(_named({"type": "message_delta", "delta": delta, "usage": usage}))
        if terminator:
            events.append(_named({"type": "message_stop"}))
        return events

    @staticmethod
    def error(number: int, error: Error) -> dict[str, Any]:
        usual = "api_error" if error.http_status >= 500 else "invalid_request_error"
        fields = {
            "type": _ANTHROPIC_TYPES.get(error.http_status, usual),
            "message": _message(error),
            "details": {"error_code": error.code},
        }
        return {"type": "error", "error": fields, "request_id": f"req_{number:08d}"}

    def failure(self, error: Error) -> bytes:
        return _named(self.error(self.number, error))

    def _message(
        self, content: list[Any], reason: str | None, answer_tokens: int
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{self.number:08d}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {"input_tokens": self.counts[0], "output_tokens": answer_tokens},
        }


class Responses(Format):
    """OpenAI's responses, whose events are numbered."""

    def __init__(self, number: int, model: str, prompt: Any, text: str | None) -> None:
        super().__init__(number, model, prompt, text)
        self._place = {"output_index": 0, "content_index": 0, "item_id": f"msg_{number:08d}"}
        self._serial = 0

    def body(self) -> dict[str, Any]:
        return self._response("completed", [self._item("completed", [self._part(self.text)])])

    def opening(self) -> list[bytes]:
        begun = self._response("in_progress", [])
        return [
            self._next("response.created", response=begun),
            self._next("response.in_progress", response=begun),
            self._next(
                "response.output_item.added", output_index=0, item=self._item("in_progress", [])
            ),
            self._next("response.content_part.added", **self._place, part=self._part("")),
        ]

    def content(self, piece: str) -> bytes:
        return self._next("response.output_text.delta", **self._place, delta=piece, logprobs=[])

    def closing(self, *, reason: bool = True, terminator: bool = True) -> list[bytes]:
        if not (reason or terminator):
            return []
        part = self._part(self.text)
        item = self._item("completed", [part])
        return [
            self._next("response.output_text.done", **self._place, text=self.text, logprobs=[]),
            self._next("response.content_part.done", **self._place, part=part),
            self._next("response.output_item.done", output_index=0, item=item),
            self._next("response.completed", response=self.body()),
        ]

    @staticmethod
    def error(number: int, error: Error) -> dict[str, Any]:
        return Chat.error(number, error)

    def failure(self, error: Error) -> bytes:
        fields = self.error(self.number, error)["error"]
        return self._next("error", code=error.code, message=fields["message"], param=error.param)

    def _next(self, kind: str, **facts: Any) -> bytes:
        self._serial += 1
        return _named({"type": kind, "sequence_number": self._serial - 1, **facts})

    @staticmethod
    def _part(text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _item(self, status: str, content: list[Any]) -> dict[str, Any]:
        return {
            "id": self._place["item_id"],
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _response(self, status: str, output: list[Any]) -> dict[str, Any]:
        prompt_tokens, answer_tokens = self.counts
        usage = {
            "input_tokens": prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answer_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt_tokens + answer_tokens,
        }
        return {
            "id": f"resp_{self.number:08d}",
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": usage if output else None,
            "routing_metadata": _routing(self.model) if output else None,
        }


FORMATS: Mapping[str, type[Format]] = {
    "chat/completions": Chat,
    "messages": Messages,
    "responses": Responses,
}
"""By the end of the path."""


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _named(data: Mapping[str, Any]) -> bytes:
    return f"event: {data['type']}\n".encode() + _event(data)


def _message(error: Error) -> str:
    return f"Planned by the local gateway: {error.code.replace('_', ' ')}."


def _routing(model: str) -> dict[str, Any]:
    return {
        "provider": "local",
        "provider_model_id": model,
        "model_canonical": model,
        "routing_strategy": "balanced",
        "cost": {"usd": 0.0},
        "ttft_ms": 1.0,
        "throughput_tps": 1000.0,
        "warnings": [],
    }
