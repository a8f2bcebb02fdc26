"""Coverage-guided fuzzing of the header parsers, by hand: `make fuzz`, Ctrl-C or RUNS to end it.

Whatever bytes a header holds: no exception, and a wait that is finite and 0 or more, or none.
"""

from __future__ import annotations

import math
import os
import sys

import atheris

with atheris.instrument_imports():
    from resilience.sdks.headers import pick
    from resilience.sdks.resets import RESETS

NAMES = ("retry-after", "retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after", *RESETS)


def one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for value in (data, text):
        for name in NAMES:
            found = pick({name: value, "date": value})
            for seconds in (found.wait, found.reset):
                assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
            assert found.retry in (None, True, False)


atheris.Setup([sys.argv[0], f"-runs={os.environ.get('RUNS', '1000000')}", "-max_len=128"], one)
atheris.Fuzz()
