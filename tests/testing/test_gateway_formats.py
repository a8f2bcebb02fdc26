"""The formats of the local gateway, each at its path, and its streams that stall, break and end
in other ways."""

from __future__ import annotations

import time
from typing import Any

import anthropic
import auriko
import httpx
import openai
import pytest

from resilience.testing.gateway import (
    CutStream,
    Drop,
    Error,
    ErrorInStream,
    GarbledStream,
    Gateway,
    Ok,
    Plan,
    SlowStart,
    StalledStream,
    UnfinishedStream,
)
from support.gateway_clients import MESSAGES, post, text
from support.polling import until

pytestmark = pytest.mark.real

CHAT, MESSAGES_PATH, RESPONSES = "chat/completions", "messages", "responses"
PATHS = [CHAT, MESSAGES_PATH, RESPONSES]
every_path = pytest.mark.parametrize("path", PATHS)


def claude(gateway: Gateway, **options: Any) -> anthropic.Anthropic:
    options = {"api_key": "any", "max_retries": 0, **options}
    return anthropic.Anthropic(base_url=gateway.base_url, **options)


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": MESSAGES, "max_tokens": 9, **more}


def lines(gateway: Gateway, path: str = CHAT, wait: float = 5.0) -> tuple[list[str], Any]:
    """The lines of a stream, and what broke it off."""
    body = {"model": "m", "input": "Hi", "messages": MESSAGES, "stream": True}
    found: list[str] = []
    try:
        with httpx.stream("POST", f"{gateway.url}/{path}", json=body, timeout=wait) as answer:
            for line in answer.iter_lines():
                found.append(line)
    except httpx.HTTPError as error:
        return found, error
    return found, None


def said(found: list[str]) -> int:
    """How many words of the text came."""
    return sum("delta" in line and any(f'"{w}' in line for w in (" two", "one")) for line in found)


# Formats


def test_messages_of_anthropic() -> None:
    """Plain and streamed, by its SDK and its helper."""
    with Gateway(Ok("one two")) as gateway, claude(gateway) as client:
        plain = client.messages.create(**asked())
        with client.messages.stream(**asked()) as stream:
            final = stream.get_final_message()
    for message in (plain, final):
        assert message.content[0].text == "one two"  # type: ignore[union-attr]
        assert (message.model, message.stop_reason) == ("m", "end_turn")
        assert message.usage.output_tokens == 2
    assert [received.stream for received in gateway.requests] == [False, True]


def test_responses_of_openai_and_auriko() -> None:
    """Plain and streamed; usage, routing and the whole response come at the end."""
    options: dict[str, Any] = {"api_key": "any", "max_retries": 0}
    with (
        Gateway(Ok("one two")) as gateway,
        openai.OpenAI(base_url=gateway.base_url, **options) as client,
        auriko.Client(base_url=gateway.base_url, **options) as ours,
    ):
        assert client.responses.create(model="m", input="Hi").output_text == "one two"
        with client.responses.stream(model="m", input="Hi") as stream:
            final = stream.get_final_response()
        answer = ours.responses.create(model="m", input="Hi")
        events = ours.responses.create(model="m", input="Hi", stream=True)
        kinds = [event.type for event in events]
    assert final.output_text == "one two"
    assert final.usage is not None
    assert (final.usage.output_tokens, final.status) == (2, "completed")
    assert answer.routing_metadata is not None
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert events.completed_response is not None


def test_errors_in_anthropics_envelope() -> None:
    """Its type for the status, and the code where its finer ones are; in a stream as an event."""
    plan: list[Any] = [
        Error("rate_limit_exceeded", retry_after=3),
        Error("model_overloaded", status=529),
        "context_length_exceeded",
        ErrorInStream("upstream_error", after=1),
    ]
    found: list[Any] = []
    with Gateway(plan) as gateway, claude(gateway) as client:
        for _ in range(3):
            with pytest.raises(anthropic.APIStatusError) as caught:
                client.messages.create(**asked())
            found.append(caught.value)
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(client.messages.create(**asked(), stream=True))
    assert [type(error).__name__ for error in found] == [
        "RateLimitError",
        "OverloadedError",
        "BadRequestError",
    ]
    assert found[0].response.headers["retry-after"] == "3"
    assert found[2].body["error"]["details"]["error_code"] == "context_length_exceeded"
    assert caught.value.body["error"]["type"] == "api_error"  # type: ignore[index]


def test_a_key_as_anthropic_sends_it() -> None:
    """`x-api-key` will do as well."""
    with Gateway(api_key="right") as gateway:
        assert claude(gateway, api_key="right").messages.create(**asked()).model == "m"
        with pytest.raises(anthropic.AuthenticationError):
            claude(gateway, api_key="wrong").messages.create(**asked())


def test_a_code_that_is_not_aurikos() -> None:
    """It needs a status, which gives its type."""
    plan: dict[str, Plan] = {
        str(status): Error("somebody_elses", status=status) for status in (400, 401, 429, 503)
    }
    types = []
    with Gateway(plan) as gateway:
        for model in plan:
            answer = post(gateway, model)
            assert answer.status_code == int(model)
            assert answer.json()["error"]["code"] == "somebody_elses"
            types.append(answer.json()["error"]["type"])
    assert types == [
        "invalid_request_error",
        "authentication_error",
        "rate_limit_error",
        "api_error",
    ]


# Streams that end in other ways


@every_path
def test_a_stalled_stream(path: str) -> None:
    """Nothing comes after so many words, for so long; then the connection is closed."""
    with Gateway(StalledStream(1, 0.2, text="one two")) as gateway:
        began = time.monotonic()
        found, error = lines(gateway, path)
    assert time.monotonic() - began >= 0.2
    assert said(found) == 1
    assert type(error) is httpx.RemoteProtocolError


@every_path
def test_a_stalled_stream_may_ping(path: str) -> None:
    """Comments, or Anthropic's `ping`, keep a client's read timeout from firing."""
    with Gateway([StalledStream(1, 0.5, pings=True), StalledStream(1, 5)]) as gateway:
        found, error = lines(gateway, path, wait=0.3)
        assert type(error) is httpx.RemoteProtocolError
        assert sum("ping" in line or "keep-alive" in line for line in found) > 2
        _, error = lines(gateway, path, wait=0.3)
        assert type(error) is httpx.ReadTimeout


def test_a_client_that_leaves_a_stalled_stream() -> None:
    """The gateway notices, and is well."""
    with Gateway([StalledStream(1), StalledStream(1, pings=True), Ok()]) as gateway:
        body = {"model": "m", "stream": True}
        for _ in range(2):
            with httpx.stream("POST", f"{gateway.url}/{CHAT}", json=body) as answer:
                next(answer.iter_lines())
            until(lambda: gateway.connections == 0)
        assert post(gateway, "m").status_code == 200


@every_path
@pytest.mark.parametrize("kind", ["reason", "terminator"])
def test_an_unfinished_stream(path: str, kind: str) -> None:
    """HTTP ends it well; what says that it ended is left out, or half of it."""
    ends = ("stop_reason", '"stop"', "response.completed")
    terminators = ("[DONE]", "message_stop")
    with Gateway([UnfinishedStream(text="one two"), UnfinishedStream(1)]) as gateway:
        found, error = lines(gateway, path)
        assert (said(found), error) == (2, None)
        assert not any(each in line for line in found[4:] for each in (*ends, *terminators))
        assert lines(gateway, path)[1] is None
    half = UnfinishedStream(reason=kind == "reason", terminator=kind == "terminator")
    with Gateway(half) as gateway:
        found, error = lines(gateway, path)
    assert error is None
    whole = path == RESPONSES  # there one event is both
    last = "\n".join(found[6:])
    assert any(each in last for each in ends) == (kind == "reason" or whole)
    assert any(each in last for each in terminators) == (kind == "terminator" and not whole)


@every_path
def test_a_garbled_stream(path: str) -> None:
    """One event is no JSON; all the text is there."""
    with Gateway(GarbledStream(1, text="one two")) as gateway:
        found, error = lines(gateway, path)
    assert (said(found), error) == (2, None)
    assert sum('{{"' in line for line in found) == 1


@every_path
@pytest.mark.parametrize("answer", [CutStream(1, reset=True), Drop(reset=True)])
def test_a_reset(path: str, answer: Any) -> None:
    """By TCP, before or after the first word."""
    with Gateway(answer) as gateway:
        found, error = lines(gateway, path)
    assert type(error) is httpx.ReadError
    assert "reset" in str(error).lower()
    assert (len(found) > 0) is isinstance(answer, CutStream)


def test_a_slow_start_may_be_silent() -> None:
    """Then a read timeout does fire."""
    with Gateway(SlowStart(5, pings=False)) as gateway:
        _, error = lines(gateway, wait=0.2)
    assert type(error) is httpx.ReadTimeout


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (StalledStream(seconds=0.05), httpx.RemoteProtocolError),
        (CutStream(), httpx.RemoteProtocolError),
        (CutStream(reset=True), httpx.ReadError),
        (GarbledStream(), None),
        (UnfinishedStream(text="one"), None),
    ],
)
def test_plain_answers_of_stream_plans(answer: Any, kind: Any) -> None:
    """They break half-way, are no JSON, or are whole."""
    with Gateway(answer) as gateway:
        if kind is not None:
            with pytest.raises(kind):
                post(gateway)
        elif isinstance(answer, GarbledStream):
            with pytest.raises(ValueError, match=r"line 1 column"):
                post(gateway).json()
        else:
            assert text(openai.types.chat.ChatCompletion(**post(gateway).json())) == "one"


# Others


@every_path
def test_a_model_that_continues_no_answer(path: str) -> None:
    """A request that ends in an assistant's message is refused."""
    user = {"role": "user", "content": "Hi"}
    assistant = {"role": "assistant", "content": "Well,"}
    with Gateway(Ok(prefill=False)) as gateway:
        for ending, status in ((user, 200), (assistant, 400)):
            told = [user, ending]
            body = {"model": "m", "input" if path == RESPONSES else "messages": told}
            answer = httpx.post(f"{gateway.url}/{path}", json=body)
            assert answer.status_code == status
        assert httpx.post(f"{gateway.url}/{path}", json={"model": "m"}).status_code == 200
        assert [each.answer for each in gateway.requests] == ["ok", "invalid_request", "ok"]


def test_a_plan_may_change() -> None:
    """From then on; what was asked before is remembered."""
    with Gateway(["upstream_error", "internal_error"]) as gateway:
        assert post(gateway).status_code == 502
        gateway.change({"gpt-4o": ["service_unavailable", Ok()]})
        assert [post(gateway).status_code for _ in range(2)] == [503, 200]
        assert post(gateway, "other").status_code == 404
        assert len(gateway.requests) == 4
        with pytest.raises(TypeError, match=r"Gateway\.plan must be an answer"):
            gateway.change(3)  # type: ignore[arg-type]


def test_open_connections_are_counted() -> None:
    """Idle ones of a client, too; 0 when it does not run."""
    gateway = Gateway()
    assert gateway.connections == 0
    with gateway:
        with httpx.Client() as client:
            client.get(f"{gateway.url}/models")
            assert gateway.connections == 1
        until(lambda: gateway.connections == 0)
    assert gateway.connections == 0
