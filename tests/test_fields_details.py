"""Fields for options, by themselves: what they take, their defaults, what they say."""

from __future__ import annotations

import functools
import math
from datetime import timedelta
from typing import Any

import pytest
from attrs import Factory, define, field

from resilience._core import fields


def says(kind: type[Exception], make: Any, *args: Any, **kwargs: Any) -> str:
    """The message that a bad value is refused with."""
    with pytest.raises(kind) as caught:
        make(*args, **kwargs)
    return str(caught.value)


def an_int(name: str, value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{name}: {value!r}")
    return value * 10


def test_a_checked_field_goes_through_its_check() -> None:
    """The check is told the field's name, and what it gives back is kept."""

    @define
    class Given:
        size: Any = fields.checked(an_int)

    assert Given(2).size == 20
    assert says(TypeError, Given, "2") == "size: '2'"
    assert says(TypeError, Given, None) == "size: None"
    assert says(TypeError, Given)  # no default: it must be given


def test_a_checked_fields_default_is_checked_as_well() -> None:
    """A default goes through the same check."""

    @define
    class Given:
        size: Any = fields.checked(an_int, 3)

    assert Given().size == 30


def test_an_optional_field_takes_none_as_it_is() -> None:
    """With `optional` None is kept unchecked; anything else is still checked."""

    @define
    class Given:
        size: Any = fields.checked(an_int, None, optional=True)

    assert Given().size is None
    assert Given(None).size is None
    assert Given(2).size == 20
    assert says(TypeError, Given, "2") == "size: '2'"


def test_a_checked_field_passes_the_rest_on_to_attrs() -> None:
    """Further arguments are those of an attrs field."""

    @define
    class Given:
        size: Any = fields.checked(an_int, 3, kw_only=True)

    assert Given(size=1).size == 10
    assert says(TypeError, Given, 1)


def test_a_field_of_seconds() -> None:
    """More than 0, unless `positive` is false; None only where it is optional."""

    @define
    class Given:
        limit: Any = fields.seconds()
        wait: Any = fields.seconds(5.0, positive=False)
        within: Any = fields.seconds(None, optional=True)

    assert (Given(1).limit, Given(1).wait, Given(1).within) == (1.0, 5.0, None)
    assert Given(1, 0, timedelta(minutes=1)) == Given(1.0, 0.0, 60.0)
    assert says(TypeError, Given)
    assert says(ValueError, Given, 0) == "limit must be more than 0 seconds, got 0"
    assert says(ValueError, Given, 1, -1) == "wait must be 0 or more seconds, got -1"
    for given in ((None,), (1, None)):
        assert "must be seconds (a number or a timedelta), got None" in says(
            TypeError, Given, *given
        )


def test_a_field_with_a_number() -> None:
    """From 0 up, unless it has other bounds; both bounds are within."""

    @define
    class Given:
        share: Any = fields.number()
        factor: Any = fields.number(2.0, least=1.0)
        jitter: Any = fields.number(0.5, most=1.0)

    assert Given(0) == Given(0.0, 2.0, 0.5)
    assert Given(1e300, 1, 1) == Given(1e300, 1.0, 1.0)
    assert says(TypeError, Given)
    assert says(ValueError, Given, -0.5) == "share must be 0 or more, got -0.5"
    assert says(ValueError, Given, 0, 0.5) == "factor must be 1 or more, got 0.5"
    assert says(ValueError, Given, 0, 1, 1.5) == "jitter must be from 0 to 1, got 1.5"
    assert says(TypeError, Given, "1") == "share must be a number, got '1'"


def test_a_field_with_a_count() -> None:
    """From 1 up, unless it has another bound; None only where it is optional."""

    @define
    class Given:
        attempts: Any = fields.count()
        retries: Any = fields.count(2, least=0)
        most: Any = fields.count(None, optional=True)

    assert Given(1) == Given(1, 2, None)
    assert Given(1, 0, 7) == Given(1, 0, 7)
    assert says(TypeError, Given)
    assert says(ValueError, Given, 0) == "attempts must be 1 or more, got 0"
    assert says(ValueError, Given, 1, -1) == "retries must be 0 or more, got -1"
    assert says(TypeError, Given, None) == "attempts must be a whole number, got None"


def test_a_field_that_is_a_flag() -> None:
    """True or False, and its default."""

    @define
    class Given:
        on: Any = fields.flag(True)
        off: Any = fields.flag(False)

    assert (Given().on, Given().off) == (True, False)
    assert says(TypeError, Given, 1) == "on must be True or False, got 1"


def test_a_class_suggests_the_option_that_was_meant() -> None:
    """A mistyped option is answered with the near one, else with all there are."""

    @fields.suggesting
    @define
    class Given:
        attempts: int
        wait: float = 0.5

    assert Given(3, wait=1.0) == Given(attempts=3, wait=1.0)
    assert isinstance(Given(3), Given)
    assert says(TypeError, Given, attemps=3) == (
        "Given has no option 'attemps'; did you mean 'attempts'?"
    )
    assert says(TypeError, Given, 3, colour=1) == (
        "Given has no option 'colour'; it has attempts, wait"
    )


def test_a_function_suggests_the_option_that_was_meant() -> None:
    """So does a function; what it cannot be given by name is not suggested."""

    @fields.suggesting
    def make(first: int, /, *rest: int, attempts: int = 1) -> tuple[Any, ...]:
        return first, rest, attempts

    assert make(1, 2, attempts=3) == (1, (2,), 3)
    assert make.__name__ == "make"
    assert says(TypeError, make, 1, atempts=3) == (
        "make has no option 'atempts'; did you mean 'attempts'?"
    )
    assert says(TypeError, make, 1, colour=3) == "make has no option 'colour'; it has attempts"


def test_only_a_near_name_is_suggested() -> None:
    """A name with little in common is no typo."""

    @fields.suggesting
    def make(*, attempts: int = 1, wait: int = 1, within: int = 1) -> None: ...

    assert "did you mean 'within'?" in says(TypeError, make, witin=1)
    assert "it has attempts, wait, within" in says(TypeError, make, withdrawn=1)


def test_numbers_and_counts_have_their_bounds() -> None:
    """Without bounds any finite number will do; a count begins at 1."""
    assert fields.to_number("x", -1e300) == -1e300
    assert fields.to_number("x", 1.0, 1.0, 1.0) == 1.0
    assert says(ValueError, fields.to_number, "x", math.inf) == "x must be finite, got inf"
    assert says(ValueError, fields.to_number, "x", 10**400) == (
        "x must be finite, got a whole number too large"
    )
    assert fields.to_count("n", 1) == 1
    assert says(ValueError, fields.to_count, "n", 0) == "n must be 1 or more, got 0"


def test_what_a_value_must_be_is_said() -> None:
    """Each check names the field, the rule and the value."""
    assert says(TypeError, fields.to_text, "name", 3) == "name must be a string, got 3"
    assert says(ValueError, fields.to_text, "name", "") == "name must not be empty, got ''"
    assert says(TypeError, fields.to_callable, "call", 3) == "call must be a function, got 3"
    assert says(TypeError, fields.to_callable, "call", int).startswith("call must be a function")
    assert says(TypeError, fields.to_plain_function, "on", 3) == "on must be a function, got 3"

    async def asks() -> bool:
        return True

    class Asks:
        async def __call__(self) -> bool:
            return True

    for function in (asks, Asks()):
        assert says(TypeError, fields.to_plain_function, "on", function) == (
            f"on must be a plain function, not an async one, got {function!r}"
        )


def test_a_value_is_printed_as_the_code_that_makes_it() -> None:
    """Options at their defaults are left out; positional ones are shown without a name."""

    @define
    class Given:
        first: Any
        wait: Any = 1.0
        made: Any = Factory(list)
        _own: Any = None

    assert fields.call_repr(Given(1)) == "Given(first=1)"
    assert fields.call_repr(Given(1), ("first",)) == "Given(1)"
    assert fields.call_repr(Given(1, 2.0, [3], own=4), ("first",)) == (
        "Given(1, wait=2, made=[3], own=4)"
    )
    assert fields.call_repr(Given(1, 0.5, []), ("first",)) == "Given(1, wait=0.5)"
    assert fields.call_repr(Given(len), ("first",)) == "Given(len)"


def test_a_default_is_left_out_only_if_it_is_the_same() -> None:
    """What equals the default but is of another type is shown, and what cannot be compared."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            return "odd"

    @define
    class Given:
        flag: Any = True
        other: Any = Odd()

    assert fields.call_repr(Given(1)) == "Given(flag=1)"
    assert fields.call_repr(Given(other=Odd())) == "Given(other=odd)"
    assert fields.call_repr(Given()) == "Given()"


def test_a_function_has_a_title() -> None:
    """A function's name; a partial shows no arguments; what has no name, its class."""

    class Nameless:
        def __call__(self) -> None: ...

    assert fields.title(math.sin) == "sin"
    assert fields.title(functools.partial(math.sin, "secret")) == "partial(sin, ...)"
    assert fields.title(Nameless()) == f"<{Nameless.__qualname__}>"


def test_what_was_not_given_is_not_printed() -> None:
    """A field that the constructor does not take, or that is not to be shown, is passed over."""

    @define
    class Given:
        made: Any = field(default=1, init=False)
        secret: Any = field(default=2, repr=False)
        wait: Any = 3

    given = Given(secret="sk-1", wait=4)
    given.made = 5

    assert fields.call_repr(given) == "Given(wait=4)"
