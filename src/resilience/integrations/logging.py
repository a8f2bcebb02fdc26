"""What the library logs, and how loudly.

The `resilience` logger speaks by itself; nothing has to be configured. Its level, handlers and
filters are set as those of any logger: `logging.getLogger("resilience").setLevel("INFO")`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from resilience._core.logs import FACTS, LEVELS, log
from resilience._core.options import suggesting, to_flag
from resilience.events import Event

__all__ = ["FACTS", "LEVELS", "configure"]

_KNOWN = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


@suggesting
def configure(
    *, texts: bool = False, levels: Mapping[type[Event], int | None] | None = None
) -> None:
    """Configure the lines of this process, those for structlog included.

    - `texts` (False): whether a line ends with the text of its exception, up to 200 characters.
      Such a text may quote prompts, keys and answers.
    - `levels` (None): for some classes of events another level than the default in `LEVELS`, such
      as `{CallFailed: logging.ERROR}`, or None for no line.

    What is not given is as by default: `configure()` puts everything back. TypeError or ValueError
    for a wrong option. From any thread; calls under way see it at once.
    """
    to_flag("texts", texts)
    given: Any = {} if levels is None else levels
    if not isinstance(given, Mapping):
        raise TypeError(f"levels must be a mapping of classes of events to levels, got {levels!r}")
    for kind, level in given.items():
        if kind not in LEVELS:
            names = ", ".join(each.__name__ for each in LEVELS)
            raise ValueError(f"levels must be of events that have a line ({names}), got {kind!r}")
        if level is not None and (isinstance(level, bool) or level not in _KNOWN):
            raise ValueError(
                f"levels must be logging.DEBUG, INFO, WARNING, ERROR, CRITICAL or None, "
                f"got {level!r} for {kind.__name__}"
            )
    log.texts = texts
    log.set_levels(given)
