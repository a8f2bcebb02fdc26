"""Whether what the distribution requires is there: read from its metadata."""

from __future__ import annotations

from importlib.metadata import requires, version

import pytest

from resilience.doctor import packages
from resilience.doctor.packages import Requirement, extras, requirements

LINES = [
    "attrs>=24.1",
    "tenacity<10,>=8.2.3",
    "starlette>=0.37; extra == 'testing'",
    'resilience-policies[testing, redis]; extra == "demo"',
    "rich (>=13) ; extra == 'demo'",
    "redis; extra == 'redis'",
]


def test_requirements_are_those_of_the_metadata() -> None:
    """Every line of the installed distribution, with its extra."""
    found = requirements()
    assert len(found) == len(requires("resilience-policies") or ())
    core = {each.name for each in found if each.extra is None}
    assert core == {"tenacity", "pybreaker", "attrs"}
    for each in found:
        if each.extra is None:
            assert each.installed == version(each.name)
            assert each.allows(version(each.name))


def test_an_extra_brings_what_others_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it includes them."""
    monkeypatch.setattr(packages, "requires", lambda name: LINES)
    found = extras(requirements())
    names = {extra: [each.name for each in brought] for extra, brought in found.items()}
    assert names == {
        "testing": ["starlette"],
        "demo": ["starlette", "redis", "rich"],
        "redis": ["redis"],
    }
    assert [each.range for each in requirements()] == [
        ">=24.1",
        "<10,>=8.2.3",
        ">=0.37",
        "",
        ">=13",
        "",
    ]


@pytest.mark.parametrize(
    ("range", "inside", "outside"),
    [
        (">=8.2.3,<10", ("8.2.3", "9.1", "9.1.4.post1", "8.2.3.0"), ("8.2.2", "10", "10.0.0rc1")),
        ("<=2.0", ("1.9.9", "2"), ("2.0.1",)),
        (">1", ("1.1",), ("1.0", "1")),
        ("==1.2", ("1.2", "1.2.0"), ("1.2.1",)),
        ("==1.2.*", ("1.2", "1.2.9"), ("1.3",)),
        ("!=1.2", ("1.2.1",), ("1.2",)),
        ("!=1.2.*", ("1.3",), ("1.2.9",)),
        ("~=1.4.2", ("1.4.2", "1.4.9"), ("1.5", "1.4.1")),
        ("", ("1", "odd"), ()),
    ],
)
def test_ranges(range: str, inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
    """By the numbers of the release."""
    required = Requirement("any", range, None, ())
    assert all(required.allows(each) for each in inside)
    assert not any(required.allows(each) for each in outside)


def test_what_is_not_installed() -> None:
    """Has no version."""
    assert Requirement("no-such-package-at-all", "", None, ()).installed is None
