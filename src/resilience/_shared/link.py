"""The link to a server: whether there is one at present, and when to look again."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from resilience._core.locks import new_lock
from resilience.errors import WorkersBusyError
from resilience.typing import Runtime

from .script import Reply
from .wires import LoopWire, Wire

__all__ = ["Link"]


@define(eq=False)
class Link:
    """Asks the server; after a failure leaves it alone for `back_off` seconds.

    Then a single call tries again, while others go on locally. One warning for each loss.
    """

    wire: Wire | LoopWire
    back_off: float
    _lock: Any = field(factory=new_lock, init=False)
    _again: float | None = field(default=None, init=False)  # lost: when to look again

    def lost(self, now: float) -> bool:
        """Whether it is of no use to ask now."""
        return self._again is not None and now < self._again

    @property
    def broken(self) -> bool:
        """Whether the last question had no answer."""
        return self._again is not None

    async def ask(
        self, runtime: Runtime, key: str, arguments: Sequence[Any], *, anyway: bool = False
    ) -> Reply | None:
        """What the server says; None if there is none that says anything, or, but for `anyway`, if
        it is left alone."""
        with self._lock:
            now = runtime.now()
            if self.lost(now) and not anyway:
                return None
            if self._again is not None:
                self._again = now + self.back_off  # we alone look
        try:
            reply = await self.wire.ask(runtime, key, arguments)
        except WorkersBusyError:
            return None  # which says nothing of the server
        except Exception as problem:
            with self._lock:
                known, self._again = self._again, runtime.now() + self.back_off
            if known is None:
                warn(
                    f"no word from Redis ({type(problem).__name__}): circuits that are shared "
                    f"through it go on by themselves, and look again every {self.back_off:g} s"
                )
            return None
        self._again = None
        return reply

    def tell(self, key: str, arguments: Sequence[Any]) -> None:
        """Ask without waiting, if the link is up as far as is known."""
        if not self.broken:
            self.wire.tell(key, arguments)


def warn(text: str) -> None:
    """Warn. Where warnings are errors, the call goes on too."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    except RuntimeWarning as warning:
        logging.getLogger("resilience").error("%s", warning)
