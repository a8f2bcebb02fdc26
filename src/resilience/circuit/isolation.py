"""A hold on a circuit: as long as anybody has one, the circuit rejects all calls."""

from __future__ import annotations

from types import TracebackType
from typing import Any

__all__ = ["Isolation"]


class Isolation:
    """A hold on a circuit that rejects all calls; see `Circuit.isolate`."""

    __slots__ = ("_circuit",)

    def __init__(self, circuit: Any) -> None:
        self._circuit = circuit

    def release(self) -> None:
        """Let go; the circuit closes with the last of its isolations. Again: nothing happens."""
        self._circuit._release(self)

    def __enter__(self) -> Isolation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<isolation of {self._circuit!r}>"
