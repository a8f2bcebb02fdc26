"""Instructor around OpenAI's SDK."""

from __future__ import annotations

from typing import Any

from .openai import ASK, SHAPE, client, error, stream

__all__ = ["PACKAGE", "SHAPE", "asked", "error", "fail", "stream"]

PACKAGE = "instructor"


def asked(streaming: bool) -> dict[str, Any]:
    """What is asked, and what is wanted of the answer."""
    import instructor
    from pydantic import create_model

    wanted: Any = create_model("Wanted", name=(str, ...))
    wanted = instructor.Partial[wanted] if streaming else wanted
    return {**ASK, "response_model": wanted, "max_retries": 1, "stream": streaming}


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    import instructor

    with client(url) as openai:
        answer: Any = instructor.from_openai(openai).chat.completions.create(**asked(streaming))
        return list(answer) if streaming else answer
