"""Fields for options, by themselves: what they take, their defaults, what they say."""

from __future__ import annotations

import functools
import inspect
import math
from datetime import timedelta
from typing import Any

import pytest
from attrs import Factory, define, field, frozen

from resilience._core import options
from support.calling import message_of as says


def an_int(name: str, value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{name}: {value!r}")
    return value * 10


# Fields


def test_a_checked_field_goes_through_its_check() -> None:
    """The check is given the field's name, and what it returns is kept."""

    @define
    class Given:
        size: Any = options.checked(an_int)

    assert Given(2).size == 20
    assert says(TypeError, Given, "2") == "size: '2'"
    assert says(TypeError, Given, None) == "size: None"
    assert says(TypeError, Given)  # no default: it must be given


def test_a_checked_fields_default_is_checked_as_well() -> None:
    """A default goes through the same check."""

    @define
    class Given:
        size: Any = options.checked(an_int, 3)

    assert Given().size == 30


def test_an_optional_field_takes_none_as_it_is() -> None:
    """With `optional` None is kept unchecked; anything else is still checked."""

    @define
    class Given:
        size: Any = options.checked(an_int, None, optional=True)

    assert Given().size is None
    assert Given(None).size is None
    assert Given(2).size == 20
    assert says(TypeError, Given, "2") == "size: '2'"


def test_a_checked_field_passes_the_rest_on_to_attrs() -> None:
    """Further arguments are those of an attrs field."""

    @define
    class Given:
        size: Any = options.checked(an_int, 3, kw_only=True)

    assert Given(size=1).size == 10
    assert says(TypeError, Given, 1)


@pytest.fixture
def times() -> Any:
    @define
    class Times:
        limit: Any = options.seconds()
        wait: Any = options.seconds(5.0, positive=False)
        within: Any = options.seconds(None, optional=True)

    return Times


def test_a_field_of_seconds(times: Any) -> None:
    """Numbers and timedeltas; what is kept is a float."""
    assert (times(1).limit, times(1).wait, times(1).within) == (1.0, 5.0, None)
    assert times(1, 0, timedelta(minutes=1)) == times(1.0, 0.0, 60.0)
    assert type(times(1).limit) is float
    assert says(TypeError, times)


@pytest.mark.parametrize(
    ("kind", "given", "named"),
    [
        (ValueError, (0,), ("limit", "more than 0", "0")),
        (ValueError, (1, -1), ("wait", "0 or more", "-1")),
        (ValueError, (math.nan,), ("limit", "finite", "nan")),
        (ValueError, (1, math.inf), ("wait", "finite", "inf")),
        (ValueError, (1, 1, timedelta(0)), ("within", "more than 0", "timedelta")),
        (TypeError, (True,), ("limit", "seconds", "True")),
        (TypeError, ("1",), ("limit", "seconds", "'1'")),
        (TypeError, (None,), ("limit", "seconds", "None")),
        (TypeError, (1, None), ("wait", "seconds", "None")),
    ],
)
def test_what_are_no_seconds(times: Any, kind: Any, given: Any, named: Any) -> None:
    """More than 0, unless `positive` is false; None only where it is optional. The message has the
    field, the rule and the value."""
    message = says(kind, times, *given)
    assert all(word in message for word in named)


@pytest.fixture
def numbers() -> Any:
    @define
    class Numbers:
        share: Any = options.number()
        factor: Any = options.number(2.0, least=1.0)
        jitter: Any = options.number(0.5, most=1.0)

    return Numbers


def test_a_field_with_a_number(numbers: Any) -> None:
    """From 0 up, unless it has other bounds; both bounds are within."""
    assert numbers(0) == numbers(0.0, 2.0, 0.5)
    assert numbers(1e300, 1, 1) == numbers(1e300, 1.0, 1.0)
    assert says(TypeError, numbers)


@pytest.mark.parametrize(
    ("kind", "given", "named"),
    [
        (ValueError, (-0.5,), ("share", "0 or more", "-0.5")),
        (ValueError, (0, 0.5), ("factor", "1 or more", "0.5")),
        (ValueError, (0, 1, 1.5), ("jitter", "from 0 to 1", "1.5")),
        (ValueError, (math.nan,), ("share", "finite", "nan")),
        (TypeError, ("1",), ("share", "number", "'1'")),
        (TypeError, (True,), ("share", "number", "True")),
    ],
)
def test_what_is_no_number(numbers: Any, kind: Any, given: Any, named: Any) -> None:
    """The message has the field, the rule and the value."""
    message = says(kind, numbers, *given)
    assert all(word in message for word in named)


@pytest.fixture
def counts() -> Any:
    @define
    class Counts:
        attempts: Any = options.count()
        retries: Any = options.count(2, least=0)
        most: Any = options.count(None, optional=True)

    return Counts


def test_a_field_with_a_count(counts: Any) -> None:
    """From 1 up, unless it has another bound; None only where it is optional."""
    assert counts(1) == counts(1, 2, None)
    assert counts(1, 0, 7) == counts(1, 0, 7)
    assert says(TypeError, counts)


@pytest.mark.parametrize(
    ("kind", "given", "named"),
    [
        (ValueError, (0,), ("attempts", "1 or more", "0")),
        (ValueError, (1, -1), ("retries", "0 or more", "-1")),
        (ValueError, (1, 1, 0), ("most", "1 or more", "0")),
        (TypeError, (None,), ("attempts", "whole number", "None")),
        (TypeError, (1.0,), ("attempts", "whole number", "1.0")),
        (TypeError, (True,), ("attempts", "whole number", "True")),
    ],
)
def test_what_is_no_count(counts: Any, kind: Any, given: Any, named: Any) -> None:
    """The message has the field, the rule and the value."""
    message = says(kind, counts, *given)
    assert all(word in message for word in named)


def test_a_field_that_is_a_flag() -> None:
    """True or False, and its default."""

    @define
    class Given:
        on: Any = options.flag(True)
        off: Any = options.flag(False)

    assert (Given().on, Given().off) == (True, False)
    message = says(TypeError, Given, 1)
    assert "on must be True or False" in message
    assert "1" in message


# Checks by themselves


def test_numbers_and_counts_have_their_bounds() -> None:
    """Without bounds any finite number will do; a count begins at 1."""
    assert options.to_number("x", -1e300) == -1e300
    assert options.to_number("x", 1.0, 1.0, 1.0) == 1.0
    assert options.to_count("n", 1) == 1
    assert "n" in says(ValueError, options.to_count, "n", 0)
    for value in (math.inf, 10**400):
        message = says(ValueError, options.to_number, "x", value)
        assert "x must be finite" in message
        assert len(message) < 100


async def asks() -> bool:
    return True


class Asks:
    async def __call__(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "check", "value", "word"),
    [
        (TypeError, options.to_text, 3, "string"),
        (ValueError, options.to_text, "", "empty"),
        (TypeError, options.to_callable, 3, "function"),
        (TypeError, options.to_callable, int, "function"),
        (TypeError, options.to_plain_function, 3, "function"),
        (TypeError, options.to_plain_function, asks, "plain function"),
        (TypeError, options.to_plain_function, Asks(), "plain function"),
    ],
)
def test_what_a_value_must_be(kind: Any, check: Any, value: Any, word: str) -> None:
    """Each check names the field, the rule and the value."""
    message = says(kind, check, "field", value)
    assert message.startswith("field must ")
    assert word in message
    assert repr(value) in message


def test_one_of_a_few_words() -> None:
    """Any other string is told which they are."""
    check = options.to_one_of("left", "right")
    assert check("side", "right") == "right"
    assert says(ValueError, check, "side", "up") == "side must be 'left' or 'right', got 'up'"
    assert says(TypeError, check, "side", 3) == "side must be a string, got 3"


# A mistyped option


def test_a_class_suggests_the_option_that_was_meant() -> None:
    """A mistyped option is answered with the near one, else with all there are."""

    @options.suggesting
    @define
    class Given:
        attempts: int
        wait: float = 0.5

    assert Given(3, wait=1.0) == Given(attempts=3, wait=1.0)
    assert isinstance(Given(3), Given)
    assert "did you mean 'attempts'" in says(TypeError, Given, attemps=3)
    message = says(TypeError, Given, 3, colour=1)
    assert "'colour'" in message
    assert "attempts, wait" in message


def test_a_function_suggests_the_option_that_was_meant() -> None:
    """So does a function; what it cannot be given by name is not suggested."""

    @options.suggesting
    def make(first: int, /, *rest: int, attempts: int = 1) -> tuple[Any, ...]:
        return first, rest, attempts

    assert make(1, 2, attempts=3) == (1, (2,), 3)
    assert make.__name__ == "make"
    assert "did you mean 'attempts'" in says(TypeError, make, 1, atempts=3)
    assert says(TypeError, make, 1, colour=3).endswith("it has attempts")


def test_only_a_near_name_is_suggested() -> None:
    """A name with little in common is no typo."""

    @options.suggesting
    def make(*, attempts: int = 1, wait: int = 1, within: int = 1) -> None: ...

    assert "did you mean 'within'" in says(TypeError, make, witin=1)
    assert "attempts, wait, within" in says(TypeError, make, withdrawn=1)


# Printing


def test_a_value_is_printed_as_the_code_that_makes_it() -> None:
    """Options at their defaults are left out; positional ones are shown without a name."""

    @define
    class Given:
        first: Any
        wait: Any = 1.0
        made: Any = Factory(list)
        _own: Any = None

    assert options.call_repr(Given(1)) == "Given(first=1)"
    assert options.call_repr(Given(1), ("first",)) == "Given(1)"
    assert options.call_repr(Given(1, 2.0, [3], own=4), ("first",)) == (
        "Given(1, wait=2, made=[3], own=4)"
    )
    assert options.call_repr(Given(1, 0.5, []), ("first",)) == "Given(1, wait=0.5)"
    assert options.call_repr(Given(len), ("first",)) == "Given(len)"


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

    assert options.call_repr(Given(1)) == "Given(flag=1)"
    assert options.call_repr(Given(other=Odd())) == "Given(other=odd)"
    assert options.call_repr(Given()) == "Given()"


def test_what_was_not_given_is_not_printed() -> None:
    """A field that the constructor does not take, or that is not to be shown, is passed over."""

    @define
    class Given:
        made: Any = field(default=1, init=False)
        secret: Any = field(default=2, repr=False)
        wait: Any = 3

    given = Given(secret="sk-1", wait=4)
    given.made = 5

    assert options.call_repr(given) == "Given(wait=4)"


def test_a_function_has_a_title() -> None:
    """A function's name; a partial shows no arguments; what has no name, its class."""

    class Nameless:
        def __call__(self) -> None: ...

    assert options.title(math.sin) == "sin"
    assert options.title(functools.partial(math.sin, "secret")) == "partial(sin, ...)"
    assert options.title(Nameless()) == f"<{Nameless.__qualname__}>"


def test_values_compare_by_their_fields() -> None:
    """Of one class, by all fields but those left out; they hash as they compare."""

    @frozen(eq=False, repr=False)
    class One(options.Value):
        size: int = 1
        label: Any = field(default=None, eq=False)

    class Other(One):
        __slots__ = ()

    assert One(1, "a") == One(1, "b") != One(2)
    assert len({One(1, "a"), One(1, "b"), One(2)}) == 2
    assert len({hash(One(1, "a")), hash(One(1, "b")), hash(One(2)), hash(Other(1))}) == 3
    assert One() != Other()
    assert Other() != 1
    assert repr(One(2)).endswith("One(size=2, label=None)")


def test_a_constructor_shows_what_it_takes() -> None:
    """To `help()` and to editors: types as declared, defaults as they come out."""

    @options.suggesting
    @frozen(eq=False, repr=False)
    class Given:
        limit: options.Seconds = options.seconds(60.0)
        label: str | None = options.checked(options.to_text, None, optional=True)
        made: list[int] = field(default=Factory(lambda: [1]), converter=list)
        shown: int = options.count(
            Factory(lambda self: 20, takes_self=True), metadata={"shown": 20}
        )

    found = inspect.signature(Given)
    assert str(found) == (
        "(limit: 'options.Seconds' = 60.0, label: 'str | None' = None, made: 'list[int]' = [1], "
        "shown: 'int' = 20)"
    )
    assert [*inspect.signature(Given.__init__).parameters] == ["self", *found.parameters]
