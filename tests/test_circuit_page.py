"""The page about circuits shows the states that the code has, and its example runs."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.real
def test_the_drawing_is_up_to_date() -> None:
    """`python docs/circuit.py` has been run since the table was changed."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "circuit.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


def test_the_example_prints_what_it_says() -> None:
    """Every block of Python in the page, with the output that follows it."""
    page = (DOCS / "circuit.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert blocks
    for code, output in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, {})
        assert printed.getvalue() == output
