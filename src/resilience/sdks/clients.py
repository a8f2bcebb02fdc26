"""Clients whose calling methods are guarded: which methods those are, and how a client is copied.

The copy is of a class made for the purpose, a subclass of the client's own. What is in the table
is guarded where it is first reached; everything else is the client's as it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

from .retries import package_of

__all__ = ["copy_of"]

C = TypeVar("C")
Tree: TypeAlias = "dict[str, Tree | None]"
"""Resources by their names, down to methods, which have None."""
Wrap: TypeAlias = Callable[[Any], Any]

_WRAP = "_resilience_wrap"
_SOURCE = "_resilience_source"
_VIEWS = ("with_raw_response", "with_streaming_response")


def _tree(table: Mapping[str, str]) -> Tree:
    root: Tree = {}
    for path, methods in table.items():
        at = root
        for name in filter(None, path.split(".")):
            found = at.setdefault(name, {})
            assert found is not None
            at = found
        at.update(dict.fromkeys(methods.split()))
    return root


_OPENAI = _tree(
    {
        "audio.speech": "create",
        "audio.transcriptions": "create",
        "audio.translations": "create",
        "beta.chat.completions": "create parse",
        "beta.responses": "create",
        "chat.completions": "create parse",  # `stream` calls `create`
        "completions": "create",
        "embeddings": "create",
        "images": "create_variation edit generate",
        "moderations": "create",
        "responses": "create parse",
    }
)
_ANTHROPIC = _tree(
    {
        "beta.messages": "count_tokens create parse stream",
        "completions": "create",
        "messages": "count_tokens create parse stream",
    }
)
_AURIKO = _tree({"chat.completions": "create", "responses": "create"})
_MISTRAL = _tree(
    {
        "agents": "complete complete_async stream stream_async",
        "audio.speech": "complete complete_async",
        "audio.transcriptions": "complete complete_async stream stream_async",
        "beta.conversations": "start start_async start_stream start_stream_async append "
        "append_async append_stream append_stream_async",
        "chat": "complete complete_async stream stream_async",  # `parse` calls these
        "classifiers": "classify classify_async classify_chat classify_chat_async moderate "
        "moderate_async moderate_chat moderate_chat_async",
        "embeddings": "create create_async",
        "fim": "complete complete_async stream stream_async",
        "ocr": "process process_async",
        "responses": "create create_async",
    }
)
_COHERE = _tree(
    {
        "": "chat chat_stream classify embed generate generate_stream rerank summarize",
        "v2": "chat chat_stream embed rerank",
        "with_raw_response": "chat embed rerank",
    }
)
_GOOGLE_ASYNC = _tree(
    {
        "_models": "count_tokens edit_image embed_content generate_content "
        "generate_content_stream generate_images generate_videos recontext_image segment_image "
        "upscale_image",
        "interactions": "create",
    }
)
_GOOGLE: Tree = {**_GOOGLE_ASYNC, "_aio": _GOOGLE_ASYNC}

_CLIENTS: Mapping[str, Mapping[str, Tree]] = {
    "anthropic": dict.fromkeys(("SyncAPIClient", "AsyncAPIClient"), _ANTHROPIC),
    "auriko": dict.fromkeys(("Client", "AsyncClient"), _AURIKO),
    "cohere": dict.fromkeys(("BaseCohere", "AsyncBaseCohere"), _COHERE),
    "google.genai": {"Client": _GOOGLE, "AsyncClient": _GOOGLE_ASYNC},
    "groq": dict.fromkeys(("SyncAPIClient", "AsyncAPIClient"), _OPENAI),
    "mistralai": dict.fromkeys(("Mistral", "MistralAzure", "MistralGCP"), _MISTRAL),
    "openai": dict.fromkeys(("SyncAPIClient", "AsyncAPIClient"), _OPENAI),
}
"""For each package the classes that make a class one of its clients, and what is guarded there."""


def copy_of(client: C, wrap: Wrap) -> C:
    """A copy of a client that has `wrap` around its calling methods.

    TypeError for what is no client of the packages in the table.
    """
    for base in type(client).__mro__:
        tree = _CLIENTS.get(package_of(base.__module__), {}).get(base.__name__)
        if tree is not None:
            made = _copied(client, tree, wrap)
            # Some clients close their connections when they go: these two share them.
            vars(made)[_SOURCE] = client
            return cast(C, made)
    given = f"the class {client.__name__}" if isinstance(client, type) else type(client).__name__
    raise TypeError(
        f"wrap_client takes a client of {', '.join(sorted(_CLIENTS))}, got {given}: guard what "
        f"makes the call by Pipeline.wrap instead"
    )


def _copied(thing: Any, tree: Tree, wrap: Wrap, old: Any = None, new: Any = None) -> Any:
    """A copy of a client, or of a part of client `old` for its copy `new`."""
    before = vars(thing).get(_WRAP)
    cls = type(thing) if before is not None else _class_for(type(thing), tree)
    made: Any = object.__new__(cls)
    if old is None:
        old, new = thing, made
    for name, value in vars(thing).items():
        if name not in _VIEWS:  # they have methods as they were
            vars(made)[name] = _moved(value, old, new)
    for name in tree.keys() & vars(made).keys():
        vars(made)[name] = _guarded(vars(made)[name], tree[name], wrap, old, new)
    vars(made)[_WRAP] = wrap if before is None else lambda fn: wrap(before(fn))
    return made


def _guarded(found: Any, tree: Tree | None, wrap: Wrap, old: Any, new: Any) -> Any:
    return wrap(found) if tree is None else _copied(found, tree, wrap, old, new)


def _moved(value: Any, old: Any, new: Any) -> Any:
    """What a part holds of its client, or the client's own, for the copy."""
    if value is old:
        return new
    if type(value) is MethodType and value.__self__ is old:
        return MethodType(value.__func__, new)
    return value


class _Lazy:
    """A method or resource that is guarded when it is first reached, and then kept in the
    instance: no `property`, so that this is found first."""

    def __init__(self, tree: Tree | None) -> None:
        self.tree = tree

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __get__(self, thing: Any, owner: type | None = None) -> Any:
        if thing is None:
            return self
        try:
            found = getattr(super(self.owner, thing), self.name)
        except AttributeError:
            if not hasattr(self.owner, "__getattr__"):
                raise
            found = self.owner.__getattr__(thing, self.name)
        wrap = vars(thing).get(_WRAP)
        if wrap is not None:
            found = _guarded(found, self.tree, wrap, thing, thing)
            vars(thing)[self.name] = found
        return found


_classes: WeakKeyDictionary[type, type] = WeakKeyDictionary()


def _class_for(cls: type, tree: Tree) -> type:
    """The subclass for guarded instances, one for all pipelines."""
    made = _classes.get(cls)
    if made is None:
        body: dict[str, Any] = {name: _Lazy(part) for name, part in tree.items()}
        body |= {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        for name in ("copy", "with_options"):
            if hasattr(cls, name):
                body[name] = _copying(getattr(cls, name))
        if hasattr(cls, "__del__"):  # the client that was copied closes what they share
            body["__del__"] = lambda self: None
        made = _classes.setdefault(cls, type(cls)(cls.__name__, (cls,), body))
    return made


def _copying(method: Callable[..., Any]) -> Callable[..., Any]:
    """A client's method that makes another of its class: guarded like itself."""

    @functools.wraps(method)
    def copied(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = method(self, *args, **kwargs)
        vars(made)[_WRAP] = vars(self)[_WRAP]
        return made

    return copied
