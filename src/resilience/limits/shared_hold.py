"""The holds of other processes: published when they begin, and heard of by a thread of its own.

So a call at rest asks nothing, and a process that is told to stay away has the others know within
milliseconds.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any

from resilience._core.outside import drive, sync_runtime
from resilience.circuit.redis.clients import Server
from resilience.circuit.storage import warn
from resilience.policy import Runtime

from .script import FOREIGN, evaluate, micro

__all__ = ["SharedHold"]

_LOOK = 0.5
"""Seconds between two looks at whether anybody still wants to hear."""

Heard = Callable[[Hashable, float], bool]


class SharedHold:
    """`heard(key, seconds)` is called for each hold of another process, in a thread; it returns
    False once nobody wants to hear of them any more."""

    def __init__(self, server: Server, key: str, heard: Heard, retry: float) -> None:
        self._server = server
        self._key = key
        self._channel = f"{key}:news"
        self._heard = heard
        self._retry = retry
        self._id = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._listener: int | None = None  # the process that has one

    @property
    def listening(self) -> bool:
        """Whether this process listens, a child of fork by itself."""
        return self._listener == os.getpid()

    def listen(self) -> None:
        """Begin to. Does not wait."""
        with self._lock:
            if self.listening:
                return
            self._listener = os.getpid()
        threading.Thread(target=self._run, name="resilience-holds", daemon=True).start()

    def forked(self) -> None:
        """In a child of fork: whoever had the lock is not here."""
        self._lock = threading.Lock()

    def publish(self, key: Hashable, seconds: float) -> None:
        """Tell the others, in the background. Not of a key that no other process could know."""
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
            warn(f"what Redis holds under {self._key!r} are no holds; they are not shared")

    # The listener

    def _run(self) -> None:
        pause = threading.Event()
        client = self._server.client
        sync: Any = getattr(client, "twin", client).client
        while self._listener == os.getpid() and self._wanted():
            subscription: Any = None
            try:
                subscription = sync.pubsub(ignore_subscribe_messages=True)
                subscription.subscribe(self._channel)
                self._read_all(sync)
                while self._wanted():
                    message = subscription.get_message(timeout=_LOOK)
                    if message is not None:
                        self._read(message["data"])
            except Exception:
                pause.wait(self._retry)  # whoever publishes warns of a server that is lost
            finally:
                _quietly(subscription)

    def _wanted(self) -> bool:
        return self._heard(None, 0.0)

    def _read_all(self, client: Any) -> None:
        """The holds that had begun before we listened."""
        found = drive(evaluate(client, self._key, ("holds",)))
        for field, left in zip(found[1::2], found[2::2], strict=True):
            self._tell(field, float(left) / 1e6)

    def _read(self, message: Any) -> None:
        text = message.decode() if isinstance(message, bytes) else str(message)
        process, micros, field = text.split(" ", 2)
        if process != self._process:
            self._tell(field, float(micros) / 1e6)

    def _tell(self, field: str, seconds: float) -> None:
        key = _read_key(json.loads(field))
        self._heard(key, seconds)


def _quietly(subscription: Any) -> None:
    try:
        if subscription is not None:
            subscription.close()
    except Exception:
        pass


def _written(key: Hashable) -> str | None:
    """A key as text; None for one that is not made of text, numbers and tuples of them."""
    try:
        text = json.dumps(key)
        return text if _read_key(json.loads(text)) == key else None
    except (TypeError, ValueError):
        return None


def _read_key(value: Any) -> Hashable:
    return tuple(map(_read_key, value)) if isinstance(value, list) else value
