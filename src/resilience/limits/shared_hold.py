"""Holds shared between processes: published when they begin, received by a thread.

So a call at rest asks nothing, and the other processes know of a hold within milliseconds.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Hashable, Iterable
from contextlib import closing
from functools import partial
from typing import Any

from resilience._core.locks import new_lock
from resilience._core.outside import drive, sync_runtime
from resilience.circuit.redis.clients import Server
from resilience.circuit.storage import warn
from resilience.policy import Runtime

from .script import FOREIGN, evaluate, micro

__all__ = ["SharedHold"]

_LOOK = 0.5
"""Seconds between two looks at whether the policy is still in use."""

Receive = Callable[[Hashable, float], bool]


class SharedHold:
    """Publishes the holds of one policy, and calls `receive(key, seconds)` in a thread for each
    hold of another process, until that returns False: the policy is no longer in use."""

    def __init__(self, server: Server, key: str, receive: Receive, retry: float) -> None:
        self._server = server
        self._key = key
        self._channel = f"{key}:news"
        self._receive = receive
        self._retry = retry
        self._id = uuid.uuid4().hex
        self._lock = new_lock()
        self._listener: int | None = None  # the process that has one

    @property
    def listening(self) -> bool:
        """Whether this process listens, a child of fork by itself."""
        return self._listener == os.getpid()

    def listen(self) -> bool:
        """Start the thread, if this process has none; whether it had none. Does not wait."""
        with self._lock:
            if self.listening:
                return False
            self._listener = os.getpid()
        threading.Thread(target=self._run, name="resilience-holds", daemon=True).start()
        return True

    def publish(self, key: Hashable, seconds: float) -> None:
        """Publish a hold in the background; not that of a key which no other process could know."""
        field = _written(key)
        if field is not None:
            question = ("hold", field, micro(seconds), self._process, self._channel)
            sync_runtime().background(partial(self._ask, question))

    @property
    def _process(self) -> str:
        return f"{self._id}-{os.getpid()}"

    async def _ask(self, question: Iterable[Any], runtime: Runtime) -> None:
        reply = await self._server.ask(runtime, self._key, tuple(question))
        if reply is not None and reply[0] == FOREIGN:
            warn(
                f"the data in Redis under {self._key!r} are no holds of this version; they are "
                f"left alone, and each process has its own holds"
            )

    # The listener

    def _run(self) -> None:
        pause = threading.Event()
        client = self._server.client
        sync: Any = getattr(client, "twin", client).client
        while self._listener == os.getpid() and self._wanted():
            try:
                with closing(sync.pubsub(ignore_subscribe_messages=True)) as subscription:
                    subscription.subscribe(self._channel)
                    self._read_all(sync)
                    while self._wanted():
                        message = subscription.get_message(timeout=_LOOK)
                        if message is not None:
                            self._read(message["data"])
            except Exception:
                pause.wait(self._retry)  # whoever publishes warns of a server that is lost

    def _wanted(self) -> bool:
        return self._receive(None, 0.0)

    def _read_all(self, client: Any) -> None:
        """Receive the holds that began before we listened."""
        found = drive(evaluate(client, self._key, ("holds",)))
        for field, left in zip(found[1::2], found[2::2], strict=True):
            self._deliver(field, float(left) / 1e6)

    def _read(self, message: Any) -> None:
        text = message.decode() if isinstance(message, bytes) else str(message)
        process, micros, field = text.split(" ", 2)
        if process != self._process:
            self._deliver(field, float(micros) / 1e6)

    def _deliver(self, field: str, seconds: float) -> None:
        key = _read_key(json.loads(field))
        self._receive(key, seconds)


def _written(key: Hashable) -> str | None:
    """A key as text; None for one that is not made of text, numbers and tuples of them."""
    try:
        text = json.dumps(key)
        return text if _read_key(json.loads(text)) == key else None
    except (TypeError, ValueError):
        return None


def _read_key(value: Any) -> Hashable:
    return tuple(map(_read_key, value)) if isinstance(value, list) else value
