"""How many tokens a result took, for policies that count them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from resilience.sdks.tokens import Tokens, tokens_of

from .results import PLAIN, completion_of

__all__ = ["token_count"]


def token_count(result: Any, /) -> Callable[[], Tokens | None]:
    """What gives the tokens of the prompt and of the answer, as a result says by itself (`usage`
    and its like): None for what it does not say, None where it says nothing. Of a guarded stream,
    what it has said so far; the stream itself is not kept. For the results that `TokensUsed` is
    emitted for."""
    pending = None if type(result) in PLAIN else completion_of(result)
    return partial(tokens_of, result) if pending is None else pending.tokens
