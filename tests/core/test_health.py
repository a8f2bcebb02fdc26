"""`health()`: plain data of what goes on in the process, and `CircuitBreaker.circuits()`."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from typing import Any

import pytest

import resilience
from conftest import World
from resilience import CircuitBreaker, Hold, Pipeline, Retry, RetryBudget, Timeout, health
from resilience.testing import script
from support.calling import error_of
from support.errors import rate_limit
from support.functions import coloured


def of(name: str) -> list[dict[str, Any]]:
    """The circuits that are not closed, of one breaker."""
    return [each for each in health()["not_closed"] if each["name"] == name]


def test_circuits_are_those_that_exist_by_key() -> None:
    """Asking makes none."""
    breaker = CircuitBreaker(key="model")
    assert breaker.circuits() == {}
    circuit = breaker.circuit("a")
    assert breaker.circuits() == {"a": circuit}
    assert list(CircuitBreaker().circuits()) == [None]


def test_what_is_open_is_there_as_json(world: World) -> None:
    """With its failure and its times; a model's name is shown."""
    breaker = CircuitBreaker(
        failures=1, reset_after=5, name=f"by model in {world.name}", key="model"
    )
    fn = Pipeline(breaker).wrap(world.function(ConnectionError))
    error_of(world, fn, model="a")
    (found,) = of(f"by model in {world.name}")
    assert json.loads(json.dumps(found)) == found == breaker.circuit("a").snapshot().to_dict()
    assert (found["state"], found["key"], found["retry_after"]) == ("open", "a", 5)
    assert found["last_failure"] == {"kind": "connection", "advice": "retry"}
    assert found["retry_at"].endswith("+00:00")


def test_other_keys_are_not_shown(world: World) -> None:
    """They may be secrets; `circuits()` has them."""
    breaker = CircuitBreaker(
        failures=1, name=f"by tenant in {world.name}", key=lambda tenant: (tenant,)
    )
    error_of(world, Pipeline(breaker).wrap(world.function(ConnectionError)), "SECRET")
    (found,) = of(f"by tenant in {world.name}")
    assert "SECRET" not in json.dumps(found)
    snapshot = breaker.circuits()["SECRET",].snapshot()
    assert json.loads(json.dumps(snapshot.to_dict()))["key"] == "('SECRET',)"


def test_circuits_are_counted_by_state() -> None:
    """All breakers that are alive, and no others."""
    gc.collect()
    before = health()["circuits"]
    breaker = CircuitBreaker()
    breaker.isolate()
    assert health()["circuits"].get("isolated", 0) == before.get("isolated", 0) + 1
    del breaker
    gc.collect()
    assert health()["circuits"].get("isolated", 0) == before.get("isolated", 0)


@pytest.mark.real
@pytest.mark.parametrize("policies", [(Retry(),), (Retry(), Timeout(60))], ids=["rest", "worker"])
def test_calls_under_way_in_threads_are_counted(policies: Any) -> None:
    """At rest and on the full path, in a worker thread or not; those of `outcome`, too."""
    inside, leave = threading.Semaphore(0), threading.Event()

    def waits() -> None:
        inside.release()
        leave.wait()

    pipeline = Pipeline(*policies)
    fn = pipeline.wrap(waits)
    threads = [threading.Thread(target=fn) for _ in range(3)]
    threads.append(threading.Thread(target=pipeline.outcome, args=(waits,)))
    for thread in threads:
        thread.start()
    for _ in threads:
        inside.acquire()
    found = health()
    leave.set()
    for thread in threads:
        thread.join()
    name = waits.__qualname__
    assert found["calls"] == {name: 4}
    assert found["workers"]["busy"] >= (4 if len(policies) > 1 else 0)
    assert health()["calls"] == {}


def test_calls_under_way_in_tasks_are_counted() -> None:
    """Of the loop that asks; the one that asks is counted once."""

    leave = asyncio.Event()

    async def waits() -> None:
        await leave.wait()

    async def asks() -> dict[str, int]:
        calls: dict[str, int] = health()["calls"]
        return calls

    async def main() -> dict[str, int]:
        fn = Pipeline(Retry()).wrap(waits)
        tasks = [asyncio.ensure_future(fn()) for _ in range(5)]
        tasks.append(asyncio.ensure_future(Pipeline(Retry()).outcome(waits)))
        await asyncio.sleep(0)
        found = await Pipeline(Retry()).call(asks)
        leave.set()
        await asyncio.gather(*tasks)
        return found

    assert asyncio.run(main()) == {waits.__qualname__: 6, asks.__qualname__: 1}


def test_a_storage_that_does_not_reply_is_told() -> None:
    """And one that does."""
    from pybreaker import CircuitMemoryStorage

    class Broken(CircuitMemoryStorage):
        @property
        def state(self) -> str:
            raise ConnectionError

    good = CircuitBreaker(name="good", storage=CircuitMemoryStorage("closed"))
    bad = CircuitBreaker(name="bad", storage=Broken("closed"))
    Pipeline(good).call(lambda: None)
    with pytest.warns(RuntimeWarning):
        Pipeline(bad).call(lambda: None)
    found = {each["circuit"]: each for each in health()["storages"]}
    assert found["good"] == {
        "circuit": "good",
        "storage": "CircuitMemoryStorage",
        "reachable": True,
    }
    assert found["bad"]["reachable"] is False


def test_it_is_a_name_of_the_package() -> None:
    """As `listen` and `recording` are."""
    assert {"health", "listen", "recording"} <= set(resilience.__all__)
    assert json.dumps(health())


def test_who_stays_away_from_what(world: World) -> None:
    """Each `Hold` with the seconds that are left; a model is named, any other key is not."""
    holds = [Hold(key=key, name=f"{world.name} by {key}") for key in ("model", "tenant")]
    for hold in holds:
        error_of(world, Pipeline(hold).wrap(coloured(world, limited)), "mine")
    found = [each for each in health()["holds"] if f"{world.name} by" in str(each["hold"])]
    assert sorted(found, key=lambda each: each["hold"]) == [
        {"hold": f"{world.name} by model", "seconds": 30.0, "key": "mine"},
        {"hold": f"{world.name} by tenant", "seconds": 30.0},
    ]
    assert len(holds) == 2  # and both are there until now


def limited(model: str = "", tenant: str = "") -> None:
    raise rate_limit(30.0)


def test_a_budget_that_is_full_is_not_shown() -> None:
    """Of a keyed one; of a plain one there is always the one level."""
    gc.collect()  # those of other tests
    plain = RetryBudget(1.0, of="successes", name="full")
    keyed = RetryBudget(1.0, of="successes", key="model", name="full by key")
    fails_once = script(ConnectionError, "ok")
    Pipeline(plain, keyed, Retry(wait=0)).call(lambda model: fails_once(), "m")
    assert keyed.snapshots()["m"].left == 100  # the success has given back what the retry took
    shown = [str(each["budget"]) for each in health()["budgets"]]
    assert [name for name in shown if name.startswith("full")] == ["full"]
