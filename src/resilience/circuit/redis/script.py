"""Scripts that run in the server; of a circuit's, what it is asked and what it replies."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from attrs import Factory, field, frozen

from resilience.circuit.states import CLOSED, HALF_OPEN, ISOLATED, OPEN
from resilience.failures import Failure

__all__ = ["ANY", "FOREIGN", "NONE", "SCRIPT", "Question", "Reply", "Script", "evaluate"]

FOREIGN = "foreign"
"""The state of what is no circuit of this version: it is somebody else's."""

NONE, ANY = "0", "any"
"""Generations: of a circuit that has no key, and where it does not matter which it is."""

_STATES = (CLOSED, OPEN, HALF_OPEN, ISOLATED, FOREIGN)


@frozen
class Script:
    """A text in Lua, sent to a server that has not seen it yet."""

    text: str
    _digest: str = field(
        default=Factory(
            lambda self: hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest(),
            takes_self=True,
        ),
        init=False,
    )

    @classmethod
    def of(cls, package: str) -> Script:
        """That of a package of ours."""
        return cls(files(package).joinpath("script.lua").read_text("utf-8"))

    async def run(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> list[str]:
        """Its reply, by a sync client or an asyncio one. ValueError for anything but a list."""
        given = (len(keys), *keys, *arguments)
        try:
            raw = client.evalsha(self._digest, *given)
            if inspect.isawaitable(raw):
                raw = await raw
        except Exception as error:
            if type(error).__name__ != "NoScriptError":  # redis-py need not be imported for it
                raise
            raw = client.eval(self.text, *given)
            if inspect.isawaitable(raw):
                raw = await raw
        if not isinstance(raw, (list, tuple)) or not raw:
            raise ValueError("the server's reply is not that of our script")
        return [part.decode() if isinstance(part, bytes) else str(part) for part in raw]


SCRIPT = Script.of("resilience.circuit.redis")


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
    def read(cls, parts: list[str]) -> Reply:
        """ValueError for anything that our script does not reply."""
        if len(parts) != 7:
            raise ValueError("the server's reply is not that of our script")
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
    """Ask the circuit under `key`."""
    return Reply.read(await SCRIPT.run(client, (key,), arguments))
