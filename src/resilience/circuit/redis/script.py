"""The script that runs in the server, what it is asked, and what it replies."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from attrs import frozen

from resilience.circuit.states import CLOSED, HALF_OPEN, ISOLATED, OPEN
from resilience.failures import Failure

__all__ = ["ANY", "FOREIGN", "NONE", "SCRIPT", "Question", "Reply", "evaluate"]

FOREIGN = "foreign"
"""The state of what is no circuit of this version: it is somebody else's."""

NONE, ANY = "0", "any"
"""Generations: of a circuit that has no key, and where it does not matter which it is."""

_STATES = (CLOSED, OPEN, HALF_OPEN, ISOLATED, FOREIGN)


SCRIPT = files("resilience.circuit.redis").joinpath("script.lua").read_text("utf-8")

_DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""By which a server that has seen it knows it."""


@frozen(eq=False)
class Question:
    """What the script is asked."""

    op: str
    number: int
    """In the order in which this process has asked of this circuit."""
    arguments: tuple[Any, ...]
    failures: int
    """In a row; published with this question."""
    last: tuple[BaseException, Failure] | None
    """The last of them; if this question opens the circuit, that is why."""


@frozen
class Reply:
    """The circuit as it is in the server, after the script has done what it was asked."""

    granted: bool
    """Whether this trial has a slot; in reply to anything else, whether one would."""
    state: str
    generation: str
    left: float
    """Seconds that it stays open."""
    mended: bool
    openings: int
    opened: bool
    """Whether it is this question that has opened it."""

    @classmethod
    def read(cls, raw: Any) -> Reply:
        """ValueError for anything that our script does not reply."""
        if not isinstance(raw, (list, tuple)) or len(raw) != 7:
            raise ValueError("the server's reply is not that of our script")
        parts = [part.decode() if isinstance(part, bytes) else str(part) for part in raw]
        granted, state, generation, left, mended, openings, opened = parts
        if state not in _STATES:
            raise ValueError("the server's reply is not that of our script")
        return cls(
            granted=granted == "1",
            state=state,
            generation=generation,
            left=int(left) / 1e6,
            mended=mended == "1",
            openings=int(openings),
            opened=opened == "1",
        )


async def evaluate(client: Any, key: str, arguments: Sequence[Any]) -> Reply:
    """Run the script on the circuit under `key`, by a sync client or an asyncio one."""
    try:
        raw = client.evalsha(_DIGEST, 1, key, *arguments)
        if inspect.isawaitable(raw):
            raw = await raw
    except Exception as error:
        if type(error).__name__ != "NoScriptError":  # redis-py itself need not be imported for it
            raise
        raw = client.eval(SCRIPT, 1, key, *arguments)
        if inspect.isawaitable(raw):
            raw = await raw
    return Reply.read(raw)
