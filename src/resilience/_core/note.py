"""The one line that tells what became of a call; it is added to the error that comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .record import Record, Try

__all__ = ["account", "adds"]

_TOLD = 8  # attempts told, half of them the first ones


def adds(record: Record) -> bool:
    """Whether there is more to tell than one attempt and its error."""
    return len(record.tries) > 1 or bool(record.remarks) or record.refusal is not None


def account(record: Record) -> str | None:
    """The call in one line, without arguments or messages; None if there is nothing to add."""
    if not adds(record):
        return None
    tries = list(map(_told, record.tries))
    if len(tries) > _TOLD:
        tries[_TOLD // 2 : -_TOLD // 2] = ["..."]
    count = f"{record.made} attempt{'s' if record.made != 1 else ''}"
    parts = [f"resilience: {count} ({', '.join(tries)})"]
    if record.refusal is not None:
        parts.append(f"then {record.refusal}")
    return "; ".join([*parts, *record.remarks])


def _told(this: Try) -> str:
    failure = this.failure
    what = "ok" if failure is None else failure.code or failure.status or failure.kind.value
    model = f"{this.model}: " if this.model else ""
    waited = f" after {this.waited:.3g} s" if this.waited else ""
    return f"{model}{what}{waited}"
