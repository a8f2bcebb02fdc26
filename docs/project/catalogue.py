"""Write docs/project/faults.md: the fault catalogue, and the tests that prove each entry.

    python docs/project/catalogue.py [--check]

The entries are kept in catalogue.csv. A test proves an entry by a mark with its number,
`@pytest.mark.fault(18)`, or with several, `@pytest.mark.fault(1, 2, 3)`. With --check nothing is
written; exit status 1 if the page is out of date, or a mark has a number that is no entry.
"""

from __future__ import annotations

import ast
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent.parent / "tests"
DATA = HERE / "catalogue.csv"
PAGE = HERE / "faults.md"
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
    "K": "Streams",
}


def entries() -> list[dict[str, str]]:
    """The catalogue's own words, in order."""
    with DATA.open(newline="", encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=_number)


def _number(entry: dict[str, str]) -> int:
    return int(entry["number"])


def marked_tests() -> Iterator[tuple[int, str]]:
    """Number and place for every mark of a test."""
    for path in sorted(TESTS.rglob("test_*.py")):
        file = path.relative_to(TESTS).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for decorator in node.decorator_list:
                    for number in _marks(decorator):
                        yield number, f"{file}::{node.name}"


def _marks(decorator: ast.expr) -> Iterator[int]:
    """The numbers in a decorator, those of a single parameter included."""
    for node in ast.walk(decorator):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.fault"):
            yield from (ast.literal_eval(number) for number in node.args)


def page(catalogue: list[dict[str, str]], tests: dict[int, list[str]]) -> str:
    """The whole of the page."""
    covered = [entry for entry in catalogue if _number(entry) in tests]
    lines = [
        "# What it survives",
        "",
        "Written by `python docs/project/catalogue.py`; do not edit. Each entry is proved by the "
        "tests that are marked with its number. Numbers that are missing belong to policies that "
        "do not exist yet.",
        "",
        f"{len(covered)} of {len(catalogue)} entries are covered.",
    ]
    for group, title in GROUPS.items():
        lines += ["", f"## {title}", "", "| | input | required | tests |", "|---|---|---|---|"]
        for entry in catalogue:
            if entry["group"] == group:
                shown = "<br>".join(f"`{test}`" for test in sorted(tests.get(_number(entry), ())))
                cells = [entry["number"], entry["input"], entry["behaviour"], shown or "none"]
                lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    missing = [entry for entry in catalogue if _number(entry) not in tests]
    lines += ["", "## Not covered", ""]
    lines += [_missing(entry) for entry in missing] or ["None."]
    return "\n".join(lines) + "\n"


def _missing(entry: dict[str, str]) -> str:
    why = f" ({entry['why']})" if entry.get("why") else ""
    return f"- {entry['number']}: {entry['input']}{why}"


def main() -> int:
    """Write the page, or check that it is up to date."""
    catalogue = entries()
    tests: dict[int, list[str]] = {}
    for number, test in marked_tests():
        if test not in tests.setdefault(number, []):
            tests[number].append(test)
    unknown = sorted(tests.keys() - set(map(_number, catalogue)))
    for number in unknown:
        sys.stderr.write(f"no entry {number}, but a mark on {tests[number][0]}\n")
    text = page(catalogue, tests)
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{PAGE} is not up to date: run python docs/project/catalogue.py\n")
        return 1
    return int(bool(unknown))


if __name__ == "__main__":
    raise SystemExit(main())
