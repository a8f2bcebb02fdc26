"""What frameworks make of an answer that is none, and of what a model did: those that are here."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from providers.chat import CHUNK
from providers.raising import Provider, answer, providing
from resilience.failures import Advice, Kind, describe
from test_providers import installed

pytestmark = [pytest.mark.real, pytest.mark.steady]

FRAMEWORKS = {
    name: module
    for name in ("instructor", "langchain", "llama_index", "openai_agents", "pydantic_ai")
    if installed((module := import_module(f"providers.{name}")).PACKAGE)
}
LIMITED = {"message": "Slow.", "code": 429, "metadata": {"provider_name": "Kluster"}}
DONE: dict[str, Any] = {**CHUNK, "object": "chat.completion"}


def done(finish_reason: str = "stop", **message: object) -> dict[str, Any]:
    """An answer with this message."""
    told = {"role": "assistant", "content": None, **message}
    return {**DONE, "choices": [{"index": 0, "finish_reason": finish_reason, "message": told}]}


def calling(tool: str) -> dict[str, Any]:
    """An answer that calls a tool."""
    called = {"id": "1", "type": "function", "function": {"name": tool, "arguments": "{}"}}
    return done("tool_calls", tool_calls=[called])


@pytest.fixture(params=sorted(FRAMEWORKS))
def framework(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """Each that is here, in front of a server."""
    with providing(FRAMEWORKS[request.param]) as provider:
        yield provider


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """The one that is named."""
    if request.param not in FRAMEWORKS:
        pytest.skip(f"{request.param} is not here")
    with providing(FRAMEWORKS[request.param]) as provider:
        yield provider


@pytest.mark.fault(250)
@pytest.mark.parametrize("choices", [[], None], ids=["empty", "null"])
def test_an_error_body_in_a_200(framework: Provider, choices: object) -> None:
    """The framework trips over it; the error means what the body in the answer says."""
    error = framework.raised(answer(200, {**DONE, "choices": choices, "error": LIMITED}))
    failure = describe(error)

    assert (failure.kind, failure.advice) == (Kind.RATE_LIMIT, Advice.WAIT)
    assert (failure.status, failure.provider) == (429, "Kluster")
    assert failure.error is error


@pytest.mark.fault(250)
@pytest.mark.parametrize("choices", [[], None], ids=["empty", "null"])
def test_an_answer_without_choices(framework: Provider, choices: object) -> None:
    """The server made no answer: once more, and then the next model."""
    failure = describe(framework.raised(answer(200, {**DONE, "choices": choices})))

    assert (failure.kind, failure.advice) == (Kind.SERVER, Advice.RETRY)
    assert (failure.retry_limit, failure.sent) == (1, True)


@pytest.mark.parametrize("one", ["pydantic_ai"], indirect=True)
def test_a_tool_of_the_programs_own(one: Provider) -> None:
    """What it raises is the program's business, whatever the answer was."""

    def tool() -> str:
        raise KeyError("of the program's own")

    with pytest.raises(KeyError) as caught:
        one.module.run(one.server.url(answer(200, calling("tool"))), tools=[tool])

    assert describe(caught.value).advice is Advice.STOP


@pytest.mark.fault(251)
@pytest.mark.parametrize(
    ("one", "body", "options"),
    [
        ("pydantic_ai", done(content="no number"), {"output_type": int}),
        ("instructor", calling("Wanted"), {}),
        ("openai_agents", calling("nobody"), {}),
    ],
    ids=["an output of another type", "a schema that was missed", "a tool that is not there"],
    indirect=["one"],
)
def test_what_a_model_did(one: Provider, body: object, options: dict[str, Any]) -> None:
    """It may do better at a second try, and the service is not to blame."""
    url = one.server.url(answer(200, body))
    call = one.module.run if options else one.module.fail
    with pytest.raises(Exception) as caught:  # noqa: PT011  # each has its own
        call(url, streaming=False, **options)
    failure = describe(caught.value)

    assert (failure.kind, failure.advice) == (Kind.UNKNOWN, Advice.RETRY)
    assert (failure.retry_limit, failure.sent) == (1, True)


@pytest.mark.fault(251)
@pytest.mark.parametrize("one", ["pydantic_ai"], indirect=True)
def test_an_answer_that_was_cut_off(one: Provider) -> None:
    """The limit on tokens ended it: this model will end there again."""
    failure = describe(one.raised(answer(200, done("length"))))

    assert (failure.kind, failure.advice) == (Kind.UNKNOWN, Advice.FALLBACK)
