"""The command `resilience`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["main"]

_FAST = 8 / 60
"""Eight seconds for the minute: with its start, within fifteen on a slow machine."""

_LIVE_CALLS = 3

_REPORT = Path("resilience-demo.html")

_IMPORTED = "The module is imported, so its code runs. "


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. Wrong usage ends in 2, as SystemExit from argparse."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.version:
        try:
            print(f"resilience {version('resilience-policies')}")
        except PackageNotFoundError:
            return _usage("not installed, so its version is not known")
        return 0
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as of `| head`; Python would complain once more while it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _demo(options: argparse.Namespace) -> int:
    missing = [name for name in ("auriko", "rich", "starlette", "uvicorn") if not find_spec(name)]
    if missing:
        return _usage(f'{", ".join(missing)} missing: pip install "resilience-policies[demo]"')
    return _live(options) if options.live else _play(options)


def _live(options: argparse.Namespace) -> int:
    if not os.environ.get("AURIKO_API_KEY"):
        return _usage("--live needs a key in AURIKO_API_KEY")
    if options.report:
        return _usage("--report does not go with --live")
    from .demo import show

    return show.live(_LIVE_CALLS, options.base_url)


def _play(options: argparse.Namespace) -> int:
    if options.base_url:
        return _usage("--base-url goes with --live")
    report = None if options.no_report else options.report or _REPORT
    if report and not _writable(report):
        return _usage(f"cannot write {report}: --report names another file, or --no-report")
    from .demo import scenario, show

    return show.play(scenario.bad_minute(_FAST if options.fast else 1.0), report_to=report)


def _writable(path: Path) -> bool:
    """Whether a file can be written there: checked before the minute is played."""
    if path.is_dir() or not path.parent.is_dir():
        return False
    return os.access(path if path.exists() else path.parent, os.W_OK)


def _explain(options: argparse.Namespace) -> int:
    from . import Pipeline, guarded
    from ._loading import LoadingError, load_target

    try:
        target = load_target(options.target)
        found = target.explain() if isinstance(target, Pipeline) else guarded(target).explain()
    except (LoadingError, TypeError) as problem:
        return _usage(str(problem))
    if options.html:
        print(found._repr_html_())
    else:
        print(found.mermaid() if options.mermaid else found)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from . import doctor
    from ._loading import LoadingError, load_module

    try:
        modules = [load_module(place) for place in options.modules]
    except LoadingError as problem:
        return _usage(str(problem))
    findings = doctor.examine(modules)
    print(doctor.page(findings))
    return 1 if any(each.trouble for each in findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("resilience", description="Resilience policies for LLM calls.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", title="commands")
    _add_demo(commands)
    _add_explain(commands)
    _add_doctor(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="a scripted bad minute against a local gateway, with the real Auriko client",
        description="A scripted bad minute against a local gateway, with the real Auriko client: "
        "bare, with its own retries, and with this library. Writes a report that compares them. "
        "Exit status 0 if every promise was held, 1 if one was broken.",
    )
    demo.set_defaults(run=_demo)
    pace = demo.add_mutually_exclusive_group()
    pace.add_argument("--fast", action="store_true", help="eight seconds instead of 60")
    pace.add_argument(
        "--live",
        action="store_true",
        help="instead, a few calls to the real service with the key in AURIKO_API_KEY",
    )
    demo.add_argument("--base-url", metavar="URL", help="with --live: another address to call")
    page = demo.add_mutually_exclusive_group()
    page.add_argument(
        "--report",
        metavar="PATH",
        type=Path,
        help=f"where to write the report, a page of HTML; {_REPORT} by default",
    )
    page.add_argument("--no-report", action="store_true", help="write no report")


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="a guarded function or a pipeline in plain words",
        description="What a guarded function's policies do: the most calls, the longest time, "
        f"what is done about each kind of failure. {_IMPORTED}"
        "Exit status 0; 2 if there is nothing to explain.",
    )
    explain.set_defaults(run=_explain)
    explain.add_argument(
        "target",
        metavar="module:function",
        help="or module:pipeline, module:object.method, path/to/file.py:function",
    )
    form = explain.add_mutually_exclusive_group()
    form.add_argument("--mermaid", action="store_true", help="a flowchart in Mermaid's language")
    form.add_argument("--html", action="store_true", help="a fragment of HTML")


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="versions, extras, and what needs attention in modules of yours",
        description="Versions and extras; for modules, which clients retry by themselves, which "
        "guarded functions have policies in an order that defeats one of them, and whether shared "
        f"storages can be reached. {_IMPORTED}"
        "Exit status 0, 1 if something needs attention, 2 if a module cannot be imported.",
    )
    doctor.set_defaults(run=_doctor)
    doctor.add_argument(
        "modules", metavar="module", nargs="*", help="a module's name, or path/to/file.py"
    )


def _usage(problem: str) -> int:
    print(f"resilience: {problem}", file=sys.stderr)
    return 2
