"""Great Expectations' engines, made to remember what they computed and how long it took.

A suite is asked for verdicts only, which takes the fewest queries. `KnownMetrics` keeps every metric behind the
verdicts, so that the figures of each expectation come from what is known: a pass costs no further query.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from great_expectations.datasource.fluent.interfaces import Batch
from great_expectations.exceptions.exceptions import MetricResolutionError
from great_expectations.execution_engine.execution_engine import ExecutionEngine
from great_expectations.expectations.registry import _registered_metrics, get_metric_provider
from great_expectations.validator.metric_configuration import MetricConfiguration

EXAMPLES = (".unexpected_values", ".unexpected_rows", ".unexpected_index_list", "unexpected_rows_query.table")
"""What the names of metrics end with that fetch refused rows."""
# Great Expectations makes the key of a metric before it sets the quantiles: two expectations got those of one.
_registered_metrics["column.quantile_values"]["metric_value_keys"] += ("quantile_ranges",)


class KnownMetrics(ExecutionEngine[Any]):
    """A mixin for an engine: computes each metric once, and measures it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._values: dict[Any, Any] = {}
        self._only_known = False
        self.seconds: dict[Any, float] = {}
        """How long each metric took, by its key. Metrics of one query have equal parts of its time."""
        self.used: set[Any] = set()
        """The keys of the metrics that were requested since the caller last emptied it."""

    @contextmanager
    def only_known(self) -> Iterator[None]:
        """Within the block, a metric that was not computed before is an error, and no refused rows are fetched."""
        self._only_known = True
        try:
            yield
        finally:
            self._only_known = False

    def resolve_metrics(
        self,
        metrics_to_resolve: Iterable[MetricConfiguration],
        metrics: dict[Any, Any] | None = None,
        runtime_configuration: dict[str, Any] | None = None,
    ) -> dict[Any, Any]:
        """Compute the metrics that are not known, the aggregates of them together, and return all."""
        wanted = list(metrics_to_resolve)
        self.used.update(map(self._key, wanted))
        unknown = [metric for metric in wanted if self._key(metric) not in self._values]
        if self._only_known:
            return {metric.id: self._known(metric) for metric in wanted}
        # A metric without a function of its own is an aggregate, which the engine puts into one query with the others.
        aggregates = [metric for metric in unknown if get_metric_provider(metric.metric_name, self)[1] is None]
        together = {metric.id for metric in aggregates}
        alone = [metric for metric in unknown if metric.id not in together]
        for group in (*([metric] for metric in alone), aggregates):
            self._resolve(group, metrics, runtime_configuration)
        return {metric.id: self._values[self._key(metric)] for metric in wanted}

    def _key(self, metric: MetricConfiguration) -> Any:
        """A metric's id with its batch: without a batch of its own it is about the active one."""
        batch = metric.metric_domain_kwargs.get("batch_id") or self.batch_manager.active_batch_data_id
        return metric.id, batch

    def _resolve(self, group: list[MetricConfiguration], metrics: dict[Any, Any] | None, options: Any) -> None:
        began = time.perf_counter()
        try:
            if group:
                values = super().resolve_metrics(group, metrics, options)
                self._values.update({self._key(metric): as_bound(values[metric.id]) for metric in group})
        finally:
            each = (time.perf_counter() - began) / max(len(group), 1)
            for metric in group:
                self.seconds[self._key(metric)] = self.seconds.get(self._key(metric), 0.0) + each

    def _known(self, metric: MetricConfiguration) -> Any:
        if self._key(metric) in self._values:
            return self._values[self._key(metric)]
        if metric.metric_name.endswith(EXAMPLES):
            return []
        raise MetricResolutionError(f"{metric.metric_name} was not computed", (metric,))


def as_bound(value: Any) -> Any:
    """Decimals as they compare with bounds: exactly if they are whole, else as doubles, as DuckDB compares them."""
    if not isinstance(value, Decimal) or not value.is_finite():
        return list(map(as_bound, value)) if isinstance(value, list) else value
    return int(value) if value == value.to_integral_value() else float(value)


def known_metrics(batch: Batch) -> KnownMetrics | None:
    """The engine of a batch; None when it remembers nothing."""
    engine = batch.data.execution_engine
    return engine if isinstance(engine, KnownMetrics) else None
