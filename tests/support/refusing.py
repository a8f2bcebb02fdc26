"""A local service that is always down, whatever it is asked, and counts what it is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

__all__ = ["Refusing", "refusing"]

_BODY = b'{"message": "m", "error": {"message": "m", "type": "api_error", "code": "c_1"}}'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        server: Any = self.server
        server.requests.append(self.path)
        self.send_response_only(503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(_BODY)))
        self.send_header("retry-after-ms", "1")  # what the SDKs wait between two of their own
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(_BODY)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class Refusing(ThreadingHTTPServer):
    """Answers 503; `requests` has the paths that were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    """One that runs."""
    with Refusing() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
