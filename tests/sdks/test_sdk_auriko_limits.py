"""Auriko's SDK: whose a rate limit is, and when it is full again, over a real socket."""

from __future__ import annotations

import auriko
import pytest

from resilience.failures import Advice, Kind, describe
from resilience.testing.gateway import Error, Gateway


@pytest.mark.real
@pytest.mark.parametrize(
    ("headers", "kind", "advice", "elsewhere"),
    [
        ({"X-Rate-Limit-Source": "upstream"}, Kind.RATE_LIMIT, Advice.WAIT, True),
        ({"X-Rate-Limit-Source": "auriko"}, Kind.RATE_LIMIT, Advice.WAIT, False),
        ({"X-Budget-Exceeded": "true"}, Kind.QUOTA, Advice.STOP, None),
    ],
)
def test_aurikos_headers_over_the_wire(
    headers: dict[str, str], kind: Kind, advice: Advice, elsewhere: bool | None
) -> None:
    """What the gateway says beside the code is read from the real SDK's error."""
    with (
        Gateway(Error("rate_limit_exceeded", headers=headers)) as gateway,
        auriko.Client(api_key="none", base_url=gateway.base_url, max_retries=0) as client,
        pytest.raises(auriko.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    failure = describe(caught.value)

    assert (failure.kind, failure.advice, failure.elsewhere) == (kind, advice, elsewhere)
    if advice is Advice.WAIT:
        assert failure.reset_after == pytest.approx(60, abs=5)
