"""Whether the server can be reached at present, and when to try again."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from resilience._core.locks import new_lock
from resilience.errors import WorkersBusyError
from resilience.policy import Runtime

from .clients import LoopClient, SyncClient
from .script import Reply

__all__ = ["Availability", "warn"]


@define(eq=False)
class Availability:
    """Asks the server; after a failure leaves it alone for `back_off` seconds.

    Then a single call tries again, while others use local state. One warning for each loss.
    """

    client: SyncClient | LoopClient
    back_off: float
    _lock: Any = field(factory=new_lock, init=False)
    _retry_at: float | None = field(default=None, init=False)  # while it is lost

    @property
    def lost(self) -> bool:
        """Whether it did not reply when it was last asked."""
        return self._retry_at is not None

    def left_alone(self, now: float) -> bool:
        """Whether it is not to be asked now."""
        return self._retry_at is not None and now < self._retry_at

    async def ask(
        self, runtime: Runtime, key: str, arguments: Sequence[Any], *, anyway: bool = False
    ) -> Reply | None:
        """The server's reply; None without one, or if it is left alone and not asked `anyway`."""
        with self._lock:
            now = runtime.now()
            if self.left_alone(now) and not anyway:
                return None
            if self._retry_at is not None:
                self._retry_at = now + self.back_off  # nobody else tries meanwhile
        try:
            reply = await self.client.ask(runtime, key, arguments)
        except WorkersBusyError:
            return None  # which says nothing about the server
        except Exception as problem:
            with self._lock:
                known, self._retry_at = self._retry_at, runtime.now() + self.back_off
            if known is None:
                warn(
                    f"Redis cannot be reached ({type(problem).__name__}): circuits that are shared "
                    f"through it use local state, and try again every {self.back_off:g} s"
                )
            return None
        self._retry_at = None
        return reply


def warn(text: str) -> None:
    """Warn. Where warnings are errors, the call goes on too."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    except RuntimeWarning as warning:
        logging.getLogger("resilience").error("%s", warning)
