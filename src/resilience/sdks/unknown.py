"""Errors of classes that nobody knows: the status that the error itself carries is believed.

It has to be the instance's own, not its class's: a web framework's errors have the status to
answer with on their class.
"""

from __future__ import annotations

from functools import lru_cache
from types import MemberDescriptorType
from typing import Any

from resilience._core.anatomy import facts_of
from resilience.failures import Failure
from resilience.sdks import bodies
from resilience.sdks.evidence import Evidence, peek
from resilience.sdks.evidence import status as to_status
from resilience.sdks.verdict import PLAIN, judge

__all__ = ["read"]

_BODIES = {"httpx": "content", "httpx2": "content", "requests": "_content"}
"""Where known clients keep a body that was read; looking reads none that was not."""


def read(error: Exception) -> Failure | None:
    """The failure by `status_code`, `status` or `response.status_code`; None without any."""
    response = _own(error, "response")
    status = _failed(_own(error, "status_code")) or _failed(_own(error, "status"))
    of_response = None if response is None else _failed(peek(response, "status_code"))
    if status is None and of_response is None:
        return None
    package = type(response).__module__.partition(".")[0]
    if status is None and package in _BODIES:
        return bodies.read_response(error, None, response, peek(response, _BODIES[package]))
    headers = _own(error, "headers") if response is None else peek(response, "headers")
    return judge(Evidence(error, None, status or of_response, headers=headers), PLAIN)


def _own(error: Exception, name: str) -> Any:
    """An attribute of the instance, in its dict or in a slot."""
    found = facts_of(error).get(name)
    cls: Any = type(error)  # a class is hashable, which mypy does not see
    if found is None and name in _slots(cls):
        return peek(error, name)
    return found


@lru_cache(512)  # some libraries make a class per client
def _slots(cls: type) -> frozenset[str]:
    """The names of attributes that instances have in slots."""
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        found.update(base.__dict__)
    return frozenset(name for name, each in found.items() if type(each) is MemberDescriptorType)


def _failed(value: Any) -> int | None:
    """A status that is a failure's."""
    status = to_status(value)
    return status if status is not None and status >= 400 else None
