"""The pages that programs write are up to date, and their programs notice what they should."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.steady]

DOCS = Path(__file__).parents[2] / "docs"


def run(program: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(program), *args], capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    "program", ["circuit.py", "pictures.py", "project/catalogue.py", "project/codes.py"]
)
def test_a_page_is_up_to_date(program: str) -> None:
    """`python docs/PROGRAM` has been run since what it shows has changed."""
    done = run(DOCS / program, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_catalogue_goes_by_marks(tmp_path: Path) -> None:
    """A new mark makes the page out of date; one whose number is no entry is an error."""
    pages, tests = tmp_path / "docs" / "project", tmp_path / "tests" / "core"
    pages.mkdir(parents=True)
    tests.mkdir(parents=True)
    for name in ("catalogue.py", "catalogue.csv"):
        shutil.copy(DOCS / "project" / name, pages)
    program, test = pages / "catalogue.py", tests / "test_it.py"
    test.write_text(
        "@pytest.mark.fault(1, 2)\n"
        "async def test_both() -> None: ...\n"
        "@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.fault(5))])\n"
        "def test_of_one_parameter(n: int) -> None: ...\n"
    )
    assert run(program, "--check").returncode == 1
    assert run(program).returncode == 0
    assert run(program, "--check").returncode == 0
    page = (pages / "faults.md").read_text("utf-8")
    assert page.count("`core/test_it::test_both`") == 2
    assert page.count("`core/test_it::test_of_one_parameter`") == 1
    assert "- 3: " in page
    test.write_text("@pytest.mark.fault(999)\ndef test_nothing() -> None: ...\n")
    done = run(program)
    assert done.returncode == 1
    assert "999" in done.stderr
