"""gRPC: waits in metadata and details, and what the table of faults does not show."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks.grpc import CODES
from resilience.sdks.protobuf import retry_delay

Metadata = list[tuple[str, "str | bytes"]]


class Service:
    """Ends every call as `code` and the metadata say; a stream, after one piece of it."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.UNAVAILABLE
        self.trailing: Metadata = []
        self.initial: Metadata = []
        self.released = threading.Event()

    def service(self, call: Any) -> Any:
        if call.method == "/x/stream":
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._end)

    def _end(self, request: bytes, context: Any) -> bytes:
        if self.initial:
            context.send_initial_metadata(tuple(self.initial))
        context.set_trailing_metadata(tuple(self.trailing))
        context.abort(self.code, "Told.")
        return b""

    def _stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield b"Hel"
        assert self.released.wait(5)
        self._end(request, context)


@pytest.fixture
def service() -> Iterator[Service]:
    """One of this test's own, behind `service.target`."""
    told = Service()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[told])
    told.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"  # type: ignore[attr-defined]
    server.start()
    yield told
    told.released.set()
    server.stop(None).wait(5)


def sync(service: Any) -> grpc.RpcError:
    with grpc.insecure_channel(service.target) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/x/single")(b"", timeout=5)
    return caught.value


def aio(service: Any) -> grpc.RpcError:
    async def main() -> None:
        async with grpc.aio.insecure_channel(service.target) as channel:
            await channel.unary_unary("/x/single")(b"", timeout=5)

    with pytest.raises(grpc.RpcError) as caught:
        asyncio.run(main())
    return caught.value


both = pytest.mark.parametrize("call", [sync, aio])
Call = Callable[[Service], grpc.RpcError]


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protobuf message, as its encoder writes it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    told = b""
    while value > 0x7F:
        told += bytes([value & 0x7F | 0x80])
        value >>= 7
    return told + bytes([value])


def status(*details: tuple[str, bytes]) -> bytes:
    """A `google.rpc.Status` with such details."""
    packed = [
        field(1, f"type.googleapis.com/{name}".encode()) + field(2, value)
        for name, value in details
    ]
    return field(1, 8) + field(2, b"Told.") + b"".join(field(3, each) for each in packed)


def delay(seconds: int = 0, nanos: int = 0) -> tuple[str, bytes]:
    duration = (field(1, seconds) if seconds else b"") + (field(2, nanos) if nanos else b"")
    return "google.rpc.RetryInfo", field(1, duration)


QUOTA = ("google.rpc.QuotaFailure", field(1, field(1, b"project") + field(2, b"none left")))


@pytest.mark.real
@both
def test_every_code(service: Service, call: Call) -> None:
    """Each status code comes out as it is in the table, by its name, and without a status."""
    for code in grpc.StatusCode:
        if code is grpc.StatusCode.OK:
            continue
        service.code = code
        failure = describe(call(service))
        expected = CODES[code.name]
        assert (failure.kind, failure.advice) == (expected.kind, expected.advice)
        assert (failure.code, failure.status, failure.sdk) == (code.name, None, "grpc")
    assert len(CODES) == len(grpc.StatusCode) - 1


@pytest.mark.real
@both
@pytest.mark.parametrize(
    ("pushback", "wait", "advice"),
    [
        ("1500", 1.5, Advice.WAIT),
        ("0", 0.0, Advice.WAIT),
        ("-1", None, Advice.FALLBACK),
        ("-1000", None, Advice.FALLBACK),
        ("soon", None, Advice.FALLBACK),
        ("1e3", None, Advice.FALLBACK),
        ("9" * 50, None, Advice.FALLBACK),
    ],
)
def test_pushback(
    service: Service, call: Call, pushback: str, wait: float | None, advice: Advice
) -> None:
    """`grpc-retry-pushback-ms` is milliseconds to stay away, or below 0 for good; another may do.

    What is no number is a refusal by gRPC's rules, and its core hands out -1 for it.
    """
    service.trailing = [("grpc-retry-pushback-ms", pushback)]

    failure = describe(call(service))

    assert (failure.retry_after, failure.advice) == (wait, advice)


@pytest.mark.real
@both
def test_a_retry_info_in_the_details(service: Service, call: Call) -> None:
    """Google's own way to ask for a wait; it goes before a pushback, a header before both."""
    service.code = grpc.StatusCode.RESOURCE_EXHAUSTED
    details = status(QUOTA, delay(36, 500_000_000))
    service.trailing = [("grpc-status-details-bin", details), ("grpc-retry-pushback-ms", "9")]
    assert describe(call(service)).retry_after == 36.5

    service.trailing.append(("retry-after", "7"))
    assert describe(call(service)).retry_after == 7.0


@pytest.mark.real
@both
def test_metadata_before_the_end_says_that_the_server_had_begun(
    service: Service, call: Call
) -> None:
    """A call that failed with nothing before that may never have reached the service's code."""
    assert describe(call(service)).sent is None
    service.initial = [("x-served-by", "model")]
    assert describe(call(service)).sent is True


@pytest.mark.real
def test_a_call_under_way_is_not_waited_for(service: Any) -> None:
    """A sync stream is its own error; until it has ended, asking for its code would block."""
    with grpc.insecure_channel(service.target) as channel:
        stream: Any = channel.unary_stream("/x/stream")(b"", timeout=5)
        assert next(stream) == b"Hel"
        assert describe(stream) == Failure(Kind.UNKNOWN, Advice.STOP)
        service.released.set()
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)

    assert caught.value is stream
    assert describe(stream).kind is Kind.UNAVAILABLE


def test_errors_that_have_no_code() -> None:
    """Such as a bare RpcError; one made by hand may have no metadata."""
    assert describe(grpc.RpcError()) == Failure(Kind.UNKNOWN, Advice.STOP)
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE)

    failure = describe(error)

    assert (failure.kind, failure.advice, failure.sent) == (Kind.UNAVAILABLE, Advice.WAIT, None)


def test_errors_that_end_no_call() -> None:
    """A future that is waited for no longer says nothing of the service."""
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        call = channel.unary_unary("/x/single").future(b"", wait_for_ready=True)
        with pytest.raises(grpc.FutureTimeoutError) as caught:
            call.result(timeout=0)
        call.cancel()

    assert describe(caught.value) == Failure(Kind.UNKNOWN, Advice.STOP)


def test_coroutines_in_the_place_of_methods() -> None:
    """The calls of `grpc.aio` answer with coroutines, which are left alone without a warning."""

    class Odd(grpc.RpcError):  # type: ignore[misc]
        async def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

    assert describe(Odd()) == Failure(Kind.UNKNOWN, Advice.STOP)


@pytest.mark.parametrize(
    ("details", "wait"),
    [
        (status(delay(2)), 2.0),
        (status(delay(0, 250_000_000)), 0.25),
        (status(delay()), 0.0),
        (status(QUOTA, delay(3), delay(4)), 3.0),
        (status(QUOTA), None),
        (status(("google.rpc.RetryInfo", b"")), None),
        (status(delay(-1)), None),
        (status(delay(1, -1)), None),
        (status(delay(1, 2_000_000_000)), None),
        (status(delay(1 << 62)), None),
        (status(("google.rpc.RetryInfo", field(1, 5))), None),
        (status(("google.rpc.RetryInfo", field(1, field(1, b"5")))), None),
        (field(3, 7) + status(delay(2)), 2.0),
        (varint(9 << 3 | 1) + struct.pack("<d", 1) + status(delay(2)), 2.0),
        (varint(9 << 3 | 5) + struct.pack("<f", 1) + status(delay(2)), 2.0),
        (varint(9 << 3 | 3) + status(delay(2)), None),
        (status(delay(2))[:-1], None),
        (b"\xff" * 20, None),
        (b"", None),
        (status(delay(2)) + field(2, b"x" * 70_000), None),
        ("text", None),
        (None, None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_details_as_they_may_come(details: object, wait: float | None) -> None:
    """What is no RetryInfo of a plausible length asks for nothing."""
    assert retry_delay(details) == wait


@given(st.binary(max_size=200))
def test_any_bytes_for_details(details: bytes) -> None:
    """Never an exception, never a wait that is none."""
    for each in (details, field(3, details), status(("google.rpc.RetryInfo", details))):
        found = retry_delay(each)
        assert found is None or 0 <= found < 1e9 + 1
