"""The command `resilience`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

__all__ = ["main"]

_FAST = 8 / 60
"""Eight seconds for the minute: with its start, within fifteen on a slow machine."""

_LIVE_CALLS = 3


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
    missing = [name for name in ("auriko", "rich", "starlette", "uvicorn") if not find_spec(name)]
    if missing:
        return _usage(f'{", ".join(missing)} missing: pip install "resilience-policies[demo]"')
    if options.base_url and not options.live:
        return _usage("--base-url goes with --live")
    if options.live and not os.environ.get("AURIKO_API_KEY"):
        return _usage("--live needs a key in AURIKO_API_KEY")
    from .demo import scenario, show

    try:
        if options.live:
            return show.live(_LIVE_CALLS, options.base_url)
        return show.play(scenario.bad_minute(_FAST if options.fast else 1.0))
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("resilience", description="Resilience policies for LLM calls.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    demo = parser.add_subparsers(dest="command", title="commands").add_parser(
        "demo",
        help="a scripted bad minute against a local gateway, with the real Auriko client",
        description="A scripted bad minute against a local gateway, with the real Auriko client. "
        "Exit status 0 if every promise was held, 1 if one was broken.",
    )
    pace = demo.add_mutually_exclusive_group()
    pace.add_argument("--fast", action="store_true", help="eight seconds instead of 60")
    pace.add_argument(
        "--live",
        action="store_true",
        help="instead, a few calls to the real service with the key in AURIKO_API_KEY",
    )
    demo.add_argument("--base-url", metavar="URL", help="with --live: another address to call")
    parser.set_defaults(base_url=None, fast=False, live=False)
    return parser


def _usage(problem: str) -> int:
    print(f"resilience: {problem}", file=sys.stderr)
    return 2
