"""Fields for options: what is converted and checked, and how a policy reads when printed.

Every bad value is rejected at construction, with a message that names field, rule and value.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
from collections.abc import Callable
from datetime import timedelta
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, TypeAlias, TypeVar, cast

from attrs import NOTHING, Attribute, Converter, field, fields, fields_dict

T = TypeVar("T", bound=Callable[..., Any])

Seconds: TypeAlias = "float | timedelta"
"""A time as an option takes it. What is kept is always the number of seconds, a float."""


def to_number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite float from an int or a float within bounds; a bool is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be finite, got an integer too large for a float") from None
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if not least <= found <= most:
        bounds = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{name} must be {bounds}, got {value!r}")
    return found


def to_seconds(name: str, value: Any, *, positive: bool = True) -> float:
    """Seconds from a number or a timedelta."""
    plain = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        raise TypeError(f"{name} must be seconds (a number or a timedelta), got {value!r}")
    found = to_number(name, plain)
    if found < 0 or (positive and found == 0):
        rule = "more than 0" if positive else "0 or more"
        raise ValueError(f"{name} must be {rule} seconds, got {value!r}")
    return found


def to_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    to_number(name, value)  # it is calculated with floats
    if value < least:
        raise ValueError(f"{name} must be {least} or more, got {value!r}")
    return value


def plain(value: Seconds | None) -> float:
    """A field of seconds as the float that it holds, infinite for None; its type says what may be
    given."""
    return math.inf if value is None else cast(float, value)


def to_flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def to_text(name: str, value: Any) -> str:
    """A string with something in it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}")
    if not value:
        raise ValueError(f"{name} must not be empty, got ''")
    return value


def to_callable(name: str, value: Any) -> Any:
    """A function (any callable but a class)."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name} must be a function, got {value!r}")
    return value


def to_plain_function(name: str, value: Any) -> Any:
    """A function that is not async: what an async one returns would always be true."""
    call = inspect.getattr_static(type(to_callable(name, value)), "__call__")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call):
        raise TypeError(f"{name} must be a plain function, not an async one, got {value!r}")
    return value


def to_key(name: str, value: Any) -> Any:
    """An argument's name, or a plain function of the call's arguments."""
    return to_text(name, value) if isinstance(value, str) else to_plain_function(name, value)


def to_shared(name: str, value: Any) -> Any:
    """What shares a rate limit or a hold between processes. A URL may have a password in it."""
    if not hasattr(type(value), "share_hold"):
        raise TypeError(
            f"{name} must be a resilience.shared.RedisLimit, got {type(value).__name__}"
        )
    return value


def to_one_of(*words: str) -> Callable[[str, Any], str]:
    """One of these words."""

    def check(name: str, value: Any) -> str:
        if to_text(name, value) not in words:
            raise ValueError(f"{name} must be {' or '.join(map(repr, words))}, got {value!r}")
        return str(value)

    return check


_UNTYPED = inspect.Signature()


def checked(
    check: Callable[[str, Any], Any],
    default: Any = NOTHING,
    *,
    optional: bool = False,
    **rest: Any,
) -> Any:
    """A field whose values go through `check(name, value)`; with `optional`, None as it is."""

    def convert(value: Any, attribute: Attribute[Any]) -> Any:
        return None if optional and value is None else check(attribute.name, value)

    # attrs wants to know its types: as it has none, the same for all, not worked out for each.
    convert.__signature__ = _UNTYPED  # type: ignore[attr-defined]
    return field(
        default=default,
        converter=Converter(convert, takes_field=True),
        **rest,
    )


def seconds(default: Any = NOTHING, *, positive: bool = True, optional: bool = False) -> Any:
    """A field of seconds."""
    return checked(functools.partial(to_seconds, positive=positive), default, optional=optional)


def number(default: Any = NOTHING, *, least: float = 0.0, most: float = math.inf) -> Any:
    """A field with a number between two bounds."""
    return checked(functools.partial(to_number, least=least, most=most), default)


def count(default: Any = NOTHING, *, least: int = 1, optional: bool = False, **rest: Any) -> Any:
    """A field with a whole number."""
    return checked(functools.partial(to_count, least=least), default, optional=optional, **rest)


def flag(default: bool) -> Any:
    """A field that is True or False."""
    return checked(to_flag, default)


def suggesting(made: T) -> T:
    """Have a class or a function answer a mistyped option with the right one."""
    target: Any = vars(made)["__init__"] if isinstance(made, type) else made
    code, named = inspect.unwrap(target).__code__, made.__name__
    least = code.co_posonlyargcount + isinstance(made, type)
    names = code.co_varnames[least : code.co_argcount + code.co_kwonlyargcount]

    @functools.wraps(target)
    def checking(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in names:
                from difflib import get_close_matches  # imported only for a mistake

                near = get_close_matches(name, names, n=1, cutoff=0.7)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
                raise TypeError(f"{named} has no option {name!r}; {hint}")
        return target(*args, **kwargs)

    if not isinstance(made, type):
        return cast(T, checking)
    checking.__wrapped__ = cast(Any, _Documented(made, target))
    setattr(made, "__init__", checking)  # noqa: B010 - a plain assignment does not type
    return cast(T, made)


class _Documented:
    """An attrs class's `__init__` as `inspect.signature` shows it: types as declared, defaults as
    they come out. Worked out when asked for, as it would make the import a tenth longer."""

    def __init__(self, made: type, init: Callable[..., Any]) -> None:
        self.made = made
        self.init = init

    @property
    def __signature__(self) -> inspect.Signature:
        options = fields_dict(self.made)
        parameters = []
        for parameter in inspect.signature(self.init).parameters.values():
            option = options.get(parameter.name)
            if option is not None and parameter.annotation in (inspect.Parameter.empty, "Any"):
                parameter = parameter.replace(annotation=option.type)
            default: Any = parameter.default
            if option is not None and default is NOTHING:
                default = option.metadata.get("shown", option.default)
                if hasattr(default, "factory"):
                    default = default.factory()
                parameter = parameter.replace(default=default)
            parameters.append(parameter)
        return inspect.Signature(parameters)


def fields_repr(self: Any) -> str:
    """A `__repr__` as attrs makes it: the class and its fields."""
    cls: Any = type(self)
    shown = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(cls) if each.repr]
    return f"{cls.__qualname__}({', '.join(shown)})"


class Value:
    """A frozen attrs class that compares and prints by its fields. attrs would compile the same
    anew for each class, which is most of what such a class costs at import."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _compared(self) == _compared(other)

    def __hash__(self) -> int:
        return hash((type(self), _compared(self)))

    __repr__ = fields_repr


def _compared(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, each.name) for each in fields(type(value)) if each.eq)


def call_repr(value: Any, positional: tuple[str, ...] = ()) -> str:
    """The code that makes an attrs value: options at their defaults are left out."""
    parts = []
    for attribute in fields(type(value)):
        if not attribute.init or not attribute.repr:
            continue
        found = getattr(value, attribute.name)
        if attribute.name in positional:
            parts.append(_shown(found))
        elif not _is_default(found, attribute, value):
            parts.append(f"{attribute.alias}={_shown(found)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def unquoted(value: Any) -> str:
    """A value that may be a prompt, an answer or a key, for people: its class, unless it is None or
    a number. Of an exception the text is left out, too."""
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    return f"<{type(value).__qualname__}>"


def warn(text: str, *args: object, level: int = logging.WARNING) -> None:
    """Log something about the program. What a handler or filter of the log raises would otherwise
    be the result of a call."""
    try:
        logging.getLogger("resilience").log(level, text, *args)
    except Exception:
        pass


def warn_option_failed(what: str, problem: Exception) -> None:
    """Log what a user's option has raised, by its class, after a call that has itself gone well."""
    warn("%s raised %s", what, type(problem).__name__)


def _is_default(found: Any, attribute: Attribute[Any], value: Any) -> bool:
    default: Any = attribute.default
    if default is found:
        return True
    if hasattr(default, "factory"):
        default = default.factory(value) if default.takes_self else default.factory()
    try:
        return type(default) is type(found) and bool(default == found)
    except Exception:  # a user's value may refuse to be compared
        return False


def title(fn: Any) -> str:
    """A function's name for people; never the arguments that a partial holds."""
    if isinstance(fn, functools.partial):
        return f"partial({title(fn.func)}, ...)"
    try:
        name = getattr(fn, "__qualname__", None)
    except Exception:  # a proxy of something that is not there now
        name = None
    return name if isinstance(name, str) else f"<{type(fn).__qualname__}>"


def _shown(value: Any) -> str:
    if isinstance(value, (FunctionType, MethodType, BuiltinFunctionType, functools.partial)):
        return title(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return repr(value)
