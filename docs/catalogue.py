"""Write docs/faults.md: the fault catalogue, and the tests that show each entry.

    python docs/catalogue.py [--check]

The entries are kept in docs/catalogue.csv. A test shows an entry by carrying its number in its
name, `test_fault_018_...`, or several, `test_fault_001_002_003_...`. With --check nothing is
written; exit status 1 if the page is out of date, or a test carries a number that is no entry.
"""

from __future__ import annotations

import ast
import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = ROOT / "docs" / "catalogue.csv"
PAGE = ROOT / "docs" / "faults.md"
NAME = re.compile(r"test_fault((?:_\d{3})+)_\w")
GROUPS = {
    "A": "Cancellation and control flow",
    "B": "Threads, processes, locks",
    "C": "Clocks",
    "D": "What servers ask for",
    "E": "Exceptions",
    "F": "Configuration",
    "G": "Nesting and callables",
    "H": "Shared through Redis",
    "I": "Event loops and time limits",
    "J": "Listeners, secrets, resources",
}


def entries() -> list[dict[str, str]]:
    """The catalogue's own words, in order."""
    with DATA.open(newline="", encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=lambda entry: int(entry["number"]))


def named_tests() -> Iterator[tuple[int, str, str]]:
    """Number, file and name for every test that carries a number."""
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found = NAME.match(node.name)
                for number in found[1].split("_")[1:] if found else ():
                    yield int(number), path.name, node.name


def page(catalogue: list[dict[str, str]], tests: dict[int, list[tuple[str, str]]]) -> str:
    """The whole of docs/faults.md."""
    covered = [entry for entry in catalogue if int(entry["number"]) in tests]
    lines = [
        "# What it survives",
        "",
        "Written by `python docs/catalogue.py`; do not edit. Each entry is shown by the tests that "
        "carry its number. Numbers that are missing belong to policies that do not exist yet.",
        "",
        f"{len(covered)} of {len(catalogue)} entries are covered.",
    ]
    for group, title in GROUPS.items():
        lines += ["", f"## {title}", "", "| | input | required | tests |", "|---|---|---|---|"]
        for entry in catalogue:
            if entry["group"] == group:
                shown = "<br>".join(
                    f"`{file.removesuffix('.py')}::{name}`"
                    for file, name in sorted(tests.get(int(entry["number"]), ()))
                )
                cells = [entry["number"], entry["input"], entry["behaviour"], shown or "none"]
                lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    missing = [entry for entry in catalogue if int(entry["number"]) not in tests]
    lines += ["", "## Not covered", ""]
    lines += [_missing(entry) for entry in missing] or ["None."]
    return "\n".join(lines) + "\n"


def _missing(entry: dict[str, str]) -> str:
    why = f" ({entry['why']})" if entry.get("why") else ""
    return f"- {entry['number']}: {entry['input']}{why}"


def main() -> int:
    """Write the page, or look whether it is up to date."""
    catalogue = entries()
    tests: dict[int, list[tuple[str, str]]] = {}
    for number, file, name in named_tests():
        if (file, name) not in tests.setdefault(number, []):
            tests[number].append((file, name))
    unknown = sorted(tests.keys() - {int(entry["number"]) for entry in catalogue})
    for number in unknown:
        sys.stderr.write(f"no entry {number}, named by {tests[number][0][1]}\n")
    text = page(catalogue, tests)
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{PAGE} is not up to date: run python docs/catalogue.py\n")
        return 1
    return int(bool(unknown))


if __name__ == "__main__":
    raise SystemExit(main())
