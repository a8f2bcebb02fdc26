"""Streams of the real clients that nobody reads to their end: nothing is left of them."""

from __future__ import annotations

import pytest

from support.abandoning import WAYS, abandon
from support.streaming_cases import CASES

pytestmark = [pytest.mark.real, pytest.mark.steady]

NAMES = [
    name
    for name in CASES
    if not name.startswith(("openai-responses", "groq", "ollama", "auriko-responses"))
    # Google's async generators leave some connections until the client is closed; so they do bare.
    and name != "google-async"
]


@pytest.mark.fault(309)
@pytest.mark.parametrize("name", NAMES)
def test_abandoned_streams(name: str) -> None:
    """By break, close, exception, cancellation at any point, garbage collection, or never read: no
    connection, permit, task or thread is left, and the circuit has counted nothing. `make soak`
    does this 10,000 times."""
    left = abandon(name, 48, seed=len(name))

    assert left.nothing, left
    assert set(left.ways) == set(WAYS)
