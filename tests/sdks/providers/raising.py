"""One failure of a provider at a time, as its SDK raises it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import pytest

from .faults import Fault
from .server import Server

__all__ = ["Provider", "answer", "providing"]


def answer(status: int, body: object, **headers: str) -> Fault:
    """An answer of that status with a body of JSON; `retry_after=` is `retry-after`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(f"{status} {body}", status, headers=named, body=json.dumps(body).encode())


class Provider:
    """A provider's module and the server that fails like it."""

    def __init__(self, module: ModuleType, server: Server) -> None:
        self.module: Any = module
        self.server = server
        self.open = ExitStack()
        """Clients that are closed with the provider."""

    def client(self, fault: Fault, **options: Any) -> Any:
        """A client whose every answer is the fault."""
        client = self.module.client(self.server.url(fault), **options)
        return self.open.enter_context(client)

    def raised(self, fault: Fault, way: str = "fail") -> Any:
        """What the SDK raises at this."""
        call = getattr(self.module, way)
        with pytest.raises(Exception) as caught:  # noqa: PT011  # whichever it is
            call(self.server.url(fault), streaming=fault.how in ("stream", "cut"))
        return caught.value

    def broken_off(self, chunk: str) -> Fault:
        """A stream whose last chunk is this, in the place of the error."""
        headers, stream = self.module.stream()
        *chunks, _, _ = stream.decode().split("\n\n")
        body = "\n\n".join([*chunks, chunk, ""]).encode()
        return Fault(f"broken off {chunk}", how="stream", headers=headers, body=body)

    def cut(self) -> Fault:
        """A stream whose connection is lost."""
        headers, stream = self.module.stream()
        body = stream[: stream.rindex(b"data:")]
        return Fault("cut", how="cut", headers=headers, body=body)


@contextmanager
def providing(module: ModuleType) -> Iterator[Provider]:
    """A provider while the block runs."""
    with Server(module) as server:
        provider = Provider(module, server)
        with provider.open:
            yield provider
