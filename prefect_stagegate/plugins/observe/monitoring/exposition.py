"""Metrics as text for Prometheus: the one import of its library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.registry import Collector

from prefect_stagegate import __version__
from prefect_stagegate.cache import Cache
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.observe.monitoring import families
from prefect_stagegate.plugins.observe.monitoring.catalog_state import catalog_samples
from prefect_stagegate.plugins.observe.monitoring.families import (
    BUCKETS,
    FAMILIES,
    LONGEST,
    Durations,
    Family,
    MetricKind,
    Sample,
)
from prefect_stagegate.plugins.observe.monitoring.node_state import node_samples
from prefect_stagegate.show.legible import legible_text, one_line
from prefect_stagegate.workspace import Workspace

MOST_SAMPLES = 10_000
"""Samples that one metric may have; further ones are left out."""
FRESH, PATIENCE, STALE = 30.0, 5.0, 300.0
"""Seconds for which the catalog's metrics are believed, for which a scrape waits for newer ones, of its 10, and after
which none are shown."""
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The media type of `metrics_text`."""
OPENMETRICS_TYPE = openmetrics_exposition.CONTENT_TYPE_LATEST
"""The media type of `exposition` with `openmetrics`."""


def metrics_text(workspace: Workspace) -> bytes:
    """All metrics: those of this node and, where it can be read, of the catalog.

    Raises:
        CacheError: The cache can't be read.
    """
    return exposition((*node_samples(workspace.cache, workspace.settings), *catalog_samples(workspace)))


def node_metrics_text(cache: Cache, settings: Settings, *, catalog_failed: bool = False) -> bytes:
    """The metrics of this node alone; with `catalog_failed`, also that the catalog can't be read.

    Raises:
        CacheError: The cache can't be read.
    """
    failed = (Sample(families.CATALOG_UP, (), 0),) if catalog_failed else ()
    return exposition((*node_samples(cache, settings), *failed))


def metrics_page(request: PageRequest) -> tuple[bytes, str]:
    """All metrics in the format that Prometheus asks for; those of the catalog may be seconds old.

    Raises:
        CacheError: The cache can't be read.
    """
    of_catalog = request.recent(_of_catalog, fresh=FRESH, patience=PATIENCE, stale=STALE)
    samples = (*node_samples(request.workspace.cache, request.workspace.settings), *of_catalog)
    openmetrics = "application/openmetrics-text" in request.accept
    return exposition(samples, openmetrics=openmetrics), OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE


def _of_catalog(workspace: Workspace) -> tuple[Sample | Durations, ...]:
    return tuple(catalog_samples(workspace))


def exposition(samples: Iterable[Sample | Durations], *, openmetrics: bool = False) -> bytes:
    """Write samples as text. Labels are made legible and bounded; samples that become one are counted together.

    With `openmetrics` in OpenMetrics 1.0, else in Prometheus' own format, which text-file collectors read.
    """
    registry = CollectorRegistry()
    registry.register(_Samples([Sample(families.BUILD, (__version__,), 1), *samples]))
    if openmetrics:
        text: bytes = openmetrics_exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
        return text
    return generate_latest(registry)


class _Samples(Collector):
    def __init__(self, samples: Iterable[Sample | Durations]) -> None:
        order = list(FAMILIES)
        self._samples = sorted(samples, key=lambda sample: order.index(sample.family.name))

    def collect(self) -> Iterator[Metric]:
        for family, group in groupby(self._samples, key=lambda sample: sample.family):
            distinct: dict[tuple[str, ...], Sample | Durations] = {}
            for sample in group:
                labels = tuple(map(label_value, sample.labels))
                is_new = labels not in distinct
                if len(labels) == len(family.labels) and not (is_new and len(distinct) >= MOST_SAMPLES):
                    distinct[labels] = _together(distinct.get(labels), sample)
            yield _metric(family, distinct)


def _together(first: Sample | Durations | None, second: Sample | Durations) -> Sample | Durations:
    """One sample of two whose labels are the same once they are cut: counters add up, of others the first stays."""
    if isinstance(first, Sample) and isinstance(second, Sample) and first.family.kind is MetricKind.COUNTER:
        return first._replace(value=first.value + second.value)
    return first or second


def _metric(family: Family, samples: dict[tuple[str, ...], Sample | Durations]) -> Metric:
    if family.kind is MetricKind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        bounds = [*map(str, BUCKETS), "+Inf"]
        for labels, durations in samples.items():
            if isinstance(durations, Durations):
                histogram.add_metric(labels, list(zip(bounds, durations.counts, strict=True)), durations.seconds)
        return histogram
    kind = CounterMetricFamily if family.kind is MetricKind.COUNTER else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, sample in samples.items():
        if isinstance(sample, Sample):
            metric.add_metric(labels, sample.value)
    return metric


def label_value(text: str) -> str:
    """The value of a label: one legible line of bounded length. Names and sources may be anything."""
    # Cut first, since escapes are longer than what they stand for, and again, since they were added.
    legible = one_line(legible_text(text[:LONGEST]))
    return legible if len(legible) <= LONGEST else legible[: LONGEST - 1] + "…"
