"""Decides which answer a request gets by the plan, and remembers the request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from attrs import field, frozen

from resilience._core.options import plain

from .plan import Answer, Error, Limited, Ok, Steps, Timetable
from .wire import request_id

__all__ = ["Received", "Responder"]


@frozen
class Received:
    """One request as the gateway saw it; `at` is seconds since the start (or the last reset).

    `answer` is the name of what it got: an error's code, or "ok", "hang", "drop" and so on.
    `model` is None where the request named none. Headers have lower-case names; neither they nor
    the body are in the repr, keys and prompts stay out of logs.
    """

    number: int
    path: str
    model: str | None
    at: float
    answer: str
    stream: bool
    body: dict[str, Any] = field(repr=False, hash=False)
    headers: dict[str, str] = field(repr=False, hash=False)

    @property
    def request_id(self) -> str:
        """What went out as `x-request-id`."""
        return request_id(self.number)


class Responder:
    """Plans and memory of one gateway. Safe from any thread."""

    def __init__(self, plans: Mapping[str, Steps], api_key: str | None) -> None:
        self._api_key = api_key
        self._lock = threading.Lock()
        self.reset()
        self.change(plans)

    def change(self, plans: Mapping[str, Steps]) -> None:
        """Answer by other plans from now on."""
        with self._lock:
            self.models = tuple(model for model in plans if model != "*")
            self._plans = plans
            self._taken.clear()
            self._full.clear()

    def reset(self) -> None:
        """Forget all requests; every plan, the numbering and the clock begin anew."""
        with self._lock:
            self._received: list[Received] = []
            self._taken: Counter[str] = Counter()
            self._full: dict[str, float] = {}  # when the bucket of a limit is full again
            self._started = time.monotonic()

    @property
    def received(self) -> list[Received]:
        """A copy of what is remembered, in order of arrival."""
        with self._lock:
            return list(self._received)

    def take(
        self,
        path: str,
        body: Any,
        headers: Mapping[str, str],
        refusal: Error | None = None,
    ) -> tuple[Received, Answer]:
        """Remember a request and say what it gets: `refusal`, or what the plan has for it."""
        fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
        model = _model(fields)
        stream = fields.get("stream") is True
        with self._lock:
            at = time.monotonic() - self._started
            answer = refusal or self._refusal(body, model, headers) or self._planned(model, at)
            if isinstance(answer, Ok) and not answer.prefill and _continues(fields):
                answer = Error("invalid_request", param="messages")
            number = len(self._received) + 1
            received = Received(number, path, model, at, answer.name, stream, fields, dict(headers))
            self._received.append(received)
        return received, answer

    def _refusal(self, body: Any, model: str | None, headers: Mapping[str, str]) -> Error | None:
        if self._api_key is not None and not _carries(headers, self._api_key):
            return Error("invalid_api_key")
        if not isinstance(body, dict):
            return Error("invalid_request")
        return Error("missing_required_parameter", param="model") if model is None else None

    def _planned(self, model: str | None, at: float) -> Answer:
        name = model or ""
        steps = self._plans.get(name, self._plans.get("*"))
        if steps is None:
            return Error("model_not_found", param="model")
        if isinstance(steps, Timetable):
            return steps.at(at)
        if isinstance(steps, Limited):
            return self._limited(name, steps, at)
        self._taken[name] += 1
        return steps[min(self._taken[name], len(steps)) - 1]

    def _limited(self, name: str, plan: Limited, at: float) -> Answer:
        each = plain(plan.per) / plan.requests
        full = max(at, self._full.get(name, 0.0))
        wait = full + each - plain(plan.per) - at
        if wait > 0:
            return Error("rate_limit_exceeded", retry_after=wait)
        self._full[name] = full + each
        return plan.answer


def _model(fields: Mapping[str, Any]) -> str | None:
    """The model asked for; Auriko also takes a list of them as `gateway.models`."""
    model = fields.get("model")
    if model is None:
        try:
            model = fields["gateway"]["models"][0]
        except (KeyError, IndexError, TypeError):
            return None
    return model if isinstance(model, str) and model else None


def _carries(headers: Mapping[str, str], key: str) -> bool:
    """Whether a request carries a key, as OpenAI's clients send it or as Anthropic's do."""
    return key == headers.get("x-api-key") or f"Bearer {key}" == headers.get("authorization")


def _continues(fields: Mapping[str, Any]) -> bool:
    """Whether a request ends in the beginning of an answer."""
    messages: Any = fields.get("input", fields.get("messages"))
    try:
        return bool(messages[-1]["role"] == "assistant")
    except (LookupError, TypeError):
        return False
