"""What an exception means: `describe(error)` reads any exception into a `Failure`.

    failure = describe(error)
    failure.kind      # Kind.RATE_LIMIT: what happened
    failure.advice    # Advice.WAIT: what to do about it

The errors of known SDKs are read by `resilience.sdks`; teach it your own with

    @describe.register(MyError)
    def read(error: MyError) -> Failure: ...

Message texts are never read: a status, a code and a type are facts, a sentence is not.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, final

from attrs import evolve

from resilience._core.anatomy import causes
from resilience._core.control_flow import control_flow
from resilience._core.failure import Advice, Failure, Kind
from resilience._core.options import warn
from resilience.errors import (
    BadResultError,
    DeadlineExceededError,
    RejectedError,
    StreamInterruptedError,
)
from resilience.sdks import is_known, read_result, read_status, reader_for

if TYPE_CHECKING:
    from resilience.sdks.limits import ServerLimit

__all__ = [
    "Advice",
    "Failure",
    "Kind",
    "asked_wait",
    "control_flow",
    "describe",
    "describe_result",
    "limits_of",
]

E = TypeVar("E", bound=Exception)
F = TypeVar("F", bound="Failure | None")

_REMEMBERED = 4096
"""Exception types whose reader is remembered: some libraries make a class per client."""

_VAGUE = (Exception, RuntimeError)
"""Python's own that are raised for anything; its others are known to be the program's business."""
_MOST_LOGGED = 1000
"""Unknown classes that the log tells of."""


def exception_class(value: object, name: str) -> type[Exception]:
    """`value` if it is a class of exceptions that policies may handle, else TypeError/ValueError.

    `name` is the option's name, for the message.
    """
    if not isinstance(value, type):
        kind: type = type(value)
        if issubclass(kind, BaseException):
            raise TypeError(
                f"{name} must be an exception class, got an instance of {kind.__qualname__}; "
                f"write {kind.__qualname__}"
            )
        raise TypeError(f"{name} must be an exception class, got {value!r}")
    if issubclass(value, Exception):
        return value
    if issubclass(value, BaseException):
        raise ValueError(
            f"{name} must be derived from Exception, because control-flow exceptions are never "
            f"handled, got {value.__qualname__}"
        )
    raise TypeError(f"{name} must be an exception class, got {value!r}")


@final
class Describe:
    """The type of `describe`. Safe from any thread."""

    def __init__(self) -> None:
        self._registered: dict[type, Callable[[Any], Failure | None]] = {}
        self._chosen: dict[type, Callable[[Any], Failure | None]] = {}
        self._logged: set[str] = set()

    def __call__(self, error: Exception, /) -> Failure:
        """Tell what `error` means. Never raises; what nobody can read is UNKNOWN and STOP.

        An error that nobody knows is read by its cause, as frameworks wrap what an SDK raised; a
        group is as bad as the worst of its members.
        """
        try:
            # Neither the error's truth nor its equality nor its __class__ is to be trusted.
            failure = self._reader(type(error))(error)
            if failure is None:
                failure = self._by_cause(error)
            if type(failure) is Failure:
                return failure if failure.error is error else evolve(failure, error=error)
        except Exception:
            pass
        return Failure(Kind.UNKNOWN, Advice.STOP, error=error)

    def _by_cause(self, error: Exception) -> Failure | None:
        """What the nearest cause that somebody knows stands for; else the status that it or one of
        them carries."""
        unknown: list[Exception] = []
        cause: Any
        for cause in causes(error):
            if not issubclass(type(cause), Exception):
                break
            failure = self._reader(type(cause))(cause)
            if failure is not None:
                return failure
            unknown.append(cause)
        for each in (error, *unknown):
            failure = read_status(each)
            if failure is not None:
                return failure
        return None

    def warn_unknown(self, error: Exception | None, on: str) -> None:
        """Log, once for each class of errors that nobody knows, how to teach the library."""
        cls = type(error)
        try:
            name = f"{cls.__module__}.{cls.__qualname__}"
            if error is None or (is_known(cls) and cls not in _VAGUE):
                return
            if any(base in self._registered for base in cls.__mro__):
                return
        except Exception:  # a class that refuses to be looked at
            return
        if name in self._logged or len(self._logged) >= _MOST_LOGGED:
            return
        self._logged.add(name)
        warn(
            "%s is unknown, so policies with their default on= do not act on it. If they should, "
            "name it (on=%s | raised(%s)) or say what it means (@describe.register(%s))",
            *(name, on, cls.__qualname__, cls.__qualname__),
        )

    def register(self, cls: type[E], /) -> Callable[[Callable[[E], F]], Callable[[E], F]]:
        """Read errors of `cls` and its subclasses with the decorated function.

        The most specific registration is asked first. A reader that returns None leaves it to the
        next one, to what the library knows by itself, and then to the error's cause. One that
        raises or returns anything else makes UNKNOWN and STOP, and a warning is logged.
        `TypeError` or `ValueError` if `cls` is no exception class or the reader no function.
        """
        exception_class(cls, "cls")

        def decorate(reader: Callable[[E], F]) -> Callable[[E], F]:
            if not callable(reader) or inspect.iscoroutinefunction(reader):
                raise TypeError(f"reader must be a plain function of the error, got {reader!r}")
            self._registered[cls] = reader
            # A new dict, not a cleared one: a choice under way in another thread lands in the old.
            self._chosen = {}
            return reader

        return decorate

    def _reader(self, cls: type[Exception]) -> Callable[[Any], Failure | None]:
        chosen = self._chosen
        reader = chosen.get(cls)
        if reader is None:
            reader = self._choose(cls)
            if len(chosen) >= _REMEMBERED:
                chosen.clear()
            chosen[cls] = reader
        return reader

    def _choose(self, cls: type[Exception]) -> Callable[[Any], Failure | None]:
        known = reader_for(cls)
        own = [self._registered[base] for base in cls.__mro__ if base in self._registered]
        return functools.partial(_first, (*own, known)) if own else known


def _first(readers: tuple[Callable[[Any], Failure | None], ...], error: Exception) -> Any:
    """What the first reader says that says anything; the last one is the library's own."""
    *own, known = readers
    for reader in own:
        failure = _ask(reader, error)
        if failure is not None:
            return failure
    return known(error)


def _ask(reader: Callable[[Any], Any], error: Exception) -> Failure | None:
    """What a user's reader says, which may be nothing. What it raises is logged, and raised."""
    try:
        failure = reader(error)
        if failure is not None and type(failure) is not Failure:
            raise TypeError
    except Exception as problem:
        what = f"{type(problem).__name__} from the reader of {type(error).__name__}"
        warn("%s: taken for unknown", what)
        raise
    return failure


describe = Describe()


def describe_result(result: object, /) -> Failure | None:
    """Tell what a result means that is an error: a response of a known client with a status of 400
    or more, an error body, an answer without choices. None for every other result. Never raises.

    It is a check for `BadResult`, too.
    """
    try:
        return read_result(result)
    except Exception:
        return None


def asked_wait(headers: object, /) -> float | None:
    """Seconds that a response's headers ask to be left alone for; None where they do not.

    For readers of your own: `retry-after-ms`, `Retry-After` and their like, as described in
    `docs/errors.md`. `headers` is whatever your client calls so: a mapping in any case, a list of
    pairs, or anything with a `get`. Never raises.
    """
    from resilience.sdks.headers import pick  # imported where first needed

    return pick(headers).wait


def limits_of(thing: object, /) -> tuple[ServerLimit, ...]:
    """The rate limits that a server's headers tell of, on an SDK's error, a response or a stream:
    `x-ratelimit-*`, `anthropic-ratelimit-*` and `ratelimit-*`. Empty where there are none, or where
    the thing shows no headers (as most SDKs' results do not). Never raises."""
    from resilience.sdks.limits import limits_of  # imported where first needed

    return limits_of(thing)


@describe.register(StreamInterruptedError)
def _interrupted(error: StreamInterruptedError) -> Failure:
    cause = error.__cause__
    failure = Failure(Kind.SERVER, Advice.RETRY, sdk="resilience")
    if isinstance(cause, Exception):
        failure = describe(cause)
    return evolve(failure, sent=True, error=None)


@describe.register(RejectedError)
def _rejected(error: RejectedError) -> Failure:
    wait = None if error.retry_after is None else max(0.0, error.retry_after)
    return Failure(Kind.REJECTED, Advice.STOP, retry_after=wait, sent=False, sdk="resilience")


@describe.register(DeadlineExceededError)
def _deadline_exceeded(error: DeadlineExceededError) -> Failure:
    return Failure(Kind.TIMEOUT, Advice.RETRY, sdk="resilience")


@describe.register(BadResultError)
def _bad_result(error: BadResultError) -> Failure:
    if type(error.failure) is Failure:
        return error.failure
    return Failure(Kind.UNKNOWN, Advice.RETRY, sdk="resilience")
