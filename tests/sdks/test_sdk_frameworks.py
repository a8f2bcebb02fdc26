"""What frameworks raise to say what is to happen next passes every policy: their real classes."""

from __future__ import annotations

import concurrent.futures
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, Fallback, ModelFallback, Pipeline, Retry, history
from resilience._core.control_flow import is_control_flow
from support.calling import error_of

SIGNALS = [
    "agents:InputGuardrailTripwireTriggered",
    "agents:OutputGuardrailTripwireTriggered",
    "agents:ToolInputGuardrailTripwireTriggered",
    "agents:ToolOutputGuardrailTripwireTriggered",
    "aiohttp.web:HTTPFound",
    "airflow.sdk.exceptions:AirflowFailException",
    "airflow.sdk.exceptions:AirflowRescheduleException",
    "airflow.sdk.exceptions:AirflowSkipException",
    "billiard.exceptions:SoftTimeLimitExceeded",
    "celery.exceptions:Ignore",
    "celery.exceptions:Reject",
    "celery.exceptions:Retry",
    "concurrent.futures:CancelledError",
    "dagster:RetryRequested",
    "fastapi:HTTPException",
    "fastapi:WebSocketException",
    "langgraph.errors:GraphInterrupt",
    "langgraph.errors:ParentCommand",
    "mcp:UrlElicitationRequiredError",
    "pydantic_ai:ApprovalRequired",
    "pydantic_ai:CallDeferred",
    "pydantic_ai:ModelRetry",
    "pydantic_ai.exceptions:RetryModelRequest",
    "pydantic_ai.exceptions:SkipModelRequest",
    "pydantic_ai.exceptions:SkipToolExecution",
    "pydantic_ai.exceptions:SkipToolValidation",
    "rest_framework.exceptions:Throttled",
    "starlette.exceptions:HTTPException",
    "werkzeug.exceptions:TooManyRequests",
]

FAILURES = [
    "agents:ModelBehaviorError",
    "airflow.sdk.exceptions:AirflowException",
    "celery.exceptions:CeleryError",
    "dagster:DagsterError",
    "langgraph.errors:GraphRecursionError",
    "mcp:MCPError",
    "pydantic_ai:ModelHTTPError",
    "pydantic_ai:UnexpectedModelBehavior",
]


def found(name: str) -> type[Exception]:
    """The class, where its package is there."""
    module, _, cls = name.partition(":")
    if find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"without {module}")
    loaded: type[Exception] = getattr(import_module(module), cls)
    return loaded


def made(cls: Any) -> Exception:
    """One of them, made with as little as will do; what it says is nobody's concern."""
    for given in ((), (404,), ("/elsewhere",)):
        try:
            error: Exception = cls(*given)
        except Exception:
            continue
        return error
    return cls.__new__(cls)  # type: ignore[no-any-return]


@pytest.mark.fault(270)
@pytest.mark.parametrize("name", SIGNALS)
def test_control_flow_passes_every_policy(world: World, name: str) -> None:
    """Neither retried, nor counted, nor replaced, nor taken to another model, whatever `on` says;
    named itself, it is brought in."""
    cls = found(name)
    error = made(cls)
    breaker = CircuitBreaker(failures=1, on=lambda failure: True)
    policies = (
        Fallback("sorry"),
        ModelFallback("a", "b", on=Exception),
        Retry(on=Exception),
        breaker,
    )
    out = error_of(world, Pipeline(*policies).wrap(world.function(error)))

    assert out is error
    assert len(world.calls) == 1
    assert breaker.state == "closed"
    world.calls.clear()
    named = Pipeline(Fallback("sorry", on=cls), Retry(on=cls, wait=1))
    assert world.run(named.wrap(world.function(error))) == "sorry"
    assert len(world.calls) == 3


@pytest.mark.parametrize("name", FAILURES)
def test_their_other_errors_are_failures(name: str) -> None:
    """Only the list is let through."""
    assert not is_control_flow(found(name))


def test_an_interrupt_of_langgraph(world: World) -> None:
    """A guarded node that asks a person: the graph stops, and goes on with the answer."""
    pytest.importorskip("langgraph")
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, StateGraph
    from langgraph.types import Command, interrupt

    if world.name == "trio":
        pytest.skip("LangGraph goes by asyncio")

    asked: list[Any] = []

    def node(state: dict[str, Any]) -> dict[str, Any]:
        asked.append(state)
        return {"answer": interrupt("sure?")}

    guarded = Pipeline(Fallback({"answer": "sorry"}), Retry(on=Exception, wait=1)).wrap(node)
    graph: Any = StateGraph(dict)
    graph.add_node("node", guarded)
    graph.add_edge(START, "node")
    compiled = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    stopped = compiled.invoke({"answer": None}, config)
    assert stopped["__interrupt__"][0].value == "sure?"
    assert len(asked) == 1
    assert compiled.invoke(Command(resume="yes"), config)["answer"] == "yes"


def test_a_retry_of_celery() -> None:
    """`self.retry()` in a guarded function reaches Celery, which runs the task again."""
    celery = pytest.importorskip("celery")
    app = celery.Celery("app", broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True
    runs: list[int] = []

    @app.task(bind=True, max_retries=5)  # type: ignore[untyped-decorator]
    def task(self: Any) -> str:
        @Pipeline(Fallback("sorry"), Retry(on=Exception, wait=0)).wrap
        def work() -> str:
            runs.append(self.request.retries)
            if self.request.retries < 2:
                raise self.retry(countdown=0)
            return "done"

        return work()

    assert task.delay().get() == "done"
    assert runs == [0, 1, 2]


@pytest.mark.fault(270)
def test_a_cancelled_future_is_not_retried(world: World) -> None:
    """`concurrent.futures.CancelledError` is an Exception, and a cancellation all the same."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    future.cancel()
    error = error_of(world, Pipeline(Retry(on=Exception)).wrap(world.function(future.result)))

    assert type(error) is concurrent.futures.CancelledError
    assert len(world.calls) == 1
    assert len(history(error)) == 1
