"""What it costs to read an error, with the real SDKs' own errors: microseconds, least of many runs.

    python benchmarks/describe.py [--check]

With --check, more than 5 microseconds for a common error is an error.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Iterator

import auriko
import openai

from resilience.failures import describe
from resilience.testing.gateway import Error, Gateway

LIMIT = 5.0
ROUNDS, CALLS = 400, 200


def errors() -> Iterator[tuple[str, Exception]]:
    """One of each, as it comes out of a client."""
    for code in ("rate_limit_exceeded", "upstream_error", "context_length_exceeded"):
        with Gateway(Error(code, retry_after=3)) as gateway:
            for name, client in (("auriko", auriko.Client), ("openai", openai.OpenAI)):
                with client(api_key="none", base_url=gateway.base_url, max_retries=0) as made:
                    try:
                        made.chat.completions.create(
                            model="gpt-4o", messages=[{"role": "user", "content": "Hi"}]
                        )
                    except Exception as error:
                        yield f"{name}: {code}", error
    yield "ConnectionResetError", ConnectionResetError()
    yield "an error that nobody knows", KeyError("x")


def main(arguments: list[str]) -> int:
    slow = False
    for name, error in errors():
        describe(error)
        took = min(timeit.repeat(lambda e=error: describe(e), number=CALLS, repeat=ROUNDS))
        microseconds = took / CALLS * 1e6
        slow = slow or microseconds > LIMIT
        print(f"{microseconds:6.2f} us  {name}")
    return 1 if slow and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
