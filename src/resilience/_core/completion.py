"""When an attempt is settled: for most results at their return, for some of them later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Completion", "PendingResult", "Verdict"]

Verdict: TypeAlias = "BaseException | None"
"""How an attempt ended: None for well, an error, or `NO_VERDICT`."""


class Completion:
    """How an attempt ended; each listener receives it once.

    Settled by the first `settle`, from any thread, a finalizer included; later ones change nothing.
    A late listener is called at once. Listeners never wait.
    """

    __slots__ = ("_listeners", "_verdicts", "tokens")

    tokens: Callable[[], tuple[int | None, int | None] | None]
    """What the result has said so far of the tokens of its prompt and of its answer."""

    def __init__(self) -> None:
        self.tokens = _unsaid
        self._listeners: list[Callable[[Verdict], object]] = []
        self._verdicts: list[Verdict] = []

    def then(self, listener: Callable[[Verdict], object]) -> None:
        """Call `listener` with the verdict, once it is there."""
        self._listeners.append(listener)
        if self._verdicts:
            self._publish()

    def settle(self, verdict: Verdict) -> None:
        """Say how the attempt ended."""
        self._verdicts.append(verdict)
        self._publish()

    def _publish(self) -> None:
        while True:
            try:
                # One step: whoever takes a listener out calls it, and nobody else does.
                listener = self._listeners.pop(0)
            except IndexError:
                return
            try:
                listener(self._verdicts[0])
            except BaseException:
                self._publish()  # one listener's mistake does not cost another its verdict
                raise


def _unsaid() -> None:
    return None


class PendingResult:
    """Base of results whose attempt is settled later than they are returned, such as streams.

    Whoever makes one settles its `completion` once: at its end, at its failure, or with
    `NO_VERDICT` when it is abandoned. Gates return their permits then, and the attempt's record
    gets its failure then; nothing is retried after the return.
    """

    completion: Completion
