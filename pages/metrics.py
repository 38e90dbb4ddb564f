"""The page of metrics."""

from __future__ import annotations

from pages.markdown import page, prose
from prefect_stagegate.plugins.observe.monitoring.families import BUCKETS, FAMILIES, Family, MetricKind


def metrics_page() -> str:
    """Every metric."""
    bounds = ", ".join(f"{bound:g}" for bound in BUCKETS)
    return page(
        "Metrics",
        "prefect_stagegate/plugins/observe/monitoring/families.py",
        "What `stagegate metrics` prints. [Measure and trace](../how-to/measure.md) shows the way to Prometheus, the "
        "alert rules and the dashboard.",
        "- Gauges are the state at the time of the scrape: of the catalog, and of this node's cache.\n"
        "- Counters and histograms are what jobs did on this node. They lie in the cache's `index.sqlite`, add up over "
        "processes, and start again at zero when that file is lost.\n"
        "- Times are moments in seconds since the epoch. `time() - stagegate_ref_moved_timestamp_seconds` is an age.\n"
        f"- Histograms have the bounds {bounds} seconds.\n"
        "- A label's value has 120 characters at most, and nothing in it acts on a terminal. A counter keeps 5,000 "
        "combinations of labels apart. Further ones count together, with `_other` for each label. The first 1,000 "
        "datasets by name have gauges.",
        "\n".join(map(_metric, FAMILIES.values())),
    )


def _metric(family: Family) -> str:
    name = f"{family.name}_total" if family.kind is MetricKind.COUNTER else family.name
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"- `{name}` ({family.kind.value}{labels and f' by {labels}'}): {prose(family.help)}"
