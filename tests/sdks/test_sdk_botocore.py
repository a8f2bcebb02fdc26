"""botocore: what the table of faults does not show of its errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import botocore.exceptions
import pytest
from botocore import eventstream, parsers
from botocore.config import Config
from botocore.session import Session
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import ReadTimeoutError as Urllib3ReadTimeoutError

from providers.botocore import ASK, event, stream
from providers.raw import answering
from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks.botocore import CODES

MISTAKE = (Kind.INVALID, Advice.STOP, False)
UNSIGNED = (Kind.AUTH, Advice.STOP, False)


@contextmanager
def bedrock(url: str, *, signed: bool = True, service: str = "bedrock-runtime") -> Iterator[Any]:
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s"} if signed else {}
    once = Config(retries={"total_max_attempts": 1}, read_timeout=0.2)
    client = Session().create_client(
        service, region_name="us-east-1", endpoint_url=url, config=once, **keys
    )
    yield client
    client.close()


def raised(call: Callable[[], object], cls: type[Exception]) -> Exception:
    with pytest.raises(cls) as caught:
        call()
    return caught.value


def answer(status: int, headers: str, body: bytes = b"{}") -> bytes:
    head = f"HTTP/1.1 {status} Told\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def told(failure: Failure) -> tuple[Kind, Advice, bool | None]:
    return failure.kind, failure.advice, failure.sent


@pytest.mark.fault(49)
@pytest.mark.real
def test_aws_asks_for_a_wait_in_milliseconds() -> None:
    """`x-amz-retry-after: 1500` is a second and a half, and a plain Retry-After goes before it."""
    code = "x-amzn-errortype: ThrottlingException\r\nx-amz-retry-after: 1500\r\n"
    for headers, wait in ((code, 1.5), (code + "retry-after: 3\r\n", 3.0)):
        with answering(answer(429, headers)) as url, bedrock(url) as client:
            error = raised(lambda: client.converse(**ASK), botocore.exceptions.ClientError)
        assert describe(error).retry_after == wait


@pytest.mark.real
@pytest.mark.parametrize(
    ("code", "status", "kind", "advice"),
    [
        ("ModelNotReadyException", 429, Kind.UNAVAILABLE, Advice.WAIT),
        ("ModelErrorException", 424, Kind.SERVER, Advice.RETRY),
        ("ModelTimeoutException", 408, Kind.TIMEOUT, Advice.RETRY),
        ("ServiceQuotaExceededException", 400, Kind.QUOTA, Advice.STOP),
        ("ConflictException", 400, Kind.CONFLICT, Advice.STOP),
        ("RetryableConflictException", 409, Kind.CONFLICT, Advice.RETRY),
        ("ExpiredTokenException", 403, Kind.AUTH, Advice.STOP),
        ("SomethingNewException", 503, Kind.UNAVAILABLE, Advice.WAIT),
    ],
)
def test_codes_of_bedrock_with_the_statuses_they_come_with(
    code: str, status: int, kind: Kind, advice: Advice
) -> None:
    """The code decides before the status does, and an unknown one leaves it to the status."""
    with (
        answering(answer(status, f"x-amzn-errortype: {code}\r\n")) as url,
        bedrock(url) as client,
    ):
        failure = describe(raised(lambda: client.converse(**ASK), botocore.exceptions.ClientError))

    assert (failure.kind, failure.advice) == (kind, advice)
    assert (failure.code, failure.status) == (code, status)


@pytest.mark.real
def test_a_proxys_page_has_no_code() -> None:
    """botocore puts the status in its place; its request id is left in the headers."""
    page = answer(502, "content-type: text/html\r\nx-amzn-requestid: r1\r\n", b"<html></html>")
    with answering(page) as url, bedrock(url) as client:
        error: Any = raised(lambda: client.converse(**ASK), botocore.exceptions.ClientError)

    assert error.response["Error"]["Code"] == "502"
    failure = describe(error)
    assert (failure.code, failure.status, failure.request_id) == (None, 502, "r1")
    assert (failure.kind, failure.advice) == (Kind.SERVER, Advice.RETRY)


@pytest.mark.real
def test_a_stream_that_breaks_off_raises_urllib3s_own_errors() -> None:
    """After the first event botocore is out of the way: a stall is a timeout, a cut a lost call."""
    headers, body = stream()
    first = body[: int.from_bytes(body[:4], "big")]
    kind = f"content-type: {headers['content-type']}\r\n"
    stalled = f"HTTP/1.1 200 OK\r\n{kind}content-length: 9999\r\n\r\n".encode() + first
    broken = f"HTTP/1.1 200 OK\r\n{kind}transfer-encoding: chunked\r\n\r\n".encode()
    broken += b"%x\r\n%s\r\nnonsense\r\n" % (len(first), first)
    for wire, cls, expected in (
        (stalled, Urllib3ReadTimeoutError, (Kind.TIMEOUT, Advice.RETRY, None)),
        (broken, ProtocolError, (Kind.CONNECTION, Advice.RETRY, True)),
    ):
        with answering(wire) as url, bedrock(url) as client:
            error = raised(partial(list, client.converse_stream(**ASK)["stream"]), cls)
        failure = describe(error)
        assert told(failure) == expected
        assert failure.sdk == "urllib3"


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("badGatewayException", Kind.SERVER, Advice.RETRY),
        ("dependencyFailedException", Kind.INVALID, Advice.STOP),
    ],
)
def test_what_an_agent_depends_on(name: str, kind: Kind, advice: Advice) -> None:
    """In a stream there is no status: a bad gateway may pass, a bad configuration does not."""
    told = event("exception", name, {"message": "m"})
    typed = "content-type: application/vnd.amazon.eventstream\r\n"
    ask = {"input": {"textPrompt": {"text": "Hi"}}, "targetModelId": "m"}
    with (
        answering(answer(200, typed, told)) as url,
        bedrock(url, service="bedrock-agent-runtime") as client,
    ):
        events = client.optimize_prompt(**ask)["optimizedPrompt"]
        failure = describe(raised(lambda: list(events), botocore.exceptions.EventStreamError))

    assert (failure.kind, failure.advice, failure.sent) == (kind, advice, True)
    assert failure.code == name[0].upper() + name[1:]


@pytest.mark.real
def test_a_frame_with_a_wrong_checksum_is_a_misshapen_answer() -> None:
    """The service answered, but with something that is none of its protocol."""
    headers, body = stream()
    kind = f"content-type: {headers['content-type']}\r\n"
    with answering(answer(200, kind, body[:-1] + b"!")) as url, bedrock(url) as client:
        events = client.converse_stream(**ASK)["stream"]
        failure = describe(raised(lambda: list(events), eventstream.ParserError))

    assert told(failure) == (Kind.SERVER, Advice.RETRY, True)
    assert failure.retry_limit == 1


@pytest.mark.real
def test_an_answer_that_cannot_be_parsed() -> None:
    """It is asked for once more. (Of JSON that is none, botocore makes an answer.)"""
    with answering(answer(200, "", b"<html>")) as url, bedrock(url, service="sts") as client:
        failure = describe(raised(client.get_caller_identity, parsers.ResponseParserError))

    assert told(failure) == (Kind.SERVER, Advice.RETRY, True)
    assert (failure.retry_limit, failure.sdk) == (1, "botocore")


def test_mistakes_found_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, no such parameter, no region: the caller's, and nothing was sent."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with bedrock("http://127.0.0.1:9") as signed:
        wrong = raised(
            lambda: signed.converse(nonsense=1), botocore.exceptions.ParamValidationError
        )
    with bedrock("http://127.0.0.1:9", signed=False) as unsigned:
        nobody = raised(lambda: unsigned.converse(**ASK), botocore.exceptions.NoCredentialsError)
    nowhere = raised(
        lambda: Session().create_client("bedrock-runtime"), botocore.exceptions.NoRegionError
    )

    for error, expected in ((wrong, MISTAKE), (nobody, UNSIGNED), (nowhere, MISTAKE)):
        failure = describe(error)
        assert told(failure) == expected
        assert failure.sdk == "botocore"


def test_what_wraps_anything_is_read_by_what_it_wraps() -> None:
    """`HTTPClientError` says nothing itself; alone it is a lost connection."""
    for inner, expected in (
        (ConnectionRefusedError(), (Kind.CONNECTION, Advice.RETRY, False)),
        (TimeoutError(), (Kind.TIMEOUT, Advice.RETRY, None)),
        (KeyError(), (Kind.CONNECTION, Advice.RETRY, None)),
    ):
        assert told(describe(botocore.exceptions.HTTPClientError(error=inner))) == expected


@pytest.mark.parametrize("response", [{}, {"Error": {}}, {"Error": None}, {"Error": {"Code": 5}}])
def test_errors_with_nothing_in_them(response: Any) -> None:
    """Such as tests and other libraries make by hand."""
    error = botocore.exceptions.ClientError({"Error": {}}, "Converse")
    error.response = response

    assert describe(error) == Failure(Kind.UNKNOWN, Advice.STOP, sdk="botocore")


def test_what_botocore_takes_for_throttling_is_a_rate_limit() -> None:
    """Its own list of codes, whole."""
    from botocore.retries.standard import ThrottledRetryableChecker

    for code in ThrottledRetryableChecker._THROTTLED_ERROR_CODES:
        assert (CODES[code].kind, CODES[code].advice) == (Kind.RATE_LIMIT, Advice.WAIT)


def test_every_exception_in_a_stream_of_bedrocks_is_known() -> None:
    """There it has no status to go by. By botocore's own model, whichever exceptions that has."""
    session = Session()
    services = [name for name in session.get_available_services() if name.startswith("bedrock")]
    streams = [
        shape
        for model in map(session.get_service_model, services)
        for name in model.shape_names
        if (shape := model.shape_for(name)).serialization.get("eventstream")
    ]
    raised = {
        each.name
        for stream in streams
        for each in stream.members.values()
        if each.metadata.get("exception")
    }
    assert "ModelStreamErrorException" in raised
    assert raised <= CODES.keys()


@pytest.mark.fault(232)
@pytest.mark.parametrize(
    ("operation", "advice"), [("Converse", Advice.FALLBACK), ("ListFoundationModels", Advice.STOP)]
)
@pytest.mark.parametrize("status", [404, 410, 501])
def test_a_call_of_a_model_by_its_operation(operation: str, advice: Advice, status: int) -> None:
    """Its errors show no URL."""
    told = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert describe(botocore.exceptions.ClientError(told, operation)).advice is advice
