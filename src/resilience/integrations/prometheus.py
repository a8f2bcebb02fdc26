"""Guarded calls in figures, for Prometheus to scrape.

    from prometheus_client import start_http_server
    from resilience.integrations import prometheus

    stop = prometheus.install()
    start_http_server(9000)

The figures are those of `integrations.opentelemetry`; `_names.py` has their names. A call
only appends a number and takes no lock; what it appended is counted when Prometheus scrapes. The
figures are of this process alone: prometheus_client's multiprocess mode does not have them.

It needs the extra `resilience-policies[prometheus]`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from resilience._core.listening import Subscription, add
from resilience._core.locks import new_lock
from resilience._core.options import suggesting, to_count, to_seconds

from . import _names as names
from ._figures import Bounded, Figures, Installed, Values, circuits, not_installed

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["install"]

_MOST = 1000
"""Figures that wait to be counted."""

_installed = Installed()


@suggesting
def install(
    *,
    registry: CollectorRegistry | None = None,
    buckets: Sequence[float] = names.BUCKETS,
    limit: int = 100,
) -> Callable[[], None]:
    """Count and measure the calls of all pipelines of this process; returns a function that ends it
    and takes the figures out of the registry.

    - `registry` (None): where they go; prometheus_client's own `REGISTRY` by default.
    - `buckets`: upper bounds in seconds for how long calls and attempts take; from 0.01 to 82 s,
      each twice the one before.
    - `limit` (100): values that each label has at most; what comes beyond that is "other".

    A second time for the same registry changes nothing and returns the same function; ValueError
    with other options. ImportError without prometheus_client, TypeError or ValueError for a wrong
    option. From any thread.
    """
    try:
        import prometheus_client
    except ModuleNotFoundError as missing:
        raise not_installed("prometheus", "prometheus_client") from missing
    given: Any = prometheus_client.REGISTRY if registry is None else registry
    if not isinstance(given, prometheus_client.CollectorRegistry):
        raise TypeError(f"registry must be a prometheus_client CollectorRegistry, got {given!r}")
    bounds, most = _to_buckets(buckets), to_count("limit", limit)
    options = {"buckets": bounds, "limit": most}
    return _installed.once((given,), options, partial(_install, given, bounds, most))


def _install(
    registry: CollectorRegistry, buckets: tuple[float, ...], limit: int
) -> Callable[[], None]:
    collector = _Collector(buckets, limit)
    registry.register(collector)
    subscription = add(Subscription(collector, tuple(collector.handlers), trusted=True))

    def end() -> None:
        subscription()
        registry.unregister(collector)

    return end


def _to_buckets(given: Any) -> tuple[float, ...]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"buckets must be a list of seconds, got {given!r}")
    found = tuple(to_seconds("buckets", each) for each in given)
    if not found or any(one >= other for one, other in pairwise(found)):
        raise ValueError(f"buckets must be one or more seconds, in rising order, got {given!r}")
    return found


def _in_order(metric: names.Metric, labels: dict[str, str | int]) -> tuple[str, ...]:
    return tuple(str(labels.get(label, "")) for label in metric.labels)


class _Duration:
    """How often something took how long."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.total = 0.0


class _Collector:
    """What prometheus_client asks for the figures. It receives the events as well.

    Events come from any thread, and from finalizers at any moment: what they bring is appended to a
    queue, and counted under a lock later.
    """

    def __init__(self, buckets: tuple[float, ...], limit: int) -> None:
        self._buckets = buckets
        self._bounded = Bounded(limit)
        self._lock = new_lock()
        self._busy = False
        """Whether figures are being counted: the lock lets a finalizer in the same thread in."""
        self._queue: deque[tuple[names.Metric, Values, float]] = deque()
        self._durations: dict[names.Metric, dict[tuple[str, ...], _Duration]] = {
            metric: {} for metric in names.DURATIONS
        }
        self._counts: dict[names.Metric, dict[tuple[str, ...], float]] = {
            metric: {} for metric in names.COUNTERS
        }
        self.handlers = Figures(self._add).handlers

    def __call__(self, event: Any) -> None:
        self.handlers[type(event)](event)

    def _add(self, metric: names.Metric, values: Values, amount: float) -> None:
        self._queue.append((metric, values, amount))
        if len(self._queue) > _MOST and self._lock.acquire(blocking=False):
            try:
                if not self._busy:
                    self._busy = True
                    self._count_queued()
                    self._busy = False
            finally:
                self._lock.release()

    def _count_queued(self) -> None:
        for _ in range(len(self._queue)):
            metric, values, amount = self._queue.popleft()
            labels = _in_order(metric, self._bounded.labels(metric, values))
            durations = self._durations.get(metric)
            if durations is None:
                counts = self._counts[metric]
                counts[labels] = counts.get(labels, 0) + amount
                continue
            duration = durations.get(labels)
            if duration is None:
                duration = durations[labels] = _Duration(len(self._buckets))
            duration.counts[bisect_left(self._buckets, amount)] += 1
            duration.total += amount

    def describe(self) -> Iterator[Metric]:
        """The figures without their values."""
        return iter(self._families())

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        families = self._families()
        with self._lock:
            self._busy = True
            self._count_queued()
            for family, metric in zip(families, self._METRICS, strict=True):
                self._fill(family, metric)
            self._busy = False
        return iter(families)

    _METRICS = (*names.DURATIONS, *names.COUNTERS, names.CIRCUIT_STATE)

    def _families(self) -> list[Any]:
        from prometheus_client import core

        kinds: dict[names.Metric, Any] = dict.fromkeys(names.DURATIONS, core.HistogramMetricFamily)
        kinds |= dict.fromkeys(names.COUNTERS, core.CounterMetricFamily)
        kinds[names.CIRCUIT_STATE] = core.GaugeMetricFamily
        return [
            kinds[metric](
                names.prometheus_name(metric),
                metric.description,
                labels=list(map(names.prometheus_label, metric.labels)),
            )
            for metric in self._METRICS
        ]

    def _fill(self, family: Any, metric: names.Metric) -> None:
        for labels, duration in self._durations.get(metric, {}).items():
            family.add_metric(labels, self._cumulated(duration.counts), duration.total)
        for labels, count in self._counts.get(metric, {}).items():
            family.add_metric(labels, count)
        if metric is names.CIRCUIT_STATE:
            for known, count in circuits(self._bounded):
                family.add_metric(_in_order(metric, known), count)

    def _cumulated(self, counts: list[int]) -> list[tuple[str, int]]:
        found, total = [], 0
        for bound, count in zip((*self._buckets, math.inf), counts, strict=True):
            total += count
            found.append(("+Inf" if bound == math.inf else repr(bound), total))
        return found
