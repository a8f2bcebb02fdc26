"""Check the types of the examples in the README and the pages of docs/: mypy --strict on each.

    python docs/check_types.py

Each block of Python is a file of its own, beside those of docs/examples.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
FILES = ROOT / "docs" / "examples"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


def examples() -> Iterator[tuple[str, str, str]]:
    """For each example its name (page and number), its code, and what it prints."""
    for page in PAGES:
        name = page.stem.lower().replace("-", "_")
        for number, (code, printed) in enumerate(BLOCK.findall(page.read_text("utf-8")), start=1):
            yield f"{name}_{number}", code, printed


def main() -> int:
    """Show what mypy finds; its exit status."""
    with TemporaryDirectory() as folder:
        for name, code, _ in examples():
            (Path(folder) / f"{name}.py").write_text(code, encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "."],
            cwd=folder,  # away from the project's own settings
            env={**os.environ, "MYPYPATH": str(FILES)},
        ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
