"""The library's lines by structlog."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from conftest import World
from resilience import CircuitBreaker, ModelFallback, Pipeline, Retry
from resilience._core import logs
from resilience._core.logs import FACTS
from resilience.events import CallFailed
from resilience.integrations.logging import configure
from resilience.integrations.structlog import install
from resilience.testing import script, virtual_time
from support.calling import error_of


@pytest.fixture
def installed() -> Iterator[Callable[[], None]]:
    """Lines are said by structlog, until this is called."""
    stop = install()
    yield stop
    stop()
    structlog.reset_defaults()


def calls(world: World) -> None:
    """A retry, a change of model, a circuit that opens, a call that is given up."""
    pipeline = Pipeline(
        ModelFallback("a", "b"),
        Retry(attempts=2, wait=1),
        CircuitBreaker(failures=2, key="model"),
        name="chat",
    )
    error_of(world, pipeline.wrap(world.function(ConnectionError)))


def test_the_same_lines_with_the_same_facts(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """As key-value pairs, at the same levels; and not by the standard library as well."""
    with caplog.at_level(logging.DEBUG, "resilience"):
        calls(world)
    before = [
        {
            "event": record.getMessage(),
            "log_level": record.levelname.lower(),
            **{name: getattr(record, name) for name in FACTS},
        }
        for record in caplog.records
    ]
    world.clock.advance(1)
    caplog.clear()
    stop = install()
    try:
        with capture_logs() as entries:
            calls(world)
    finally:
        stop()
    assert len(before) == 6
    assert [_steady(each) for each in entries] == [_steady(each) for each in before]
    assert not caplog.records


def _steady(entry: Any) -> dict[str, Any]:
    """Without what each run draws anew."""
    return {name: each for name, each in entry.items() if name not in ("event", "wait")} | {
        "event": entry["event"].partition(" opened for ")[0]
    }


def test_it_ends(installed: Callable[[], None], caplog: pytest.LogCaptureFixture) -> None:
    """With what `install` returned; doing either twice is as good as once."""
    second = install()
    installed()
    second()
    with capture_logs() as entries, virtual_time(), pytest.raises(KeyError):
        Pipeline(Retry()).wrap(script(KeyError))()
    assert entries == []
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("installed")
def test_structlogs_configuration_decides(capsys: pytest.CaptureFixture[str]) -> None:
    """On levels and looks, also if it comes later."""
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer(["event", "error_type"])],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    )
    fn = Pipeline(Retry(), name="chat").wrap(script(KeyError))
    with virtual_time(), pytest.raises(KeyError):
        fn()
    assert capsys.readouterr().out == ""
    configure(levels={CallFailed: logging.CRITICAL})
    try:
        with virtual_time(), pytest.raises(KeyError):
            fn()
    finally:
        configure()
    assert "error_type='KeyError'" in capsys.readouterr().out


@pytest.mark.usefixtures("installed")
def test_structlog_over_the_standard_library(caplog: pytest.LogCaptureFixture) -> None:
    """Its lines come to the `resilience` logger then, each once."""
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    with virtual_time(), pytest.raises(KeyError):
        Pipeline(Retry(), name="chat").wrap(script(KeyError))()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("resilience", logging.WARNING)
    assert record.error_type == "KeyError"  # type: ignore[attr-defined]


@pytest.mark.fault(346)
@pytest.mark.usefixtures("installed")
def test_a_processor_that_raises(world: World) -> None:
    """The call's error comes out as without it."""

    def broken(*args: Any) -> Any:
        raise ConnectionError

    structlog.configure(processors=[broken])
    own = KeyError()
    assert error_of(world, Pipeline(Retry()).wrap(world.function(own))) is own


def test_without_structlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, and nothing has changed."""
    monkeypatch.setitem(sys.modules, "structlog", None)
    with pytest.raises(ImportError, match=r"resilience-policies\[structlog\]"):
        install()
    assert logs.log._send is logs._to_logging
