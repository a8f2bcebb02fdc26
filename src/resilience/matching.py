"""Which failures a policy acts on: the `on=` language, the same in every policy.

    Retry(on=[429, "upstream_error", ConnectionError])
    Retry(on=TRANSIENT & ~status(500))
    CircuitBreaker(on=SERVICE_FAULT | kind(Kind.QUOTA))
    ModelFallback("a", "b", on=RECOVERABLE | TOO_LONG_BY_TEXT)

An item is an exception class, a status or a range of them, a code, a `Kind`, an `Advice`, a
function of the `Failure`, a list of items, or a `Match`. A class also matches a group all of whose
members it matches. Control-flow exceptions (`failures.control_flow`) match nothing but their own
class.

For answers that are none though no error was raised there is `BadResult`; the ready-made checks for
it (`no_choices`, `error_body` ...) are here too.
"""

from __future__ import annotations

import builtins
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence, Set
from typing import Any, TypeAlias, TypeVar, Union, cast, final

from attrs import frozen

from resilience import errors
from resilience._core import control_flow as known
from resilience._core.anatomy import causes, leaves, words_of
from resilience._core.control_flow import control_flow_in, is_control_flow
from resilience._core.options import Value, to_flag
from resilience.checks import empty_answer, error_body, finish_reason, no_choices
from resilience.failures import Advice, Failure, Kind, describe, exception_class
from resilience.sdks import reader_for

__all__ = [
    "RECOVERABLE",
    "SERVICE_FAULT",
    "TOO_LONG_BY_TEXT",
    "TRANSIENT",
    "Match",
    "On",
    "as_match",
    "code",
    "empty_answer",
    "error_body",
    "finish_reason",
    "kind",
    "message",
    "no_choices",
    "raised",
    "status",
]

T = TypeVar("T")

On: TypeAlias = Union[
    "Match",
    type[Exception],
    int,
    range,
    str,
    Callable[[Failure], object],
    "Sequence[On]",
    "Set[On]",
]
"""What `on=` takes; `Kind` and `Advice` are strings as well."""


class Match(ABC):
    """A condition on a failure. Joins with `|`, `&` and `~`; call it to ask it."""

    __slots__ = ()

    def __call__(self, failure: Failure, /) -> bool:
        """Does this failure match? Not for an error that is control flow, unless its class is
        named."""
        error: Any = failure.error
        try:
            ordinary = known.answers.get(type(error)) == known.FAILURE
        except Exception:  # a class that cannot be hashed
            ordinary = False
        if not ordinary:
            signals = control_flow_in(error)
            if signals and not all(map(self._names, signals)):
                return False
        found = self._holds(failure)
        if not found and failure.sdk is None and failure.kind is Kind.UNKNOWN and self in _DEFAULTS:
            describe.warn_unknown(failure.error, repr(self))
        return found

    @abstractmethod
    def _holds(self, failure: Failure, /) -> bool:
        """The same, whatever the error is."""

    def _names(self, cls: type) -> bool:
        """Whether an item names this class of control-flow exceptions."""
        return False

    def _parts(self) -> tuple[Match, ...]:
        """What it is made of."""
        return ()

    @abstractmethod
    def by_advice(self, failure: Failure, /) -> bool:
        """Does it match for its advice only, with no item having named it explicitly?

        A failure's own `retry_limit` goes with its advice; whoever names an error means it.
        """

    def __or__(self, other: On) -> Match:
        return _AnyOf((self, as_match(other, field="|")))

    def __ror__(self, other: On) -> Match:
        return _AnyOf((as_match(other, field="|"), self))

    def __and__(self, other: On) -> Match:
        return _AllOf((self, as_match(other, field="&")))

    def __rand__(self, other: On) -> Match:
        return _AllOf((as_match(other, field="&"), self))

    def __invert__(self) -> Match:
        return _NoneOf((self,))


@frozen(eq=False, repr=False)
class _Items(Value, Match):
    """One of several items; those that its subclasses know. One attrs class serves them all, as
    each that is made takes its time at import."""

    items: tuple[Any, ...]
    name: str = ""


@final
class _Advised(_Items):
    """By advice, or by kind."""

    __slots__ = ()

    def _holds(self, failure: Failure, /) -> bool:
        return failure.advice in self.items or failure.kind in self.items

    def by_advice(self, failure: Failure, /) -> bool:
        return self._holds(failure)

    def __repr__(self) -> str:
        return self.name


class _Named(_Items):
    """Names errors explicitly."""

    __slots__ = ()

    def by_advice(self, failure: Failure, /) -> bool:
        return False


@final
class _OfStatus(_Named):
    __slots__ = ()

    def _holds(self, failure: Failure, /) -> bool:
        found = failure.status
        return any(
            found in wanted if isinstance(wanted, range) else found == wanted
            for wanted in self.items
        )

    def __repr__(self) -> str:
        return _call("status", self.items)


@final
class _OfCode(_Named):
    __slots__ = ()

    def _holds(self, failure: Failure, /) -> bool:
        return failure.code in self.items

    def __repr__(self) -> str:
        return _call("code", self.items)


@final
class _OfKind(_Named):
    __slots__ = ()

    def _holds(self, failure: Failure, /) -> bool:
        return failure.kind in self.items

    def __repr__(self) -> str:
        return self.name or _call("kind", self.items)


@final
@frozen(eq=False, repr=False)
class _Raised(_Named):
    cause: bool = False

    def _holds(self, failure: Failure, /) -> bool:
        # As `except` does it: by the type, whatever the exception's __class__ claims.
        return issubclass(type(failure.error), self.items) or _all(failure.error, self._is)

    def _is(self, error: object) -> bool:
        return issubclass(type(error), self.items) or (
            self.cause and any(issubclass(type(each), self.items) for each in causes(error))
        )

    def _names(self, cls: type) -> bool:
        return any(issubclass(cls, named) and is_control_flow(named) for named in self.items)

    def __repr__(self) -> str:
        names = [cls.__qualname__ for cls in self.items]
        return f"raised({', '.join([*names, 'cause=True'] if self.cause else names)})"


@final
@frozen(eq=False, repr=False)
class _Message(_Named):
    statuses: tuple[int, ...] = ()

    def _holds(self, failure: Failure, /) -> bool:
        if self.statuses and failure.status not in self.statuses:
            return False
        return _all(failure.error, self._is)

    def _is(self, error: object) -> bool:
        words = words_of(error)
        return any(re.search(pattern, words) for pattern in self.items)

    def __repr__(self) -> str:
        return self.name or _call("message", tuple(each.pattern for each in self.items))


@final
class _Predicate(_Named):
    __slots__ = ()

    def _holds(self, failure: Failure, /) -> bool:
        (function,) = self.items
        return bool(function(failure))

    def __repr__(self) -> str:
        (function,) = self.items
        name: object = getattr(function, "__qualname__", None)
        return name if isinstance(name, str) else repr(function)


class _Joined(_Items):
    """Matches joined into one."""

    __slots__ = ()

    def _parts(self) -> tuple[Match, ...]:
        return self.items

    def _names(self, cls: type) -> bool:
        return any(part._names(cls) for part in self.items)


@final
class _AnyOf(_Joined):
    __slots__ = ()

    def _holds(self, failure: Failure, /) -> bool:
        return any(part._holds(failure) for part in self.items)

    def by_advice(self, failure: Failure, /) -> bool:
        matching = [part for part in self.items if part._holds(failure)]
        return bool(matching) and all(part.by_advice(failure) for part in matching)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.items))


@final
class _AllOf(_Joined):
    __slots__ = ()

    def _holds(self, failure: Failure, /) -> bool:
        return all(part._holds(failure) for part in self.items)

    def by_advice(self, failure: Failure, /) -> bool:
        return all(part.by_advice(failure) for part in self.items)

    def __repr__(self) -> str:
        return " & ".join(map(_inner, self.items))


@final
class _NoneOf(_Items):
    __slots__ = ()

    def _parts(self) -> tuple[Match, ...]:
        return self.items

    def _holds(self, failure: Failure, /) -> bool:
        return not self.items[0]._holds(failure)

    def by_advice(self, failure: Failure, /) -> bool:
        return self._holds(failure)  # what is left out has not been named

    def __repr__(self) -> str:
        (part,) = self.items
        inner = _inner(part)
        return f"~({inner})" if isinstance(part, _AllOf) else f"~{inner}"


def status(*statuses: int | range) -> Match:
    """Failures with one of these HTTP statuses, or with one from a range of them."""
    return _OfStatus(_items(statuses, "status", _status))


def code(*codes: str) -> Match:
    """Failures with one of these machine-readable codes."""
    return _OfCode(_items(codes, "code", _code))


def kind(*kinds: Kind) -> Match:
    """Failures of one of these kinds."""
    return _OfKind(_items(kinds, "kind", _kind))


def raised(*classes: type[Exception], cause: bool = False) -> Match:
    """Failures whose exception is an instance of one of these classes, or a group of such; with
    `cause`, also those that were raised from one."""
    found = _items(classes, "raised", exception_class)
    return _Raised(found, cause=to_flag("cause", cause))


def message(*patterns: str | re.Pattern[str]) -> Match:
    """Failures in whose text one of these regular expressions is found, in any case of letters.

    The text is the exception's own and the body of its response, as far as that has been read; the
    first 10,000 characters of each. The last resort: texts change without notice.
    """
    return _Message(_items(patterns, "message", _pattern))


TRANSIENT: Match = _Advised((Advice.RETRY, Advice.WAIT), "TRANSIENT")
"""The same call may work later."""

RECOVERABLE: Match = _Advised(
    (Advice.RETRY, Advice.WAIT, Advice.FALLBACK, Kind.REJECTED), "RECOVERABLE"
)
"""The same call or another model's may work: all but STOP, and our own rejections."""

SERVICE_FAULT: Match = _OfKind(
    (Kind.CONNECTION, Kind.TIMEOUT, Kind.UNAVAILABLE, Kind.OVERLOADED, Kind.SERVER),
    "SERVICE_FAULT",
)
"""The server's or the network's fault, not the request's."""

_DEFAULTS = (TRANSIENT, RECOVERABLE, SERVICE_FAULT)

TOO_LONG_BY_TEXT: Match = _Message(
    (
        r"(?i)prompt is too long|exceed context limit"  # Anthropic
        r"|maximum context length"  # vLLM, SGLang, DeepSeek
        r"|longer than the (?:maximum model length|model's context length)"  # vLLM, SGLang
        r"|too long to fit into the model"  # vLLM
        r"|input is too long for requested model"  # Bedrock
        r"|input token count .{0,40}exceeds the maximum",  # Gemini
    ),
    "TOO_LONG_BY_TEXT",
    (400, 413),
)
"""A prompt too long for the model, of providers that say so in words only: Anthropic, vLLM, SGLang,
DeepSeek, Bedrock and Gemini. Others have a code for it, which `RECOVERABLE` knows."""


def as_match(spec: On, *, field: str = "on") -> Match:
    """The `Match` that `spec` stands for. `field` is the option's name, for messages.

    `TypeError` for what is no item of the language, `ValueError` for one that can never match:
    an empty list, a status outside 100 to 599, an exception that policies never handle.
    """
    return to_match(field, spec)


def to_match(name: str, value: Any) -> Match:
    """The `Match` that an option's value stands for."""
    if isinstance(value, Match):
        return value
    if isinstance(value, Kind):
        return _OfKind((value,))
    if isinstance(value, Advice):
        return _Advised((value,), repr(value))
    if isinstance(value, str):
        _check_spelling(value, name)
        return _OfCode((_code(value, name),))
    if isinstance(value, (int, range)):
        return _OfStatus((_status(value, name),))
    if isinstance(value, (type, BaseException)):
        return _Raised((exception_class(value, name),))
    if isinstance(value, (list, tuple, set, frozenset)):
        items = cast("Collection[Any]", value)
        parts = _items(tuple(items), name, lambda item, name: to_match(name, item))
        return parts[0] if len(parts) == 1 else _AnyOf(parts)
    if callable(value):
        if inspect.iscoroutinefunction(value):
            raise TypeError(f"{name} must be a plain function, got the async {value!r}")
        return _Predicate((value,))
    raise TypeError(
        f"{name} must be an exception class, a status, a code, a Kind, an Advice, a function of "
        f"Failure, a Match or a list of these, got {value!r}"
    )


def _items(items: tuple[Any, ...], name: str, check: Callable[[Any, str], T]) -> tuple[T, ...]:
    if not items:
        raise ValueError(f"{name} must name at least one item, got {items!r}")
    return tuple(check(item, name) for item in items)


def _status(value: Any, name: str) -> int | range:
    if isinstance(value, bool) or not isinstance(value, (int, range)):
        raise TypeError(f"{name} must be an HTTP status (a whole number) or a range, got {value!r}")
    ends = (value[0], value[-1]) if isinstance(value, range) and value else (value,)
    if not all(isinstance(end, int) and 100 <= end <= 599 for end in ends):
        raise ValueError(f"{name} must be within 100 to 599 as an HTTP status, got {value!r}")
    return value if isinstance(value, range) else int(value)


def _code(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a code (a string), got {value!r}")
    if not value:
        raise ValueError(f"{name} must not be empty as a code, got {value!r}")
    return value


def _check_spelling(value: str, name: str) -> None:
    """ValueError for a text that is no code but one of the language's other items, misspelt."""
    meant = None
    if re.fullmatch("[1-5][0-9][0-9]", value):
        meant = value
    elif re.fullmatch("[1-5][xX][xX]", value):
        meant = f"range({value[0]}00, {int(value[0]) + 1}00)"
    elif value in ("TRANSIENT", "RECOVERABLE", "SERVICE_FAULT", "TOO_LONG_BY_TEXT"):
        meant = f"matching.{value}"
    elif any(_is_exception(getattr(home, value, None)) for home in (builtins, errors)):
        meant = value
    else:
        for words in (Kind, Advice):
            if value.upper() in words.__members__ and not _is_known_code(value):
                meant = f"{words.__name__}.{value.upper()}"
    if meant is not None:
        raise ValueError(
            f"{name} must name a code where it is a text, got {value!r}: write {name}={meant} "
            f"without quotes; or code({value!r}), if a server has such a code"
        )


def _is_known_code(value: str) -> bool:
    from resilience.sdks.codes import rows  # read only to answer this

    return any(row["word"] == value for row in rows())


def _is_exception(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseException)


def _pattern(value: Any, name: str) -> re.Pattern[str]:
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        return cast("re.Pattern[str]", value)
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a regular expression (a text), got {value!r}")
    try:
        return re.compile(value, re.IGNORECASE)
    except re.error as problem:
        raise ValueError(f"{name} must be a regular expression, got {value!r}: {problem}") from None


def _kind(value: Any, name: str) -> Kind:
    if not isinstance(value, Kind):
        raise TypeError(f"{name} must be a Kind, got {value!r}")
    return value


def _call(name: str, items: tuple[object, ...]) -> str:
    return f"{name}({', '.join(map(repr, items))})"


def _inner(part: Match) -> str:
    """How `part` reads inside `&` and `~`."""
    return f"({part!r})" if isinstance(part, _AnyOf) else repr(part)


def _all(error: object, condition: Callable[[object], bool]) -> bool:
    """Whether an error meets a condition; of a group, whether all its members do."""
    try:
        return error is not None and all(map(condition, leaves(error)))
    except ValueError:
        return False  # too many to look at


# A fork may come with the very first failure: the reader it needs is imported now, not then.
reader_for(ConnectionError)
