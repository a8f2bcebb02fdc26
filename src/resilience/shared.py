"""Share circuits, rate limits and holds between processes through Redis or Valkey."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from attrs import Factory, field, frozen

from resilience._core.identity import Restarting
from resilience._core.options import (
    Seconds,
    call_repr,
    checked,
    flag,
    plain,
    seconds,
    suggesting,
)

from ._core.pacing import Pace
from .circuit.circuit import Circuit
from .circuit.redis.clients import Server, to_client
from .circuit.redis.keys import key_name, to_prefix
from .circuit.redis.shared_circuit import SharedCircuit
from .limits.script import evaluate
from .limits.shared_hold import SharedHold
from .limits.shared_pace import SharedPace

__all__ = ["RedisCircuit", "RedisLimit"]


@suggesting
@frozen(eq=False, repr=False)
class RedisCircuit(Restarting):
    """A breaker's `storage=` that shares its circuits with all processes that use the same server.

    - `client`: a URL (`redis://`, `rediss://`, `unix://`), or a client of redis-py, sync or
      asyncio; no pipeline. With a URL the connections are its own, sync ones used off the event
      loop.
    - `prefix` ("resilience"): what the names of its keys begin with. One `RedisCircuit` serves any
      number of breakers and keys; breakers of the same prefix and name share their circuits, and
      all those without a name share one: give each dependency's breaker a `name`.
    - `advisory` (False): share only the news that a circuit has opened; each process then stays
      away as long as the others do, tries for itself and closes for itself. Otherwise it is one
      circuit: open, half open and closed for all at once, `trials` at once over all processes.
    - `lease` (60): seconds after which a trial's slot is free again if its process has died.
    - `timeout` (0.05): seconds for which a reply of the server is waited for; after that, or an
      error, circuits use local state for `back_off` (5) seconds, and then try again.

    Nothing is asked for a call that passes through a closed circuit, except once in the breaker's
    `refresh` seconds. Failures and results of trials are published in the background, or with the
    next call: the call that has failed does not wait for it. Failures in a row are counted
    together; rates are not, but a circuit that opens by one, opens for all. Manual commands
    (`open()`, `isolate()`) are published immediately; in an event loop, by a worker thread.
    Nothing is connected before the first call or command. Raises ImportError without redis-py.
    Safe from any thread, any event loop, and after a fork. Pickles as its options, with a URL.
    """

    client: Any = field(repr=False)
    prefix: str = checked(to_prefix, "resilience")
    advisory: bool = flag(False)
    lease: Seconds = seconds(60.0)
    timeout: Seconds = seconds(0.05)
    back_off: Seconds = seconds(5.0)
    _server: Server = field(
        default=Factory(
            lambda self: Server(to_client(self.client, plain(self.timeout)), plain(self.back_off)),
            takes_self=True,
        ),
        init=False,
        repr=False,
    )

    def __repr__(self) -> str:
        return call_repr(self)  # without the URL: there may be a password in it

    def share(self, circuit: Circuit, refresh: float) -> SharedCircuit:
        """A breaker's circuit as it is in Redis. TypeError if its key has a value for which other
        processes could not compute the same name."""
        key = key_name(self.prefix, circuit.name, circuit.key)
        lease = min(plain(self.lease), circuit._owner.limits.trial_timeout)
        return SharedCircuit(circuit, refresh, self._server, key, lease, self.advisory)


_WHOSE = "rate limits and holds that are shared through it use local state"


@suggesting
@frozen(eq=False, repr=False)
class RedisLimit(Restarting):
    """The `storage=` of a `RateLimit` or a `Hold` that shares it with all processes that use the
    same server.

    - `client`: a URL (`redis://`, `rediss://`, `unix://`), or a client of redis-py, sync or
      asyncio; no pipeline.
    - `prefix` ("resilience"): what the names of its keys begin with. One `RedisLimit` serves any
      number of policies and keys; policies of the same kind, prefix and name share their limits:
      give each service's a `name`.
    - `timeout` (0.05): seconds for which a reply of the server is waited for; after that, or an
      error, the server is left alone for `back_off` (5) seconds.

    A `RateLimit` asks the server once for each call, which books its turn there. The tokens that a
    call has used, where tokens are limited, are reported in the background or with the next
    question. While the server cannot be reached, each process uses its share of the limit, by the
    number of processes that there were: together they keep within it. Only a process that alone has
    lost the server adds its share to what the others use. A `Hold` asks nothing for a healthy call:
    a process publishes its hold in the background, and a thread in each of the others receives it.

    Nothing is connected before the first call. Raises ImportError without redis-py. Safe from any
    thread, any event loop, and after a fork. Pickles as its options, with a URL.
    """

    client: Any = field(repr=False)
    prefix: str = checked(to_prefix, "resilience")
    timeout: Seconds = seconds(0.05)
    back_off: Seconds = seconds(5.0)
    _server: Server = field(
        default=Factory(
            lambda self: Server(
                to_client(self.client, plain(self.timeout), evaluate), plain(self.back_off), _WHOSE
            ),
            takes_self=True,
        ),
        init=False,
        repr=False,
    )

    def __repr__(self) -> str:
        return call_repr(self)  # without the URL: there may be a password in it

    def share(self, name: str | None, key: Hashable, pace: Pace, owner: int) -> SharedPace:
        """A rate limit as it is in Redis, for one of its `owner`s in this process. TypeError if its
        key has a value for which other processes could not compute the same name."""
        named = "{" + key_name(self.prefix, name, key, "limit1") + "}"
        settle = 2 * plain(self.back_off) + plain(self.timeout)
        return SharedPace(self._server, named, pace, settle, owner)

    def share_hold(
        self, name: str | None, receive: Callable[[Hashable, float], bool]
    ) -> SharedHold:
        """What shares the holds of policies of this name; it calls `receive` for those of other
        processes."""
        named = "{" + key_name(self.prefix, name, None, "hold1") + "}"
        return SharedHold(self._server, named, receive, min(0.5, plain(self.back_off)))
