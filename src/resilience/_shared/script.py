"""The script that runs in the server, and what it is asked and answers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from attrs import frozen

from resilience.policies._states import CLOSED, HALF_OPEN, ISOLATED, OPEN

__all__ = ["FOREIGN", "Reply", "evaluate", "script"]

FOREIGN = "foreign"
"""The state of what is no circuit of this version: it is somebody else's."""

_STATES = (CLOSED, OPEN, HALF_OPEN, ISOLATED, FOREIGN)


@frozen
class Script:
    """The text, and the digest by which a server that has seen it knows it."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str) -> Script:
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


script = Script.of(files("resilience._shared").joinpath("script.lua").read_text("utf-8"))


@frozen
class Reply:
    """What the server says of a circuit, after it has done what it was asked."""

    granted: bool
    state: str
    generation: str
    left: float
    run: int
    mended: bool
    openings: int
    opened: bool  # by this question

    @classmethod
    def read(cls, raw: Any) -> Reply:
        """ValueError for anything that our script does not say."""
        if not isinstance(raw, (list, tuple)) or len(raw) != 8:
            raise ValueError("the server's answer is not that of our script")
        told = [part.decode() if isinstance(part, bytes) else str(part) for part in raw]
        if told[1] not in _STATES:
            raise ValueError("the server's answer is not that of our script")
        return cls(
            granted=told[0] == "1",
            state=told[1],
            generation=told[2],
            left=int(told[3]) / 1e6,
            run=int(told[4]),
            mended=told[5] == "1",
            openings=int(told[6]),
            opened=told[7] == "1",
        )


async def evaluate(client: Any, key: str, arguments: Sequence[Any]) -> Reply:
    """Run the script on the circuit under `key`, by a sync client or an asyncio one."""
    try:
        raw = client.evalsha(script.digest, 1, key, *arguments)
        if inspect.isawaitable(raw):
            raw = await raw
    except Exception as error:
        if type(error).__name__ != "NoScriptError":  # redis-py itself need not be imported for it
            raise
        raw = client.eval(script.text, 1, key, *arguments)
        if inspect.isawaitable(raw):
            raw = await raw
    return Reply.read(raw)
