"""Every code that Auriko's gateway can answer, over the wire, with every SDK.

How many requests it costs, and that the SDK's own exception comes out as the bare client has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import auriko
import openai
import pytest
from auriko._openai_client import AurikoAsyncOpenAI

from resilience import ModelFallback, Pipeline, Retry, history
from resilience.failures import Advice, Failure, describe
from resilience.sdks.auriko import CODES
from resilience.testing.gateway import Drop, Error, Gateway, Malformed, Ok, Plan, ProxyError
from resilience.waits import Fixed
from test_wire import SDKS, Connection, Sdk, every_sdk

pytestmark = [pytest.mark.real, pytest.mark.steady]

PERSISTENT = Pipeline(Retry(attempts=4, wait=Fixed(0.001)))


def sendable() -> Iterator[str]:
    """The codes that have an HTTP status and are not made by the SDK."""
    for code in CODES:
        try:
            Error(code)
        except ValueError:
            continue
        yield code


SENDABLE = list(sendable())
STOPPING = [code for code in SENDABLE if CODES[code].advice is Advice.STOP]


def planned(code: str) -> Error:
    """A code with everything that an envelope and its headers can carry, always the same."""
    return Error(
        code,
        param="model",
        provider="acme",
        retry_after=0.001,
        headers={"x-request-id": "req_same"},
    )


def requests_of(code: str) -> int:
    """How many requests four attempts make of a code, by the table."""
    meaning = CODES[code]
    if meaning.advice in (Advice.STOP, Advice.FALLBACK):
        return 1
    return 4 if meaning.retry_limit is None else 1 + meaning.retry_limit


class Open:
    """One gateway that answers each code as a model's name, and one client of each SDK."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._connections: dict[int, Connection] = {}
        plans: dict[str, Plan] = {code: planned(code) for code in SENDABLE}
        self.gateway = stack.enter_context(Gateway(plans))

    def to(self, sdk: Sdk) -> Connection:
        """The client of an SDK."""
        if id(sdk) not in self._connections:
            opened = self._stack.enter_context(sdk.open(self.gateway))
            self._connections[id(sdk)] = opened
        return self._connections[id(sdk)]


@pytest.fixture(scope="module")
def table() -> Iterator[Open]:
    """What the tests of single codes share."""
    with ExitStack() as stack:
        yield Open(stack)


# How often.


def test_the_table_goes_over_the_wire() -> None:
    """All codes but those without a status and those that SDKs make up are sent."""
    assert len(SENDABLE) > 60
    assert len(STOPPING) > 20
    assert set(CODES) - set(SENDABLE) == {
        "api_connection_error",
        "client_disconnected",
        "invalid_response",
        "malformed_response",
        "missing_api_key",
        "stream_duration_exceeded",
    }


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((name, code) for name in ("auriko", "openai") for code in SENDABLE),
        *((name, code) for name in ("auriko-async", "openai-async") for code in STOPPING),
    ],
)
def test_each_code_costs_what_the_table_says(name: str, code: str, table: Open) -> None:
    """STOP and FALLBACK one request, a limit of one two, RETRY and WAIT all four; and the error
    that comes out is the SDK's, as it is without a pipeline."""
    sdk = SDKS[name]
    connection, before = table.to(sdk), table.gateway.hits[code]
    with pytest.raises(sdk.errors.APIStatusError) as caught:
        connection.ask(PERSISTENT, code)
    assert table.gateway.hits[code] - before == requests_of(code)
    bare = connection.error(code)
    for field in ("__class__", "message", "status_code", "code", "type", "param", "request_id"):
        assert getattr(caught.value, field) == getattr(bare, field)
    assert (caught.value.body, caught.value.args) == (bare.body, bare.args)
    for field in ("__cause__", "__context__"):
        assert type(getattr(caught.value, field)) is type(getattr(bare, field))


@pytest.mark.parametrize("code", STOPPING)
@pytest.mark.parametrize("name", ["openai-async"])
def test_no_model_is_tried_for_what_stops(name: str, code: str, table: Open) -> None:
    """A chain of models does not hide what only the caller can put right: one request in all."""
    sdk = SDKS[name]
    connection, before = table.to(sdk), len(table.gateway.requests)
    with pytest.raises(sdk.errors.APIStatusError) as caught:
        connection.ask(Pipeline(ModelFallback(code, "no-model"), PERSISTENT), code)
    assert len(table.gateway.requests) - before == 1
    assert caught.value.code == code


OTHERS: list[tuple[Any, int, int]] = [
    # answer, requests with Auriko's SDK, with OpenAI's
    (Drop(), 4, 4),
    (Malformed(400), 1, 1),
    (Malformed(500), 4, 4),
    (ProxyError(401), 1, 1),
    (ProxyError(403), 1, 1),
    (ProxyError(404), 1, 1),
    (ProxyError(408), 4, 4),
    (ProxyError(409), 1, 4),  # OpenAI's own rule for a conflict is to try again
    (ProxyError(422), 1, 1),
    (ProxyError(429), 4, 4),
    (ProxyError(500), 4, 4),
    (ProxyError(501), 1, 1),
    (ProxyError(502), 4, 4),
    (ProxyError(503), 4, 4),
    (ProxyError(504), 4, 4),
    (ProxyError(529), 4, 4),
]


@pytest.mark.parametrize(
    ("answer", "of_auriko", "of_openai"), OTHERS, ids=[repr(other[0]) for other in OTHERS]
)
@pytest.mark.parametrize("name", ["auriko", "openai"])
def test_without_the_envelope(name: str, answer: Any, of_auriko: int, of_openai: int) -> None:
    """A proxy's page or other JSON is decided by its status; a lost connection is retried."""
    sdk = SDKS[name]
    with Gateway(answer) as gateway, sdk.open(gateway) as connection:
        with pytest.raises((sdk.errors.APIStatusError, sdk.errors.APIConnectionError)):
            connection.ask(PERSISTENT)
        assert len(gateway.requests) == (of_auriko if sdk.auriko else of_openai)


@pytest.mark.parametrize("name", ["auriko", "auriko-async"])
def test_a_page_with_status_200_is_retried_once(name: str) -> None:
    """Auriko's SDK makes invalid_response of it; OpenAI's takes it for an answer."""
    with Gateway(ProxyError(200)) as gateway, SDKS[name].open(gateway) as connection:
        with pytest.raises(auriko.APIStatusError) as caught:
            connection.ask(PERSISTENT)
        assert len(gateway.requests) == 2
    assert caught.value.code == "invalid_response"


@pytest.mark.parametrize("word", ["true", "false"])
@every_sdk
def test_the_servers_own_word_wins(sdk: Sdk, word: str) -> None:
    """`x-should-retry` is believed before the code."""
    code = "invalid_request" if word == "true" else "upstream_error"
    answer = Error(code, headers={"x-should-retry": word})
    with Gateway(answer) as gateway, sdk.open(gateway) as connection:
        with pytest.raises(sdk.errors.APIStatusError):
            connection.ask(PERSISTENT)
        assert len(gateway.requests) == (4 if word == "true" else 1)


# Errors come out as they are.

CLASSES: list[tuple[str, Any]] = [
    ("BadRequestError", planned("context_length_exceeded")),
    ("AuthenticationError", planned("invalid_api_key")),
    ("PermissionDeniedError", planned("insufficient_permissions")),
    ("NotFoundError", planned("model_not_found")),
    ("ConflictError", planned("duplicate_resource")),
    ("RateLimitError", planned("rate_limit_exceeded")),
    ("InternalServerError", planned("internal_error")),
    ("APIStatusError", planned("upstream_error")),
    ("APIStatusError", planned("service_unavailable")),
    ("APIConnectionError", Drop()),
]
FIELDS = [
    *("message", "status_code", "code", "type", "param", "request_id"),
    *("retry_after_seconds", "doc_url", "provider"),
]


def shown(error: Any) -> dict[str, Any]:
    """All that a user can see of one of Auriko's errors."""
    headers = error.response_headers
    return {name: getattr(error, name) for name in FIELDS} | {
        "body": error.body,
        "args": error.args,
        "class": type(error),
        "str": str(error),
        "repr": repr(error),
        "cause": type(error.__cause__),
        "context": type(error.__context__),
        "headers": headers and sorted(key for key, _ in headers._raw.items()),
    }


@pytest.mark.parametrize(
    ("name", "answer"), CLASSES, ids=[f"{name}-{answer.name}" for name, answer in CLASSES]
)
@pytest.mark.parametrize("sdk", ["auriko", "auriko-async"])
def test_every_class_and_field_reaches_the_user(sdk: str, name: str, answer: Any) -> None:
    """After retries and fallbacks, an error is in all its parts what the bare client raises."""
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=Fixed(0.001)))
    with Gateway(answer) as gateway, SDKS[sdk].open(gateway) as connection:
        bare = connection.error("b")
        with pytest.raises(getattr(auriko, name)) as caught:
            connection.ask(pipeline, "a")
        assert len(gateway.requests) >= 2
    assert type(caught.value) is getattr(auriko, name)
    assert isinstance(caught.value, auriko.AurikoAPIError)
    assert shown(caught.value) == shown(bare)


def test_the_ten_classes_are_all_there() -> None:
    """The table above has every class of the SDK's guide, bases included."""
    names = {name for name in auriko.errors.__all__ if name.endswith("Error")}
    assert len(names) == 10
    assert {base.__name__ for name, _ in CLASSES for base in getattr(auriko, name).__mro__} >= names


def test_every_field_is_filled() -> None:
    """The comparison above is of values, not of None with None."""
    with Gateway(planned("rate_limit_exceeded")) as gateway, SDKS["auriko"].open(gateway) as found:
        error = found.error()
    assert {name: getattr(error, name) for name in FIELDS} == {
        "message": "Planned by the local gateway: rate limit exceeded.",
        "status_code": 429,
        "code": "rate_limit_exceeded",
        "type": "rate_limit_error",
        "param": "model",
        "request_id": "req_same",
        "retry_after_seconds": 0.001,
        "doc_url": "https://docs.auriko.ai/errors/rate_limit_exceeded",
        "provider": "acme",
    }


@every_sdk
def test_no_error_of_ours_is_in_the_chain(sdk: Sdk) -> None:
    """In an `except` block of the user's, Python's chain of errors has nothing of ours in it."""
    with Gateway("upstream_error") as gateway, sdk.open(gateway) as connection:

        def handling_another() -> None:
            try:
                raise KeyError("the user's own")
            except KeyError:
                connection.ask(PERSISTENT)

        with pytest.raises(sdk.errors.APIStatusError) as caught:
            handling_another()
    chain: list[str] = []
    link: BaseException | None = caught.value
    while link is not None:
        chain.append(type(link).__module__.split(".")[0])
        link = link.__cause__ or link.__context__
    assert "resilience" not in chain


# What errors mean, by whichever SDK.


def facts(failure: Failure) -> tuple[Any, ...]:
    return (
        failure.kind,
        failure.advice,
        failure.status,
        failure.code,
        failure.type,
        failure.request_id,
        failure.retry_after,
        failure.retry_limit,
        failure.provider,
        failure.sent,
    )


BRIDGED = Sdk(AurikoAsyncOpenAI)


@pytest.mark.parametrize("code", SENDABLE)
def test_every_sdk_means_the_same(code: str, table: Open) -> None:
    """One answer means one thing: with four SDKs, mapped by `map_openai_error`, and bridged."""
    errors = {name: table.to(sdk).error(code) for name, sdk in SDKS.items()}
    errors["mapped"] = auriko.map_openai_error(errors["openai"])
    errors["bridged"] = table.to(BRIDGED).error(code)
    said = {name: facts(describe(error)) for name, error in errors.items()}
    assert isinstance(errors["mapped"], auriko.AurikoAPIError)
    assert isinstance(errors["bridged"], auriko.AurikoAPIError)
    assert isinstance(errors["bridged"], openai.APIStatusError)
    assert said == dict.fromkeys(said, said["auriko"])
    kind, advice, status, *rest = said["auriko"]
    assert (kind, advice, status) == (CODES[code].kind, CODES[code].advice, CODES[code].status)
    assert rest[:3] == [code, CODES[code].type, "req_same"]
    waits = advice in (Advice.RETRY, Advice.WAIT) or status in (413, 429, 503)
    assert rest[3] == (0.001 if waits else None)


def test_a_bridged_client_is_guarded_as_well(table: Open) -> None:
    """`AurikoAsyncOpenAI` costs the same requests, and both families' handlers catch its errors."""
    connection, before = table.to(BRIDGED), table.gateway.hits
    for code in SENDABLE:
        with pytest.raises(auriko.APIStatusError) as caught:
            connection.ask(PERSISTENT, code)
        assert isinstance(caught.value, openai.APIStatusError)
    spent = table.gateway.hits - before
    assert spent == {code: requests_of(code) for code in SENDABLE}


@pytest.mark.parametrize("answer", [ProxyError(502), ProxyError(503), ProxyError(400), Malformed()])
def test_answers_without_the_envelope_mean_the_same(answer: Any) -> None:
    """A page of a proxy's means one thing, however it is mapped."""
    with (
        Gateway(answer) as gateway,
        SDKS["openai"].open(gateway) as plain,
        SDKS["auriko"].open(gateway) as ours,
        BRIDGED.open(gateway) as bridged,
    ):
        original = plain.error()
        errors = [original, auriko.map_openai_error(original), ours.error(), bridged.error()]
    assert len({facts(describe(error))[:3] for error in errors}) == 1


def test_a_bridged_client_recovers() -> None:
    """`AurikoAsyncOpenAI` is retried, falls back, and has the routing metadata of the answer."""
    plan: dict[str, Plan] = {"a": "model_unavailable", "b": ["upstream_error", Ok()]}
    with Gateway(plan) as gateway, BRIDGED.open(gateway) as connection:
        answer = connection.ask(Pipeline(ModelFallback("a", "b"), PERSISTENT), "a")
        assert gateway.hits == {"a": 1, "b": 2}
        assert answer.model == "b"
        assert connection.client.last_routing_metadata.model_canonical == "b"


def test_a_mapped_error_keeps_its_history() -> None:
    """What `map_openai_error` gives is a new exception; the history stays with the one raised."""
    with (
        Gateway("upstream_error") as gateway,
        SDKS["openai"].open(gateway) as connection,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        connection.ask(PERSISTENT)
    assert len(history(caught.value)) == 4
    assert history(auriko.map_openai_error(caught.value)) == ()
