"""OpenAI's SDK of any version, and what is said through it by Azure, OpenRouter and others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai as sdk
import pydantic
import pytest

from providers import openai as module
from providers.raising import Provider, answer, providing
from resilience.failures import Advice, Failure, Kind, describe

pytestmark = [pytest.mark.real, pytest.mark.steady]

both_colours = pytest.mark.parametrize("way", ["fail", "fail_async"])


@pytest.fixture(scope="module")
def openai() -> Iterator[Provider]:
    with providing(module) as provider:
        yield provider


def error(**told: Any) -> dict[str, Any]:
    return {"error": {"message": "m", **told}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, error(code="insufficient_quota", type="insufficient_quota")),
        (429, error(code="insufficient_quota", type="rate_limit_error")),
        (429, error(code=None, type="insufficient_quota")),
        (403, error(code="insufficient_quota")),
        (400, error(code="billing_hard_limit_reached", type="invalid_request_error")),
        (429, error(code="billing_not_active", type="billing_not_active")),
        (429, error(code="InsufficientQuota")),
        (429, error(code="QuotaExceeded")),
        (402, error(code="payment", type="no_such_type")),
        (400, error(code="400", type="budget_exceeded")),
        (402, error(code=402)),
        (402, error(code=402, metadata={"limit_source": "openrouter_credits"})),
        (403, error(code=403, metadata={"limit_source": "openrouter_key_limit"})),
        (402, error(code=402, metadata={"error_type": "payment_required"})),
    ],
    ids=str,
)
def test_money_is_no_rate_limit(openai: Provider, status: int, body: object) -> None:
    """Whatever it is called, a quota that is used up stops the call; `Retry-After` or not."""
    failure = describe(openai.raised(answer(status, body, retry_after="1")))

    assert (failure.kind, failure.advice) == (Kind.QUOTA, Advice.STOP)
    assert (failure.status, failure.sdk) == (status, "openai")


def test_money_in_the_middle_of_a_stream(openai: Provider) -> None:
    """A quota may run out while an answer is written."""
    chunk = 'data: {"error": {"message": "m", "code": "insufficient_quota"}}'
    failure = describe(openai.raised(openai.broken_off(chunk)))

    assert (failure.kind, failure.advice, failure.sent) == (Kind.QUOTA, Advice.STOP, True)


def test_a_budget_that_is_in_use(openai: Provider) -> None:
    """OpenRouter says with a 402 and a wait that running calls have taken the budget for now."""
    told = error(code=402, metadata={"limit_source": "openrouter_in_flight_budget"})
    failure = describe(openai.raised(answer(402, told, retry_after="3")))

    assert (failure.kind, failure.advice) == (Kind.RATE_LIMIT, Advice.WAIT)
    assert failure.retry_after == 3.0


AVAILABILITY = [
    ("model_not_found", 400, False, Kind.NOT_FOUND, Advice.FALLBACK),
    ("no_endpoints", 404, False, Kind.NOT_FOUND, Advice.FALLBACK),
    ("no_endpoints", 404, True, Kind.NOT_FOUND, Advice.WAIT),
    ("model_deprecated", 404, False, Kind.NOT_FOUND, Advice.FALLBACK),
    ("wrong_endpoint", 400, False, Kind.UNSUPPORTED, Advice.FALLBACK),
    ("constraint_filtered", 404, False, Kind.UNSUPPORTED, Advice.FALLBACK),
    ("region_restricted", 403, False, Kind.PERMISSION, Advice.FALLBACK),
    ("capacity_exhausted", 429, True, Kind.RATE_LIMIT, Advice.WAIT),
    ("temporarily_unavailable", 503, True, Kind.UNAVAILABLE, Advice.WAIT),
    ("temporarily_unavailable", 503, False, Kind.UNAVAILABLE, Advice.FALLBACK),
    ("brand_new", 503, False, Kind.UNAVAILABLE, Advice.FALLBACK),
]


@pytest.mark.parametrize(("code", "status", "retryable", "kind", "advice"), AVAILABILITY)
def test_why_a_model_was_not_available(
    openai: Provider, code: str, status: int, retryable: bool, kind: Kind, advice: Advice
) -> None:
    """OpenRouter says why, whether another try may do, and when, in the body."""
    availability = {"code": code, "retryable": retryable, "retry_after": 4}
    told = error(code=status, metadata={"provider_name": "Acme"}, availability=availability)
    failure = describe(openai.raised(answer(status, told)))

    assert (failure.kind, failure.advice, failure.provider) == (kind, advice, "Acme")
    assert failure.code == (str(status) if code == "brand_new" else code)
    if advice is Advice.WAIT:
        assert failure.retry_after == 4.0


@pytest.mark.parametrize("name", ["innererror", "inner_error"])
def test_azures_inner_code(openai: Provider, name: str) -> None:
    """Azure has the finer code further in; it counts where the outer one says nothing."""
    inner = {name: {"code": "ResponsibleAIPolicyViolation"}}
    failure = describe(openai.raised(answer(400, error(code="BadRequest", **inner))))

    assert (failure.kind, failure.advice) == (Kind.CONTENT_FILTER, Advice.STOP)
    assert failure.code == "ResponsibleAIPolicyViolation"


@pytest.mark.parametrize("code", ["502", '"502"'], ids=["number", "text"])
def test_a_status_in_a_stream(openai: Provider, code: str) -> None:
    """An event in a stream has no status but the one that is its code."""
    chunk = f'data: {{"error": {{"message": "m", "code": {code}}}}}'
    failure = describe(openai.raised(openai.broken_off(chunk)))

    assert (failure.kind, failure.advice) == (Kind.SERVER, Advice.RETRY)
    assert (failure.status, failure.code, failure.sent) == (502, "502", True)


@pytest.mark.parametrize("odd", [[], {}, [{}], True, 10**400, -1, "429.5", "4" * 5000], ids=repr)
@pytest.mark.parametrize("name", ["code", "type", "innererror", "metadata", "availability"])
def test_bodies_that_are_odd(openai: Provider, name: str, odd: object) -> None:
    """What nobody expects in a body leaves the status to decide."""
    failure = describe(openai.raised(answer(503, error(**{name: odd}))))

    assert (failure.kind, failure.advice) == (Kind.UNAVAILABLE, Advice.WAIT)
    assert (failure.status, failure.sdk, failure.retry_after) == (503, "openai", None)


@both_colours
def test_a_stream_that_is_cut(openai: Provider, way: str) -> None:
    """Version 3 wraps the transport's error, 1 and 2 do not; it is a lost connection for all."""
    failure = describe(openai.raised(openai.cut(), way))

    assert (failure.kind, failure.advice, failure.sent) == (Kind.CONNECTION, Advice.RETRY, None)


class Mine(pydantic.BaseModel):
    number: int


def completion(finish_reason: str, content: str) -> object:
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
    told = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o"}
    return {**told, "choices": [choice]}


@pytest.mark.parametrize(
    ("finish_reason", "raised", "kind", "advice", "limit"),
    [
        ("length", sdk.LengthFinishReasonError, Kind.UNKNOWN, Advice.STOP, None),
        (
            "content_filter",
            sdk.ContentFilterFinishReasonError,
            Kind.CONTENT_FILTER,
            Advice.STOP,
            None,
        ),
        ("stop", pydantic.ValidationError, Kind.SERVER, Advice.RETRY, 1),
    ],
)
def test_answers_that_end_too_soon(
    openai: Provider,
    finish_reason: str,
    raised: type[Exception],
    kind: Kind,
    advice: Advice,
    limit: int | None,
) -> None:
    """`parse` raises over an answer that was cut short, filtered, or not what was asked for."""
    client = openai.client(answer(200, completion(finish_reason, '{"number": ')))
    with client, pytest.raises(raised) as caught:
        client.chat.completions.parse(**module.ASK, response_format=Mine)

    assert describe(caught.value) == Failure(
        kind, advice, sdk="openai", retry_limit=limit, sent=True
    )


@pytest.mark.parametrize(("retries", "sent"), [(0, False), (1, None)])
def test_an_earlier_try_of_the_sdks_own_may_have_been_executed(
    retries: int, sent: bool | None
) -> None:
    """Its last try was refused, but what became of the one before nobody knows."""
    with (
        sdk.OpenAI(api_key="none", base_url="http://127.0.0.1:1", max_retries=retries) as client,
        pytest.raises(sdk.APIConnectionError) as caught,
    ):
        client.models.list()

    failure = describe(caught.value)
    assert (failure.kind, failure.advice, failure.sent) == (Kind.CONNECTION, Advice.RETRY, sent)


@pytest.mark.parametrize(
    ("status", "told", "kind", "advice"),
    [
        (400, {"code": 400, "type": "exceed_context_size_error"}, "CONTEXT_LENGTH", "FALLBACK"),
        (500, {"code": 500, "type": "exceed_context_size_error"}, "CONTEXT_LENGTH", "FALLBACK"),
        (429, {"type": "exceeded_current_quota_error"}, "QUOTA", "STOP"),
        (404, {"code": 404, "type": "NotFoundError", "param": None}, "NOT_FOUND", "FALLBACK"),
        (404, {"code": None, "type": "not_found_error"}, "NOT_FOUND", "FALLBACK"),
    ],
    ids=["llama.cpp", "llama.cpp before", "Moonshot", "vLLM", "Ollama"],
)
def test_types_of_servers_that_speak_as_openai_does(
    openai: Provider, status: int, told: dict[str, Any], kind: str, advice: str
) -> None:
    """Where they have no code, or the status for one, their types say what it is."""
    failure = describe(openai.raised(answer(status, error(**told))))

    assert (failure.kind.name, failure.advice.name) == (kind, advice)
