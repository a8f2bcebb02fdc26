"""A local server that plays streams as they are written down, byte by byte, plain or over TLS."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from typing import Any

from attrs import Factory, define, frozen

__all__ = ["CUT", "RESET", "Player", "Silence", "Status"]


@frozen
class Silence:
    """Seconds without anything, or with a ping now and then; until the client leaves."""

    seconds: float = 30.0
    ping: bytes = b""


@frozen
class Status:
    """An answer that is no stream."""

    code: int
    body: bytes = b'{"error": {"message": "m", "type": "api_error", "code": "c_1"}}'


CUT = "cut"
"""The connection is closed in the midst of the body."""
RESET = "reset"
"""The same by a TCP reset."""

Step = Any
"""Bytes, which are sent; or one of the above. After the last one the body ends well."""


@define(eq=False)
class Player:
    """Serves while it is entered: the nth request gets the nth script, the last one is repeated."""

    scripts: list[list[Step]]
    tls: ssl.SSLContext | None = None
    content_type: str = "text/event-stream"
    requests: list[str] = Factory(list)
    """The first lines of what was asked."""
    left: list[float] = Factory(list)
    """When clients left in the midst of a body, by the monotonic clock."""
    busy: int = 0
    """Answers under way."""
    _lock: Any = Factory(threading.Lock)
    _listener: Any = None

    @property
    def url(self) -> str:
        place = "http://127.0.0.1" if self.tls is None else "https://localhost"
        return f"{place}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Player:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, name="player", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(
                target=self._serve, args=(connection,), name="player", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            while self._answer(connection):
                pass
        except OSError:
            pass
        finally:
            connection.close()

    def _answer(self, connection: socket.socket) -> bool:
        """One request; whether there may be another on this connection."""
        head, body = b"", b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(65536)
            if not more:
                return False
            head += more
        head, _, body = head.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        while len(body) < int(headers.get("content-length", 0)):
            more = connection.recv(65536)
            if not more:
                return False
            body += more
        with self._lock:
            script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
            self.requests.append(lines[0])
            self.busy += 1
        try:
            return self._play(connection, script)
        finally:
            with self._lock:
                self.busy -= 1

    def _play(self, connection: socket.socket, script: list[Step]) -> bool:
        if script and isinstance(script[0], Status):
            status = script[0]
            connection.sendall(
                f"HTTP/1.1 {status.code} Told\r\ncontent-type: application/json\r\n"
                f"content-length: {len(status.body)}\r\n\r\n".encode()
                + status.body
            )
            return True
        connection.sendall(
            f"HTTP/1.1 200 OK\r\ncontent-type: {self.content_type}\r\n"
            f"transfer-encoding: chunked\r\n\r\n".encode()
        )
        for step in script:
            if isinstance(step, bytes):
                connection.sendall(b"%x\r\n%s\r\n" % (len(step), step))
            elif isinstance(step, Silence):
                if self._gone(connection, step):
                    return False
            elif step == RESET:
                time.sleep(0.02)  # for the client to take what was sent
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            else:
                return False
        connection.sendall(b"0\r\n\r\n")
        return True

    def _gone(self, connection: socket.socket, silence: Silence) -> bool:
        """Be silent; whether the client has left meanwhile."""
        end = time.monotonic() + silence.seconds
        while (now := time.monotonic()) < end:
            try:
                if silence.ping:
                    connection.sendall(b"%x\r\n%s\r\n" % (len(silence.ping), silence.ping))
                ready, _, _ = select.select([connection], [], [], min(0.05, end - now))
                if ready and not connection.recv(65536):
                    raise ConnectionError
            except OSError:
                with self._lock:
                    self.left.append(time.monotonic())
                return True
        return False
