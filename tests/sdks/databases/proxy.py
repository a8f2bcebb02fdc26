"""A way to a server that is cut off when a word has gone past: it was heard, and not answered."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["cut_after"]


@contextmanager
def cut_after(port: int, word: bytes) -> Iterator[int]:
    """A port that leads to `port`, until the server has answered a message with `word` in it.

    That answer is kept from the client, whose connection ends. Only the first is cut off.
    """
    cut = threading.Event()
    threads: list[threading.Thread] = []

    def carry(client: socket.socket, server: socket.socket, heard: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if word in data and not cut.is_set():
                    cut.set()
                    heard.set()
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def carry_back(client: socket.socket, server: socket.socket, heard: threading.Event) -> None:
        with client, server:
            with suppress(OSError):
                while (data := server.recv(65536)) and not heard.is_set():
                    client.sendall(data)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                heard = threading.Event()
                for way in (carry, carry_back):
                    thread = threading.Thread(target=way, args=(client, server, heard))
                    thread.start()
                    threads.append(thread)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=serve, args=(listener,))
        acceptor.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()
