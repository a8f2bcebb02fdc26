"""How many calls are under way, streams that are still open included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from resilience.policy import Call, Gate, Runtime, Verdict


@frozen(eq=False)
class InFlight(Gate):
    """Counts the calls that are inside it now."""

    permits: set[object] = field(factory=set, init=False, repr=False)
    resting = True

    @property
    def now(self) -> int:
        return len(self.permits)

    def enter_now(self) -> object:
        permit = object()
        self.permits.add(permit)  # one step, in every thread and signal handler: it needs no lock
        return permit

    def try_enter(self, call: Call, runtime: Runtime) -> object:
        return self.enter_now()

    def leave(self, permit: object, call: Call, error: Verdict) -> None:
        self.permits.discard(permit)

    def at_rest(self, fn: Callable[..., Any]) -> Any:
        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
            return self.enter_now()

        def end(permit: object, error: Verdict, result: Any) -> bool:
            self.permits.discard(permit)
            return True

        return begin, end

    def __reduce__(self) -> Any:
        return InFlight, ()


if __name__ == "__main__":
    from resilience import Pipeline, Retry

    in_flight = InFlight()
    robust = Pipeline(in_flight, Retry())

    @robust
    def ask(question: str) -> str:
        print(question, in_flight.now)
        return ask("within?") if question == "why?" else "because"

    print(ask("why?"), in_flight.now)
