"""The README's examples run, and print what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text(), re.DOTALL)


def test_every_example_says_what_it_prints() -> None:
    """No example without an output that is compared."""
    assert len(BLOCKS) == README.read_text().count("```python")
    assert BLOCKS


@pytest.mark.real
@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=lambda text: text.split("\n", 1)[0][:20])
def test_example(code: str, printed: str) -> None:
    """Pasted into a file of its own, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout == printed
