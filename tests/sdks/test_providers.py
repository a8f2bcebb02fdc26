"""What every SDK's real errors are read as: its client, over a socket, and a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from attrs import fields

from providers.faults import FAULTS, Fault
from providers.server import serving
from resilience.failures import Failure, describe

pytestmark = [pytest.mark.real, pytest.mark.steady]

EXPECTED = Path(__file__).parent / "providers" / "expected"
COLUMNS = [field.name for field in fields(Failure) if field.name != "error"]


def installed(package: str) -> bool:
    """Is there such a package? find_spec raises where its parent is missing (google.genai)."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


NAMES = [path.stem for path in EXPECTED.glob("*.csv") if path.stem.isidentifier()]
PROVIDERS = {name: import_module(f"providers.{name}") for name in NAMES}
HERE = sorted(name for name, module in PROVIDERS.items() if installed(module.PACKAGE))
"""Those of this environment; `make test-sdks` has one for those that do not go together."""


def rows(path: Path) -> dict[str, dict[str, str]]:
    """For each fault, the class that comes out and the fields of its Failure."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["fault"]: row for row in csv.DictReader(file)}


def read(name: str) -> dict[str, dict[str, str]]:
    """A provider's table, with the rows of its own of the version that is here.

    `litellm-1.106.csv` has those that are others with LiteLLM 1.106.
    """
    table = rows(EXPECTED / f"{name}.csv")
    for path in EXPECTED.glob(f"{name}-*.csv"):
        _, _, which = path.stem.partition("-")
        if f"{version(PROVIDERS[name].PACKAGE)}.".startswith(f"{which}."):
            table |= rows(path)
    return table


def told(error: Exception) -> dict[str, str]:
    """An error, as a row of the table has it."""
    failure = describe(error)
    assert failure.error is error
    values = {name: getattr(failure, name) for name in COLUMNS}
    written = {name: "" if value is None else str(value) for name, value in values.items()}
    return {"error": type(error).__name__, **written}


COLOURS = [
    (name, way) for name in HERE for way in ("fail", "fail_async") if hasattr(PROVIDERS[name], way)
]


@pytest.fixture(scope="module", params=COLOURS, ids="-".join)
def provider(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any, Any]]:
    """An SDK, how it is called, and the server that fails like its provider."""
    name, way = request.param
    with serving(PROVIDERS[name]) as server:
        yield name, getattr(PROVIDERS[name], way), server


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_every_fault_is_read_as_the_table_says(
    fault: Fault, provider: tuple[str, Any, Any]
) -> None:
    """The whole Failure, for each fault and both colours of the client."""
    name, call, server = provider
    expected = read(name)[fault.name]
    try:
        result = call(server.url(fault), streaming=fault.how == "stream")
    except Exception as error:
        found = told(error)
    else:
        found = {"error": f"({type(result).__name__})"}  # this SDK takes it for an answer
    assert {"fault": fault.name, **found} == {
        key: value for key, value in expected.items() if key in found or key == "fault"
    }
    if len(found) == 1:
        assert not any(expected[column] for column in COLUMNS)


def test_a_version_has_no_rows_but_its_own() -> None:
    """What a version has in common with the others is not told twice."""
    for path in EXPECTED.glob("*-*.csv"):
        common, own = rows(EXPECTED / f"{path.stem.partition('-')[0]}.csv"), rows(path)
        assert own
        assert not [fault for fault, row in own.items() if common[fault] == row]
