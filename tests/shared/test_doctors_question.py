"""`resilience doctor` asks a shared storage whether it is there."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from resilience import CircuitBreaker, Pipeline
from resilience.doctor import examine
from resilience.shared import RedisCircuit
from support.redis_server import Server, own_server  # noqa: F401

pytestmark = pytest.mark.real


def said_of(storage: Any) -> tuple[str, bool]:
    module = ModuleType("app")
    vars(module)["robust"] = Pipeline(CircuitBreaker(storage=storage))
    (found,) = (each for each in examine([module]) if each.subject == "RedisCircuit")
    return found.words, found.trouble


@pytest.mark.fault(339)
def test_a_server_that_answers_and_then_does_not(own_server: Server) -> None:  # noqa: F811
    """By a URL, a sync client and an asyncio one; when it is gone, all of them need attention."""
    import redis.asyncio

    clients = (own_server.url, own_server.client(), redis.asyncio.Redis.from_url(own_server.url))
    storages = [RedisCircuit(client) for client in clients]
    assert [said_of(each) for each in storages] == [("can be reached", False)] * 3
    own_server.close()
    assert all(trouble for _, trouble in map(said_of, storages))
