"""A local server that fails as told: the fault's number is the first part of the path."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

from .faults import DATE, FAULTS, Fault

__all__ = ["Server", "closed_port", "serving"]

_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid")


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        return int(nobody.getsockname()[1])


def serving(provider: ModuleType) -> Any:
    """The provider's own `Server`, which has a `url(fault)` too, or else one of HTTP."""
    return getattr(provider, "Server", Server)(provider)


def _none(kind: str) -> dict[str, str]:
    return {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        number = self.path.split("/")[1]
        self.server.fail(self, self.server.faults[int(number)])

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def send(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
        """An answer whose `Date` is always the same; `cut` promises more than is sent."""
        self.send_response_only(status, "Told")
        # It hangs up, and says so to clients that would have kept the connection.
        sent = {"date": DATE, "connection": "close", **dict.fromkeys(_REQUEST_IDS, "req_1")}
        sent |= headers
        sent.setdefault("content-type", "application/json")
        sent["content-length"] = str(len(body) + (1000 if cut else 0))
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """A provider that fails, while it is entered. `provider` is a module of this package.

    Such a module has `error(kind, status) -> object`, the JSON of an error; `stream() -> (headers,
    body)`, a stream that ends with an error after its first content, or breaks off after it if
    `CUT` is there and true; and `SHAPE`, the JSON of a 200 that is no answer, or bytes of HTML.
    `headers(kind)` adds to those of an error.
    """

    daemon_threads = True
    request_queue_size = 128  # with fewer a connection may be made to wait for a second

    def __init__(self, provider: ModuleType) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults = [*FAULTS]
        self._provider = provider
        self._ended = threading.Event()

    def url(self, fault: Fault) -> str:
        """Where this fault happens; it may be none of the list."""
        if fault not in self.faults:
            self.faults.append(fault)
        number = self.faults.index(fault)
        if fault.how == "refused":
            return f"http://127.0.0.1:{closed_port()}/{number}"
        told = f"{number}/hang" if fault.how == "hang" else number  # for `patience`
        return f"http://127.0.0.1:{self.server_port}/{told}"

    def fail(self, handler: _Handler, fault: Fault) -> None:
        """Do what the fault says."""
        handler.close_connection = True
        if fault.how == "hang":
            self._ended.wait(5)
        elif fault.how == "drop":
            with suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
        elif fault.how in ("stream", "cut"):
            headers, body = self._provider.stream() if fault.body is None else ({}, fault.body)
            cut = fault.how == "cut" or getattr(self._provider, "CUT", False)
            handler.send(200, {**headers, **fault.headers}, body, cut=cut)
        elif fault.how == "shape":
            shape = self._provider.SHAPE
            if isinstance(shape, bytes):
                handler.send(200, {"content-type": "text/html"}, shape)
            else:
                handler.send(200, {}, json.dumps(shape).encode())
        else:
            body, headers = fault.body, fault.headers
            if body is None:
                error: Callable[[str, int], object] = self._provider.error
                body = json.dumps(error(fault.kind, fault.status)).encode()
                more: Callable[[str], dict[str, str]] = getattr(self._provider, "headers", _none)
                headers = {**more(fault.kind), **headers}
            handler.send(fault.status, headers, body)

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ended.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what this is about."""
