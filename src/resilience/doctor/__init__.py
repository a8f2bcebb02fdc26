"""What needs attention: versions, extras, and in modules clients that retry by themselves, orders
that defeat a policy, and shared storages that cannot be reached. For the command `resilience`.
"""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata
from types import ModuleType
from typing import Any

from attrs import frozen

from resilience._core.order import hazards
from resilience._core.outside import start_job
from resilience._core.pipeline import Pipeline
from resilience.circuit.redis.clients import LoopClient
from resilience.policies.breaker import CircuitBreaker
from resilience.sdks.retries import Source
from resilience.shared import RedisCircuit

from .finding import Guarding, clients_of, guardings_of
from .packages import NAME, Requirement, extras, requirements

__all__ = ["Finding", "examine", "page"]

_PATIENCE = 5.0
"""Seconds for which a storage's reply is waited for."""
_WIDTH = 100


@frozen
class Finding:
    """One line: what it is about, in a section; `trouble` needs attention."""

    section: str
    subject: str
    words: str
    trouble: bool = False


def examine(modules: Iterable[ModuleType] = ()) -> list[Finding]:
    """Look at the installation and at modules that have been imported. Nothing is called but shared
    storages, once each: a ping, or the read of a state."""
    named = [(module, list(guardings_of(module))) for module in modules]
    retrying = max((each.pipeline._attempts for _, found in named for each in found), default=1.0)
    findings = list(_installation())
    for module, found in named:
        findings += _of_module(module, found, retrying)
    return findings


def page(findings: Iterable[Finding]) -> str:
    """The findings as text: sections of aligned lines, "!" before what needs attention."""
    findings = list(findings)
    width = max(len(each.subject) for each in findings)
    lines: list[str] = []
    section = None
    for each in findings:
        if each.section != section:
            section = each.section
            lines += ["", section]
        start = f"{'!' if each.trouble else ' '} {each.subject:{width}}  "
        lines += textwrap.wrap(
            each.words, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start)
        )
    troubles = sum(each.trouble for each in findings)
    closing = f"! {troubles} to look at" if troubles else "Nothing needs attention."
    return "\n".join([*lines[1:], "", closing])


def _installation() -> Iterator[Finding]:
    section = "Installation"
    try:
        about, needed = metadata(NAME), requirements()
    except PackageNotFoundError:
        yield Finding(section, "Python", platform.python_version())
        yield Finding(section, "resilience", "not installed: the ranges it allows are not known")
        return
    python = Requirement("Python", about["Requires-Python"] or "", None, ())
    yield _version(section, python, platform.python_version())
    yield Finding(section, "resilience", about["Version"])
    for each in needed:
        if each.extra is None:
            yield _version(section, each, each.installed)
    for extra, brought in extras(needed).items():
        for each in brought:
            yield _version(f"Extra {extra}", each, each.installed)


def _version(section: str, required: Requirement, found: str | None) -> Finding:
    allowed = f"({required.range})" if required.range else ""
    if found is None:
        missing = required.extra is None
        return Finding(section, required.name, f"not installed {allowed}".rstrip(), missing)
    if required.allows(found):
        return Finding(section, required.name, f"{found} {allowed}".rstrip())
    return Finding(section, required.name, f"{found} is not in the range {allowed}", True)


def _of_module(module: ModuleType, found: list[Guarding], retrying: float) -> Iterator[Finding]:
    section = f"Module {module.__name__}"
    for each in found:
        trouble = tuple(hazards(each.pipeline._flat))
        for hazard in trouble:
            yield Finding(section, each.name, hazard, True)
        if not trouble:
            yield Finding(section, each.name, "no hazard in the order of its policies")
    if not found:
        yield Finding(section, "functions", "none is guarded, in its globals and classes")
    clients = [(name, source) for name, source in clients_of(module, found) if source.retries()]
    for name, source in clients:
        yield _client(section, name, source, retrying)
    if not clients:
        yield Finding(section, "clients", "none is found that retries by itself")
    for storage in _storages(each.pipeline for each in found):
        yield _storage(section, storage)


def _client(section: str, name: str, source: Source, retrying: float) -> Finding:
    retries = source.retries() or 0
    kind = type(source.thing)
    words = f"{kind.__module__.partition('.')[0]}'s {kind.__qualname__} repeats a failed request "
    words += f"up to {retries:g} times by itself"
    if retrying > 1:
        words += f"; with a Retry of {retrying:g} attempts up to {retrying * (1 + retries):g}"
        words += " requests: own_retries(client) switches its own off"
    return Finding(section, name, words, retrying > 1)


def _storages(pipelines: Iterable[Pipeline]) -> list[Any]:
    """The shared storages of breakers, each once."""
    found = {
        id(policy.storage): policy.storage
        for pipeline in pipelines
        for policy in pipeline._flat
        if isinstance(policy, CircuitBreaker) and policy.storage is not None
    }
    return list(found.values())


def _storage(section: str, storage: Any) -> Finding:
    name = type(storage).__name__
    ask = _question(storage)
    if ask is None:
        return Finding(section, name, "a function of the key gives the storage: not checked")
    try:
        job = start_job(ask)
        if not job.wait(_PATIENCE):
            return Finding(section, name, f"no reply within {_PATIENCE:g} s", True)
        job.outcome()
    except Exception as problem:
        return Finding(section, name, f"cannot be reached ({type(problem).__name__})", True)
    return Finding(section, name, "can be reached")


def _question(storage: Any) -> Callable[[], object] | None:
    """A function that fails where a storage does not reply."""
    if isinstance(storage, RedisCircuit):
        asking = storage._server.client
        client: Any = (asking.twin if isinstance(asking, LoopClient) else asking).client
        return lambda: client.ping()
    return None if callable(storage) else lambda: storage.state
