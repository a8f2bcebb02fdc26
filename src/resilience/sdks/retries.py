"""Who retries: how often a client repeats a request by itself, and how that is switched off.

A client is known by the package of its class, and each package has one small class here that says
where its clients keep their number. No client library is imported.
"""

from __future__ import annotations

import copy
import functools
import math
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import FunctionType, MappingProxyType, MethodType
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

from attrs import evolve, frozen

from resilience._core.stack import outside

__all__ = [
    "RetryMultiplicationWarning",
    "check_retries",
    "is_checked",
    "own_retries",
    "retries_of",
    "source_of",
]

T = TypeVar("T")

_DEEP = 20  # functions around functions
_INNER = ("func", "method")  # what cohere's wrappers, which have no `__wrapped__`, call them


class RetryMultiplicationWarning(UserWarning):
    """A guarded method's client retries as well; the message has the figure."""


class _Kind(ABC):
    """How the clients of one package retry. `thing` is a client, or a part of one."""

    def client(self, thing: Any) -> Any:
        """What stands for the client as a whole: it has the number."""
        return thing

    @abstractmethod
    def retries(self, source: Source) -> float:
        """Retries after a failed request; infinite where only their time is limited."""

    @abstractmethod
    def switch_off(self, thing: Any) -> None:
        """Have it make none, from now on."""


@frozen(eq=False, repr=False)
class Source:
    """Where a function's requests come from, with the arguments that partials have bound."""

    kind: _Kind
    thing: Any
    client: Any
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def retries(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = MappingProxyType({})
    ) -> float | None:
        """Its own retries in a call with these arguments; None if they cannot be read."""
        args, kwargs = (*self.args, *args), {**self.kwargs, **kwargs}
        try:
            found = max(0, self.kind.retries(evolve(self, args=args, kwargs=kwargs)))
            return int(found) if math.isfinite(found) else found
        except Exception:  # another version of the library
            return None


class _Stainless(_Kind):
    """An attribute of the client, read for each request."""

    def client(self, thing: Any) -> Any:
        return thing if hasattr(thing, "max_retries") else thing._client

    def retries(self, source: Source) -> float:
        return float(source.client.max_retries)

    def switch_off(self, thing: Any) -> None:
        self.client(thing).max_retries = 0


class _Speakeasy(_Kind):
    """A `RetryConfig`, of the client or of the call."""

    def client(self, thing: Any) -> Any:
        return thing.sdk_configuration

    def retries(self, source: Source) -> float:
        config: Any = source.kwargs.get("retries", source.client.retry_config)
        if config is not None and not hasattr(config, "strategy"):  # it stands for "not given"
            config = source.client.retry_config
        strategy = getattr(config, "strategy", "none")
        if strategy == "attempt-count-backoff":
            return float(_part(config, "max_retries") or 0)
        return math.inf if strategy == "backoff" else 0

    def switch_off(self, thing: Any) -> None:
        held = self.client(thing)
        if hasattr(held.retry_config, "strategy"):
            held.retry_config = copy.copy(held.retry_config)
            held.retry_config.strategy = "none"


class _Google(_Speakeasy):
    """tenacity objects of the client; its newer resources, such as interactions, have a config of
    their own and retry by default."""

    def client(self, thing: Any) -> Any:
        if hasattr(thing, "sdk_configuration"):
            return super().client(thing)
        thing = getattr(thing, "_modules", thing)  # of a chat
        return thing._api_client

    def retries(self, source: Source) -> float:
        if hasattr(source.thing, "sdk_configuration"):
            return super().retries(source)
        options = _part(_part(source.kwargs.get("config"), "http_options"), "retry_options")
        if options is not None:
            attempts = _part(options, "attempts")
            return float(5 if attempts is None else attempts) - 1
        return float(source.client._retry.stop.max_attempt_number) - 1

    def switch_off(self, thing: Any) -> None:
        if hasattr(thing, "sdk_configuration"):
            return super().switch_off(thing)
        held = self.client(thing)
        # For resources that are made later, and the one silent retry over aiohttp.
        none = sys.modules["google.genai.types"].HttpRetryOptions(attempts=0)
        held._http_options.retry_options = none
        stop = type(held._retry.stop)(1)
        held._retry = held._retry.copy(stop=stop)
        held._async_retry = held._async_retry.copy(stop=stop)
        for part in (thing, getattr(thing, "_aio", None)):
            for resource in getattr(part, "__dict__", {}).values():
                if hasattr(resource, "sdk_configuration"):
                    super().switch_off(resource)
        return None


class _Cohere(_Kind):
    """An attribute of its HTTP client, or an option of the call. Streams are never retried."""

    def client(self, thing: Any) -> Any:
        return thing._client_wrapper.httpx_client

    def retries(self, source: Source) -> float:
        if source.name in ("chat_stream", "generate_stream"):
            return 0
        options = source.kwargs.get("request_options") or {}
        return float(options.get("max_retries", source.client.base_max_retries))

    def switch_off(self, thing: Any) -> None:
        self.client(thing).base_max_retries = 0


class _Botocore(_Kind):
    """A handler of the client's events; its configuration has the number if that was given."""

    def retries(self, source: Source) -> float:
        config = source.thing.meta.config.retries
        attempts = config.get("total_max_attempts")
        if attempts is None:
            dynamo = source.thing.meta.service_model.service_name.startswith("dynamodb")
            standard, legacy = (4, 10) if dynamo else (3, 5)
            attempts = legacy if config.get("mode") == "legacy" else standard
        return float(attempts) - 1

    def switch_off(self, thing: Any) -> None:
        service = thing.meta.service_model.service_id.hyphenize()
        thing.meta.events.unregister(f"needs-retry.{service}", unique_id=f"retry-config-{service}")
        thing.meta.config.retries = {**thing.meta.config.retries, "total_max_attempts": 1}


class _Requests(_Kind):
    """urllib3's `Retry`, of each adapter of a session."""

    def retries(self, source: Source) -> float:
        at = 1 if source.name == "request" else 0
        url = source.kwargs.get("url", source.args[at] if len(source.args) > at else None)
        adapters = self._adapters(source.thing)
        if url is not None and hasattr(source.thing, "get_adapter"):
            adapters = [source.thing.get_adapter(url)]
        return max((_most(each) for each in adapters), default=0)

    def switch_off(self, thing: Any) -> None:
        for each in self._adapters(thing):
            if hasattr(each, "max_retries"):
                each.max_retries = each.max_retries.new(total=0, read=False, status_forcelist=())

    def _adapters(self, thing: Any) -> list[Any]:
        return list(thing.adapters.values()) if hasattr(thing, "adapters") else [thing]


class _Httpx(_Kind):
    """The retries of connecting, of each transport's pool."""

    def retries(self, source: Source) -> float:
        return max((float(pool._retries) for pool in self._pools(source.thing)), default=0)

    def switch_off(self, thing: Any) -> None:
        for pool in self._pools(thing):
            pool._retries = 0

    def _pools(self, thing: Any) -> Iterator[Any]:
        transports = [thing, getattr(thing, "_transport", None)]
        transports += getattr(thing, "_mounts", {}).values()
        for each in transports:
            pool = getattr(each, "_pool", None)
            if hasattr(pool, "_retries"):
                yield pool


class _Router(_Kind):
    """LiteLLM's router: an attribute, or an argument of the call."""

    def retries(self, source: Source) -> float:
        given = source.kwargs.get("num_retries")
        return float(source.thing.num_retries if given is None else given)

    def switch_off(self, thing: Any) -> None:
        thing.num_retries = 0


class _Litellm(_Router):
    """LiteLLM's functions: arguments, a global of the module, and the SDK inside. `thing` is the
    function; there is no client to switch them off in."""

    def retries(self, source: Source) -> float:
        options = source.kwargs
        around, inside = options.get("num_retries"), options.get("max_retries")
        if around is not None:
            return float(2 * around)  # each of them lets the SDK inside try twice
        if inside is not None:
            return float(inside)
        provider, _, model = str(options.get("model", "")).partition("/")
        inside = 2 if not model or provider in ("openai", "azure") else 0
        return float(inside + (sys.modules["litellm"].num_retries or 0))


_STAINLESS = _Stainless()
_KINDS: Mapping[str, _Kind] = {
    "anthropic": _STAINLESS,
    "auriko": _STAINLESS,
    "botocore": _Botocore(),
    "cerebras": _STAINLESS,
    "cohere": _Cohere(),
    "google.genai": _Google(),
    "groq": _STAINLESS,
    "httpx": _Httpx(),
    "httpx2": _Httpx(),
    "litellm": _Router(),
    "mistralai": _Speakeasy(),
    "openai": _STAINLESS,
    "requests": _Requests(),
    "together": _STAINLESS,
}
_LITELLM = _Litellm()


def package_of(module: str) -> str:
    """The client library that a module belongs to."""
    first, _, rest = module.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "google" else first


def source_of(fn: Any) -> Source | None:
    """Where the requests of a client, or of a method of one, come from; None for anything else.

    It is found through bound methods, partials and wrappers that say what they wrap. A function
    that only calls a client in its body shows nothing of it.
    """
    name = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    for _ in range(_DEEP):
        if isinstance(fn, functools.partial):
            args, kwargs, fn = (*fn.args, *args), {**fn.keywords, **kwargs}, fn.func
            continue
        if type(fn) is not FunctionType:
            thing = fn.__self__ if type(fn) is MethodType else fn
            name = name or getattr(fn, "__name__", "")
            return _source(thing, name, args, kwargs)
        name = name or fn.__name__
        package = package_of(fn.__module__ or "")
        if package == "litellm" and fn.__name__ in ("completion", "acompletion"):
            return Source(_LITELLM, fn, fn, name, args, kwargs)
        inner = fn.__dict__.get("__wrapped__")
        if inner is None and package in _KINDS and fn.__closure__:
            cells = dict(zip(fn.__code__.co_freevars, fn.__closure__, strict=True))
            inner = next((cells[each].cell_contents for each in _INNER if each in cells), None)
        if inner is None:
            return None
        fn = inner
    return None


def _source(
    thing: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Source | None:
    for base in type(thing).__mro__:
        kind = _KINDS.get(package_of(base.__module__))
        if kind is not None:
            try:
                return Source(kind, thing, kind.client(thing), name, args, kwargs)
            except Exception:  # no client, nor a part of one
                return None
    return None


def retries_of(client_or_method: Any, /) -> float | None:
    """How often a client repeats a failed request by itself: 0 for never, None if that is not
    known.

    For clients of openai, auriko, anthropic, groq, mistralai, cohere, google-genai, botocore,
    together and cerebras, sessions of requests, clients and transports of httpx, LiteLLM's
    `completion`, `acompletion` and `Router`; and for their methods, also in partials. It is the
    most it will do: what it repeats for which failure is its own. Infinite where only the time is
    limited (Mistral's `RetryConfig`). Safe from any thread; nothing is sent.
    """
    source = source_of(client_or_method)
    return None if source is None else source.retries()


def own_retries(client: T, /) -> T:
    """Switch off the retries that a client makes by itself, so that `Retry` owns them all.

    It is the client given that is changed, wherever else it is used, and returned:
    `client = own_retries(OpenAI())`. What is given at a single call (`max_retries=` of LiteLLM,
    `request_options=` of cohere) stays. Of LiteLLM's functions, which have no client, a partial
    comes back that says `max_retries=0, num_retries=0`. An httpx transport's retries of connecting
    end with the connections that are made next. TypeError for what `retries_of` does not know.
    """
    source = source_of(client)
    if source is None:
        raise TypeError(
            f"own_retries takes a client that retries_of knows, got {type(client).__name__}: "
            f"switch its own retries off where it is made"
        )
    if source.kind is _LITELLM:
        return cast(T, functools.partial(cast(Any, client), max_retries=0, num_retries=0))
    source.kind.switch_off(source.thing)
    return client


_checked: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""Clients, and parts of clients, that need no further look; by identity, as some have no hash."""


def is_checked(method: Any) -> bool:
    """Whether calls of a client's method need no further look at who retries them."""
    owner = _owner(method)
    return _checked.get(id(owner)) is owner


def check_retries(
    method: Any, attempts: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Warn, once for each client, if a call of its method is retried by both sides. Other calls
    need no further look, unless options of this one's own have kept it quiet."""
    source = source_of(method)
    if source is not None and _checked.get(id(source.client)) is not source.client:
        retries = source.retries(args, kwargs)
        if retries:
            _check_off(source.client)
            _warn(source, attempts, retries)
        elif evolve(source, args=(), kwargs={}).retries():
            return
    _check_off(_owner(method))


def _check_off(thing: Any) -> None:
    with suppress(TypeError):  # it has no weak references: it is looked at in every call
        _checked[id(thing)] = thing


def _owner(fn: Any) -> Any:
    """What a client's method is bound to; a function that wraps such a method stands for itself."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn.__self__ if type(fn) is MethodType else fn


def _warn(source: Source, attempts: float, retries: float) -> None:
    figure = f"{_count(attempts)} x {_count(1 + retries)}"
    if math.isfinite(attempts * retries):
        figure += f" = {attempts * (1 + retries):g}"
    package = package_of(source.thing.__module__)
    times = "time" if retries == 1 else "times"
    warnings.warn(
        f"the client retries, too ({package}: {_count(retries)} {times}): a call that fails makes "
        f"up to {figure} requests. Let one of the two retry: own_retries(client) switches the "
        f"client's own off",
        RetryMultiplicationWarning,
        stacklevel=outside(),
    )


def _count(number: float) -> str:
    return f"{number:g}" if math.isfinite(number) else "any number of"


def _part(value: Any, name: str) -> Any:
    """The item or attribute of an option that may be a dict or an object."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _most(adapter: Any) -> float:
    """The most retries of any kind that an adapter's `Retry` allows."""
    retry = getattr(adapter, "max_retries", None)
    total = getattr(retry, "total", 0)
    if total is None:
        counts = [getattr(retry, each) for each in ("connect", "read", "status", "other")]
        return max((float(each) for each in counts if each), default=0)
    return float(total)
