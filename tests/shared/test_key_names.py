"""What circuits are called in Redis: no two alike, and the same in every process."""

from __future__ import annotations

from enum import Enum

import pytest

from resilience import CircuitBreaker, CircuitOpenError
from resilience.circuit.redis.keys import key_name
from resilience.shared import RedisCircuit
from support import redis_server
from support.redis_server import Process, Server

running, server = redis_server.running, redis_server.server


class _Model(str, Enum):
    SMALL = "small"


class _Size(Enum):
    SMALL = "small"


@pytest.mark.fault(80)
def test_no_two_circuits_have_one_name() -> None:
    """Whatever is in a name or a key's value; equal values have equal names."""
    parts = ["", "a", "a:b", "b", "{a}", "*", "~", "ä", "\ud800", "x" * 10_000, "1", None, 1, 1.5]
    parts += [b"a", ("a",), ("a", "b"), (("a",), "b"), frozenset("ab"), _Size.SMALL, float("nan")]
    parts += [(), (None,), (None, "a"), ("",), frozenset([None])]
    texts = [part for part in parts if isinstance(part, str)] + [None]
    names = {
        (name, index): key_name("p", name, parts[index])
        for name in texts
        for index in range(len(parts))
    }
    assert len(set(names.values())) == len(names)
    assert all(len(name) < 200 and name.isascii() for name in names.values())
    assert key_name("p", "n", 1) == key_name("p", "n", 1.0) == key_name("p", "n", True)
    small = key_name("p", "n", "small")
    assert key_name("p", "n", _Model.SMALL) == small == "p:circuit1:n:small"


@pytest.mark.real
def test_a_keyed_breaker_shares_each_circuit(server: Server) -> None:
    """One RedisCircuit serves all keys, odd ones too."""
    one = Process(server.url, failures=1, key="model")
    two = Process(server.url, failures=1, key="model")
    names = ["a", "", "ä:{*}", "x" * 10_000, ("a", 1), None, 7]
    for name in names[::2]:
        one.bad(model=name)
    for index, name in enumerate(names):
        if index % 2:
            assert two.guarded(model=name) == "fine"
        else:
            with pytest.raises(CircuitOpenError):
                two.guarded(model=name)


def test_a_key_that_others_could_not_name_is_refused() -> None:
    """An object's address means nothing elsewhere."""
    one = Process("redis://127.0.0.1:1", key="model", storage={"timeout": 0.05})
    with pytest.raises(TypeError, match="key"):
        one.guarded(model=object())


def test_a_circuit_that_cannot_be_named_takes_no_command() -> None:
    """Others could not be told of it."""
    breaker = CircuitBreaker(key="model", storage=RedisCircuit("redis://127.0.0.1:1"))
    with pytest.raises(TypeError, match="key"):
        breaker.circuit(object()).isolate()
