"""What is in a module: guarded functions, pipelines, and the clients that both are near to."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from attrs import frozen

from resilience._core.functions import underlying
from resilience._core.guard import guard_of
from resilience._core.pipeline import Pipeline
from resilience.policies.models import ModelFallback
from resilience.sdks.clients import _WRAP
from resilience.sdks.retries import Source, source_of

__all__ = ["Guarding", "clients_of", "guardings_of"]


@frozen(eq=False)
class Guarding:
    """A pipeline, and the function that it guards, if it is not one for any."""

    name: str
    pipeline: Pipeline
    fn: Any = None


def guardings_of(module: ModuleType) -> Iterator[Guarding]:
    """The guarded functions and clients of a module, those of its classes, too; and pipelines that
    guard none of them."""
    guarding: set[Pipeline] = set()
    for name, value in _values(module):
        guard = guard_of(_function(value))
        wrap = _facts(value).get(_WRAP)
        if guard is not None:
            guarding.add(guard.pipeline)
            yield Guarding(name, guard.pipeline, guard.fn)
        elif type(wrap) is MethodType and isinstance(wrap.__self__, Pipeline):
            guarding.add(wrap.__self__)
            yield Guarding(name, wrap.__self__)
    for name, value in _values(module):
        if _is(value, Pipeline) and value not in guarding:
            yield Guarding(name, value)


def _function(value: Any) -> Any:
    """The function in a method or property."""
    if _is(value, classmethod, staticmethod, MethodType):
        return value.__func__
    return value.fget if _is(value, property) else value


def _values(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The values of a module, and what its own classes and their instances have, by name."""
    for name, value in _facts(module).items():
        yield name, value
        kind = value if _is(value, type) else type(value)
        if kind.__module__ == module.__name__:
            for part, inner in _facts(value).items():
                yield f"{name}.{part}", inner


# A module may have proxies that stand for nothing just now: of a request that nobody serves, of
# settings that nobody has made. They raise whatever they are asked, their class included.


def _is(thing: Any, *kinds: type) -> bool:
    return issubclass(type(thing), kinds)


def _facts(thing: Any) -> dict[str, Any]:
    """The attributes of an object itself."""
    try:
        return dict(vars(thing))
    except Exception:
        return {}


def _source(thing: Any) -> Source | None:
    try:
        return source_of(thing)
    except Exception:
        return None


def clients_of(module: ModuleType, found: Iterable[Guarding]) -> Iterator[tuple[str, Source]]:
    """Clients that `retries_of` knows, each once: in the module, and where guarded functions and
    models have them."""
    seen: set[int] = set()
    for name, value in (*_values(module), *_held(found)):
        if _is(value, type, ModuleType) or guard_of(_function(value)) is not None:
            continue
        source = _source(value)
        if source is not None and id(source.client) not in seen:
            seen.add(id(source.client))
            yield name, source


def _held(found: Iterable[Guarding]) -> Iterator[tuple[str, Any]]:
    """What guarded functions, and the functions of models, can reach by name."""
    for each in found:
        if each.fn is not None:
            yield from _around(each.name, each.fn)
        for policy in each.pipeline._flat:
            if isinstance(policy, ModelFallback):
                for model in policy.models:
                    if model.call is not None:
                        yield from _around(f"{each.name}: {model.name}", model.call)


def _around(name: str, fn: Any) -> Iterator[tuple[str, Any]]:
    """A function itself (it may be a client's), its variables, and what it is bound to has."""
    yield name, fn
    while isinstance(fn, functools.partial):
        yield from ((name, value) for value in (*fn.args, *fn.keywords.values()))
        fn = fn.func
    if type(fn) is MethodType:
        yield from _parts(name, fn.__self__)
    function = underlying(fn)
    if type(function) is not FunctionType:
        return
    for variable, value in _closure(function):
        yield f"{name}: {variable}", value
        yield from _parts(f"{name}: {variable}", value)
    for variable in function.__code__.co_names:
        if variable in function.__globals__:
            yield variable, function.__globals__[variable]
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield name, value


def _closure(function: FunctionType) -> Iterator[tuple[str, Any]]:
    cells = function.__closure__ or ()
    for variable, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # it is empty yet
            continue
        yield variable, value


def _parts(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object, unless it is a client or a class."""
    if not _is(thing, type, ModuleType) and _source(thing) is None:
        for part, value in _facts(thing).items():
            yield f"{name}.{part}", value
