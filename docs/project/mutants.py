"""Mutation testing: break the code in thousands of small ways, and see whether a test notices.

    python docs/project/mutants.py [PATTERN ...] [--sample N] [--report]

mutmut makes the mutants of the modules named in pyproject.toml ([tool.mutmut]), in a copy of the
project under mutants/, and keeps what became of each. The tests are collected once, and each
mutant gets a fork of that process which runs the tests that reach the mutated function, likeliest
first, until one fails.

With patterns (`resilience.waits*`) only those mutants are tried, again; with `--sample`, so many of
all, drawn by lot, and again the same ones for the same code; without either, those not tried yet,
which takes many hours. Then mutants.md, beside this file, is written; exit status 1 if fewer than
96 % of those tried were noticed.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import mutmut.__main__ as mutmut
import pytest
from attrs import frozen
from mutmut.configuration import config
from mutmut.core import MutmutCallStack
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.runners.harness import ListAllTestsResult, PytestRunner
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import change_cwd, walk_mutatable_files
from mutmut.utils.format_utils import mangled_name_from_mutant_name
from mutmut.workers.isolation import ForkRunner

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPY = ROOT / "mutants"
KILLERS = COPY / "killers.txt"
STATS = COPY / "mutmut-stats.json"
REASONS = HERE / "mutants.csv"
PAGE = HERE / "mutants.md"
REQUIRED = 96.0
WORKERS = 2


class Collected(PytestRunner):
    """Runs tests of a session that has been collected already."""

    def __init__(self, session: pytest.Session) -> None:
        super().__init__()
        self._session = session
        self._items = {item.nodeid: item for item in session.items}
        self._reached: Counter[str] = Counter()  # how many functions a test reaches

    def run_stats(self, *, tests: Iterable[str]) -> int:
        """Every test, noting which functions it reaches and how long it takes."""
        for name in tests or self._items:
            failed, seconds = self._run(name)
            if failed:
                print(f"{name} fails in the copy that holds the mutants")
                return 1
            state().duration_by_test[name] = seconds
            for function in state()._stats:
                state().tests_by_mangled_function_name[function].add(name)
            state()._stats.clear()
        return 0

    def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        """0 if all of them pass, 1 as soon as one fails."""
        function = mangled_name_from_mutant_name(mutant_name) if mutant_name else ""
        for name in self._likeliest_first(function, tests or self._items):
            failed, _ = self._run(name, quietly=True)
            if failed:
                with KILLERS.open("a") as file:
                    file.write(f"{function} {name}\n")
                return 1
        return 0

    def _likeliest_first(self, function: str, tests: Iterable[str]) -> list[str]:
        """Those that killed other mutants of the function; then those that reach little else."""
        killed: Counter[str] = Counter()
        if KILLERS.exists():
            for line in KILLERS.read_text().splitlines():
                where, _, name = line.partition(" ")
                killed[name] += where == function
        if not self._reached:  # filled by the run without a mutant, before there are forks
            for names in state().tests_by_mangled_function_name.values():
                self._reached.update(names)
        return sorted(tests, key=lambda name: (-killed[name], self._reached[name], name))

    def list_all_tests(self) -> ListAllTestsResult:
        return ListAllTestsResult(ids=set(self._items))

    def _run(self, name: str, *, quietly: bool = False) -> tuple[bool, float]:
        item = self._items[name]
        if quietly:
            item.repr_failure = _say_nothing  # its traceback would cost more than the test
        reports = _Reports()
        plugins = self._session.config.pluginmanager
        plugins.register(reports)
        try:
            with change_cwd(COPY):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        finally:
            plugins.unregister(reports)
        return reports.failed, reports.seconds


def _say_nothing(error: Any, style: Any = None) -> str:
    return "failed"


class _Reports:
    failed = False
    seconds = 0.0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = True
            print(report.longreprtext)
        self.seconds += report.duration


class Mutation:
    """In place of pytest's loop over the tests: mutmut's over the mutants."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self) -> tuple[str, str, str]:
        return "", "", ""  # mutmut tells how far it is

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        runner = ForkRunner(max_workers=WORKERS, test_runner=Collected(session), debug=False)
        runner.run_clean_tests = lambda tests: 0  # they were just run, for the statistics
        mutmut.get_mutant_runner = lambda max_workers=1: runner
        with change_cwd(ROOT):
            mutmut._run(self._patterns, WORKERS)
        return True


def names() -> list[str]:
    found: list[str] = []
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        found += data.exit_code_by_key
    return found


def test_mutants(patterns: tuple[str, ...], sample: int | None) -> None:
    # mutmut keeps its notes on who calls whom in a context variable. A coroutine that is freed
    # while that variable is set resets it in the middle, and the interpreter crashes; the notes
    # only serve to keep old results when code changes.
    MutmutCallStack.get = classmethod(lambda cls: (None, 0))
    MutmutCallStack.set = classmethod(lambda cls, value: None)
    MutmutCallStack.reset = classmethod(lambda cls, token: None)
    COPY.mkdir(exist_ok=True)
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.setup_source_paths()
    if mutmut.create_mutants(WORKERS).mutated:
        STATS.unlink(missing_ok=True)  # which tests reach a function may be others now
    if sample is not None:
        patterns = tuple(random.Random(1).sample(names(), sample))
    os.environ["PYTHONPATH"] = str(COPY / "src")  # for tests that start an interpreter
    settings = config()
    arguments = [*settings.pytest_add_cli_args, *settings.pytest_add_cli_args_test_selection]
    with change_cwd(COPY):
        status = pytest.main(["--rootdir=.", "-s", *arguments], plugins=[Mutation(patterns)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        sys.exit(int(status))


# What became of them


@frozen
class Mutant:
    """One change to the code, and what became of it: killed, timeout, survived, no tests, not
    checked, ..."""

    module: str
    function: str
    change: str
    fate: str

    @property
    def killed(self) -> bool:
        return self.fate in ("killed", "timeout")


def mutants() -> Iterator[Mutant]:
    """All of them; the change is worked out for those that live."""
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        module = str(path.relative_to("src/resilience"))
        for name, exit_code in data.exit_code_by_key.items():
            fate = status_by_exit_code[exit_code]
            told = fate in ("killed", "timeout", "not checked")
            change = "" if told else _change(name, path)
            yield Mutant(module, _function(name), change, fate)


def _function(name: str) -> str:
    """`Class.method` or `function`, out of the name mutmut gives."""
    mangled = name.rpartition(".")[2].rpartition("__mutmut_")[0]
    return mangled[2:] if mangled.startswith("x_") else mangled[2:].replace("ǁ", ".")


def _change(name: str, path: Path) -> str:
    """`old line -> new line`; of lines that only moved nothing is said."""
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    old = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    new = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return f"{old} -> {new}"


def reason(mutant: Mutant, known: list[dict[str, str]]) -> str:
    """Why no test can or should tell it from the code; empty if nobody has said."""
    for entry in known:
        named = fnmatch(f"{mutant.module}:{mutant.function}", entry["where"])
        if named and entry["change"] in mutant.change:
            return entry["reason"]
    return ""


def page(found: list[Mutant], known: list[dict[str, str]], made: int) -> str:
    """The whole of the page, about the mutants found; so many were made."""
    drawn = "" if len(found) == made else f" These are {len(found):,} of {made:,}, drawn by lot."
    lines = [
        "# Mutants",
        "",
        "Written by `make mutation`; do not edit. mutmut breaks the code in one place at a time, "
        "and the tests are run until one fails. A mutant that no test notices is a gap in the "
        "tests, or changes nothing that anybody could see; the reasons are kept in "
        "`mutants.csv`.",
        "",
        "Tried are all of `policies/`, `circuit/` (but not its `redis/`), `_core/`, `policy.py`, "
        "`failures.py`, `matching.py` and `waits.py`, as far as mutmut goes: bodies of functions, "
        "but not of those with a decorator (properties), and neither class bodies nor module-level "
        "code. Nothing else is left out, messages included. Not run are tests marked `real`, the "
        "few that look at frames of the stack, which mutmut adds to, and those that make thousands "
        f"of calls (see pyproject.toml).{drawn}",
        "",
        "| module | mutants | killed | alive | killed, % |",
        "|---|---|---|---|---|",
    ]
    by_module: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in found:
        by_module[mutant.module].append(mutant)
    for module, those in [*by_module.items(), ("all", found)]:
        killed = sum(mutant.killed for mutant in those)
        share = f"{100 * killed / len(those):.1f}"
        lines.append(f"| {module} | {len(those)} | {killed} | {len(those) - killed} | {share} |")
    by_reason: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant in found:
        if not mutant.killed:
            where = f"{mutant.module.removesuffix('.py')}: {mutant.function}"
            by_reason[reason(mutant, known)][f"{where}: `{mutant.change}`"] += 1
    unread = by_reason.pop("", Counter())
    lines += ["", "## Alive, with the reason"]
    for why, those in sorted(by_reason.items(), key=lambda item: -item[1].total()):
        lines += ["", f"### {why} ({those.total()})", "", *_listed(those)]
    lines += ["", f"## Alive, without one ({unread.total()})", "", *_listed(unread)]
    return "\n".join(lines).rstrip() + "\n"


def _listed(mutants: Counter[str]) -> Iterator[str]:
    for told, count in mutants.items():
        yield f"- {told}" + (f" ({count} times)" if count > 1 else "")


def report() -> bool:
    """Write the page; true if enough mutants were killed."""
    with REASONS.open(newline="", encoding="utf-8") as file:
        known = list(csv.DictReader(file))
    made = list(mutants())
    found = [mutant for mutant in made if mutant.fate != "not checked"]
    PAGE.write_text(page(found, known, len(made)), encoding="utf-8")
    killed = sum(mutant.killed for mutant in found)
    share = 100 * killed / len(found)
    print(f"{killed} of {len(found)} mutants killed: {share:.1f} % (required: {REQUIRED:.0f} %)")
    return share >= REQUIRED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="only these mutants, again")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn by lot")
    parser.add_argument("--report", action="store_true", help="try none, only write the page")
    given = parser.parse_args()
    os.chdir(ROOT)
    if not given.report:
        test_mutants(tuple(given.patterns), given.sample)
    if not report():
        sys.exit(1)


if __name__ == "__main__":
    main()
