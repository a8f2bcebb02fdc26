"""Guarded functions in the hands of tools that look at functions: mocks, validators, frameworks."""

from __future__ import annotations

import asyncio
import inspect
import typing
from typing import Annotated, Any
from unittest.mock import create_autospec, patch

import pydantic
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Query, Request
from fastapi.testclient import TestClient
from langchain_core.tools import StructuredTool, tool

from resilience import CircuitBreaker, Pipeline, Retry, Timeout, history, resilient
from resilience.testing import script
from support.calling import rest_and_full


class Bot:
    """A class of the user's."""

    @resilient(Retry(wait=0))
    def ask(self, question: str, *, size: int = 7) -> list[str]:
        return [question] * size

    @resilient(Retry(wait=0))
    async def ask_later(self, question: str, *, size: int = 7) -> list[str]:
        return [question] * size


@resilient
def ask(question: str, *, size: int = 7) -> list[str]:
    """Ask."""
    return [question] * size


# The standard library


def test_what_inspect_says() -> None:
    """A function, a coroutine function, a method: with signature, source and hints of its own."""
    hints = {"question": str, "size": int, "return": list[str]}
    signature = "(question: 'str', *, size: 'int' = 7) -> 'list[str]'"

    assert inspect.isfunction(ask)
    assert inspect.isfunction(Bot.ask)
    assert inspect.ismethod(Bot().ask)
    assert not inspect.iscoroutinefunction(Bot().ask)
    assert inspect.iscoroutinefunction(Bot.ask_later)
    assert inspect.iscoroutinefunction(Bot().ask_later)
    assert str(inspect.signature(ask)) == str(inspect.signature(Bot().ask)) == signature
    assert inspect.signature(Bot.ask).parameters.keys() == {"self", "question", "size"}
    assert typing.get_type_hints(ask) == typing.get_type_hints(Bot.ask_later) == hints
    assert "def ask(question" in inspect.getsource(ask)
    assert inspect.getdoc(ask) == "Ask."


@pytest.mark.fault(208)
def test_an_autospec_keeps_the_signature() -> None:
    """Of a function, a method, a class: a mock of it refuses what the function refuses."""
    for mock in (create_autospec(ask), create_autospec(Bot)().ask, create_autospec(Bot().ask)):
        mock("why", size=3)
        with pytest.raises(TypeError):
            mock("why", sise=3)
        with pytest.raises(TypeError):
            mock()
    assert inspect.signature(create_autospec(ask)) == inspect.signature(ask)
    mock = create_autospec(Bot().ask_later, return_value=["mock"])
    assert asyncio.run(mock("why")) == ["mock"]


@pytest.mark.fault(208)
def test_a_guarded_method_is_patched_with_its_signature() -> None:
    """`patch.object(..., autospec=True)`: with its self, and as it was afterwards."""
    bot = Bot()
    with patch.object(Bot, "ask", autospec=True) as mock:
        mock.return_value = ["mock"]
        assert bot.ask("why", size=1) == ["mock"]
        mock.assert_called_once_with(bot, "why", size=1)
        with pytest.raises(TypeError):
            bot.ask("why", sise=1)  # type: ignore[call-arg]
    with patch.object(Bot, "ask_later", autospec=True) as mock:
        mock.return_value = ["mock"]
        assert asyncio.run(bot.ask_later("why")) == ["mock"]
    assert bot.ask("why", size=1) == ["why"]


# pydantic


@pytest.mark.fault(208)
@rest_and_full
@pytest.mark.parametrize("validated_first", [True, False], ids=["above", "below"])
def test_validate_call(listeners: Any, validated_first: bool) -> None:
    """Above the policies a bad argument does not reach them; below it is the attempt's error, and
    not retried."""
    guard = Pipeline(Retry(attempts=2, wait=0), listeners=listeners)
    stumble = script(ConnectionError(), None)

    def double(x: int) -> int:
        stumble()
        return 2 * x

    double.__annotations__ = {"x": int, "return": int}
    validate: Any = pydantic.validate_call
    fn: Any = validate(guard(double)) if validated_first else guard(validate(double))
    assert fn("21") == 42
    assert len(stumble.calls) == 2
    assert inspect.signature(fn).parameters.keys() == {"x"}
    with pytest.raises(pydantic.ValidationError) as refused:
        fn("many")
    assert len(history(refused.value)) == (0 if validated_first else 1)
    assert len(stumble.calls) == 2


@rest_and_full
@pytest.mark.parametrize("validated_first", [True, False], ids=["above", "below"])
def test_validate_call_of_an_async_function(listeners: Any, validated_first: bool) -> None:
    """It is a coroutine function in both orders."""
    guard = Pipeline(Retry(attempts=2, wait=0), listeners=listeners)
    stumble = script(ConnectionError(), None)

    async def double(x: int) -> int:
        stumble()
        return 2 * x

    double.__annotations__ = {"x": int, "return": int}
    validate: Any = pydantic.validate_call
    fn: Any = validate(guard(double)) if validated_first else guard(validate(double))
    assert inspect.iscoroutinefunction(fn)
    assert asyncio.run(fn("21")) == 42
    assert len(stumble.calls) == 2


# FastAPI: annotations are strings here, and are read from this module


class Item(pydantic.BaseModel):
    """The body of a request."""

    name: str


stumble = script(*[ConnectionError(), None] * 20)
twice = Pipeline(Retry(attempts=2, wait=0), CircuitBreaker())
app = FastAPI()
done: list[str] = []


@twice
def user(name: str = "nobody") -> str:
    """A dependency."""
    stumble()
    return name


@twice
async def method(request: Request) -> str:
    """An async dependency."""
    stumble()
    return request.method


@twice
def later(what: str) -> None:
    """A task in the background."""
    stumble()
    done.append(what)


@app.get("/items/{number}")
@twice
def get_item(
    number: int,
    who: Annotated[str, Depends(user)],
    how: Annotated[str, Depends(method)],
    size: Annotated[int, Query(le=9)] = 7,
) -> Item:
    """A route."""
    stumble()
    return Item(name=f"{how} {number} {size} {who}")


@app.post("/items")
@twice
async def post_item(item: Item, who: Annotated[str, Depends(user)], tasks: BackgroundTasks) -> Item:
    """An async route."""
    stumble()
    if item.name == "teapot":
        raise HTTPException(418)
    tasks.add_task(later, item.name)
    return Item(name=f"{item.name} {who}")


@pytest.mark.real
@pytest.mark.steady
def test_routes_and_dependencies_of_fastapi() -> None:
    """Sync and async, each of them retried; arguments, bodies and results are checked as declared,
    an answer that is raised is the answer."""
    with TestClient(app) as client:
        assert client.get("/items/3?name=me").json() == {"name": "GET 3 7 me"}
        assert len(stumble.calls) == 6
        assert client.get("/items/three").status_code == 422
        assert client.get("/items/3?size=10").status_code == 422
        assert client.post("/items", json={"name": "a"}).json() == {"name": "a nobody"}
        assert done == ["a"]
        assert client.post("/items", json={}).status_code == 422
        assert client.post("/items", json={"name": "teapot"}).status_code == 418
        described = client.get("/openapi.json").json()["paths"]["/items/{number}"]["get"]
    names = {each["name"]: each["required"] for each in described["parameters"]}
    assert names == {"number": True, "size": False, "name": False}
    assert "Item" in str(described["responses"]["200"])


# LangChain


@pytest.mark.fault(208)
@rest_and_full
def test_a_tool_of_langchain(listeners: Any) -> None:
    """Its arguments are described by the function's own signature."""
    stumble = script(ConnectionError(), None)

    @tool
    @resilient(Retry(attempts=2, wait=0), Timeout(60, pass_as="limit"), listeners=listeners)
    def weather(city: str, days: int = 1, limit: float | None = None) -> str:
        """The weather."""
        stumble()
        return f"{city} {days} {limit is not None}"

    assert isinstance(weather, StructuredTool)
    assert (weather.name, weather.description) == ("weather", "The weather.")
    assert weather.args["city"]["type"] == "string"
    assert weather.invoke({"city": "Rome", "days": 2}) == "Rome 2 True"
    assert len(stumble.calls) == 2
    with pytest.raises(pydantic.ValidationError):
        weather.invoke({"days": 2})


@rest_and_full
def test_an_async_tool_of_langchain(listeners: Any) -> None:
    """A guarded coroutine function becomes the tool's coroutine."""
    stumble = script(ConnectionError(), None)

    @tool
    @resilient(Retry(attempts=2, wait=0), listeners=listeners)
    async def weather(city: str) -> str:
        """The weather."""
        stumble()
        return city

    assert isinstance(weather, StructuredTool)
    assert weather.coroutine is not None
    assert asyncio.run(weather.ainvoke({"city": "Rome"})) == "Rome"
    assert len(stumble.calls) == 2
