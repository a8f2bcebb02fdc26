"""The command `resilience`, as a user runs it: in a process of its own, in a folder of modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

__all__ = ["run", "write"]


def write(folder: Path, name: str, code: str) -> Path:
    """A module of the user's."""
    path = folder / f"{name}.py"
    path.write_text(dedent(code), encoding="utf-8")
    return path


def run(
    folder: Path, *arguments: str, to: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """The command, run in a folder, with the same library as the tests; `to`: where it prints."""
    path = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return subprocess.run(
        [sys.executable, "-m", "resilience", *arguments],
        cwd=folder,
        stdout=to,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, path))},
    )
