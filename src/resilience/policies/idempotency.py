"""One key for all attempts of a call, so that a server can tell a repeated request from a new one.

For requests that do something: a payment, an order, a tool call. It helps only if the server, or
the function's own code, checks the key; otherwise use `Retry(idempotent=False)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from attrs import frozen

from resilience._core.arguments import slot_of
from resilience._core.options import call_repr, checked, suggesting, to_text
from resilience.policy import Call, Effect, Inner, Policy, Runtime

__all__ = ["IdempotencyKey"]

_KEY = object()


@suggesting
@frozen(eq=False, repr=False)
class IdempotencyKey(Policy):
    """Send one key with every attempt of a call, retries and other models included.

    - `header` ("Idempotency-Key"): the header's name.
    - `argument` ("extra_headers"): the argument that takes headers, as in the SDKs of OpenAI and
      Anthropic; "headers" for httpx and requests. The header is added to those that the caller
      gives. None passes nothing.

    The function's own code sees the key as `current_attempt().key`. A key that the caller gives in
    these headers, in whatever case, stays, and is the one that is seen. Else it is a new UUID for
    each call of the guarded function. A chain's `Model(call=)` that takes no such argument is
    called without it.

    A stream that breaks off and is restarted (`Streaming(on_interrupted="restart")`) is the same
    request again, and has the same key; one that a function continues is a new request, and has a
    new key. With `argument=None`, both have a new one.

    TypeError for a function that does not take the argument, and at the call for headers that are
    neither a mapping nor a list of pairs. Values only: safe from any thread.
    """

    role: ClassVar[str | None] = "idempotency"

    header: str = checked(to_text, "Idempotency-Key")
    argument: str | None = checked(to_text, "extra_headers", optional=True)

    def __repr__(self) -> str:
        return call_repr(self)

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function that does not take the argument for headers."""
        if self.argument is None:
            return
        try:
            slot_of(fn, self.argument)
        except TypeError as error:
            raise TypeError(
                f"{error}; with IdempotencyKey(argument=None) the key is not passed, and the "
                f"function reads it from current_attempt().key"
            ) from None

    def effect(self) -> Effect:
        where = "" if self.argument is None else f", in the header {self.header}"
        return Effect(line=f"has one key for all attempts of a call{where}")

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def idempotency_key(call: Call) -> Any:
            return await inner(self._with_key(call))

        return idempotency_key

    def _with_key(self, call: Call) -> Call:
        """The call with the header; its journal has the key for the function to see."""
        journal = call.journal
        journal.key = journal.remember(_KEY, _new_key)
        if self.argument is None:
            return call
        try:
            slot = call.slot(self.argument)
        except TypeError:
            return call  # a model's own function: the guarded one was checked
        headers = slot.given(call.args, call.kwargs)
        pairs = _pairs(self.argument, headers)
        for name, value in pairs:
            if _text(name).lower() != self.header.lower():
                continue
            if type(value) is _Key and journal.guard.continues:
                pairs.remove((name, value))  # of the request that this one continues
                break
            journal.key = _text(value)
            return call
        added: Any = [*pairs, (self.header, journal.key)]
        if headers is None or isinstance(headers, Mapping):
            added = dict(added)
        args, kwargs = slot.replaced(call.args, call.kwargs, added)
        return call.replace(args=args, kwargs=kwargs)


class _Key(str):
    """One that was made here; none of the caller's."""

    __slots__ = ()


def _new_key() -> str:
    from uuid import uuid4  # which loads a library of C's

    return _Key(uuid4())


def _pairs(argument: str, headers: Any) -> list[tuple[Any, Any]]:
    if headers is None:
        return []
    if isinstance(headers, Mapping):
        return list(headers.items())
    if isinstance(headers, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in headers
    ):
        return [(name, value) for name, value in headers]
    raise TypeError(f"{argument} must be a mapping of headers, got {type(headers).__name__}")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
