"""The command `resilience`, above all its demo: real gateways, the real SDK, real seconds."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from resilience import CircuitBreaker, ModelFallback, Pipeline, Retry, Timeout
from resilience.cli import main
from resilience.demo import show
from resilience.demo.phase import Limits
from resilience.demo.run import standard
from resilience.demo.scenario import Scenario, bad_minute
from resilience.testing.gateway import Error, Gateway, Ok

pytestmark = pytest.mark.real

KEY = "sk-of-nobody"


class Fast:
    """`resilience demo --fast` in a process of its own, begun before the other tests here."""

    def __init__(self, report: Path) -> None:
        self.report = report
        self._began = time.monotonic()
        demo = ["-m", "resilience", "demo", "--fast", "--report", str(report)]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", *demo],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
        )
        self.took: float | None = None

    def output(self) -> str:
        if self.took is None:
            self._out, self._err = self._process.communicate(timeout=50)
            self.took = time.monotonic() - self._began
        assert (self._process.returncode, self._err) == (0, ""), self._out
        return self._out

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module", autouse=True)
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fast]:
    fast = Fast(tmp_path_factory.mktemp("demo") / "report.html")
    yield fast
    fast.stop()


@pytest.fixture(autouse=True)
def wide_and_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AURIKO_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def row(output: str, name: str) -> list[str]:
    """The table's row of that name, in words."""
    found = re.search(rf"^{name} +(\d.*)$", output, re.MULTILINE)
    assert found, output
    return found[1].split()


# The fast demo


def test_the_fast_demo_keeps_every_promise(fast: Fast) -> None:
    """It ends with status 0, no promise broken, and says so for each phase."""
    output = fast.output()
    assert "broken" not in output
    for phase in bad_minute().phases:
        assert len(re.findall(rf"^held +{phase.name} ", output, re.MULTILINE)) == len(
            phase.promises
        )


def test_the_table_tells_what_the_pipeline_and_the_bare_client_answered(fast: Fast) -> None:
    """Asked, answered, by which model, attempts, longest wait, and the bare client's answers."""
    output = fast.output()
    assert row(output, "healthy") == ["6", "6", "6", "gpt-4o", "6", "6"]
    limited = row(output, "rate limited")
    assert limited[:4] == ["8", "8", "8", "gpt-4o"]
    assert int(limited[4]) > 8  # attempts
    assert float(limited[5]) >= 0.26  # the Retry-After of 2 s, at that speed
    assert int(limited[6]) < 8
    assert row(output, "quota spent") == ["4", "0", "4", "0"]
    total = row(output, "in all")
    assert total[0] == "53"
    assert int(total[1]) > int(total[-1]) > 0


def test_a_line_is_printed_for_each_attempt(fast: Fast) -> None:
    """As many lines as the table counts attempts; no colours in a pipe."""
    output = fast.output()
    assert "\x1b" not in output
    lines = re.findall(r"^ *\d+\.\d\d  [a-z ]{15} +\d+\.\d ", output, re.MULTILINE)
    assert len(lines) == int(row(output, "in all")[-3])


def test_its_last_line_names_the_report(fast: Fast) -> None:
    """A page, which has what the table has."""
    assert fast.output().splitlines()[-1] == f"report: {fast.report}"
    total = row(fast.output(), "in all")
    answered = re.search(r"calls answered</th>(.*)</tr>", fast.report.read_text())
    assert answered
    cells = re.findall(r"<td>(\d+)</td>", answered[1])
    assert (cells[-1], cells[0]) == (total[1], total[-1])


# Promises are checks


def only(*names: str) -> Scenario:
    """The minute in a few seconds, these phases alone."""
    minute = bad_minute(1 / 20)
    return evolve(minute, phases=tuple(p for p in minute.phases if p.name in names))


def pipeline(change: Callable[[Limits, list[Any]], list[Any]]) -> Callable[..., Pipeline]:
    """A builder of the standard pipeline, changed."""

    def build(limits: Limits, listeners: Sequence[Callable[[Any], object]]) -> Pipeline:
        policies = change(limits, list(standard(limits).policies))
        return Pipeline(*policies, listeners=listeners)

    return build


def without(kind: type) -> Callable[[Limits, list[Any]], list[Any]]:
    return lambda limits, policies: [each for each in policies if not isinstance(each, kind)]


def without_attempt_timeout(limits: Limits, policies: list[Any]) -> list[Any]:
    return policies[:-1]


def repeating_everything(limits: Limits, policies: list[Any]) -> list[Any]:
    again = Retry(limits.attempts, on=Exception, wait=0.01)
    return [again if isinstance(each, Retry) else each for each in policies]


def hasty(limits: Limits, policies: list[Any]) -> list[Any]:
    soon = Retry(limits.attempts, wait=limits.backoff, patience=limits.patience)
    return [soon if isinstance(each, Retry) else each for each in policies]


@pytest.mark.filterwarnings("ignore::resilience.PolicyOrderWarning")
@pytest.mark.parametrize(
    ("phase", "change", "broken"),
    [
        ("rate limited", hasty, "no retry before Retry-After is over"),
        ("one model down", without(ModelFallback), "every call is answered"),
        ("one model down", without(CircuitBreaker), "circuits halve"),
        ("hung model", without_attempt_timeout, "every call is answered"),
        ("hung model", without(Timeout), "every caller knows within"),
        ("everything down", without(CircuitBreaker), "circuits halve"),
        ("quota spent", repeating_everything, "RateLimitError insufficient_quota"),
    ],
)
def test_a_pipeline_that_lacks_a_policy_breaks_a_promise(
    phase: str, change: Any, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 and the word "broken" at the promise that the missing policy would have kept."""
    assert show.play(only(phase), pipeline(change)) == 1
    assert re.search(rf"^broken +{phase} +{broken}", capsys.readouterr().out, re.MULTILINE)


def test_a_retry_without_within_waits_for_a_circuit(capsys: pytest.CaptureFixture[str]) -> None:
    """A caller who meets one open circuit and two failing models would wait for the first."""

    def patient(limits: Limits, policies: list[Any]) -> list[Any]:
        return list(standard(evolve(limits, within=limits.total)).policies)

    assert show.play(only("hung model", "everything down"), pipeline(patient)) == 1
    assert re.search(r"^broken +everything down every caller", capsys.readouterr().out, re.M)


def test_recovery_needs_the_circuits_to_close_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A breaker that stays open far longer than promised breaks the promise of recovery."""

    def stuck(limits: Limits, policies: list[Any]) -> list[Any]:
        slow = CircuitBreaker(limits.failures, 60, key="model")
        return [slow if isinstance(each, CircuitBreaker) else each for each in policies]

    assert show.play(only("everything down", "recovery"), pipeline(stuck)) == 1
    assert re.search(r"^broken +recovery ", capsys.readouterr().out, re.MULTILINE)


# Usage


@pytest.mark.parametrize(
    "arguments", [["demo", "--slow"], ["rehearse"], ["demo", "--fast", "--live"]]
)
def test_unknown_arguments_end_in_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As argparse does it, with the usage on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: resilience" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: resilience"),
        (["demo", "--live"], "AURIKO_API_KEY"),
        (["demo", "--base-url", "http://127.0.0.1:1/v1"], "--live"),
    ],
)
def test_wrong_usage_returns_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a word of what is missing on standard error, and nothing else."""
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert output.out == ""


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 and the command that installs it, no traceback."""
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["demo", "--fast"]) == 2
    said = capsys.readouterr().err
    assert "rich" in said
    assert 'pip install "resilience-policies[demo]"' in said


def test_the_version_is_the_installed_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--version` asks the installed distribution."""
    monkeypatch.setattr("resilience.cli.version", {"resilience-policies": "1.2.3"}.__getitem__)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "resilience 1.2.3\n"


def test_the_version_of_a_source_tree_is_not_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing is installed that is said, with status 2."""

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("resilience.cli.version", missing)
    assert main(["--version"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "not installed" in output.err


def test_ctrl_c_ends_the_demo_quietly() -> None:
    """Status 130, as a shell has it, and no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "resilience", "demo", "--fast"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    try:
        assert process.stdout is not None
        while not re.match(r" *\d+\.\d\d ", process.stdout.readline()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, problem = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, problem) == (130, "")


def test_importing_the_commands_module_runs_nothing() -> None:
    """`python -m resilience` runs it; tools that import every module of a package do not."""
    module = importlib.import_module("resilience.__main__")
    assert module.main is main


def test_the_command_is_installed() -> None:
    """The distribution has the entry point `resilience`."""
    found = metadata.distribution("resilience-policies").entry_points
    assert [entry.value for entry in found if entry.name == "resilience"] == ["resilience.cli:main"]


# Live


@pytest.mark.parametrize(
    ("plan", "status", "answered"),
    [(Ok(), 0, 3), (Error("invalid_api_key"), 1, 0), (["upstream_error", Ok()], 0, 3)],
    ids=["well", "refused", "shaky"],
)
def test_live_calls_go_to_the_given_address(
    plan: Any,
    status: int,
    answered: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A few real calls with the key from the environment, which is sent but never printed."""
    monkeypatch.setenv("AURIKO_API_KEY", KEY)
    with Gateway(plan, api_key=KEY) as gateway:
        assert main(["demo", "--live", "--base-url", gateway.base_url]) == status
        assert len(gateway.requests) == 3 + (plan == ["upstream_error", Ok()])
    output = capsys.readouterr()
    assert f"{answered} of 3 calls answered" in output.out
    assert KEY not in output.out + output.err
