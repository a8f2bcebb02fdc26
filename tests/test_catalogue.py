"""The page of the fault catalogue tells what the tests show."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.steady]

ROOT = Path(__file__).parent.parent


def catalogue(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "docs" / "catalogue.py"), *args],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_page_is_up_to_date() -> None:
    """`python docs/catalogue.py` has been run since the last test was named."""
    done = catalogue(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_a_new_test_or_a_wrong_number_is_noticed(tmp_path: Path) -> None:
    """A test of that name makes the page out of date; a number without an entry is an error."""
    for name in ("catalogue.py", "catalogue.csv"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    (tmp_path / "tests").mkdir()
    test = tmp_path / "tests" / "test_it.py"
    test.write_text("async def test_fault_001_002_both() -> None: ...\n")
    assert catalogue(tmp_path, "--check").returncode == 1
    assert catalogue(tmp_path).returncode == 0
    assert catalogue(tmp_path, "--check").returncode == 0
    page = (tmp_path / "docs" / "faults.md").read_text()
    assert page.count("`test_it::test_fault_001_002_both`") == 2
    assert "- 3: " in page
    test.write_text("def test_fault_999_nothing() -> None: ...\n")
    done = catalogue(tmp_path)
    assert done.returncode == 1
    assert "999" in done.stderr


def test_the_page_of_codes_is_up_to_date() -> None:
    """`python docs/codes.py` has been run since the last code was named."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "codes.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
