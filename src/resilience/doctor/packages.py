"""What the installed distribution requires, with its extras, and whether that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from attrs import frozen

__all__ = ["NAME", "Requirement", "extras", "requirements"]

NAME = "resilience-policies"

_LINE = re.compile(
    r"(?P<name>[\w.-]+)\s*(?:\[(?P<extras>[^]]*)\])?\s*\(?(?P<range>[^;)]*)\)?\s*(?:;(?P<marker>.*))?"
)
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w.-]+)["']""")
_COMPARISON = re.compile(r"(>=|<=|==|!=|~=|>|<)\s*([\w.*+!-]+)")


@frozen
class Requirement:
    """A package and the range that its version must be in, for an extra; for None, always.

    `more`: extras of the package itself.
    """

    name: str
    range: str
    extra: str | None
    more: tuple[str, ...]

    @property
    def installed(self) -> str | None:
        """The installed version."""
        try:
            return version(self.name)
        except PackageNotFoundError:
            return None

    def allows(self, found: str) -> bool:
        """Whether a version is in the range, by its release number."""
        return all(
            _holds(_release(found), sign, limit) for sign, limit in _COMPARISON.findall(self.range)
        )


def requirements() -> list[Requirement]:
    """All of the distribution's; PackageNotFoundError if it is not installed."""
    return [_parsed(line) for line in requires(NAME) or ()]


def extras(found: list[Requirement]) -> dict[str, list[Requirement]]:
    """For each extra the packages that it brings, those of other extras that it includes, too."""
    names = dict.fromkeys(each.extra for each in found if each.extra is not None)
    return {name: list(_brought(name, found)) for name in names}


def _brought(extra: str, found: list[Requirement]) -> Iterator[Requirement]:
    for each in found:
        if each.extra == extra and each.name != NAME:
            yield each
        elif each.extra == extra:
            for other in each.more:
                yield from _brought(other, found)


def _parsed(line: str) -> Requirement:
    match = _LINE.match(line)
    assert match is not None
    marker = _EXTRA.search(match["marker"] or "")
    more = tuple(each.strip() for each in (match["extras"] or "").split(",") if each.strip())
    return Requirement(
        match["name"], match["range"].strip(), None if marker is None else marker[1], more
    )


def _holds(found: tuple[int, ...], sign: str, limit: str) -> bool:
    least = _release(limit)
    length = max(len(found), len(least))
    own, other = _padded(found, length), _padded(least, length)
    if limit.endswith(".*"):
        return (own[: len(least)] == least) is (sign == "==")
    return {
        ">=": own >= other,
        "<=": own <= other,
        ">": own > other,
        "<": own < other,
        "==": own == other,
        "!=": own != other,
        "~=": own >= other and own[: len(least) - 1] == least[:-1],
    }[sign]


def _padded(release: tuple[int, ...], length: int) -> tuple[int, ...]:
    return release + (0,) * (length - len(release))


def _release(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()
