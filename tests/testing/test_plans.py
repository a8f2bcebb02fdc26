"""Planned answers: what they may hold, and what is wrong is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience.testing.gateway import (
    CutStream,
    Drop,
    Error,
    ErrorInStream,
    GarbledStream,
    Gateway,
    Hang,
    Malformed,
    Ok,
    ProxyError,
    SlowStart,
    StalledStream,
    Timetable,
    UnfinishedStream,
)

BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Ok(delay=True), TypeError, r"delay must be seconds .* got True"),
    (lambda: Ok(delay=float("nan")), ValueError, r"delay must be finite, got nan"),
    (lambda: Ok(delay=-1), ValueError, r"delay must be 0 or more seconds, got -1"),
    (lambda: Ok(text=b"x"), TypeError, r"text must be a str, got b'x'"),  # type: ignore[arg-type]
    (lambda: Ok(dellay=1), TypeError, r"did you mean 'delay'"),  # type: ignore[call-arg]
    (lambda: Hang(float("inf")), ValueError, r"seconds must be finite, got inf"),
    (lambda: SlowStart("1"), TypeError, r"seconds must be seconds .* got '1'"),  # type: ignore[arg-type]
    (lambda: Error("service_unavailble"), ValueError, "did you mean 'service_unavailable'"),
    (lambda: Error(503), TypeError, r"code must be a str, got 503"),  # type: ignore[arg-type]
    (lambda: Error("client_disconnected"), ValueError, r"plan ErrorInStream\('client_disc"),
    (lambda: Error("stream_duration_exceeded"), ValueError, "only comes mid-stream"),
    (lambda: Error("malformed_response"), ValueError, r"plan Malformed\(\) or ProxyError\(\)"),
    (lambda: ErrorInStream("api_connection_error"), ValueError, "is made by the SDK"),
    (lambda: ErrorInStream("upstream_eror"), ValueError, "did you mean 'upstream_error'"),
    (lambda: ErrorInStream("upstream_error", True), TypeError, r"after"),
    (lambda: CutStream(-1), ValueError, r"after must be 0 or more, got -1"),
    (lambda: CutStream(1.5), TypeError, r"after must be a whole number, got 1\.5"),  # type: ignore[arg-type]
    (lambda: CutStream(reset=1), TypeError, r"reset must be True or False, got 1"),  # type: ignore[arg-type]
    (lambda: Drop(reset="x"), TypeError, r"reset must be True or False, got 'x'"),  # type: ignore[arg-type]
    (lambda: Ok(prefill=None), TypeError, r"prefill must be True or False, got None"),  # type: ignore[arg-type]
    (lambda: SlowStart(1, pings=0), TypeError, r"pings must be True or False, got 0"),  # type: ignore[arg-type]
    (lambda: StalledStream(-1), ValueError, r"after must be 0 or more, got -1"),
    (lambda: StalledStream(seconds=-2), ValueError, r"seconds must be 0 or more seconds, got -2"),
    (lambda: StalledStream(ping=True), TypeError, r"did you mean 'pings'"),  # type: ignore[call-arg]
    (lambda: UnfinishedStream("1"), TypeError, r"after must be a whole number, got '1'"),  # type: ignore[arg-type]
    (lambda: UnfinishedStream(reason="stop"), TypeError, r"reason must be True or False"),  # type: ignore[arg-type]
    (lambda: GarbledStream(text=1), TypeError, r"text must be a str, got 1"),  # type: ignore[arg-type]
    (lambda: Error("", status=400), ValueError, r"code must not be empty"),
    (lambda: Error("somebody_elses"), ValueError, r"Auriko's error codes, got 'somebody_elses'"),
    (lambda: ProxyError(302), ValueError, r"status must be 200 or between 400 and 599"),
    (lambda: Malformed("500"), TypeError, r"status must be a whole number, got '500'"),  # type: ignore[arg-type]
    (lambda: Error("internal_error", status=200), ValueError, r"status must be between"),
    (lambda: Error("internal_error", retry_after=-1), ValueError, r"retry_after must be 0"),
    (lambda: Error("internal_error", retry_after="a\nb"), ValueError, "printable ASCII"),
    (lambda: Error("internal_error", retry_after_ms=True), TypeError, r"retry_after_ms"),
    (lambda: Error("internal_error", provider="ü"), ValueError, r"provider must be prin"),
    (lambda: Error("internal_error", headers={"a b": "1"}), ValueError, "got 'a b'"),
    (lambda: Error("internal_error", headers={"Content-Length": "1"}), ValueError, "framing"),
    (lambda: Error("internal_error", headers={"a": 1}), TypeError, r"headers\['a'\] must be a str"),  # type: ignore[dict-item]
    (lambda: Error("internal_error", headers={1: "a"}), TypeError, r"headers must have str for"),  # type: ignore[dict-item]
    (lambda: Error("internal_error", headers="a"), TypeError, r"headers must be a mapping"),  # type: ignore[arg-type]
    (lambda: Timetable(), ValueError, r"Timetable\.entries must begin at 0 seconds"),
    (lambda: Timetable((1, Ok())), ValueError, r"must begin at 0 seconds, got 1"),
    (lambda: Timetable((0, Ok()), (0, Ok())), ValueError, "must have rising times"),
    (lambda: Timetable((0, "no_code")), ValueError, r"code must be one of"),
    (lambda: Timetable((True, Ok())), TypeError, r"entries\[0\]\[0\] must be seconds .* got True"),
    (lambda: Timetable(Ok()), TypeError, r"entries\[0\] must be a pair \(seconds, answer\)"),  # type: ignore[arg-type]
    (lambda: Gateway("no_code"), ValueError, "Auriko's error codes, got 'no_code'"),
    (lambda: Gateway([]), ValueError, r"Gateway\.plan must hold at least one answer"),
    (lambda: Gateway({}), ValueError, r"Gateway\.plan must name at least one model"),
    (lambda: Gateway({"m": [Ok(), 3]}), TypeError, r"Gateway\.plan\['m'\]\[1\] must be an answer"),  # type: ignore[list-item]
    (lambda: Gateway({1: Ok()}), TypeError, r"must have model names for its keys, got 1"),  # type: ignore[dict-item]
    (lambda: Gateway(Ok), TypeError, r"Gateway\.plan must be an answer such as Ok\(\)"),  # type: ignore[arg-type]
    (lambda: Gateway(api_key=""), ValueError, r"Gateway\.api_key must not be empty"),
    (lambda: Gateway(api_key=1), TypeError, r"Gateway\.api_key must be a str"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "kind", "words"), BAD, ids=[words for _, _, words in BAD])
def test_bad_plans_are_refused(make: Callable[[], Any], kind: type[Exception], words: str) -> None:
    """What is wrong is refused at construction, naming the field, the rule and the value."""
    with pytest.raises(kind, match=words):
        make()


def test_plans_are_values() -> None:
    """Answers compare, hash and cannot be changed; one plan may serve many gateways."""
    headers = {"a": "1"}
    error = Error("internal_error", headers=headers)
    headers["a"] = "2"
    assert error == Error("internal_error", headers={"a": "1"})
    assert hash(error) == hash(Error("internal_error", headers={"a": "1"}))
    assert Timetable((0, "internal_error")) == Timetable((0.0, Error("internal_error")))
    with pytest.raises(AttributeError):
        error.code = "other"  # type: ignore[misc]
