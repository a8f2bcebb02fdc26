"""What happened in a call, instead of only its value."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from attrs import frozen

from resilience.errors import BadResultError

from .attempt import Attempt
from .options import Value, to_count, unquoted

__all__ = ["Outcome"]

T = TypeVar("T")


@frozen(eq=False, repr=False, slots=False)  # without slots it is made faster
class Outcome(Value, Generic[T]):
    """A call's value or its error, and how it came about: both only for a bad result that is given
    back.

    `served_by` is the model that answered, `degraded` whether something other than the first
    choice did (a later model, a fallback). `elapsed` is in seconds. The repr shows of value and
    error the classes alone.
    """

    value: T | None = None
    error: Exception | None = None
    attempts: tuple[Attempt, ...] = ()
    served_by: str | None = None
    degraded: bool = False
    elapsed: float = 0.0

    def __repr__(self) -> str:
        return (
            f"Outcome(value={unquoted(self.value)}, error={unquoted(self.error)}, "
            f"attempts={self.attempts!r}, served_by={self.served_by!r}, "
            f"degraded={self.degraded}, elapsed={self.elapsed!r})"
        )

    def unwrap(self) -> T:
        """What the call itself would have done: return the value, or raise the error."""
        error = self.error
        if error is None or (type(error) is BadResultError and error.given_back):
            return cast(T, self.value)
        raise error

    # Pictures. Models, numbers, times, statuses, codes and names of classes are in them; arguments,
    # results and texts of exceptions are not.

    def timeline(self, width: int = 80) -> str:
        """The call as text: a line for each attempt, with a bar of ASCII, of `width` columns.

        ValueError for less than 60. The last line has no newline.
        """
        width = to_count("width", width, least=60)
        from resilience._drawing import facts, timeline

        return timeline.draw(facts.facts_of(self), width)

    def to_html(self) -> str:
        """The call as a page: a waterfall of its attempts and waits.

        One file, in ASCII, without a script; for light and dark, narrow and wide windows.
        """
        from resilience._drawing import facts, page

        return page.draw(facts.facts_of(self))

    def _repr_svg_(self) -> str:
        """The same waterfall as an SVG: what a notebook shows of an outcome."""
        from resilience._drawing import facts, svg

        return svg.draw(facts.facts_of(self))
