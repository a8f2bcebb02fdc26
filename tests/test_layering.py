"""What may import what; and that importing the library is light."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import resilience
from resilience import policies
from resilience.policy import Gate, Policy

ROOT = Path(resilience.__file__).parent
CLIENTS = {"openai", "auriko", "anthropic", "httpx", "httpx2", "requests", "aiohttp", "redis"}
CLOCKS = {"time", "random", "sched", "asyncio", "trio", "anyio", "sniffio", "concurrent"}
OUTSIDE = {"socket", "ssl", "select", "selectors", "http", "urllib", "email", "subprocess"}
"""What waits, looks at a clock, or talks to the world."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """A file's name as Python knows it."""
    parts = ("resilience", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in sorted(ROOT.rglob("*.py"))}


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The syntax of a file, piece by piece."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in it and for whatever purpose, by its whole name.

    `from package import module` is an import of the module, and of nothing else in the package.
    """
    parts = module(path).split(".")
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(filter(None, (*above, node.module)))
            for each in node.names:
                whole = f"{base}.{each.name}"
                yield whole if whole in MODULES else base


def outside(path: Path) -> set[str]:
    """The packages of others that a file imports."""
    return {each.split(".")[0] for each in imports(path)} - {"resilience"}


def inside(path: Path) -> set[str]:
    """The parts of ours that a file imports: what comes first after `resilience`."""
    return {each.split(".")[1] for each in imports(path) if each.startswith("resilience.")}


# Who may import whom


@pytest.mark.parametrize("path", files("policies", "circuit"), ids=name)
def test_policies_and_circuits_reach_for_no_runtime_clock_or_sdk(path: Path) -> None:
    """A policy waits, looks at a clock and draws random numbers through its runtime only; what
    shares circuits through Redis speaks redis-py's two dialects."""
    allowed = {"asyncio", "redis"} if name(path) == "circuit/redis/clients.py" else set()
    assert not outside(path) & (CLOCKS | OUTSIDE | CLIENTS) - allowed
    assert not inside(path) & {"_runtimes", "sdks", "integrations", "testing", "demo"}


@pytest.mark.parametrize("path", files("_core"), ids=name)
def test_the_core_knows_no_policy(path: Path) -> None:
    """Policies are known by the contract, not by name; one file has the clocks."""
    forbidden = {"policies", "circuit", "integrations", "testing", "demo", "decorator", "shared"}
    assert not inside(path) & forbidden
    assert not outside(path) & (OUTSIDE | CLIENTS)
    if path.name != "clock.py":
        assert not outside(path) & CLOCKS
    used: set[object] = {node.id for node in nodes(path) if isinstance(node, ast.Name)}
    used |= {node.attr for node in nodes(path) if isinstance(node, ast.Attribute)}
    used |= {node.value for node in nodes(path) if isinstance(node, ast.Constant)}
    assert not used & set(policies.__all__)


@pytest.mark.parametrize("path", files("."), ids=name)
def test_nobody_imports_integrations_or_a_client_library(path: Path) -> None:
    """Errors are known by their class's package; the demo, a program, uses a client, and what
    shares circuits through Redis uses redis-py."""
    if "integrations" not in path.parts:
        assert "integrations" not in inside(path)
    if "demo" not in path.parts and name(path) != "circuit/redis/clients.py":
        assert not outside(path) & CLIENTS


def test_the_contract_stands_on_the_core_alone() -> None:
    """What a policy may use is in one place, and knows neither policies nor runtimes."""
    assert inside(ROOT / "policy.py") == {"_core", "errors", "events"}
    assert outside(ROOT / "policy.py") <= set(sys.stdlib_module_names)


def test_only_the_trio_runtime_and_the_test_kit_import_trio() -> None:
    """trio is used where the user has it."""
    users = {name(path) for path in files(".") if "trio" in outside(path)}
    assert users <= {"_runtimes/trio_.py", "testing/_worlds.py", "testing/gateway.py"}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of files each of which leads to all the others of its group."""

    def reached(start: str) -> set[str]:
        found, left = set[str](), [start]
        while left:
            for each in graph[left.pop()] - found:
                found.add(each)
                left.append(each)
        return found

    leads = {each: reached(each) for each in graph}
    groups = [
        frozenset(other for other in leads[each] if each in leads[other])
        for each in graph
        if each in leads[each]
    ]
    return [set(group) for group in dict.fromkeys(groups)]


def test_a_circle_is_found() -> None:
    """Of two files or of several; a file that many import is none."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str](), "e": {"d", "a"}}
    assert circles(graph) == [{"a", "b", "c"}]
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"c"}}) == [{"a", "b"}, {"c"}]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set[str]()}) == []


def test_no_files_import_one_another() -> None:
    """In no circle, imports for types only and imports inside functions included."""
    graph = {
        each: {target for target in imports(path) if target in MODULES and target != each}
        for each, path in MODULES.items()
    }
    assert sum(map(len, graph.values())) > 200
    assert circles(graph) == []


HOOKS = {each for cls in (Policy, Gate) for each in vars(cls) if not each.startswith("_")}


@pytest.mark.parametrize("path", files("."), ids=name)
def test_no_hook_is_looked_for_by_its_name(path: Path) -> None:
    """The contract has a default for each: nobody asks whether a policy has it."""
    for node in nodes(path):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "hasattr")
        ):
            wanted = node.args[1]
            assert not (isinstance(wanted, ast.Constant) and wanted.value in HOOKS)


@pytest.mark.parametrize("path", files("."), ids=name)
def test_no_line_is_excused_from_being_tested(path: Path) -> None:
    """`make coverage` counts them all: no comment takes a line or a branch out."""
    assert "pragma" not in path.read_text().lower()


# What an import costs


def modules_after(code: str) -> set[str]:
    """What a new interpreter has imported after `code`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.fault(124)
@pytest.mark.real
def test_importing_the_library_is_light() -> None:
    """No client library, no redis, no pybreaker, no trio, whatever is made and called."""
    code = """
import threading
import resilience
from resilience import *
@resilient(Timeout(60), ModelFallback("a", "b"), Retry(), CircuitBreaker(key="model"), Timeout(9))
def f(model): return model
assert threading.active_count() == 1
assert f("a") == "a"
"""
    bad = {"openai", "auriko", "httpx", "httpx2", "redis", "pybreaker", "trio", "rich", "starlette"}
    assert not bad & modules_after(code)


@pytest.mark.fault(124)
@pytest.mark.real
def test_importing_the_library_takes_no_event_loop_and_no_network_along() -> None:
    """asyncio, ssl, email and urllib are not imported, but for what attrs and tenacity import."""
    new = modules_after("import resilience") - modules_after("import attrs, tenacity")
    assert not {each.split(".")[0] for each in new} & {"asyncio", "ssl", "email", "urllib"}


@pytest.mark.fault(124)
@pytest.mark.real
def test_what_few_need_is_imported_where_it_is_first_needed() -> None:
    """Policies, each by itself; of a breaker, what shares and what rates take."""
    new = modules_after("import resilience")
    assert not {each for each in new if each.startswith(("resilience.policies.", "resilience.cir"))}
    new = modules_after("from resilience import CircuitBreaker; CircuitBreaker().close()")
    assert "resilience.circuit.machine" in new
    assert not {f"resilience.circuit.{each}" for each in ("storage", "trip", "snapshot")} & new
    assert "resilience.policies.retry" not in new


@pytest.mark.parametrize("package", [resilience, policies], ids=lambda package: package.__name__)
def test_a_package_tells_its_names(package: Any) -> None:
    """Those that are imported where first needed, too; a name that is not there is an error."""
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="Retri"):
        package.Retri  # noqa: B018


# What is there


@pytest.mark.parametrize(
    "each",
    [
        "",
        ".errors",
        ".events",
        ".failures",
        ".integrations.logging",
        ".integrations.structlog",
        ".matching",
        ".policies",
        ".policy",
        ".shared",
        ".testing",
        ".waits",
    ],
)
def test_every_public_name_is_there(each: str) -> None:
    """`__all__` tells the truth, sorted."""
    found = importlib.import_module(f"resilience{each}")
    assert found.__all__ == sorted(found.__all__, key=_ruff_order)
    for public in found.__all__:
        assert hasattr(found, public)


def _ruff_order(each: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each in alphabetical order."""
    return (0 if each.isupper() else 1 if each[0].isupper() else 2, each)


def test_the_contracts_names_are_where_it_says() -> None:
    """The table at the end of the API: what is in the package and what in its modules."""
    top = """resilient guarded Pipeline Guarded Outcome Attempt history current_attempt served_by
        Policy Gate Consecutive FailureRate SlowCalls PolicyOrderWarning Retry CircuitBreaker
        ModelFallback Model Fallback Timeout BadResult BadResultError"""
    assert set(top.split()) <= set(resilience.__all__)
    for where, names in {
        "policy": """Policy Gate Call Branch Journal Runtime Waiter Semaphore InHand Completion
            PendingResult BUSY NO_VERDICT""",
        "waits": "RetryAfter Exponential Fixed Linear FullJitter Decorrelated",
        "failures": "describe describe_result control_flow Failure Kind Advice",
        "matching": """status code kind raised message Match TRANSIENT RECOVERABLE SERVICE_FAULT
            TOO_LONG_BY_TEXT""",
        "shared": "RedisCircuit",
        "testing": "virtual_time disabled script Gateway",
        "errors": """ResilienceError RejectedError CircuitOpenError WorkersBusyError
            DeadlineExceededError BadResultError""",
    }.items():
        found = importlib.import_module(f"resilience.{where}")
        assert set(names.split()) <= set(found.__all__)


def test_what_the_first_edition_had_is_gone() -> None:
    """No alias is kept for an old name."""
    for old in ("typing", "_shared", "_core.record", "_core.around", "_core.line"):
        assert f"resilience.{old}" not in MODULES
    assert "on_result" not in inspect.signature(resilience.Retry).parameters


def test_state_names_are_pybreakers() -> None:
    """Existing storages and listeners speak of the same three states."""
    import pybreaker

    from resilience.circuit import states

    assert states.CLOSED == pybreaker.STATE_CLOSED
    assert states.OPEN == pybreaker.STATE_OPEN
    assert states.HALF_OPEN == pybreaker.STATE_HALF_OPEN
