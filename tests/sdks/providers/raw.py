"""A server for what no HTTP server would send."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

__all__ = ["answering"]


@contextmanager
def answering(
    answer: bytes,
    tls: ssl.SSLContext | None = None,
    *,
    keep: bool = True,
    garbled: bytes = b"",
) -> Iterator[str]:
    """A server that sends `answer` to whoever calls, and keeps the connection open, or not.

    With `tls`, after a handshake, if the caller goes through with it; what is `garbled` goes
    around the encryption.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    kept.append(connection)
                    with suppress(ConnectionError, ssl.SSLError):
                        if tls is not None:
                            connection = kept[-1] = tls.wrap_socket(connection, server_side=True)
                        connection.recv(65536)
                        connection.sendall(answer)
                        if garbled:
                            socket.socket.sendall(connection, garbled)
                        if not keep:
                            connection.shutdown(socket.SHUT_RDWR)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in kept:
            connection.close()
