"""Take results that are errors for what they are: failures, for every policy outside this one.

Innermost, or just outside an attempt's `Timeout`. Not for errors that are raised: those are
failures by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

from attrs import frozen

from resilience._core.options import (
    checked,
    suggesting,
    title,
    to_one_of,
    to_plain_function,
    warn_option_failed,
)
from resilience.errors import BadResultError
from resilience.failures import Advice, Failure, Kind, describe_result
from resilience.matching import empty_answer, no_choices
from resilience.policy import Call, Effect, Inner, Policy, Runtime, Verdict

__all__ = ["BadResult"]

_UNREADABLE = Failure(Kind.UNKNOWN, Advice.RETRY)

_MEANINGS: tuple[tuple[Any, Failure], ...] = (
    (no_choices, Failure(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True)),
    (empty_answer, Failure(Kind.UNKNOWN, Advice.RETRY, retry_limit=1, sent=True)),
)
"""What is known of a result by the check that found it bad."""


@suggesting
@frozen(eq=False, repr=False, init=False)
class BadResult(Policy):
    """A result that one of the `checks` finds bad is a failure: it is retried, falls back, counts.

    - `*checks`: functions of the result, such as those of `resilience.matching` (`no_choices`,
      `error_body`, `empty_answer`, `finish_reason`). True is a failure of which `describe_result`
      tells what it means (a returned 429, an error body); one that it cannot read is retried, and
      says nothing about the service. A check may also return a `Failure`, a `Kind` or an `Advice`.
    - `finally_` ("return"): where nothing helps, the last bad result is returned, as the function
      itself would have; with "raise", `BadResultError` is raised, with the result in it.

    A check that raises takes the result for good, and the log says so. Values only: safe from any
    thread.
    """

    role: ClassVar[str | None] = "bad_result"
    resting = True

    checks: tuple[Callable[[Any], Any], ...]
    finally_: str = checked(to_one_of("return", "raise"), "return")

    def __init__(self, *checks: Callable[[Any], Any], finally_: str = "return") -> None:
        if not checks:
            raise ValueError("checks must be one function of the result or more, got none")
        functions = tuple(to_plain_function("checks", check) for check in checks)
        cast(Any, self).__attrs_init__(functions, finally_)

    def __repr__(self) -> str:
        parts = [title(check) for check in self.checks]
        if self.finally_ != "return":
            parts.append(f"finally_={self.finally_!r}")
        return f"BadResult({', '.join(parts)})"

    def check_block(self, *, asynchronous: bool) -> None:
        """Raise TypeError: a block has no result that could be looked at."""
        raise TypeError(f"{self!r} has no result of a block of code to look at; guard a function")

    def at_rest(
        self, fn: Callable[..., Any]
    ) -> tuple[Callable[..., Any], Callable[..., bool]] | None:
        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Failure | None]:
            """A place for what is found, so that the chain need not ask again."""
            return []

        def end(held: list[Failure | None], error: Verdict, result: Any) -> bool:
            if error is not None:
                return True
            held.append(self._read(result))
            return held[0] is None

        return begin, end

    def effect(self) -> Effect:
        end = "returned" if self.finally_ == "return" else "raised in a BadResultError"
        checks = " or ".join(map(title, self.checks))
        return Effect(
            line=f"makes a failure of a result that {checks} finds bad; the last one is {end}"
        )

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def bad_result(call: Call) -> Any:
            if call.branch.number:
                _let_go(call)
            found = self._found_at_rest(call)
            outer = call.judge

            def judge(result: Any) -> Exception | None:
                failure = found.pop() if found else self._read(result)
                if failure is None:
                    return None if outer is None else outer(result)
                return BadResultError(result, failure, self.finally_ == "return")

            return await inner(call.replace(judge=judge))

        return bad_result

    def _found_at_rest(self, call: Call) -> list[Failure | None]:
        """What the result in hand was found to be, if it was looked at."""
        in_hand = call.branch.in_hand
        if in_hand is None or in_hand.held is None:
            return []
        found: list[Failure | None] = in_hand.held.pop(self, [None])  # given back: it was good
        return found

    def _read(self, result: Any) -> Failure | None:
        """What is bad about a result; None if it is good."""
        for check in self.checks:
            try:
                found = check(result)
                if type(found) is Failure:
                    return found
                if type(found) is Kind:
                    return Failure(found, found.advice)
                if type(found) is Advice:
                    return Failure(Kind.UNKNOWN, found)
                if found:
                    return describe_result(result) or _meaning(check)
            except Exception as problem:
                warn_option_failed("BadResult", problem)
        return None


def _meaning(check: Any) -> Failure:
    return next((meaning for known, meaning in _MEANINGS if known is check), _UNREADABLE)


def _let_go(call: Call) -> None:
    """Keep no result of an attempt that another one follows."""
    for attempt in reversed(call.journal.attempts):
        if attempt.number == call.branch.number:
            error = None if attempt.failure is None else attempt.failure.error
            if type(error) is BadResultError:
                error.result, error.args = None, ()
                error.__traceback__ = None  # its frames have it, too
            return
