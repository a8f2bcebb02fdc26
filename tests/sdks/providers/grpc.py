"""A gRPC service without a schema, whose status codes are those that Google maps HTTP's to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from .faults import DATE, FAULTS, PROXY_PAGE, Fault
from .raw import answering
from .server import closed_port

__all__ = ["PACKAGE", "Server", "ask", "fail"]

PACKAGE = "grpc"
_CODES = {
    "rate_limit": "RESOURCE_EXHAUSTED",
    "quota": "RESOURCE_EXHAUSTED",
    "server": "INTERNAL",
    "unavailable": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED",
    "overloaded": "UNAVAILABLE",
    "auth": "UNAUTHENTICATED",
    "permission": "PERMISSION_DENIED",
    "model": "NOT_FOUND",
    "request_timeout": "DEADLINE_EXCEEDED",
    "conflict": "ABORTED",
    "too_large": "OUT_OF_RANGE",
    "unprocessable": "FAILED_PRECONDITION",
}
"""All else is INVALID_ARGUMENT."""


class Server:
    """A gRPC server, and two that are none: one drops connections, one is a proxy with a page.

    The headers of a fault are sent as trailing metadata, as a proxy in front of gRPC does.
    """

    def __init__(self, provider: ModuleType) -> None:
        import grpc

        self._grpc = grpc
        self._ended = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._open = ExitStack()

    def url(self, fault: Fault) -> str:
        """Where this fault happens: an address and the name of a method."""
        address = f"127.0.0.1:{self._port}"
        if fault.how == "refused":
            address = f"127.0.0.1:{closed_port()}"
        elif fault.how == "drop":
            address = self._dropping
        elif fault.body is not None:
            address = self._proxy
        return f"{address}/{FAULTS.index(fault)}"

    def service(self, call: Any) -> Any:
        """The handler of a method, as grpc asks for it."""
        _, kind, number = call.method.split("/")
        fault = FAULTS[int(number)]
        if kind == "stream":
            return self._grpc.unary_stream_rpc_method_handler(lambda _, to: self._tell(fault, to))
        return self._grpc.unary_unary_rpc_method_handler(lambda _, to: next(self._tell(fault, to)))

    def _tell(self, fault: Fault, context: Any) -> Any:
        if fault.how == "hang":
            self._ended.wait(5)
        if fault.how == "stream":
            yield b"Hel"
        if fault.how == "shape":
            yield b"\xff"
        told = {"date": DATE, "x-request-id": "req_1", **fault.headers}
        context.set_trailing_metadata(tuple(told.items()))
        kind = "server" if fault.how == "stream" else fault.kind
        code = _CODES.get(kind, "INVALID_ARGUMENT")
        context.abort(self._grpc.StatusCode[code], f"It is {kind}.")

    def __enter__(self) -> Server:
        page = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\n\r\n" + PROXY_PAGE
        proxy = self._open.enter_context(answering(page, keep=False))
        dropping = self._open.enter_context(answering(b"", keep=False))
        self._proxy, self._dropping = (url.partition("//")[2] for url in (proxy, dropping))
        self._server.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ended.set()
        self._server.stop(None).wait(5)
        self._open.close()


def ask(channel: Any, number: str, *, streaming: bool) -> Any:
    """A call of the method, begun."""
    kind = "stream" if streaming else "single"
    method = channel.unary_stream if streaming else channel.unary_unary
    call = method(f"/{kind}/{number}", response_deserializer=lambda data: data.decode())
    return call(b"Hi", timeout=1)


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import grpc

    address, _, number = url.partition("/")
    with grpc.insecure_channel(address) as channel:
        answer = ask(channel, number, streaming=streaming)
        return list(answer) if streaming else answer
