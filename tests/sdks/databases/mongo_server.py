"""A MongoDB of a few lines: a primary of a replica set that speaks OP_MSG and fails as told."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import bson

__all__ = ["HANG", "LOSE", "OK", "Mongo"]

_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
_MORE_TO_COME = 2

LOSE = "lose"
"""Take the command and end the connection."""
HANG = "hang"
"""Take the command and say nothing."""
OK: Mapping[str, Any] = {"ok": 1}


class Mongo(socketserver.ThreadingTCPServer):
    """`answers`: for each command those that are still to come, of which the last is repeated.

    An answer is a document, LOSE or HANG; of what there is no answer for is done. `asked` has the
    commands so far, without those by which clients watch servers.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Client)
        self.port = int(self.server_address[1])
        self.answers: dict[str, list[Any]] = {}
        self.asked: list[str] = []
        self.garbled = b""
        """What is said to everybody in the place of all this."""
        self.open: set[socket.socket] = set()
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.open.add(connection)
        return connection, address

    def tell(self, **answers: Any) -> None:
        """What is answered from now on: `insert=(LOSE, OK)`."""
        self.answers = {
            name: list(given) if isinstance(given, tuple) else [given]
            for name, given in answers.items()
        }
        self.asked.clear()

    def hello(self) -> Mapping[str, Any]:
        """It cannot be told from a primary that has all that the clients of today ask for."""
        where = f"127.0.0.1:{self.port}"
        return {
            "ismaster": True,
            "isWritablePrimary": True,
            "helloOk": True,
            "secondary": False,
            "setName": "set",
            "setVersion": 1,
            "hosts": [where],
            "primary": where,
            "me": where,
            "electionId": bson.ObjectId("7fffffff0000000000000001"),
            "ok": 1,
            "maxBsonObjectSize": 1 << 24,
            "maxMessageSizeBytes": 48000000,
            "maxWriteBatchSize": 100000,
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 25,
            "readOnly": False,
        }

    def answer(self, command: Mapping[str, Any]) -> Any:
        """What to say to a command."""
        name = next(iter(command))
        if name.lower() in ("hello", "ismaster"):
            return self.hello()
        self.asked.append(name)
        left = self.answers.get(name)
        if not left:
            found = {"n": 1, "nModified": 1, "cursor": {"id": 0, "ns": "d.c", "firstBatch": []}}
            return {"ok": 1, **found}
        return left.pop(0) if len(left) > 1 else left[0]

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Client(socketserver.StreamRequestHandler):
    server: Mongo

    def handle(self) -> None:
        with suppress(ConnectionError):
            while header := self.rfile.read(16):
                length, request, _, operation = struct.unpack("<iiii", header)
                answer = self.server.answer(_command(operation, self.rfile.read(length - 16)))
                if self.server.garbled:
                    self.wfile.write(self.server.garbled)
                    return
                if answer == LOSE:
                    return
                if answer == HANG:
                    self.server.closing.wait(20)
                    return
                self.wfile.write(_reply(operation, request, answer))


def _command(operation: int, body: bytes) -> Mapping[str, Any]:
    """The document of a command, short of those in sections of their own."""
    if operation == _OP_QUERY:  # the first word of a client that does not know the server yet
        _, _, rest = body[4:].partition(b"\0")
        return bson.decode(rest[8:])
    assert operation == _OP_MSG
    flags, kind = struct.unpack("<ib", body[:5])
    assert not flags & _MORE_TO_COME
    assert kind == 0
    (length,) = struct.unpack("<i", body[5:9])
    return bson.decode(body[5 : 5 + length])


def _reply(operation: int, request: int, answer: Mapping[str, Any]) -> bytes:
    document = bson.encode(answer)
    if operation == _OP_QUERY:
        said = struct.pack("<iqii", 8, 0, 0, 1) + document
        return struct.pack("<iiii", 16 + len(said), 1, request, _OP_REPLY) + said
    said = struct.pack("<ib", 0, 0) + document
    return struct.pack("<iiii", 16 + len(said), 1, request, _OP_MSG) + said
