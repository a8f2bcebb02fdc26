"""An id for each call, in a header of its request: the same one at every attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from attrs import frozen

from resilience.policy import Arguments, Call, Inner, Policy, Runtime


def _some_id() -> str:
    return uuid4().hex


@frozen(eq=False)
class RequestId(Policy):
    """Adds `header` to the argument `extra_headers`, which the SDKs of OpenAI and Anthropic take.

    Outside `Retry`, all attempts of a call have one id; inside, each has its own. A header that
    the caller gives stays.
    """

    header: str = "X-Request-Id"
    make: Callable[[], str] = _some_id
    resting = True

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def request_id(call: Call) -> Any:
            in_hand = call.branch.in_hand  # an attempt that has begun already, under its id
            given = call.kwargs if in_hand is None else in_hand.kwargs
            return await inner(call.replace(kwargs=self.added(call.kwargs, self.found(given))))

        return request_id

    def rewrite_first(self, fn: Callable[..., Any]) -> Callable[..., Arguments]:
        return lambda args, kwargs: (args, self.added(kwargs, self.found(kwargs)))

    def found(self, kwargs: dict[str, Any]) -> str:
        return (kwargs.get("extra_headers") or {}).get(self.header) or self.make()

    def added(self, kwargs: dict[str, Any], value: str) -> dict[str, Any]:
        headers = {**(kwargs.get("extra_headers") or {}), self.header: value}
        return {**kwargs, "extra_headers": headers}


if __name__ == "__main__":
    from resilience import Retry, resilient
    from resilience.testing import script

    service = script(ConnectionError(), "answer")

    @resilient(RequestId(make=iter(["id-1", "id-2"]).__next__), Retry(wait=0))
    def create(question: str, *, extra_headers: Any = None) -> Any:
        print(question, extra_headers)
        return service()

    create("why?")
    create("how?", extra_headers={"X-Team": "blue"})
