"""What may import what; and that importing the library is light."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import resilience

ROOT = Path(resilience.__file__).parent
CLIENTS = {"openai", "auriko", "anthropic", "httpx", "httpx2", "requests", "aiohttp", "redis"}
CLOCKS = {"time", "random", "asyncio", "trio", "anyio", "concurrent", "socket", "sniffio"}


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in it, as an absolute name."""
    package = ("resilience", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            yield from (f"{module}.{name.name}" for name in node.names)


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files("policies"), ids=name)
def test_policies_reach_for_no_runtime_clock_or_sdk(path: Path) -> None:
    """A policy waits, looks at a clock and draws random numbers through its runtime only."""
    found = set(imports(path))
    assert not {module for module in found if module.split(".")[0] in CLOCKS | CLIENTS}
    for forbidden in ("_runtimes", "_shared", "sdks", "integrations", "testing", "demo"):
        assert not any(module.startswith(f"resilience.{forbidden}") for module in found)


@pytest.mark.parametrize("path", files("_core"), ids=name)
def test_the_core_knows_no_policy(path: Path) -> None:
    """Policies are known by what they offer (a role, `rests`, `watch`), not by name."""
    found = set(imports(path))
    for forbidden in ("policies", "integrations", "testing", "demo", "decorator"):
        assert not any(module.startswith(f"resilience.{forbidden}") for module in found)
    if path.name != "world.py":
        assert not {module for module in found if module.split(".")[0] in CLOCKS}


@pytest.mark.parametrize("path", files("."), ids=name)
def test_nobody_imports_a_client_library(path: Path) -> None:
    """Errors are known by their class's package; the demo, a program, uses a client, and what
    shares circuits through Redis uses redis-py."""
    if "demo" not in path.parts and path != ROOT / "_shared" / "wires.py":
        assert not {module for module in imports(path) if module.split(".")[0] in CLIENTS}


@pytest.mark.parametrize("path", files("."), ids=name)
def test_no_line_is_excused_from_being_tested(path: Path) -> None:
    """`make coverage` counts them all: no comment takes a line or a branch out."""
    assert "pragma" not in path.read_text().lower()


def test_only_the_trio_runtime_and_the_test_kit_import_trio() -> None:
    """trio is used where the user has it."""
    users = {
        name(path)
        for path in files(".")
        if any(module.split(".")[0] == "trio" for module in imports(path))
    }
    assert users == {"_runtimes/trio_.py", "testing/_worlds.py"} or users < {
        "_runtimes/trio_.py",
        "testing/_worlds.py",
        "testing/gateway.py",
    }


@pytest.mark.real
def test_fault_124_importing_the_library_is_light() -> None:
    """No client library, no redis, no pybreaker, no trio; no thread, no event loop."""
    code = """
import sys, threading
import resilience
from resilience import *
@resilient(Timeout(60), ModelFallback("a", "b"), Retry(), CircuitBreaker(key="model"), Timeout(9))
def f(model): return model
assert f("a") == "a"
bad = {"openai", "auriko", "httpx", "httpx2", "redis", "pybreaker", "trio", "rich", "starlette"}
print(sorted(bad & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".errors",
        ".events",
        ".failures",
        ".matching",
        ".policies",
        ".shared",
        ".testing",
        ".typing",
        ".waits",
    ],
)
def test_every_public_name_is_there(module: str) -> None:
    """`__all__` tells the truth, sorted."""
    found = importlib.import_module(f"resilience{module}")
    assert found.__all__ == sorted(found.__all__, key=_ruff_order)
    for each in found.__all__:
        assert hasattr(found, each)


def _ruff_order(each: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each in alphabetical order."""
    return (0 if each.isupper() else 1 if each[0].isupper() else 2, each)


def test_the_contracts_names_are_where_it_says() -> None:
    """The table at the end of the API: what is in the package and what in its modules."""
    top = "resilient Pipeline Guarded Outcome Attempt history current_attempt served_by"
    top += " Consecutive FailureRate SlowCalls"
    top += " PolicyOrderWarning Retry CircuitBreaker ModelFallback Model Fallback Timeout"
    assert set(top.split()) <= set(resilience.__all__)
    for module, names in {
        "waits": "RetryAfter Exponential Fixed Linear FullJitter Decorrelated",
        "failures": "describe Failure Kind Advice",
        "matching": "status code kind raised Match TRANSIENT RECOVERABLE SERVICE_FAULT",
        "shared": "RedisCircuit",
        "testing": "virtual_time disabled script Gateway",
        "errors": """ResilienceError RejectedError CircuitOpenError WorkersBusyError
            DeadlineExceededError""",
    }.items():
        found = importlib.import_module(f"resilience.{module}")
        assert set(names.split()) <= set(found.__all__)


def test_state_names_are_pybreakers() -> None:
    """Existing storages and listeners speak of the same three states."""
    import pybreaker

    from resilience.policies import _circuit

    assert _circuit.CLOSED == pybreaker.STATE_CLOSED
    assert _circuit.OPEN == pybreaker.STATE_OPEN
    assert _circuit.HALF_OPEN == pybreaker.STATE_HALF_OPEN
