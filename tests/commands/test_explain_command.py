"""`resilience explain`, as a user runs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience import cli
from support.commands import run, write

pytestmark = [pytest.mark.real, pytest.mark.steady]

APP = """
    from resilience import Pipeline, Retry, Timeout, resilient

    print("noise")
    robust = Pipeline(Timeout(9), name="robust")

    @resilient(Retry(attempts=7))
    def ask(question):
        return question

    class Bot:
        @resilient(Retry(attempts=4))
        def chat(self): ...

        @property
        def broken(self):
            raise RuntimeError("sk-canary")

    bot = Bot()
    def plain(): ...
"""


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The path is that of the installed command; modules that are imported here are forgotten."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith("resilience"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app:ask", "at most 7 in all"),
        ("app:Bot.chat", "at most 4 in all"),
        ("app:bot.chat", "at most 4 in all"),
        ("app:robust", "at most 9 s"),
        ("app.py:ask", "at most 7 in all"),
        (os.path.join(".", "app.py:robust"), "robust, outermost first"),
    ],
)
def test_what_can_be_explained(tmp_path: Path, target: str, said: str) -> None:
    """Functions, methods and pipelines of a module or a file. What the module prints goes to the
    error output."""
    write(tmp_path, "app", APP)
    done = run(tmp_path, "explain", target)
    assert (done.returncode, done.stderr) == (0, "noise\n")
    assert said in done.stdout


def test_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Mermaid and as HTML."""
    write(tmp_path, "app_of_pictures", APP)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", "app_of_pictures:ask", "--mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD")
    assert cli.main(["explain", "app_of_pictures:ask", "--html"]) == 0
    assert capsys.readouterr().out.startswith("<div")


@pytest.mark.fault(338)
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app", "module:function"),
        ("app:", "module:function"),
        (":ask", "module:function"),
        ("nowhere:ask", "no module 'nowhere'"),
        ("app.nowhere:ask", "no module 'app.nowhere'"),
        ("not a name:ask", "ends in .py"),
        ("nowhere.py:ask", "no file 'nowhere.py'"),
        ("app:askk", "did you mean 'ask'?"),
        ("app:zzz", "app has no 'zzz'"),
        ("app:bot.zzz", "app.bot has no 'zzz'"),
        ("app:bot.broken", "app.bot.broken raised RuntimeError"),
        ("app:plain", "plain is not guarded"),
        ("app:bot", "is not guarded"),
        ("raising:ask", "importing raising raised ValueError"),
        ("exiting:ask", "importing exiting raised SystemExit"),
        ("skipping:ask", "importing skipping raised Skipped"),
        ("garbled:ask", "importing garbled raised SyntaxError"),
        ("needy:ask", "ModuleNotFoundError for 'nowhere_at_all'"),
        ("needy.py:ask", "ModuleNotFoundError for 'nowhere_at_all'"),
    ],
)
def test_what_cannot_be_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    said: str,
) -> None:
    """One line that says what is wrong, without what an error says, and status 2."""
    write(tmp_path, "app", APP)
    write(tmp_path, "raising", "KEY = 'sk-canary'\nraise ValueError(KEY)")
    write(tmp_path, "exiting", "raise SystemExit('sk-canary')")
    write(tmp_path, "skipping", "class Skipped(BaseException): pass\nraise Skipped('sk-canary')")
    write(tmp_path, "garbled", "def ask(:\n    'sk-canary'")
    write(tmp_path, "needy", "import nowhere_at_all")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", target]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = [line for line in output.err.splitlines() if line != "noise"]
    assert line.startswith("resilience: ")
    assert said in line
    assert "canary" not in line


@pytest.mark.fault(338)
def test_where_an_import_fails_is_said(tmp_path: Path) -> None:
    """The file and the line; no traceback."""
    path = write(tmp_path, "raising", "KEY = 'sk-canary'\nraise ValueError(KEY)")
    done = run(tmp_path, "explain", "raising:ask")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"({path}, line 2)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_in_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ends the command with status 130, as a shell has it."""
    write(tmp_path, "interrupted", "raise KeyboardInterrupt")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", "interrupted:ask"]) == 130


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipe")
def test_a_reader_that_has_read_enough(tmp_path: Path) -> None:
    """`| head -1`: no traceback, and the status of a program that SIGPIPE ends."""
    write(tmp_path, "app", APP)
    read, write_end = os.pipe()
    os.close(read)
    done = run(tmp_path, "explain", "app:ask", to=write_end)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "noise\n")


def test_the_help_says_that_the_module_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    """For both commands that take one."""
    for command in ("explain", "doctor"):
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0
        assert "module is imported" in " ".join(capsys.readouterr().out.split())
