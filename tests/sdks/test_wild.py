"""Error responses that people met in practice, as their servers sent them, each through the client
that met it. `wild.jsonl` has them, and how each is to be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from providers.faults import Fault
from providers.server import Server
from resilience.failures import Failure, describe, describe_result
from resilience.sdks import headers

pytestmark = [pytest.mark.real, pytest.mark.steady, pytest.mark.fault(230)]

WILD = Path(__file__).with_name("wild.jsonl").read_text("utf-8")
LINES = [json.loads(line) for line in WILD.splitlines()]
MODULES = {"google-genai": "google", "mistralai": "mistral"}
BODILESS = ("aiohttp",)
"""Clients whose errors do not have the body: a wait that only it tells is not known."""


def ask_vertex(url: str) -> Any:
    """Claude, at Google's."""
    anthropic = import_module("anthropic")
    with anthropic.AnthropicVertex(
        region="here", project_id="p", access_token="t", base_url=f"{url}/v1", max_retries=0
    ) as client:
        return client.messages.create(
            model="claude-sonnet-4-6", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )


def ask(client: str, url: str) -> Any:
    """What the client makes of the answer; it raises, or takes it for good."""
    if client == "anthropic-vertex":
        return ask_vertex(url)
    return import_module(f"providers.{MODULES.get(client, client)}").fail(url, streaming=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that answers as told."""
    with ExitStack() as stack:
        yield stack.enter_context(Server(import_module("providers.openai")))


def reading(server: Server, line: dict[str, Any]) -> Failure | None:
    """How the client's error is read, or the result that it took for good."""
    fault = Fault(
        line["id"], line["status"], "", line["headers"], json.dumps(line["body"]).encode()
    )
    try:
        result = ask(line["client"], server.url(fault))
    except Exception as error:
        return describe(error)
    return describe_result(result)


@pytest.mark.parametrize("line", LINES, ids=[line["id"] for line in LINES])
def test_it_is_read_as_its_line_says(
    line: dict[str, Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind, advice and wait; where only the message tells them, the advice alone."""
    if "on" in line:
        then = datetime.fromisoformat(line["on"]).replace(tzinfo=timezone.utc)
        monkeypatch.setattr(headers, "wall", then.timestamp)
    failure = reading(server, line)
    assert failure is not None
    right = line["right"]
    assert failure.advice.name.lower() in (right["advice"], *line["also_right"])
    if line.get("text_only"):
        return
    assert failure.kind.name in (right["kind"], *line.get("also_right_kind", ()))
    if line["client"] not in BODILESS:
        assert failure.retry_after == right["retry_after"]
    elif right["retry_after"]:
        assert failure.retry_after == float(line["headers"]["x-ratelimit-reset-after"])
