"""Exceptions that are no failures: a framework raises them to say what is to happen next.

They derive from Exception, so policies would catch them. They are known by name over their bases,
and no framework is imported.
"""

from __future__ import annotations

import re
from typing import TypeVar

from .anatomy import is_group, leaves

__all__ = ["control_flow", "control_flow_in", "is_control_flow"]

E = TypeVar("E", bound=type[Exception])

_KNOWN = r"""agents\.\w+GuardrailTripwireTriggered
      | (?:aiohttp|starlette|werkzeug)\.HTTPException
      | airflow\.Airflow(?:Skip|Fail|Reschedule)Exception
      | billiard\.SoftTimeLimitExceeded
      | celery\.TaskPredicate
      | dagster\.RetryRequested
      | langgraph\.GraphBubbleUp
      | mcp\.UrlElicitationRequiredError
      | pydantic_ai\.(?:ApprovalRequired|CallDeferred|ModelRetry|RetryModelRequest|Skip\w+)
      | pydantic_ai\.Tool(?:Failed|FailedError|RetryError)
      | rest_framework\.APIException
      | starlette\.WebSocketException
      | \w+\.CancelledError"""
"""The top-level package and the name of a class; FastAPI's and Flask's derive from these. A
CancelledError that is an Exception is `concurrent.futures`', or a framework's own."""

_REMEMBERED = 4096
"""Classes whose answer is remembered: some libraries make a class per client."""

FAILURE, _GROUP, _SIGNAL = range(3)

_added: set[type] = set()
answers: dict[type, int] = {}
"""What is known of classes."""


def control_flow(cls: E, /) -> E:
    """Have policies let errors of `cls` and its subclasses pass untouched, as they do with those
    of known frameworks: not retried, not counted, not replaced. May decorate the class.

    An `on=` that names the class itself brings it in again. TypeError for what is no class of
    exceptions.
    """
    global answers
    if not _is_class_of_exceptions(cls):
        raise TypeError(f"control_flow must get a class derived from Exception, got {cls!r}")
    _added.add(cls)
    answers = {}  # not cleared: what another thread finds out meanwhile lands in the old one
    return cls


def _is_class_of_exceptions(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Exception)


def is_control_flow(cls: type) -> bool:
    """Whether errors of a class are no failures."""
    return _answer(cls) == _SIGNAL


def control_flow_in(error: object) -> list[type]:
    """The class of an error that is no failure, or the classes of such in a group.

    A group with one of these in it has to reach the framework, whatever else is in it.
    """
    cls = type(error)
    answer = _answer(cls)
    if answer == FAILURE:
        return []
    if answer == _SIGNAL:
        return [cls]
    try:
        return [type(leaf) for leaf in leaves(error) if is_control_flow(type(leaf))]
    except ValueError:
        return []


def _answer(cls: type) -> int:
    known = answers
    try:
        found = known.get(cls)
        if found is None:
            found = _GROUP if is_group(cls) else FAILURE
            if issubclass(cls, Exception) and any(map(_signals, cls.__mro__)):
                found = _SIGNAL
            if len(known) >= _REMEMBERED:
                known.clear()
            known[cls] = found
    except Exception:  # a class that refuses to be looked at
        return FAILURE
    return found


def _signals(cls: type) -> bool:
    name = f"{str(cls.__module__).partition('.')[0]}.{cls.__name__}"
    return cls in _added or re.fullmatch(_KNOWN, name, re.VERBOSE) is not None
