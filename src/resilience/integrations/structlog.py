"""The library's lines by structlog, with their facts as its key-value pairs.

    from resilience.integrations import structlog

    structlog.install()

They go to `structlog.get_logger("resilience")`, and to the `resilience` logger of the standard
library no longer. What is about the program and not about a call (a listener that raises, say) is
still logged there.

It needs the extra `resilience-policies[structlog]`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from resilience._core.logs import Line, log

from ._figures import not_installed

__all__ = ["install"]

_METHODS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}


def install() -> Callable[[], None]:
    """Write the lines of this process by structlog; returns a function that ends it.

    structlog's own configuration decides on levels and looks; it may be made before or after.
    ImportError without structlog. From any thread; calls under way use it at once.
    """
    try:
        import structlog
    except ModuleNotFoundError as missing:
        raise not_installed("structlog", "structlog") from missing

    def send(line: Line) -> None:
        method = getattr(structlog.get_logger("resilience"), _METHODS[line.level])
        method(line.text, **line.facts)

    log.send_to(send)
    return log.send_to
